"ONNX files of runs: onnxruntime says what PyTorch says, over whole videos and for any number of clips."
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from test_cli import call, sentence
from test_learner import message

from vad.training import classifier, trainer
from vad.data.frame_cache import cache_frames
from vad.training.classifier import Classifier, weigh
from vad.training.splits import Clips
from vad.core.records import write_json
from vad.data.datasets import open_dataset
from vad.data.embedding import Recipe, finish, network, run_batch
from vad.training.evaluation import evaluate
from vad.use.export import export_onnx
from vad.training.trainer import save_model, settings

for name in ("onnx", "onnxscript"): pytest.importorskip(name, reason=f"{name} is not installed")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
SMALL = dict(size=(16, 16), width=2, items=3, batch=4, epochs=1, precision="fp32") # a graph computes in single precision


def session(path): return ort.InferenceSession(path, providers=["CPUExecutionProvider"])
def facts(s): return {k: json.loads(v) for k, v in s.get_modelmeta().custom_metadata_map.items()}


# ---- memory models

@pytest.mark.parametrize("changes", [dict(), dict(attention="gate", threshold=.01), dict(attention="residual"), dict(memory=False), dict(task="reconstruct"), dict(test_update="always", channels=3)],
                         ids=["plain", "gates", "residual", "no memory", "reconstruct", "always, colour"])
def test_a_dataset_scored_by_the_file(tiny, tmp_path, changes):
    "trained, evaluated, exported by the command; then every test video through the file alone, the items carried along, gives the evaluation's numbers"
    data, s = open_dataset(tiny), settings("quick", **SMALL | changes)
    run = trainer.fit(s, data, tmp_path / "run", "cpu").folder
    evaluate(run, data, "cpu")
    rc, out, err = call(tmp_path, "export", run)
    assert rc == 0 and "run/model.onnx: 0." in out, err
    file = session(run / "model.onnx")
    frames, items, rows = cache_frames(data.test, s.size, s.channels, interpolation=s.interpolation), trainer.load_model(run)[1], []
    items = None if items is None else items.numpy()
    for first in frames.clips(s.length):
        clip = frames.batch(np.array([first]), s.length, "cpu").numpy()
        said = dict(zip((o.name for o in file.get_outputs()), file.run(None, dict(clip=clip) | (dict(items=items) if s.memory else {}))))
        items = said.get("items_after")
        rows.append([said["psnr"][0], said["distance"][0] if s.memory else np.nan])
        if s.attention == "gate": assert said["gate_fine"].shape == (1, 1, 16, 16) and 0 <= said["memory_map"].min() <= said["memory_map"].max() <= 1
    ours = pd.read_csv(run / "scores.csv")
    found = np.array(rows)
    np.testing.assert_allclose(found[:, 0], ours.psnr, atol=1e-4)
    if s.memory: np.testing.assert_allclose(found[:, 1], ours.distance, atol=1e-4)
    told = facts(file)
    assert told["settings"]["size"] == [16, 16] and told["threshold"] is not None and told["reference"]["psnr"] and told["versions"]["vad"]

def test_without_memory_any_number_of_clips(tmp_path):
    s = settings("quick", **SMALL | dict(memory=False))
    model, _ = trainer.initial_model(s)
    save_model(tmp_path / "model.safetensors", model, {}, s)
    file = session(export_onnx(tmp_path)[0])
    x = torch.rand(7, s.length, 16, 16) * 2 - 1
    with torch.inference_mode(): ours = model.eval()(x[:, :-1]).prediction
    np.testing.assert_allclose(file.run(["prediction"], dict(clip=x.numpy()))[0], ours, atol=1e-5)


# ---- classifiers

@pytest.mark.parametrize("changes", [dict(cell="sru"), dict(cell="srupp", inputs="change"), dict(cell="sru", pool="mean", inputs="change"),
                                     dict(cell="srupp", bidirectional=True)], ids=["SRU", "SRU++ of changes", "mean of SRU of changes", "both ways"])
def test_clips_classified_by_the_file(tmp_path, changes):
    "another number of clips, of other lengths, with rubbish for padding"
    s = classifier.ClassifierSettings(**dict(hidden=8, projection=4, heads=2, layers=2) | changes)
    torch.manual_seed(1)
    model, centres = Classifier(6, 3, s).eval(), torch.randn(3, 16 if s.bidirectional else 8)
    for p in model.parameters(): p.data = torch.randn_like(p) / 2
    save_model(tmp_path / "model.safetensors", model, dict(centres=centres), s)
    write_json(tmp_path / "record.json", dict(data=dict(frames=6, classes=["a", "b", "c"])))
    write_json(tmp_path / "metrics.json", dict(weighted=dict(w=2.)))
    path, off = export_onnx(tmp_path, tmp_path / "other" / "name.onnx")
    assert path.exists() and off < 1e-4
    x, n = torch.randn(7, 6, 6).numpy(), np.array([1, 2, 6, 3, 4, 5, 1])
    x[np.arange(6) >= n[:, None]] = 1e3
    p, weighted, h = session(path).run(None, dict(features=x, frames=n))
    clips = Clips("x", np.where((np.arange(6) < n[:, None])[..., None], x, 0), np.zeros(7, int), n, np.array([""] * 7), np.array([""] * 7), ("a", "b", "c"))
    ours, hidden = classifier.predict(model, clips)
    np.testing.assert_allclose(p, ours, atol=1e-4)
    np.testing.assert_allclose(h, hidden, atol=1e-4)
    np.testing.assert_allclose(weighted, weigh(ours, hidden, centres.numpy(), 2.), atol=1e-4)
    assert facts(session(path))["classes"] == ["a", "b", "c"] and len(set(p.argmax(1))) > 1


# ---- embeddings

@pytest.mark.parametrize("recipe", [Recipe("cnn", size=32, width=16), Recipe("resnet50", size=32, width=16, weights="none"),
                                    Recipe("resnet18", size=32, weights="none", precision="bf16"), Recipe("vit", model="vit_tiny_patch16_224", weights="none", width=8)],
                         ids=lambda r: r.method)
def test_frames_embedded_by_the_file(tmp_path, recipe):
    write_json(tmp_path / "x_record.json", dict(recipe=recipe.__dict__))
    path, off = export_onnx(tmp_path)
    plain = replace(recipe, precision="fp32", batch=5)
    frames = np.random.default_rng(0).integers(0, 256, (5, *network(plain).size, 3), np.uint8)
    ours = finish(plain, np.stack(run_batch(plain, list(frames))))
    theirs, = session(path).run(None, dict(frames=frames))
    np.testing.assert_allclose(theirs, ours, atol=1e-4 * max(1, np.abs(ours).max()))


# ---- what cannot be

def test_what_cannot_be_exported(tmp_path):
    rc, out, err = call(tmp_path, "export", tmp_path / "nowhere")
    sentence((rc, out, err), "nowhere", "neither a trained model nor embeddings")
    s = classifier.ClassifierSettings(hidden=8, cell="sru")
    save_model(tmp_path / "model.safetensors", Classifier(6, 2, s), dict(centres=torch.zeros(2, 8)), s)
    message(lambda: export_onnx(tmp_path), "record.json")
    assert not (tmp_path / "model.onnx").exists()
