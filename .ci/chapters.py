"Every chapter from top to bottom, each in a process of its own, forked from one that has the libraries already; several side by side."
import argparse
import os
import signal
import sys
from pathlib import Path

import cv2  # noqa: F401 (for the chapters, as the next three)
import matplotlib.pyplot  # noqa: F401
import sklearn.metrics  # noqa: F401
import torch  # noqa: F401
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.test import test_nb


def chapters():
    "all but those in folders that something else runs"
    return [p.absolute() for p in sorted(nbglob(as_path=True)) if not (p.parent / ".notest").exists()]

def begin(path, config):
    "-> the process that runs a chapter; what fails is on standard error, with its cell"
    sys.stdout.flush()
    if child := os.fork(): return child
    os.chdir(config.nbs_path)
    try: passed, _ = test_nb(path, skip_flags=config.tst_flags.split(), basepath=config.config_path)
    except BaseException as e: passed = print(f"{path}: {e!r}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr): stream.flush()
    os._exit(not passed)

def end(running):
    "wait for one of these processes -> its chapter, processor seconds, why it failed"
    process, status, used = os.wait4(-1, 0)
    code = os.waitstatus_to_exitcode(status)
    why = f"died of {signal.Signals(-code).name}" if code < 0 else "failed" * bool(code)
    return running.pop(process), used.ru_utime + used.ru_stime, why

def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("paths", nargs="*", type=Path, help="chapters; all, where none is named")
    p.add_argument("--workers", type=int, default=1, help="chapters at once")
    a, config = p.parse_args(), get_config()
    todo, running, ended = [path.absolute() for path in a.paths] or chapters(), {}, []
    while todo or running:
        while todo and len(running) < a.workers:
            path = todo.pop(0)
            running[begin(path, config)] = path
        ended.append(end(running))
    for path, seconds, why in sorted(ended, key=lambda e: -e[1])[:10]: print(f"{seconds:6.1f} s  {path.name}")
    failed = [f"{path.relative_to(Path.cwd())} {why}" for path, _, why in ended if why]
    print("\n".join(failed) or f"{len(ended)} chapters passed.")
    return bool(failed)

if __name__ == "__main__": sys.exit(main())
