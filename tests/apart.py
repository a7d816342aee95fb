"Run something in a process of its own, forked from a server in which the libraries are already imported: real signals and exit codes, without seconds of import."
import faulthandler
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(["vad.cli", "vad.reproduce.runner", "vad.use.streaming", "accelerate", "papermill", "torch._dynamo"])


def _inside(call, args, out, err, env):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env) # of the caller now, not of when the server began
    for name, fd in ((out, 1), (err, 2)): os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), fd)
    sys.stdout, sys.stderr = (open(fd, "w", buffering=1, closefd=False) for fd in (1, 2))
    faulthandler.enable(2) # one that crashes says where
    call(*args)

def hold(module, name, nth=1, go=None):
    "make this process wait before the `nth` call of a function until the file `go` is there, or for ever: whoever watches it comes in time, however slow the machine"
    function, calls = getattr(module, name), []
    def held(*args, **kwargs):
        calls.append(1)
        while len(calls) >= nth and not (go and Path(go).exists()): time.sleep(.01)
        return function(*args, **kwargs)
    setattr(module, name, held)

class Apart:
    "A process that runs `call(*args)`, both importable from the tests."
    def __init__(self, folder, call, *args):
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.out, self.err = (Path(folder) / f"{call.__name__}.{name}" for name in ("out", "err"))
        self.process = server.Process(target=_inside, args=(call, args, self.out, self.err, dict(os.environ)))
        self.process.start()

    def wait_for(self, condition, seconds=600):
        "until `condition()` is true; the process must live that long"
        end = time.monotonic() + seconds
        while not condition():
            if not self.process.is_alive() or time.monotonic() > end:
                self.process.kill()
                raise AssertionError(self.err.read_text())
            time.sleep(.005)
        return self

    def kill(self, sig):
        os.kill(self.process.pid, sig)
        return self

    def end(self, seconds=600):
        "exit code (a signal's number, negative), standard output, standard error"
        self.process.join(seconds)
        if alive := self.process.is_alive(): self.process.kill(); self.process.join()
        assert not alive, f"still running after {seconds} s: {self.err.read_text()}"
        return self.process.exitcode, self.out.read_text(), self.err.read_text()
