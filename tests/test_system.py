"What the operating system does to a command: kills, full disks, limits, closed streams, links, pipes and devices where files should be."
import fcntl
import importlib
import io
import os
import random
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from apart import Apart
from conftest import fill, litter, write_frames
from hypothesis import given, settings, strategies as st
from test_cli import SMALL, call, sentence

from vad.data import download
from vad.core import files, progress_bar
from vad.cli import scarce
from vad.data.clips import collect, films
from vad.core.errors import UserError, regular_file
from vad.core.files import atomic_folder, atomic_write, exclusive
from vad.core.records import read_json, write_json
from vad.data.datasets import open_dataset
from vad.data.download import unpack
from vad.data.video import open_video

ROOT = pytest.mark.skipif(os.getuid() != 0, reason="takes root's rights")


# ---- pipes, devices, links where files should be

def special(path, kind):
    "something that is no file, at `path`"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir(): shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if kind == "pipe": os.mkfifo(path)
    if kind == "device": path.symlink_to("/dev/zero")
    if kind == "loop": path.symlink_to(path.name)
    if kind == "dangling": path.symlink_to("nowhere")
    if kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent) # a socket's path may not be long
        try:
            with socket.socket(socket.AF_UNIX) as s: s.bind(path.name)
        finally: os.chdir(here)
    return path

KINDS = ("pipe", "device", "loop", "dangling", "socket")

@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_not_opened(tmp_path, kind):
    with pytest.raises(UserError, match="named pipe|device|socket|link that leads to no file"): regular_file(special(tmp_path / "x", kind))

@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["training/frames/01/007.png", "training/frames/01", "testing/frames/02/001.png", "frame_labels_tiny.npy", "masks/01.npz",
                                   "training/frames/09.mp4"])
def test_a_dataset_with_something_else_in_it(tiny, tmp_path, kind, place):
    "it is named; without it the rest can be used"
    root = Path(shutil.copytree(tiny, tmp_path / "d"))
    if place.startswith("masks"): (root / "frame_labels_tiny.npy").unlink()
    path = special(root / place, kind)
    names = (path.name, path.parent.name) # a label file or a film by itself, a frame perhaps by its folder
    sound = kind in ("pipe", "socket", "device") and place == "training/frames/01" # not even a film by its name
    if sound: assert len(open_dataset(root).train) == 1
    else:
        with pytest.raises(UserError) as said: open_dataset(root)
        assert any(n in str(said.value) for n in names), said.value
    found = open_dataset(root, partial=True)
    assert found.train and found.test
    assert sound or any(n in w for n in names for w in found.warnings)

@pytest.mark.parametrize("kind", KINDS)
def test_a_dataset_that_is_none(tmp_path, kind):
    with pytest.raises(UserError, match="data.set|nowhere|/dev/zero"): open_dataset(special(tmp_path / "data.set", kind))

@pytest.mark.parametrize("kind", KINDS)
def test_a_source_that_is_no_file(tmp_path, kind):
    with pytest.raises(UserError, match="x.mp4"): open_video(special(tmp_path / "x.mp4", kind))

def test_commands_do_not_wait_for_pipes(tmp_path):
    "each of them ends by itself, with a sentence that names the pipe"
    run, emb = tmp_path / "run", tmp_path / "emb"
    for p in (run / "model.safetensors", tmp_path / "x.mp4", *(emb / f"cnn_{n}" for n in ("embeddings.npy", "labels.npy", "record.json")), tmp_path / "rep/record.json"):
        special(p, "pipe")
    code, out, err = Apart(tmp_path / "said", in_turn, [
        ["data", "check", "--quick", tmp_path / "x.mp4"], ["data", "extract", tmp_path / "x.mp4", "--out", tmp_path / "frames"],
        ["score", run, tmp_path / "x.mp4", "--out", tmp_path / "s"], ["import", run / "model.safetensors", tmp_path / "x.mp4", "--out", tmp_path / "i"],
        ["classify", emb, "--out", tmp_path / "c"], ["report", tmp_path / "rep"]]).end()
    assert code == 0 and out.split() == ["1"] * 6, (out, err)
    assert err.count("vad: ") == err.count("is a named pipe, not a file") == 6 and "Traceback" not in err, err

def in_turn(commands):
    "several commands in one process; prints their exit codes"
    from vad.cli import run_command
    for words in commands:
        sys.argv = ["vad", *map(str, words)]
        try: run_command()
        except SystemExit as e: print(e.code)

def test_a_tree_of_classes_with_other_things_in_it(tmp_path):
    root = tmp_path / "tree"
    for c in ("normal", "anomalous"): write_frames(root / c / "film", 1, frames=5)
    for kind in KINDS: special(root / "normal" / f"{kind}.mp4", kind)
    special(root / "anomalous/lost", "dangling")
    special(root / "anomalous/pipe", "pipe") # not even a film by its name
    special(root / "third", "dangling")
    with pytest.warns(UserWarning, match="third"): table = collect(root).table
    assert sorted(table.video) == sorted(["anomalous/film", "anomalous/lost", "normal/film", *(f"normal/{k}.mp4" for k in KINDS)])
    for v in table.video:
        if v.endswith("film"): continue
        with pytest.raises(UserError, match=Path(v).name): open_video(root / v)

@ROOT
def test_a_folder_that_cannot_be_listed(tmp_path):
    root = tmp_path / "tree"
    for c in ("normal", "anomalous"): write_frames(root / c / "film", 1, frames=5)
    for p in (root / "normal/shut", root / "anomalous/shut/deep"): p.mkdir(parents=True)
    code, out, err = Apart(tmp_path / "said", list_as_nobody, root).end()
    assert code == 0, err
    assert sorted(out.split()) == ["deep", "film", "film", "shut"] or sorted(out.split()) == ["film", "film", "shut", "shut"]

def list_as_nobody(root):
    for p in root.rglob("shut"): p.chmod(0)
    for p in (root, *root.parents): # pytest's own folders are shut to others
        if p.stat().st_uid == os.getuid() and p != Path("/"): p.chmod(p.stat().st_mode | 0o055)
    os.setgid(54321)
    os.setuid(54321)
    for p in films(root): print(p.name)


# ---- nothing is written through a link

def test_a_lock_is_neither_emptied_nor_followed(tmp_path):
    (tmp_path / "precious").write_text("mine")
    with exclusive(tmp_path / "precious"): pass
    for kind in ("pipe", "device", "loop", "link"):
        lock = tmp_path / f".{kind}.lock"
        lock.symlink_to("precious") if kind == "link" else special(lock, kind)
        with pytest.raises(UserError, match="no lock file of ours"), exclusive(lock): pass
    assert (tmp_path / "precious").read_text() == "mine"

def test_a_run_whose_lock_is_a_link(tiny, tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").symlink_to(tmp_path / "precious")
    sentence(call(tmp_path, "train", tiny, "--out", tmp_path / "run", *SMALL), "no lock file of ours")
    assert (tmp_path / "precious").read_text() == "mine"

def test_a_link_gives_way(tmp_path):
    (tmp_path / "precious").write_text("mine")
    for name in ("note.json", "lost.json"): (tmp_path / name).symlink_to("precious" if name[0] == "n" else "nowhere")
    for name in ("note.json", "lost.json"):
        write_json(tmp_path / name, dict(a=1))
        assert read_json(tmp_path / name)["a"] == 1 and not (tmp_path / name).is_symlink()
    assert (tmp_path / "precious").read_text() == "mine" and not (tmp_path / "nowhere").exists()

@pytest.mark.parametrize("kind", ["pipe", "socket", "folder"])
def test_a_file_does_not_replace_what_is_none(tmp_path, kind):
    path = tmp_path / "x"
    path.mkdir() if kind == "folder" else special(path, kind)
    before = path.lstat()
    with pytest.raises(UserError, match="name another file"), atomic_write(path): raise AssertionError("begun")
    assert path.lstat() == before and not litter(tmp_path)

def test_progress_goes_to_a_file_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "link").symlink_to("precious")
    for name in ("link", "pipe", "folder", "log"):
        if name == "pipe": os.mkfifo(tmp_path / name)
        if name == "folder": (tmp_path / name).mkdir()
        monkeypatch.setenv("VAD_PROGRESS", str(tmp_path / name))
        list(progress_bar.progress(range(2), name))
    assert (tmp_path / "precious").read_text() == "mine" and "log" in (tmp_path / "log").read_text()


# ---- after a kill

def write_on(path, size, begun):
    "write a file and never end"
    with atomic_write(path) as part, open(part, "wb") as f:
        f.write(bytes(size))
        f.flush()
        Path(begun).touch()
        signal.pause()

def write_always(folder, seed):
    "small writers of all kinds, again and again"
    rng = random.Random(seed)
    while True:
        text = rng.choice("abc") * rng.randrange(1, 20000)
        write_json(folder / "x.json", dict(text=text))
        with atomic_write(folder / "x.npy") as part: np.save(part, np.full(rng.randrange(1, 5000), 7))
        with atomic_folder(folder / f"f{rng.randrange(3)}") as part: (part / "1").write_text(text)

def test_kills_at_any_moment(tmp_path):
    "what stands is whole, and the next writer sweeps what does not"
    rng, out = random.Random(5), tmp_path / "out"
    out.mkdir()
    for i in range(8):
        process = Apart(tmp_path / "said", write_always, out, i).wait_for((out / "x.npy").exists)
        time.sleep(rng.random() / 20)
        process.kill(signal.SIGKILL).end()
        for p in out.glob("[!.]*"):
            if p.suffix == ".json": assert len(set(read_json(p)["text"])) == 1
            elif p.suffix == ".npy": assert (np.load(p) == 7).all()
            else: assert len(set((p / "1").read_text())) == 1
    for name in ("x.json", "x.npy"):
        with atomic_write(out / name) as part: part.write_bytes(b"end")
    for i in range(3):
        with atomic_folder(out / f"f{i}") as part: (part / "1").write_text("a")
    assert not litter(out)

def test_a_dead_writers_part_goes_a_living_ones_stays(tmp_path):
    out = tmp_path / "film.scored.mp4"
    dead, alive = (Apart(tmp_path / n, write_on, out, 300_000, tmp_path / f"{n}.begun").wait_for((tmp_path / f"{n}.begun").exists) for n in ("dead", "alive"))
    parts = set(litter(tmp_path))
    assert len(parts) == 2
    dead.kill(signal.SIGKILL).end()
    assert set(litter(tmp_path)) == parts
    with atomic_write(out) as part:
        left = set(litter(tmp_path)) & parts
        assert len(left) == 1 # the living one's
        part.write_bytes(b"mine")
    assert out.read_bytes() == b"mine" and set(litter(tmp_path)) == left
    alive.kill(signal.SIGKILL).end()
    with atomic_write(out) as part: pass
    assert not litter(tmp_path)

def test_a_writer_that_replaces_its_part_is_alive_all_the_same(tmp_path):
    "as safetensors do: they write beside the file and rename"
    with atomic_write(tmp_path / "x.bin") as part:
        (part.parent / "other").write_bytes(b"first")
        os.replace(part.parent / "other", part)
        with atomic_write(tmp_path / "x.bin") as second: second.write_bytes(b"second")
    assert (tmp_path / "x.bin").read_bytes() == b"first" and not litter(tmp_path)

def test_without_locks_only_the_old_is_dead(tmp_path, monkeypatch):
    "a file system that knows no locks: nothing that was written to lately goes"
    def refuse(*args): raise OSError(38, "Function not implemented")
    monkeypatch.setattr(fcntl, "flock", refuse)
    for name, age in (("old", 2 * files.DAY), ("new", 0)):
        folder = tmp_path / f".x.{name}.part"
        folder.mkdir()
        for p in (folder / "x", folder / ".lock"): p.touch()
        for p in (folder / "x", folder / ".lock", folder): os.utime(p, (time.time() - age,) * 2)
    with atomic_write(tmp_path / "x") as part: part.write_text("1")
    assert litter(tmp_path) == [".x.new.part"]

def test_a_sweep_follows_no_link(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/a").touch()
    (tmp_path / ".x.0badf00d.part").symlink_to("precious")
    with atomic_write(tmp_path / "x") as part: part.write_text("1")
    assert [p.name for p in (tmp_path / "precious").iterdir()] == ["a"]


# ---- full disks and limits

def write_array(path, n): # of 8 bytes
    with atomic_write(path) as part: np.save(part, np.zeros(n))

WRITERS = dict(json=lambda p: write_json(p, dict(a="x" * 900_000)), numpy=lambda p: write_array(p, 110_000))

@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk(disk, kind):
    path = disk / f"x.{kind}"
    path.write_text("old")
    with pytest.raises(UserError, match=f"disk is full: .*x.{kind} was not written"): WRITERS[kind](path)
    assert path.read_text() == "old" and not litter(disk)

def test_no_room_for_anything(disk):
    fill(disk, 0)
    with pytest.raises(UserError, match="disk is full"), atomic_write(disk / "a/b/c") as part: part.write_bytes(bytes(2**20))
    assert not litter(disk)

def limited(what, n, call, *args):
    "with a limit of the system"
    resource.setrlimit(what, (n, n))
    try: call(*args)
    except UserError as e: print(e)

@pytest.mark.parametrize("kind", WRITERS)
def test_a_limit_on_files(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    code, out, err = Apart(tmp_path / "said", limited, resource.RLIMIT_FSIZE, 100_000, WRITERS_BY_NAME[kind], path).end()
    assert code == 0 and f"x.{kind} was not written" in out, (out, err)
    assert not path.exists() and not litter(tmp_path)

def json_writer(path): WRITERS["json"](path)
def numpy_writer(path): WRITERS["numpy"](path)
WRITERS_BY_NAME = dict(json=json_writer, numpy=numpy_writer)

def vad_with(what, more, *args):
    "the command, with so much more of a resource than it has already"
    import vad.cli
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if what == resource.RLIMIT_AS else 0
    resource.setrlimit(what, (now + more, now + more))
    sys.argv = ["vad", *map(str, args)]
    vad.cli.run_command()

@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux how much memory is taken")
def test_too_little_memory(tiny, tmp_path):
    big = "--preset paper --epochs 1 --device cpu --batch 16".split()
    sentence(Apart(tmp_path / "said", vad_with, resource.RLIMIT_AS, 5 * 10**8, "train", tiny, "--out", tmp_path / "run", *big).end(), "--batch")

def test_a_file_too_large_for_a_run(tiny, tmp_path):
    said = Apart(tmp_path / "said", vad_with, resource.RLIMIT_FSIZE, 10_000, "train", tiny, "--out", tmp_path / "run", *SMALL).end()
    sentence(said, "free some space")

def allocate(n): torch.empty(n, dtype=torch.uint8)

def test_what_libraries_say_of_memory():
    "the words that this machine's PyTorch and NumPy use"
    for make in (lambda: allocate(2**62), lambda: np.empty(2**62, np.uint8)):
        with pytest.raises((RuntimeError, MemoryError)) as said: make()
        assert "--batch" in scarce(said.value)
    assert scarce(ValueError("a memory of regular frames")) is None and scarce(RuntimeError("size mismatch")) is None


# ---- before and around the command

def vad_after(prepare, *args):
    "the console script, in a process that somebody has prepared"
    prepare()
    from vad._main import main
    sys.argv = ["vad", *map(str, args)]
    main()

def without_output(): os.close(1)
def without_errors(): os.close(2)
def into_a_closed_pipe():
    r, w = os.pipe()
    os.close(r)
    os.dup2(w, 1)
    sys.stdout = open(1, "w", closefd=False)
def in_ascii():
    for stream in (sys.stdout, sys.stderr): stream.reconfigure(encoding="ascii", errors="strict")

def after(tmp_path, prepare, *args): return Apart(tmp_path / "said", vad_after, prepare, *args).end()

def test_closed_streams(tiny, tmp_path):
    "nothing that is printed lands in a file that is opened later; the command does its work"
    code, out, err = after(tmp_path, without_errors, "train", tiny, "--out", tmp_path / "run", *SMALL)
    assert code == 0 and "parameters moved" in out
    assert not [p for p in (tmp_path / "run").rglob("*") if p.is_file() and (b"epoch " in p.read_bytes() or b"decoding:" in p.read_bytes())]
    assert after(tmp_path, without_output, "data", "check", "--quick", tiny) == (0, "", "")

def test_a_reader_that_went_away(tiny, tmp_path):
    code, _, err = after(tmp_path, into_a_closed_pipe, "data", "check", "--quick", tiny)
    assert code != 0 and err == ""

@pytest.mark.parametrize("name", ["caf\u00e9", os.fsdecode(b"caf\xe9")], ids=["utf8", "bytes"])
def test_a_terminal_that_knows_only_ascii(tmp_path, name):
    sentence(after(tmp_path, in_ascii, "data", "check", "--quick", tmp_path / name), "caf\\", "does not exist")

HELD = """
import os, signal, sys, builtins
real = builtins.__import__
def slow(name, *args, **kwargs):
    if name == "{1}" or name == "vad" and args[2:3] and "{1}" in (args[2] or ()): os.kill(os.getpid(), signal.{0})
    return real(name, *args, **kwargs)
builtins.__import__ = slow
from vad._main import main
main()
"""

@pytest.mark.parametrize("library", ["cli", "torch"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_while_the_libraries_load(name, library):
    said = subprocess.run([sys.executable, "-c", HELD.format(name, library), "data", "check", "--quick", "x"], capture_output=True, text=True, timeout=120)
    assert said.returncode == 130 and said.stderr.strip() == "vad: stopped.", said

def test_libraries_that_do_not_load():
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (5 * 10**8,) * 2) # noqa: E731
    said = subprocess.run([sys.executable, "-c", "from vad._main import main; main()", "data", "check", "x"], capture_output=True, text=True, preexec_fn=limit, timeout=120)
    assert said.returncode == 1 and said.stderr.startswith("vad: ") and "Traceback" not in said.stderr, said.stderr

@ROOT
def test_a_user_without_a_home(tiny, tmp_path):
    code, out, err = Apart(tmp_path / "said", as_nobody, [["data", "check", "--quick", p] for p in ("~/x", "~nosuchuser/x")]).end()
    assert out.split() == ["1", "1"] and err.count("vad: ") == err.count("set HOME") == 2 and "Traceback" not in err, err

def as_nobody(commands):
    for name in ("HOME", "VAD_CACHE", "VAD_WEIGHTS"): os.environ.pop(name, None)
    importlib.import_module("vad.cli") # it lies where nobody else may read
    os.setgid(54321)
    os.setuid(54321)
    in_turn(commands)


# ---- archives that are bombs in what they say about their files

def header(name, size=0, kind=tarfile.REGTYPE):
    m = tarfile.TarInfo(name)
    m.size, m.type = size, kind
    return m.tobuf(tarfile.USTAR_FORMAT)

def negative(kind):
    "a header that says -1024 bytes"
    m = bytearray(header("x", 0, kind))
    m[124:136] = b"\xff" * 8 + struct.pack(">i", -1024)
    m[148:156] = b"%06o\0 " % (256 + sum(m[:148]) + sum(m[156:]))
    return bytes(m) * 3

def crowded_zip():
    "one member, a million times in the directory"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z: z.writestr("a" * 20, b"x")
    b = out.getvalue()
    start, end, n = b.index(b"PK\1\2"), b.index(b"PK\5\6"), 300_000
    line = b[start:end]
    return b[:start] + line * n + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, len(line) * n, start, 0)

PAX = b"11 path=ab\n".ljust(512, b"\0")
BOMBS = dict(
    members=lambda: header("a", 0, tarfile.DIRTYPE) * 5001,
    header=lambda: header("x", 2**33 - 1, tarfile.XHDTYPE) + bytes(4096),
    name=lambda: header("x", 2**33 - 1, tarfile.GNUTYPE_LONGNAME) + bytes(4096),
    long=lambda: header("x", 10240, tarfile.GNUTYPE_LONGNAME) + b"a" * 10240 + header("x"),
    chain=lambda: (header("x", 11, tarfile.XHDTYPE) + PAX) * 3000 + header("x"),
    everywhere=lambda: (header("x", 11, tarfile.XGLTYPE) + PAX) * 3000 + header("x"),
    back=lambda: negative(tarfile.REGTYPE),
    backwards=lambda: negative(tarfile.XHDTYPE),
    sparse=lambda: header("x", 0, tarfile.GNUTYPE_SPARSE) + bytes(1024),
    far=lambda: header("x", 8**11 - 1) + bytes(1024),
    deep=lambda: header("/".join("a" * 40)),
    twins=lambda: header("A/b") + header("a/c"),
    directory=crowded_zip)

@pytest.mark.parametrize("kind", BOMBS)
def test_an_archive_that_says_too_much(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(download, "MEMBERS", 5000)
    (tmp_path / "in").mkdir()
    (tmp_path / "a").write_bytes(BOMBS[kind]())
    with pytest.raises(UserError, match="delete it"): unpack(tmp_path / "a", tmp_path / "in")
    assert sum(p.stat().st_size for p in tmp_path.rglob("in/*")) < 10**6


# ---- what is measured of a process

def test_the_peak_of_memory_is_the_process_own():
    "not that of the large process that started it"
    large = np.ones(200_000_000) # 1.6 GB
    said = subprocess.run([sys.executable, "-c", "from vad.core.devices import peak_memory; print(peak_memory())"], capture_output=True, text=True, check=True)
    assert .05 < float(said.stdout) < 1.2 and len(large)


@settings(max_examples=40, deadline=None)
@given(letter=st.sampled_from(["x", "ß", "映"]), length=st.integers(1, 255))
def test_a_name_as_long_as_the_system_takes_can_be_written(tmp_path_factory, letter, length):
    "whole, with nothing left behind; also where a dead process was at it"
    folder = tmp_path_factory.mktemp("long")
    name = os.fsdecode(os.fsencode(letter * length)[:length])
    dead = folder / f"{files.hidden_name(folder / name)}.00000000.part"
    dead.mkdir()
    (dead / "half").write_text("half")
    (dead / ".lock").touch()
    with atomic_write(folder / name) as part: part.write_text("whole")
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [(name, "whole")]
