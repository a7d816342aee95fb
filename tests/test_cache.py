"The frame cache: the right bytes, whatever dies while it is built, in bounded memory."
import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from apart import Apart
from hypothesis import given, settings, strategies as st

import vad
from vad.data import frame_cache
from vad.core import files
from vad.data.frame_cache import Frames, cache_frames, cache_key
from vad.core.errors import UserError
from vad.core.files import exclusive
from vad.data.video import open_video


def frames_folder(path, frames):
    path.mkdir(parents=True)
    for i, f in enumerate(frames): assert cv2.imwrite(str(path / f"{i + 1}.png"), f)
    return open_video(path)

def noise(n, seed=0, h=20, w=30, gray=False):
    x = np.random.default_rng(seed).integers(0, 256, (n, h, w, 1 if gray else 3), np.uint8)
    return np.broadcast_to(x, (n, h, w, 3))

def stored(folder, array, lengths):
    "a cache with a given content"
    folder.mkdir(parents=True)
    np.save(folder / "frames.npy", array)
    (folder / "index.json").write_text(json.dumps(dict(names=[str(i) for i in range(len(lengths))], starts=np.cumsum([0, *lengths]).tolist())))
    return folder

def caches(folder): return [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
def litter(folder): return list(folder.glob(".*.part*"))

def literal(videos, size, gray=False, flag=cv2.INTER_LINEAR):
    "all frames, (N, H, W, C), one by one as the original loader reads them"
    out = [cv2.resize(f, size[::-1], interpolation=flag) for v in videos for f in v.read()]
    if gray: out = [cv2.resize(cv2.cvtColor(f, cv2.COLOR_BGR2GRAY), size[::-1], interpolation=flag) for v in videos for f in v.read()]
    return np.stack(out).reshape(len(out), *size, -1)


# ---- the right bytes

@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 6), st.sampled_from([(1, 1), (1, 3), (3, 3)]), st.randoms(use_true_random=False))
def test_clips_and_batches_equal_a_loop(tmp_path_factory, lengths, length, channels, random):
    have, give = channels
    array = np.random.default_rng(random.randint(0, 99)).integers(0, 256, (sum(lengths), 3, 4, have), np.uint8)
    frames = Frames(stored(tmp_path_factory.mktemp("c") / "k", array, lengths), give)
    want = [s + i for s, n in zip(frames.starts, lengths) for i in range(n) if i + length <= n]
    clips = frames.clips(length)
    assert clips.tolist() == want and frames.lengths.tolist() == lengths
    random.shuffle(want)
    x = frames.batch(want, length)
    assert x.dtype == torch.float32 and x.shape == (len(want), length * give, 3, 4) and x.is_contiguous()
    for clip, first in zip(x, want):
        for i in range(length):
            for c in range(give):
                loop = array[first + i, :, :, c if have == 3 else 0].astype(np.float32) / 127.5 - 1
                assert (clip[i * give + c].numpy() == loop).all()

@pytest.mark.parametrize("interpolation, flag", [("linear", cv2.INTER_LINEAR), ("area", cv2.INTER_AREA)])
@pytest.mark.parametrize("gray_film", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_cache_holds_what_the_loader_read(tmp_path, interpolation, flag, gray_film, channels):
    videos = [frames_folder(tmp_path / f"{i}", noise(n, i, gray=gray_film)) for i, n in enumerate((6, 11))]
    frames = cache_frames(videos, (16, 24), channels, tmp_path / "cache", interpolation)
    want = literal(videos, (16, 24), channels == 1, flag)
    assert frames.array.shape[3] == (1 if gray_film else channels)                 # gray is stored once
    assert (frames.array == want[..., :frames.array.shape[3]]).all()
    clip = frames.batch([7], 5)[0]
    assert (clip.numpy() == want[7:12].transpose(0, 3, 1, 2).reshape(-1, 16, 24).astype(np.float32) / 127.5 - 1).all()
    assert frames.names == ["0", "1"] and frames.starts.tolist() == [0, 6, 17]

@pytest.mark.parametrize("channels", [1, 3])
def test_a_colour_frame_in_a_gray_film(tmp_path, channels):
    film = noise(9, gray=True).copy()
    film[5, 3, 4] = (10, 20, 30)
    video = frames_folder(tmp_path / "01", film)
    frames = cache_frames([video], (20, 30), channels, tmp_path / "cache")
    assert (frames.array == literal([video], (20, 30), channels == 1)).all() and not litter(tmp_path / "cache")

def test_gray_films_share_one_cache(tmp_path):
    video = frames_folder(tmp_path / "01", noise(6, gray=True))
    a, b = (cache_frames([video], (8, 8), c, tmp_path / "cache") for c in (3, 1))
    assert a.folder == b.folder and a.batch([0], 5).shape == (1, 15, 8, 8) and b.batch([0], 5).shape == (1, 5, 8, 8)

def test_made_once_and_only_for_what_it_is(tmp_path):
    video = frames_folder(tmp_path / "01", noise(6))
    def key(v=video, **kwargs): return cache_frames([v], **dict(size=(8, 8), folder=tmp_path / "cache") | kwargs).folder
    first = key()
    made = (first / "frames.npy").stat().st_mtime_ns
    assert key() == first and (first / "frames.npy").stat().st_mtime_ns == made
    shutil.copytree(tmp_path / "01", tmp_path / "elsewhere/01")
    assert key(open_video(tmp_path / "elsewhere/01")) == first                     # the same film in another place
    others = [key(size=(8, 9)), key(channels=1), key(interpolation="area")]
    cv2.imwrite(str(tmp_path / "01/4.png"), noise(1, 9)[0])
    assert len({first, *others, key()}) == 5

def test_files_and_folders_alike(tmp_path):
    film = noise(12, h=32, w=48)
    out = cv2.VideoWriter(str(tmp_path / "01.avi"), cv2.VideoWriter_fourcc(*"FFV1"), 25, (48, 32))
    for f in film: out.write(f)
    out.release()
    a, b = (cache_frames([v], (16, 16), folder=tmp_path / "cache") for v in (open_video(tmp_path / "01.avi"), frames_folder(tmp_path / "01", film)))
    assert (a.array == b.array).all()

def test_another_process_gets_a_name_not_the_data(tmp_path):
    frames = Frames(stored(tmp_path / "k", noise(200, h=16, w=16), [200]), 3)
    data = pickle.dumps(frames)
    assert len(data) < 500 and (pickle.loads(data).array == frames.array).all()

def test_settings_that_cannot_be(tmp_path):
    video = frames_folder(tmp_path / "01", noise(6))
    for kwargs in (dict(channels=2), dict(interpolation="cubic"), dict(size=(0, 8))):
        with pytest.raises(UserError, match="channels"): cache_frames([video], **dict(folder=tmp_path / "c") | kwargs)
    with pytest.raises(UserError, match="no videos"): cache_frames([], folder=tmp_path / "c")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="VAD_CACHE"): cache_frames([video], folder=tmp_path / "file/c")
    colour = Frames(cache_frames([video], (8, 8), 3, tmp_path / "c").folder)
    with pytest.raises(UserError, match="channels=1"): Frames(colour.folder, 1)

def test_the_folder_of_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("VAD_CACHE", str(tmp_path / "mine"))
    assert cache_frames([frames_folder(tmp_path / "01", noise(6))], (8, 8)).folder.parent == tmp_path / "mine"


# ---- what can break

def test_a_broken_video_makes_no_cache(tmp_path):
    videos = [frames_folder(tmp_path / f"{i}", noise(8, i)) for i in range(4)]
    whole = (tmp_path / "2/5.png").read_bytes()
    for broken in (whole[:len(whole) // 2], b"", b"junk IEND"):
        (tmp_path / "2/5.png").write_bytes(broken)
        with pytest.raises(UserError, match="2/5.png"): cache_frames(videos, (8, 8), folder=tmp_path / "cache")
        assert not caches(tmp_path / "cache") and not litter(tmp_path / "cache")
    (tmp_path / "2/5.png").write_bytes(whole)
    assert (cache_frames(videos, (8, 8), folder=tmp_path / "cache").array == literal(videos, (8, 8))).all()

@pytest.mark.parametrize("damage", [
    lambda d: (d / "frames.npy").write_bytes((d / "frames.npy").read_bytes()[:-100]), lambda d: (d / "index.json").unlink(),
    lambda d: (d / "index.json").write_text('{"names":'), lambda d: np.save(d / "frames.npy", np.zeros((3, 8, 8, 3), np.uint8)),
], ids=["truncated", "no-index", "half-index", "other-length"])
def test_a_damaged_cache_is_made_again(tmp_path, damage):
    video = frames_folder(tmp_path / "01", noise(6))
    folder = cache_frames([video], (8, 8), folder=tmp_path / "cache").folder
    damage(folder)
    with pytest.raises(UserError): Frames(folder)
    assert (cache_frames([video], (8, 8), folder=tmp_path / "cache").array == literal([video], (8, 8))).all()

def build_held(root):
    "build a cache: two thirds are done, the rest waits for leave"
    shrink, go, calls = frame_cache.resize_frame, root / "go", []
    def held(*args):
        calls.append(1)
        while len(calls) > 100 and not go.exists(): time.sleep(.01)
        return shrink(*args)
    def interrupted(*args):
        go.touch()
        raise KeyboardInterrupt
    frame_cache.resize_frame = held
    signal.signal(signal.SIGINT, interrupted)
    videos = [open_video(p) for p in sorted(root.glob("*.avi"))]
    print(sha([cache_frames(videos, (240, 320), folder=root / "cache", workers=1).array.tobytes()]))

@pytest.fixture(scope="module")
def films(tmp_path_factory):
    "films that take a second to decode"
    root = tmp_path_factory.mktemp("films")
    for i in range(3):
        out = cv2.VideoWriter(str(root / f"{i}.avi"), cv2.VideoWriter_fourcc(*"FFV1"), 25, (320, 240))
        for f in noise(50, i, 240, 320): out.write(f)
        out.release()
    return root, sha(f.tobytes() for p in sorted(root.glob("*.avi")) for f in open_video(p).read())

def sha(chunks):
    h = hashlib.sha256()
    for c in chunks: h.update(c)
    return h.hexdigest()

def build_here(root):
    return sha([cache_frames([open_video(p) for p in sorted(root.glob("*.avi"))], (240, 320), folder=root / "cache").array.tobytes()])

def build_elsewhere(root):
    "a process that has begun to write"
    shutil.rmtree(root / "cache", ignore_errors=True)
    (root / "go").unlink(missing_ok=True)
    begun = lambda: any(f.stat().st_blocks > 1000 for f in (root / "cache").glob(".*.part/frames.npy")) # noqa: E731
    return Apart(root / "said", build_held, root).wait_for(begun)

@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_a_killed_build_is_never_trusted(films, sig):
    root, want = films
    code, out, _ = build_elsewhere(root).kill(sig).end()
    assert code != 0 and not out and not caches(root / "cache")
    assert bool(litter(root / "cache")) == (sig == signal.SIGKILL)                 # after Ctrl-C it could still clean up
    assert build_here(root) == want
    assert len(caches(root / "cache")) == 1 and not litter(root / "cache")

def test_two_builds_at_once(films, capfd, monkeypatch):
    root, want = films
    p = build_elsewhere(root)
    flock = files.fcntl.flock
    def waits(f, how):
        if how == files.fcntl.LOCK_EX: (root / "go").touch() # this process has found the other at work
        return flock(f, how)
    monkeypatch.setattr(files.fcntl, "flock", waits)
    assert build_here(root) == want
    _, out, err = p.end()
    assert out.strip() == want, err
    mine = capfd.readouterr().err
    assert "waiting" in mine and "decoding" not in mine and "waiting" not in err   # the work was done once
    assert len(caches(root / "cache")) == 1 and not litter(root / "cache")

def test_sweeping_spares_the_living(tmp_path):
    video, folder = frames_folder(tmp_path / "01", noise(6)), tmp_path / "cache"
    for key in ("dead", "alive"): (folder / f".{key}.1234.part").mkdir(parents=True)
    with exclusive(folder / ".alive.lock"): cache_frames([video], (8, 8), folder=folder)
    assert [p.name for p in litter(folder)] == [".alive.1234.part"]

@pytest.mark.parametrize("mine", [False, True], ids=["of another cache", "of the same"])
def test_sweeping_without_locks_goes_by_age(tmp_path, monkeypatch, mine):
    "on a file system that knows no locks a build may be alive until nothing in it has changed for a day"
    video, folder = frames_folder(tmp_path / "01", noise(6)), tmp_path / "cache"
    key = cache_key([open_video(tmp_path / "01")], (8, 8), "colour", "linear") if mine else "other"
    for name in ("young", "old"):
        part = folder / f".{key}.{name}.part"
        part.mkdir(parents=True)
        (part / "frames.npy").write_bytes(b"")
        if name == "old": [os.utime(p, (0, 0)) for p in (part / "frames.npy", part)]
    monkeypatch.setattr(files, "take_lock", lambda fd, wait=False: None)
    assert len(cache_frames([video], (8, 8), folder=folder)) == 6
    assert [p.name for p in litter(folder)] == [f".{key}.young.part"]

def test_without_locks_the_first_cache_stays(tmp_path, monkeypatch):
    "two processes may build the same one: who comes second takes the first one's"
    video, done = frames_folder(tmp_path / "01", noise(6)), tmp_path / "cache/key"
    monkeypatch.setattr(files, "take_lock", lambda fd, wait=False: None)
    done.parent.mkdir()
    build = frame_cache.build_cache
    def second(videos, part, *args):
        build(videos, part, *args)
        monkeypatch.setattr(frame_cache, "build_cache", build)
        frame_cache.make(videos, done, *args)   # the other process, a moment earlier
    monkeypatch.setattr(frame_cache, "build_cache", second)
    frame_cache.make([video], done, (8, 8), "bgr", "linear", 1)
    assert len(Frames(done)) == 6 and not litter(done.parent)

@pytest.fixture
def small_disk(tmp_path):
    "a disk of 2 MB"
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by root")
    yield disk
    subprocess.run(["umount", disk], check=True)

def test_no_room(tmp_path, small_disk):
    video = frames_folder(tmp_path / "01", noise(20))
    with pytest.raises(UserError, match="needs 0.004 GB.*VAD_CACHE"): cache_frames([video], (256, 256), 3, small_disk / "c")
    assert not caches(small_disk / "c") and not litter(small_disk / "c")
    assert len(cache_frames([video], (64, 64), folder=small_disk / "c")) == 20

def test_the_disk_fills_up_meanwhile(tmp_path, small_disk, monkeypatch):
    video = frames_folder(tmp_path / "01", noise(20))
    room = shutil.disk_usage(small_disk)._replace(free=10**12)                     # what another program will take is free at first
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room)
    with pytest.raises(UserError, match="disk is full"): cache_frames([video], (256, 256), folder=small_disk / "c")
    assert not caches(small_disk / "c") and not litter(small_disk / "c")


# ---- memory

READ = """
import sys, numpy as np
from vad.data.frame_cache import Frames
from vad.core.devices import peak_memory
frames = Frames(sys.argv[1], 1)
keep, held = sys.argv[3] == "keep", []
frames.batch([0], 5)
before, firsts = peak_memory(), np.arange(0, len(frames) - 4, int(sys.argv[2]))
def read(some):
    if keep: held.append(frames.cut(some[:, None] + np.arange(5))) # as if nothing were given back
    return float(frames.batch(some, 5)[:, :, 0, 0].sum())
total = sum(read(firsts[i:i + 2]) for i in range(0, len(firsts), 2))
assert total == -len(firsts) * 5, total
print(peak_memory() - before)
"""

def grown(folder, *args):
    env = os.environ | dict(PYTHONPATH=str(Path(vad.__file__).parents[1]), OMP_NUM_THREADS="1")
    return float(subprocess.run([sys.executable, "-c", READ, str(folder), *args], capture_output=True, text=True, check=True, env=env).stdout)

def sparse(folder, n, size=512):
    "a cache of n black frames that takes no room on the disk"
    folder.mkdir()
    np.lib.format.open_memmap(folder / "frames.npy", "w+", np.uint8, (n, size, size, 1))
    (folder / "index.json").write_text(json.dumps(dict(names=["0"], starts=[0, n])))
    return folder

def test_memory_does_not_grow_with_the_dataset(tmp_path):
    assert grown(sparse(tmp_path / "large", 12800), "10", "release") < .3 # 1.7 GB read of 3.4
    assert grown(sparse(tmp_path / "small", 3200), "5", "keep") > .6      # the measure sees what is held: 0.8 GB
