"A library that dies takes the process with it: the command still says over which file, and ends as it should."
import ctypes
import faulthandler
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from apart import Apart
from conftest import litter, write_tiny
from films import write_film
from joblib.externals.loky.process_executor import TerminatedWorkerError
from test_cli import SMALL, sentence

from vad.data import decoder, video
from vad.core.crash_watch import CRASHES
from vad.cli import scarce
from vad.training import trainer

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nobody watches the command")


# ---- the command

def crash(): ctypes.string_at(0) # follows a pointer to nothing, as a broken library does

def vad_with(happens, bad, *args):
    "the console script, in which something happens inside the native call that decodes the file `bad`"
    faulthandler.disable() # the tests' own; the command has its own use for it
    film, image, there = decoder.decoded_stream, video.decode_image, bad.read_bytes() if bad.exists() else None
    def decoded_stream(container, *rest):
        if container.name.endswith(bad.name): happens()
        return film(container, *rest)
    def decode_image(data):
        if data == there: happens()
        return image(data)
    decoder.decoded_stream, video.decode_image = decoded_stream, decode_image
    from vad._main import main
    sys.argv = ["vad", *map(str, args)]
    main()

def saving(*args):
    "the console script; every epoch is written down"
    trainer.EPOCH_SECONDS = 0
    vad_with(int, Path("none"), *args)

@pytest.fixture
def films(tmp_path):
    for name in ("Normal/a", "Normal/bad", "Fight/c", "Fight/d"): write_film(tmp_path / f"films/{name}.mp4", range(12))
    return tmp_path / "films"

def embedding(films, out): return "embed", films, "--output", out, "--method", "cnn", "--frames", 4, "--width", 16, "--size", 32, "--device", "cpu", "--workers", 4

def test_the_film_is_named(films, tmp_path):
    "of four that are read side by side, the one whose decoder failed"
    said = Apart(tmp_path / "said", vad_with, crash, films / "Normal/bad.mp4", *embedding(films, tmp_path / "out")).end()
    last = sentence(said, films / "Normal/bad.mp4", "SIGSEGV", "leave it out", code=128 + signal.SIGSEGV)
    assert not any(other in last for other in ("Normal/a", "Fight/c", "Fight/d"))
    assert not list((tmp_path / "out").glob("*manifest*")) # nothing that looks like a finished table
    (films / "Normal/bad.mp4").unlink()
    code, out, err = Apart(tmp_path / "said", vad_with, crash, films / "Normal/bad.mp4", *embedding(films, tmp_path / "other")).end()
    assert code == 0, err

def test_the_picture_is_named(tmp_path, monkeypatch):
    "and the same command goes on once it is mended; nothing half-written stays"
    monkeypatch.setenv("VAD_CACHE", str(tmp_path / "cache"))
    data, train = write_tiny(tmp_path / "tiny"), ("train", tmp_path / "tiny", "--out", tmp_path / "run", *SMALL)
    bad = data / "training/frames/02/007.png"
    sentence(Apart(tmp_path / "said", vad_with, crash, bad, *train).end(), bad, "SIGSEGV", code=128 + signal.SIGSEGV)
    assert not list((tmp_path / "run").glob("*.safetensors"))
    code, _, err = Apart(tmp_path / "said", vad_with, int, bad, *train).end()
    assert code == 0 and not litter(tmp_path), err

@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_handed_on(tiny, tmp_path, sig):
    "by whoever watches, who alone is told"
    run = Apart(tmp_path / "said", saving, "train", tiny, "--out", tmp_path / "run", *SMALL, "--epochs", 100_000)
    sentence(run.wait_for((tmp_path / "run/losses.csv").exists).kill(sig).end(), tmp_path / "run", "--resume", code=130)
    assert not litter(tmp_path / "run")

def failing(notebook, target):
    from vad.core.crash_watch import watched
    from vad.reproduce.runner import execute
    watched()
    print(execute(notebook, target, {}))

def test_a_notebook_that_dies_names_the_film(tmp_path):
    cell = "import ctypes\nfrom vad.core.crash_watch import reading_now\nwith reading_now('one film.mp4'): ctypes.string_at(0)"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)], metadata=dict(kernelspec=dict(name="python3", display_name="", language="python")))
    nbformat.write(book, tmp_path / "a.ipynb")
    code, out, err = Apart(tmp_path / "said", failing, tmp_path / "a.ipynb", tmp_path / "out/a.ipynb").end()
    assert code == 0 and "died while it read one film.mp4" in out, (out, err)


def test_a_worker_that_dies():
    assert "A worker process died" in scarce(TerminatedWorkerError("A worker process managed by the executor was unexpectedly terminated."))


# ---- the watch alone, without libraries to import

class Watched:
    "A process that watches another, which does what `code` says."
    def __init__(self, folder, code, **kwargs):
        self.folder = folder
        begin = "import ctypes, os, signal, sys, threading\nfrom pathlib import Path\nfrom vad.core.crash_watch import reading_now, watched\n" \
                "signal.signal(signal.SIGHUP, signal.SIG_DFL) # whoever runs the tests may have it ignored\n" \
                "watched()\n"
        self.process = subprocess.Popen([sys.executable, "-c", begin + code], stderr=open(folder / "err", "w"), cwd=folder,
                                        env=os.environ | dict(PYTHONPATH=os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])), **kwargs)

    def wait_for(self, condition, seconds=120):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end and self.process.poll() is None, (self.folder / "err").read_text()
            time.sleep(.005)
        return self

    def end(self): return self.process.wait(120), "", (self.folder / "err").read_text()

READY = "here = Path('pid'); here.with_suffix('.part').write_text(str(os.getpid())); here.with_suffix('.part').rename(here)\n"

@pytest.mark.parametrize("sig", CRASHES)
def test_every_crash(tmp_path, sig):
    said = Watched(tmp_path, f"with reading_now('a\\n\\udce9.mp4'): signal.pthread_kill(threading.get_ident(), {int(sig)})").end()
    sentence(said, "a\\n\\udce9.mp4", sig.name, code=128 + sig)

def test_a_crash_beside_a_film(tmp_path):
    "the thread that fails reads nothing: no film is blamed"
    code = "threading.Thread(target=ctypes.string_at, args=(0,)).start(); threading.Event().wait()"
    assert "film.mp4" not in sentence(Watched(tmp_path, f"with reading_now('film.mp4'): {code}").end(), "PYTHONFAULTHANDLER", code=128 + signal.SIGSEGV)

def test_killed_from_outside(tmp_path):
    sentence(Watched(tmp_path, "with reading_now('film.mp4'): os.kill(os.getpid(), signal.SIGKILL)").end(), "SIGKILL", "--batch", code=128 + signal.SIGKILL)

@pytest.mark.parametrize("code, ends", [("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGHUP)", 128 + signal.SIGHUP), ("pass", 0)])
def test_it_ends_as_the_child_did(tmp_path, code, ends): assert Watched(tmp_path, code).end() == (ends, "", "")

def alive(pid):
    try: return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess: return False

def test_the_child_ends_with_its_parent(tmp_path):
    run = Watched(tmp_path, READY + "threading.Event().wait()").wait_for((tmp_path / "pid").exists)
    pid = int((tmp_path / "pid").read_text())
    assert pid != run.process.pid and alive(pid)
    run.process.kill()
    assert run.end()[0] == -signal.SIGKILL
    end = time.monotonic() + 120
    while alive(pid):
        assert time.monotonic() < end
        time.sleep(.01)

COUNTED = """
heard = []
signal.signal(signal.SIGINT, lambda *_: (heard.append(1), Path('heard').touch()))
signal.signal(signal.SIGUSR2, lambda *_: os._exit(len(heard)))
""" + READY + "while True: signal.pause()"

@pytest.mark.parametrize("whom", ["parent", "group", "terminal"])
def test_a_signal_is_heard_once(tmp_path, whom):
    "signals are handed on one after another: a second SIGINT would come before SIGUSR2"
    if whom == "terminal":
        here, there = pty.openpty()
        run = Watched(tmp_path, "import fcntl, termios\n" + COUNTED, stdin=there, start_new_session=True,
                      preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0))
    else: run = Watched(tmp_path, COUNTED, start_new_session=True)
    run.wait_for((tmp_path / "pid").exists)
    if whom == "parent": os.kill(run.process.pid, signal.SIGINT)
    if whom == "group": os.killpg(run.process.pid, signal.SIGINT)
    if whom == "terminal": os.write(here, b"\x03")
    run.wait_for((tmp_path / "heard").exists)
    os.kill(run.process.pid, signal.SIGUSR2)
    assert run.end()[0] == 1

def test_stopped_and_continued(tmp_path):
    run = Watched(tmp_path, COUNTED, process_group=0) if sys.version_info >= (3, 11) else Watched(tmp_path, COUNTED, preexec_fn=os.setpgrp)
    run.wait_for((tmp_path / "pid").exists)
    both = [psutil.Process(run.process.pid), psutil.Process(int((tmp_path / "pid").read_text()))]
    os.kill(run.process.pid, signal.SIGTSTP)
    run.wait_for(lambda: all(p.status() == psutil.STATUS_STOPPED for p in both))
    os.kill(run.process.pid, signal.SIGCONT)
    run.wait_for(lambda: not any(p.status() == psutil.STATUS_STOPPED for p in both))
    os.kill(run.process.pid, signal.SIGUSR2)
    assert run.end()[0] == 0

def test_without_room_for_a_child(tmp_path):
    "the command goes on unwatched"
    code = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); me = os.getpid(); from vad.core.crash_watch import watched; watched(); print(me == os.getpid())"
    begin = "import os\nfrom vad.core.crash_watch import watched\n"
    said = subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, "True\n"), said
