"Films and pictures with bytes changed, cut out, doubled and zeroed: each is read to some end, or refused in a sentence; none ends the process, or is waited for."
import json
import random
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from apart import Apart
from films import write_film

from vad.core.errors import UserError
from vad.data.video import open_video

KINDS = dict(mp4="libx264", mkv="libx264", avi="mpeg4", ts="libx264", mpg="mpeg2video", flv="flv", webm="libvpx-vp9", mov="prores_ks", m4v="mpeg4", wmv="wmv2")
PICTURES = (".jpg", ".png", ".tif", ".bmp", ".webp")
EACH = 40 # inputs of each kind: 15 kinds, 600 in all


def mutated(data:bytes, rng:random.Random) -> bytes:
    "`data` after one to four accidents"
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data)) if rng.random() < .6 else rng.randrange(min(len(data), 600)) # as often as not in the header
        n = min(rng.choice((1, 1, 4, 16, 60, 400)), len(data) - at)
        accident = rng.randrange(5)
        if accident == 0: data[at:at + n] = bytes(b ^ rng.randrange(1, 256) for b in data[at:at + n])
        elif accident == 1: data[at:at + n] = bytes(n)
        elif accident == 2: del data[at:at + n]
        elif accident == 3: data[at:at] = data[at:at + n]
        else: data[at:at + n] = b"\xff" * n
        if len(data) < 2: break
    return bytes(data) if rng.random() < .85 else bytes(data[:rng.randrange(1, len(data) + 1)])

def read_all(folder, seed):
    "open and read each file, and note what came of it before the next"
    rng = random.Random(seed)
    def late(*_): raise AssertionError("a file was waited for")
    signal.signal(signal.SIGALRM, late)
    with open(Path(folder) / "said.jsonl", "w", buffering=1) as said:
        for source in sorted((Path(folder) / "whole").iterdir()):
            data = source.read_bytes()
            for i in range(EACH):
                path = Path(folder) / ("x" if source.suffix not in PICTURES else "frames") / f"{i}{source.suffix}"
                path.parent.mkdir(exist_ok=True)
                for old in path.parent.iterdir(): old.unlink()
                path.write_bytes(mutated(data, rng))
                (Path(folder) / "now").write_text(f"{source.name} {i}")
                signal.alarm(100)
                try:
                    video = open_video(path.parent if path.parent.name == "frames" else path, partial=True)
                    n, error = sum(f.shape[:2] == video.size for f in video.read()), ""
                    assert n == video.frames == len(video.times()) and np.isfinite(video.times()).all() and (np.diff(video.times()) >= 0).all()
                except UserError as e: n, error = 0, str(e)
                signal.alarm(0)
                said.write(json.dumps([source.name, i, n, error]) + "\n")

@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_no_damage_ends_the_process(tmp_path, seed):
    (tmp_path / "whole").mkdir()
    for suffix, codec in KINDS.items(): write_film(tmp_path / f"whole/film.{suffix}", range(12), codec=codec, pix_fmt="yuv422p10le" if codec == "prores_ks" else "yuv420p")
    rng = np.random.default_rng(0)
    for suffix in PICTURES: assert cv2.imwrite(str(tmp_path / f"whole/picture{suffix}"), cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (64, 48)))
    code, _, err = Apart(tmp_path, read_all, tmp_path, seed).end(600)
    assert code == 0, f"{(tmp_path / 'now').read_text()}: {err[-3000:]}"
    said = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert len(said) == EACH * (len(KINDS) + len(PICTURES))
    assert all(e.count("\n") == 0 and e.endswith(".") for _, _, _, e in said if e)
    read = {kind for kind, _, n, _ in said if n}
    assert {f"film.{suffix}" for suffix in KINDS} <= read and "picture.jpg" in read # some damage leaves something to read; a PNG has checksums
