"The table of speeds, from a bare checkout and as a benchmark."
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import vad

ROOT = Path(vad.__file__).parents[1]
BARE = """
import runpy, sys
for name in ("pooch", "papermill", "ipywidgets", "nbdev", "fastcore", "jupyterlab", "sru", "IPython"): sys.modules[name] = None # importing one fails
sys.argv[0] = sys.argv.pop(1)
runpy.run_path(sys.argv[0], run_name="__main__")
"""

def test_a_bare_checkout_makes_the_table(tmp_path):
    script = ROOT / "nbs/benchmarks/speed.py"
    p = subprocess.run([sys.executable, "-c", BARE, script, "--device", "cpu", "--sizes", "tiny", "--rounds", "1", "--threads", "1", "--out", tmp_path],
                       capture_output=True, text=True, cwd=tmp_path)
    assert p.returncode == 0, p.stderr
    t = pd.read_csv(tmp_path / "speed.csv")
    assert {"vad", "plain PyTorch", "one frame at a time", "SRU", "SRU++", "nn.LSTM", "timm"} == set(t.way)
    assert (t[["ms", "floor_ms", "per_second", "peak_tflops", "copy_gb_s"]] > 0).all().all() and str(tmp_path / "speed.csv") in p.stdout

@pytest.mark.parametrize("argv", [["--device", "abacus"], ["--parts", "wheels"], ["--sizes", "vast"]])
def test_what_cannot_be_asked(tmp_path, argv):
    p = subprocess.run([sys.executable, ROOT / "nbs/benchmarks/speed.py", *argv, "--out", tmp_path], capture_output=True, text=True)
    assert p.returncode and not list(tmp_path.iterdir()) and "Traceback" not in p.stderr
