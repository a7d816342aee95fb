"What only a GPU can show: recorded steps are the plain ones, data held on the device is the same data, kernels agree with the loop."
import numpy as np
import pytest
import torch

from vad.models import sru
from vad.training import classifier, trainer
from vad.data.frame_cache import Frames, DeviceFrames, hold
from vad.training.splits import Clips
from vad.data.datasets import open_dataset
from vad.kernels.cuda_graph import Replay
from vad.data.synthetic import write_walkway

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

@pytest.fixture(scope="module")
def data(tmp_path_factory): return open_dataset(write_walkway(tmp_path_factory.mktemp("gpu") / "walkway", train=4, test=1))

def trained(fit, path, monkeypatch, recorded):
    "weights and what else moved, after training with or without a recording"
    with monkeypatch.context() as m:
        graphs = []
        if not recorded: m.setattr(Replay, "record", lambda self, inputs: setattr(self, "warm", float("inf")))
        else: m.setattr(torch.cuda.CUDAGraph, "replay", lambda self, before=torch.cuda.CUDAGraph.replay: (graphs.append(1), before(self)))
        run = fit(path / f"{recorded}")
    assert bool(graphs) == recorded
    return trainer.load_tensors(run / "model.safetensors")[0]

def same(a, b, tolerance):
    for k in a: torch.testing.assert_close(a[k], b[k], rtol=tolerance, atol=tolerance, msg=lambda m, k=k: f"{k}: {m}")

@pytest.mark.parametrize("changes", [dict(), dict(attention="gate", schedule="step"), dict(precision="bf16"), dict(memory=False, task="reconstruct", channels=3)])
def test_recorded_training_of_normality(data, tmp_path, monkeypatch, changes):
    torch.backends.cudnn.deterministic = True
    s = trainer.settings("quick", **dict(size=(48, 64), width=8, epochs=2) | changes)
    plain, recorded = (trained(lambda p: trainer.fit(s, data, p, "cuda"), tmp_path, monkeypatch, r) for r in (False, True))
    same(recorded, plain, 5e-2 if s.precision == "bf16" else 2e-3)

@pytest.mark.parametrize("cell", ["sru", "srupp"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recorded_training_of_classes(tmp_path, monkeypatch, cell, precision):
    rng, frames = np.random.default_rng(0), np.arange(40) % 5 + 6
    x = rng.standard_normal((40, 10, 12)).astype(np.float32) * (np.arange(10) < frames[:, None])[..., None]
    names = np.arange(40).astype(str)
    clips = Clips("few", x, np.arange(40) % 2, frames, names, names, ("a", "b"))
    s = classifier.ClassifierSettings(cell=cell, hidden=32, projection=16, heads=2, dropout=0., epochs=4, precision=precision)
    plain, recorded = (trained(lambda p: classifier.fit_classifier(s, clips, p, "cuda"), tmp_path, monkeypatch, r) for r in (False, True))
    same(recorded, plain, 5e-2 if precision == "bf16" else 2e-3)

def test_a_recorded_run_resumes(data, tmp_path, monkeypatch):
    torch.backends.cudnn.deterministic = True
    s = trainer.settings("quick", size=(48, 64), width=8, epochs=3)
    whole = trainer.load_tensors(trainer.fit(s, data, tmp_path / "whole", "cuda") / "model.safetensors")[0]
    def cut(l, epoch, *args, whole=trainer.train_epoch):
        if epoch == 2: raise KeyboardInterrupt
        return whole(l, epoch, *args)
    with monkeypatch.context() as m:
        m.setattr(trainer, "EPOCH_SECONDS", 0)
        m.setattr(trainer, "train_epoch", cut)
        with pytest.raises(KeyboardInterrupt): trainer.fit(s, data, tmp_path / "cut", "cuda")
    same(trainer.load_tensors(trainer.fit(s, data, tmp_path / "cut", "cuda") / "model.safetensors")[0], whole, 2e-3)

def test_frames_held_on_the_device(data):
    frames, clips = trainer.training_frames(trainer.settings("quick", channels=3), data)
    plain = frames.batch(clips[:6], 5, "cuda")
    held = hold(Frames(frames.folder, 3), "cuda")
    assert isinstance(held, DeviceFrames)
    torch.testing.assert_close(held.batch(torch.from_numpy(clips[:6]).cuda(), 5, "cuda"), plain)

@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 5e-2)])
def test_kernels_agree_with_the_loop(dtype, tolerance):
    torch.manual_seed(0)
    u, x, v, c0 = (torch.randn(*shape, device="cuda") for shape in ((7, 3, 3, 2, 20), (7, 3, 2, 20), (1, 1, 2, 2, 20), (3, 2, 20)))
    u, x = u.to(dtype), x.to(dtype)
    pad = torch.arange(7, device="cuda")[:, None] >= torch.tensor([7, 4, 1], device="cuda")
    found = {}
    for name in ("loop", "triton"):
        given = [z.float().detach().requires_grad_() if name == "loop" else z.detach().requires_grad_() for z in (u, x, v, c0)]
        h, c = sru.recurrence(*given, pad, implementation=name)
        (h.float().square().sum() + c.float().sum()).backward()
        found[name] = [h, c, *(z.grad for z in given)]
    for a, b in zip(found["triton"], found["loop"]): torch.testing.assert_close(a.float(), b, rtol=tolerance, atol=tolerance)
