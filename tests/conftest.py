"What the tests share: one thread, caches of their own, a tiny dataset."
import os
import shutil
import signal
import subprocess
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"): os.environ[name] = "1" # before numpy and torch are imported

import cv2 # noqa: E402
import numpy as np # noqa: E402
import pytest # noqa: E402
import torch # noqa: E402

torch.set_num_threads(1)
cv2.setNumThreads(1)

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN: # a job in the background has Ctrl-C ignored, and so would all that it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes minutes; left out unless asked for with -m slow")

def pytest_collection_modifyitems(config, items):
    if "slow" in config.getoption("-m"): return
    for item in items:
        if "slow" in item.keywords: item.add_marker(pytest.mark.skip(reason="takes minutes: ask for it with -m slow"))

@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory):
    "frame caches of these tests lie with their other files"
    os.environ["VAD_CACHE"] = str(tmp_path_factory.mktemp("cache"))

def real_time_threads():
    "threads of this process that the kernel lets go before all others"
    if not hasattr(os, "sched_getscheduler"): return []
    def policy(thread):
        try: return os.sched_getscheduler(thread)
        except ProcessLookupError: return os.SCHED_OTHER # it has ended
    return [t for t in map(int, os.listdir("/proc/self/task")) if policy(t) in (os.SCHED_FIFO, os.SCHED_RR)]

@pytest.fixture(autouse=True)
def fair_share():
    "The encoder SVT-AV1 makes its caller real-time where that is root. Children inherit it, and a browser that is busy then starves the machine for good: threads are made ordinary again."
    yield
    for thread in real_time_threads():
        try: os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
        except (ProcessLookupError, PermissionError): pass # it has ended, or is another's

@pytest.fixture(scope="session")
def album(tmp_path_factory):
    "a folder for what a browser showed: a person may look at it"
    folder = Path(os.environ.get("VAD_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder

def square(t, seed, fast=False):
    "a frame in which a square moves over noise; a fast one is larger and brighter"
    rng = np.random.default_rng([seed, t])
    frame = rng.integers(90, 110, (32, 32), np.uint8)
    size, x = (10, 5 * t) if fast else (6, t + seed)
    frame[8 + seed:8 + seed + size, np.arange(x, x + size) % 32] = 230 if fast else 170
    return frame

def write_frames(folder, seed, frames=20, fast=range(0)):
    folder.mkdir(parents=True)
    for t in range(frames): assert cv2.imwrite(str(folder / f"{t + 1:03d}.png"), square(t, seed, t in fast))

def write_tiny(root):
    "2 training and 3 testing videos of 20 gray frames of 32 x 32; frames 8 to 13 of each test video are anomalous, with masks"
    for i in (1, 2): write_frames(root / f"training/frames/{i:02d}", i)
    for i in (1, 2, 3):
        write_frames(root / f"testing/frames/{i:02d}", 2 + i, fast=range(8, 14))
        mask = np.zeros((20, 32, 32), bool)
        for t in range(8, 14): mask[t, 10 + i:20 + i, np.arange(5 * t, 5 * t + 10) % 32] = True
        (root / "masks").mkdir(exist_ok=True)
        np.savez(root / f"masks/{i:02d}.npz", mask=np.packbits(mask, axis=-1), shape=mask.shape)
    np.save(root / "frame_labels_tiny.npy", np.tile(np.isin(np.arange(20), range(8, 14)), 3).astype(np.uint8)[None])
    return root

@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    "the folder of the tiny dataset; not to be changed"
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny")

@pytest.fixture
def disk(tmp_path):
    "a file system of 600 kB"
    folder = tmp_path / "disk"
    folder.mkdir()
    try: done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", folder], capture_output=True)
    except FileNotFoundError: pytest.skip("there is no mount here")
    if done.returncode: pytest.skip("mounting a small file system takes root's rights")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)

def fill(folder, leave=4096):
    "all but `leave` bytes"
    free = shutil.disk_usage(folder).free
    (folder / "filler").write_bytes(b"x" * max(0, free - leave))

def litter(folder):
    "files half-written"
    return [p.name for p in Path(folder).rglob("*") if ".part" in p.name]
