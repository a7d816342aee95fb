"The table of speeds, from a bare checkout and as a benchmark."
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import vad
from vad.training import trainer
from vad.models.backbones import make_backbone
from vad.kernels.quick_relu import QuickReLU
from vad.models.mnad import folded

ROOT = Path(vad.__file__).parents[1]
BARE = """
import runpy, sys
for name in ("pooch", "papermill", "ipywidgets", "nbdev", "fastcore", "jupyterlab", "sru", "IPython"): sys.modules[name] = None # importing one fails
sys.argv[0] = sys.argv.pop(1)
runpy.run_path(sys.argv[0], run_name="__main__")
"""

speed = SimpleNamespace(**run_path(str(ROOT / "nbs/benchmarks/speed.py")))

def test_a_bare_checkout_makes_the_table(tmp_path):
    script = ROOT / "nbs/benchmarks/speed.py"
    p = subprocess.run([sys.executable, "-c", BARE, script, "--device", "cpu", "--sizes", "tiny", "--rounds", "1", "--threads", "1", "--out", tmp_path],
                       capture_output=True, text=True, cwd=tmp_path)
    assert p.returncode == 0, p.stderr
    t = pd.read_csv(tmp_path / "speed.csv")
    ours = {f"{name}, {p}" for name in ("vad", "SRU", "SRU++") for p in speed.precisions("cpu")}
    assert ours | {"plain PyTorch", "one frame at a time", "nn.LSTM, fp32", "timm"} == set(t.way)
    assert t.products[t.what.str.contains("step|backward")].between(0, 100, inclusive="neither").all()
    assert (t[["ms", "bound_ms", "per_second", "fp32_tflops", "copy_gb_s"]] > 0).all().all() and str(tmp_path / "speed.csv") in p.stdout

@pytest.mark.parametrize("argv", [["--device", "abacus"], ["--parts", "wheels"], ["--sizes", "vast"]])
def test_what_cannot_be_asked(tmp_path, argv):
    p = subprocess.run([sys.executable, ROOT / "nbs/benchmarks/speed.py", *argv, "--out", tmp_path], capture_output=True, text=True)
    assert p.returncode and not list(tmp_path.iterdir()) and "Traceback" not in p.stderr

# ---- what the table is made of

def test_operations_are_counted():
    x, w = torch.randn(64, 32), torch.randn(16, 32, requires_grad=True)
    assert speed.operations(lambda: (x @ w.T).sum().backward()) == 2 * 2 * 64 * 32 * 16 # forward, and backward for w alone

def test_the_lower_bound_is_the_slower_of_two():
    here = speed.Machine("cpu", dict(fp32=10., bf16=40.), 5.)
    assert (here.bound(20., 5.), here.bound(10., 20.), here.bound(20., 0., "bf16")) == (2., 4., .5)

def test_products_are_told_from_the_rest():
    x = torch.randn(400, 400)
    assert speed.share_of_products(lambda: x @ x) > speed.share_of_products(lambda: torch.sigmoid(x) * x) == 0

def test_lines_compare_with_the_first_way():
    taken = pd.DataFrame({"ours, bf16": [.002] * 3, "theirs": [.05] * 3})
    ours, theirs = speed.lines("nap", "short", taken, 4, "nap", dict(bf16=.001, fp32=.01).get)
    assert (ours["ours_times_as_fast"], theirs["ours_times_as_fast"], ours["per_second"]) == (1, pytest.approx(25), 2000)
    assert (ours["times_the_bound"], theirs["times_the_bound"]) == (2, pytest.approx(5)) # each beside the bound of its own precision

@pytest.mark.parametrize("how", ["gated", "always"])
def test_both_ways_of_scoring_say_the_same(tmp_path, how):
    s = replace(trainer.settings("quick", size=(16, 16), width=8, channels=3, precision="fp32"), test_update=how)
    frames, (model, items) = speed.noise(tmp_path, 12, (16, 16)), trainer.initial_model(s)
    model.eval()
    mine = speed.in_batches(folded(model), items, frames, s, "cpu", frames.clips(5), 4)
    assert mine == pytest.approx(speed.one_by_one(model, items, frames, s, "cpu", frames.clips(5)), abs=1e-4)

# ---- what half precision is spared

@pytest.mark.parametrize("attention", ["none", "gate"])
def test_quick_relus_change_no_bit_and_hide_no_nan(attention):
    "scoring in half precision, with quick ReLUs and with PyTorch's; weights that are not finite keep the latter, and the answer is not finite"
    model, items = trainer.initial_model(trainer.settings("quick", size=(16, 16), width=8, attention=attention))
    x, quick = torch.rand(2, 4, 16, 16), folded(model)
    plain = folded(model)
    for name, m in list(plain.named_modules()):
        if isinstance(m, QuickReLU): plain.set_submodule(name, torch.nn.ReLU(inplace=True))
    assert any(isinstance(m, QuickReLU) for m in quick.modules()) and not any(isinstance(m, QuickReLU) for m in model.modules())
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16): a, b = (m(x, items) for m in (quick, plain))
    assert torch.equal(a.prediction, b.prediction) and torch.equal(a.queries, b.queries)
    with torch.no_grad(): model.encoder.blocks[0][0].weight[0, 0, 0, 0] = torch.nan
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16): assert folded(model)(x, items).prediction.isnan().any()

def test_a_backbone_in_half_precision_has_quick_relus_and_the_same_vectors():
    net, x = make_backbone("resnet18", weights="none", precision="bf16", size=64), torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    assert sum(isinstance(m, QuickReLU) for m in net.modules()) > 8
    quick = net(x)
    for name, m in list(net.named_modules()):
        if isinstance(m, QuickReLU): net.set_submodule(name, torch.nn.ReLU(inplace=True))
    assert torch.equal(net(x), quick)

def test_a_quick_relu_has_gradients():
    x = torch.linspace(-2, 2, 64, dtype=torch.bfloat16).requires_grad_()
    QuickReLU()(x).sum().backward()
    assert torch.equal(x.grad, (x > 0).to(x.dtype))
