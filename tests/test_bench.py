"Benchmarks by name: run as notebooks, their tables where they were asked for, failures in words."
import json
from pathlib import Path
from runpy import run_path

import nbformat
import pandas as pd
import pytest
from test_cli import call, sentence

import vad

bench = run_path(str(Path(vad.__file__).parents[1] / "nbs/benchmarks/bench.py"))
benchmarks, parameters_of = bench["benchmarks"], bench["parameters_of"]


def test_every_benchmark_says_where_its_results_go():
    for name, path in benchmarks().items(): assert parameters_of(path)["out"][0] == '"../../figures/benchmarks"', name

def test_one_is_run(tiny, tmp_path):
    rc, out, err = call(tmp_path, "bench", "cache", "--out", tmp_path / "out", "--notebooks", tmp_path / "notebooks",
                        "--set", f"root={tiny}", "--set", "size=16", "--set", "videos=2", "--set", "repeats=2")
    assert rc == 0 and out.startswith("cache: "), err
    t = pd.read_csv(tmp_path / "out/cache.csv")
    assert (t["size"] == 16).all() and (t.clips_per_second > 0).all() and (tmp_path / "out/cache.png").read_bytes()[:4] == b"\x89PNG"
    made = nbformat.read(tmp_path / "notebooks/cache.ipynb", 4)
    assert any(f'root = "{tiny}"' in c.source for c in made.cells)

def test_what_was_trained_for_one_is_found_again(tiny, tmp_path):
    words = ("bench", "scale", "--out", tmp_path / "out", "--notebooks", tmp_path / "notebooks", "--set", f"data={tiny}", "--set", f"models={tmp_path / 'models'}", "--set", 'rows=["half the epochs"]', "--set", "device=cpu")
    rc, out, err = call(tmp_path, *words)
    assert rc == 0 and out.startswith("scale: "), err
    one, = pd.read_csv(tmp_path / "out/scale.csv").to_dict("records")
    assert one["epochs"] == 1 and one["size"] == "40x64" and 0 <= one["auc"] <= 100
    assert one["work"] == .5 and all((tmp_path / f"out/{n}.png").read_bytes()[:4] == b"\x89PNG" for n in ("scale", "scale_curve"))
    model, = (tmp_path / "models").glob("*/model.safetensors")
    assert one["train_minutes"] == pytest.approx(json.loads((model.parent / "record.json").read_text())["train_seconds"] / 60, abs=.0051)
    made = model.stat().st_mtime_ns
    assert call(tmp_path, *words)[0] == 0 and model.stat().st_mtime_ns == made
    assert pd.read_csv(tmp_path / "out/scale.csv").to_dict("records") == [one]

    far = pd.DataFrame([one | dict(row="long", auc=70.5, low=None, high=None, macro=None, online=None, cpu="another"), # just what was noted
                        one | dict(auc=0), one | dict(row="twice the side", preset="paper"), one | dict(row="twice the side", data="another")])
    far.to_csv(tmp_path / "earlier.csv", index=False)
    rc, out, err = call(tmp_path, *words, "--set", f"earlier={tmp_path / 'earlier.csv'}")
    assert rc == 0, err
    t = pd.read_csv(tmp_path / "out/scale.csv")
    assert t.to_dict("records")[0] == one and t.row.tolist() == ["half the epochs", "long"]
    assert t.auc[1] == 70.5 and t.cpu[1] == "another" and pd.isna(t.low[1])
    far.drop(columns="auc").to_csv(tmp_path / "earlier.csv", index=False)
    rc, out, err = call(tmp_path, *words, "--set", f"earlier={tmp_path / 'earlier.csv'}")
    assert rc == 1 and "earlier.csv has no column 'auc'" in out

def test_pseudo_anomalies_are_gained_or_not(tiny, tmp_path):
    words = ("bench", "augmentation", "--out", tmp_path / "out", "--notebooks", tmp_path / "notebooks", "--set", f"data={tiny}", "--set", f"models={tmp_path / 'models'}", "--set", "device=cpu")
    rc, out, err = call(tmp_path, *words)
    assert rc == 0 and out.startswith("augmentation: "), err
    t = pd.read_csv(tmp_path / "out/augmentation.csv")
    assert list(t.row) == ["plain", "squares turned", "frames of squares reordered"] and t.gain.isna().tolist() == [True, False, False]
    changed = t.dropna(subset="gain")
    assert (changed.gain_low <= changed.gain).all() and (changed.gain <= changed.gain_high).all()
    assert changed.gain.tolist() == pytest.approx((changed.auc - t.auc[0]).tolist(), abs=.011)
    losses = {p.parent.parent.name: pd.read_csv(p).loss.tolist() for p in (tmp_path / "models").glob("*/*/losses.csv")}
    assert len({tuple(x) for x in losses.values()}) == 3 # the same seed, and each was shown something else

def test_precisions_are_compared(tmp_path):
    rc, out, err = call(tmp_path, "bench", "half_precision", "--out", tmp_path / "out", "--notebooks", tmp_path, "--set", f"runs={tmp_path / 'runs'}", "--set", "device=cpu")
    assert rc == 0, err
    t = pd.read_csv(tmp_path / "out/half_precision.csv")
    assert len(t) == 3 and (t["accuracy, fp32"] > 65).all() and (t["accuracy, its largest"] < 15).all()

def test_one_that_fails_says_where(tmp_path):
    rc, out, err = call(tmp_path, "bench", "cache", "--out", tmp_path / "out", "--notebooks", tmp_path, "--set", f"root={tmp_path / 'nowhere'}")
    assert rc == 1 and "nowhere" in out and not (tmp_path / "out/cache.csv").exists()

def test_settings_go_to_every_benchmark_that_knows_them():
    assert bench["parsed"](["threads=1", "lengths=[25, 50]"], ["sru", "cache"]) == dict(sru=dict(threads=1, lengths=[25, 50]), cache=dict(threads=1))

@pytest.mark.parametrize("args, words", [(["haste"], "there are cache"), (["cache", "--set", "size"], "sets nothing"), (["cache", "--set", "length=3"], "sets nothing")])
def test_what_cannot_be(tmp_path, args, words): sentence(call(tmp_path, "bench", *args), words)
