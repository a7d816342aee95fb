# CPU only:  docker build -t vad .  &&  docker run --rm -v "$PWD/runs:/vad/runs" vad
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends make git && rm -rf /var/lib/apt/lists/*
WORKDIR /vad
COPY settings.ini setup.py MANIFEST.in README.md LICENSE Makefile ./
COPY vad vad
COPY nbs nbs
COPY figures figures
RUN make .venv/.package
CMD ["make", "run"]
