# Runs on the CPU (the index's torch brings CUDA's libraries all the same: some gigabytes):  docker build -t vad .  &&  docker run --rm -v "$PWD/runs:/vad/runs" vad
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends make git libgl1 libglib2.0-0 libxcb1 && rm -rf /var/lib/apt/lists/*
WORKDIR /vad
COPY settings.ini setup.py MANIFEST.in README.md LICENSE Makefile ./
COPY vad vad
COPY nbs nbs
COPY figures figures
RUN make .venv/.package
CMD ["make", "run"]
