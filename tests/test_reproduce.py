"The paper notebooks, executed on a tiny dataset: tables, figures, one page; and what happens when one of them cannot finish."
import json
import re
import shutil
import signal
import sys
from html.parser import HTMLParser

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
from apart import Apart
from test_cli import sentence
from test_learner import message

from vad import protocol, reproduce, study
from vad.core import read_json
from vad.learner import PRESETS, settings
from vad.scenes import write_scenes

SMALL = dict(size=(16, 16), width=2, items=3, batch=4, epochs=1)


@pytest.fixture(scope="module")
def work(tmp_path_factory): return tmp_path_factory.mktemp("reproduce")

@pytest.fixture(scope="module")
def said(tiny, work):
    "what a run over both papers prints"
    return reproduce.reproduce(tiny, tables="headline", seeds=(0, 1), name="run", out=work, device="cpu", publish=work / "published", **SMALL)

class Outside(HTMLParser):
    "collects everything a page would fetch from elsewhere"
    def __init__(self):
        super().__init__()
        self.links, self.pictures, self.headings, self.rows = [], 0, [], 0
    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.pictures += tag == "img" and attrs["src"].startswith("data:image/png;base64,")
        self.rows += tag == "tr"
        if tag in ("script", "link", "iframe"): self.links.append(tag)
        self.links += [v for k, v in attrs.items() if k in ("src", "href") and not v.startswith("data:")]

def test_the_page_stands_alone(said, work):
    text = (work / "run/summary.html").read_text(encoding="utf-8")
    page = Outside()
    page.feed(text)
    words = re.sub('data:image/png;base64,[^"]+', "", text)
    assert page.links == ["mnad.ipynb", "gates.ipynb"] and not [w for w in ("http", "url(", "@import") if w in words]
    assert all((work / "run" / link).exists() for link in page.links) and page.pictures >= 8
    for word in ("paper versus ours", "published", "ours", "predict with memory", "attention gates", "causal", "orientation only", "2 seeds",
                 "frame index", "95 %"): assert word in text, word
    assert str(work) not in text

def test_the_table_has_published_and_ours(said, work):
    t = pd.read_csv(work / "run/summary.csv").set_index("row")
    assert dict(t.published) == {"baseline": 92.89, "attention gates": 93.79, "predict with memory": 97.} and (t.seeds == 2).all()
    assert t.ours.between(0, 100).all() and t.sd.notna().all() and (t.low <= t.ours).all() and (t.ours <= t.high).all()
    np.testing.assert_allclose(t.difference, t.ours - t.published, atol=2e-4)
    for row in t.index: assert row in said
    assert "95 % interval" in said and "summary.html" in said
    runs = pd.read_csv(work / "run/figures/gates/tiny.runs.csv")
    for row, mean in runs.groupby("row").auc.mean().items(): assert abs(t.ours[row] - mean) < 1e-3

def test_ours_is_what_the_scores_say(said, work):
    from sklearn.metrics import roc_auc_score
    for folder in (work / "run/models").iterdir():
        scores = pd.read_csv(folder / "scores.csv")
        auc = roc_auc_score(scores.label, 1 - scores.regularity)
        assert abs(read_json(folder / "metrics.json")["regularity"]["auc_micro"] - auc) < 1e-4

def test_papers_share_models(said, work):
    "baseline and full prediction are the same run: two seeds, with and without gates"
    assert len(list((work / "run/models").iterdir())) == 4

def test_figures_stand_beside_their_tables(said, work):
    pictures = sorted((work / "run/figures").glob("*/*.png"))
    assert {p.parent.name for p in pictures} == {"mnad", "gates"} and len(pictures) >= 8
    for p in pictures: assert p.read_bytes()[:4] == b"\x89PNG" and len(pd.read_csv(p.with_suffix(".csv"))) > 0, p
    copies = sorted(p.relative_to(work / "published") for p in (work / "published").rglob("*") if p.is_file())
    assert copies == sorted(p.relative_to(work / "run/figures") for p in (work / "run/figures").rglob("*") if p.is_file())

def test_executed_notebooks_are_clean(said, work):
    for paper in reproduce.FRAMES:
        nb = nbformat.read(work / f"run/{paper}.ipynb", 4)
        given = next(c.source for c in nb.cells if "injected-parameters" in c.metadata.get("tags", []))
        assert "headline" in given and '"epochs": 1' in given
        outputs = [o for c in nb.cells if c.cell_type == "code" for o in c.outputs]
        assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
        assert sum("image/jpeg" in o.get("data", {}) for o in outputs) >= 3

def test_the_record(said, work, tiny):
    record = read_json(work / "run/record.json")
    assert record["settings"]["width"] == 2 and record["preset"] == "quick" and record["seeds"] == [0, 1] and record["data"]["name"] == "tiny"
    assert 0 < record["peak_memory_gb"] < 3 and str(tiny) not in json.dumps(record)

def test_a_page_shows_one_dataset(said, work, tmp_path):
    "tables that another dataset left in the folder stay out of it"
    shutil.copytree(work / "run", tmp_path / "run", ignore=shutil.ignore_patterns("models"))
    for p in (tmp_path / "run/figures").glob("*/tiny.table*"): shutil.copyfile(p, p.with_name(p.name.replace("tiny", "another")))
    for p in (tmp_path / "run/figures").glob("*/another.*.csv"): pd.read_csv(p).assign(dataset="another", ours=1.).to_csv(p, index=False)
    reproduce.write_page(tmp_path / "run")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "run/summary.csv"), pd.read_csv(work / "run/summary.csv"))
    assert (tmp_path / "run/summary.html").read_text().count("<img") == (work / "run/summary.html").read_text().count("<img")


# ---- the half on clips

@pytest.fixture(scope="module")
def clips_said(work):
    "what a run over both papers on clips prints"
    write_scenes(work / "street", cameras=6, frames=16, size=(48, 64))
    return reproduce.reproduce(clips=work / "street", name="clips", out=work, device="cpu", publish=work / "published clips")

def test_clips_have_a_page_of_their_own(clips_said, work):
    text = (work / "clips/summary.html").read_text(encoding="utf-8")
    page = Outside()
    page.feed(text)
    assert page.links == ["embeddings.ipynb", "srupp.ipynb"] and all((work / "clips" / link).exists() for link in page.links) and page.pictures >= 7
    for word in ("Clips of street", "ResNet50 + SRU++ + cluster weighting", "as published", "by source", "drawn", "orientation only", "majority", "shuffled",
                 "18 normal", "6 source videos", "eleven experiments"): assert word in text, word
    assert str(work) not in text and "Frames of" not in text and "nan" not in re.sub("<img[^>]+>", "", text)
    for row in ("CNN + SRU", "cnn: linear", "by source"): assert row in clips_said

def test_clips_accuracy_is_what_the_predictions_say(clips_said, work):
    t = pd.read_csv(work / "clips/figures/srupp/street.table2_binary.csv").set_index("row")
    for row, into, kind in (("CNN + SRU", "cnn-by_source/sru", "plain"), ("ResNet50 + SRU++ + cluster weighting", "resnet50-as_published/srupp", "weighted")):
        hits = []
        for fold in range(3):
            said = pd.read_csv(work / f"clips/models/binary/{into}-seed0-fold{fold}/predictions.csv")
            hits.append(((said[f"{kind} anomalous"] > .5) == (said.label == "anomalous")).mean())
        protocol = "by_source" if "source" in into else "as_published"
        assert abs(t[protocol][row] - 100 * np.mean(hits)) < 1e-3 and abs(t[f"{protocol}_sd_folds"][row] - 100 * np.std(hits, ddof=1)) < 1e-3
    assert t.published["CNN + SRU++"] == 88.69 and np.isnan(t.published["cnn: majority"]) and abs(t.by_source["cnn: majority"] - 50) < 15

def test_no_source_was_trained_on_and_tested(clips_said, work):
    "read back from the files of the runs"
    films = pd.read_csv(work / "street/sources.csv").set_index("clip").source
    tested = []
    for fold in range(3):
        said = pd.read_csv(work / f"clips/models/multiclass/resnet50-by_source/srupp-seed0-fold{fold}/predictions.csv")
        assert (said.video.map(films) == said.source).all() and not said.video.str.contains("mirrored").any()
        tested.append(set(said.source))
    assert sum(map(len, tested)) == len(set.union(*tested)) == 6
    leaks = pd.read_csv(work / "clips/figures/srupp/street.leaks.csv").set_index("protocol")
    assert leaks.same_source.by_source == leaks.mirror_image.by_clip == 0 and leaks.mirror_image.as_published > 40 and leaks.same_source.by_clip > 80

def test_clips_figures_stand_beside_their_tables(clips_said, work):
    pictures = sorted((work / "clips/figures").glob("*/*.png"))
    assert {p.parent.name for p in pictures} == {"embeddings", "srupp"} and len(pictures) >= 7
    for p in pictures: assert p.read_bytes()[:4] == b"\x89PNG" and len(pd.read_csv(p.with_suffix(".csv"))) > 0, p
    assert sorted(p.name for p in (work / "published clips").rglob("*.*")) == sorted(p.name for p in (work / "clips/figures").rglob("*.*"))

def test_clips_notebooks_are_clean(clips_said, work):
    for paper in reproduce.CLIPS:
        nb = nbformat.read(work / f"clips/{paper}.ipynb", 4)
        outputs = [o for c in nb.cells if c.cell_type == "code" for o in c.outputs]
        assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
        assert sum("image/jpeg" in o.get("data", {}) for o in outputs) >= 2

def test_a_second_call_measures_nothing_again(clips_said, work):
    models = {p: p.stat().st_mtime_ns for p in (work / "clips").rglob("*.safetensors")}
    again = study.begin("srupp", str(work / "street"), "quick", [0], "cpu", str(work / "clips"))
    again.pipelines(again.features(), "binary", protocol.PIPELINES, ("by_source",))
    assert {p: p.stat().st_mtime_ns for p in (work / "clips").rglob("*.safetensors")} == models

@pytest.mark.parametrize("given, words", [(dict(epochs=0), "epochs"), (dict(hiden=3), "hiden"), (dict(preset="huge"), "huge")])
def test_settings_of_a_study_that_cannot_be(tmp_path, given, words):
    message(lambda: study.begin("srupp", str(tmp_path), **dict(preset="quick", seeds=[0], device="cpu", out=str(tmp_path / "out")) | given), words)

def test_clips_that_are_no_clips(tmp_path):
    message(lambda: reproduce.reproduce(clips=tmp_path / "none", out=tmp_path / "runs"), "none")
    assert not (tmp_path / "runs").exists()


# ---- what goes wrong

def test_mistakes_are_found_before_anything_is_trained(tiny, tmp_path):
    message(lambda: reproduce.reproduce(tmp_path / "none", out=tmp_path / "runs"), "none")
    message(lambda: reproduce.reproduce(tiny, preset="huge", out=tmp_path / "runs"), "huge")
    message(lambda: reproduce.reproduce(tiny, tables="some", out=tmp_path / "runs"), "some")
    message(lambda: reproduce.reproduce(tiny, device="abacus", out=tmp_path / "runs"), "abacus")
    message(lambda: reproduce.reproduce(tiny, out=tmp_path / "runs", widht=3), "widht")
    shutil.copytree(tiny, tmp_path / "bare", ignore=shutil.ignore_patterns("frame_labels*", "masks"))
    message(lambda: reproduce.reproduce(tmp_path / "bare", out=tmp_path / "runs"), "labels")
    assert not (tmp_path / "runs").exists()

@pytest.fixture
def notebook(tmp_path, monkeypatch):
    "put a notebook of one cell in the place of a paper's"
    def put(source):
        cells = [nbformat.v4.new_code_cell("root, changes = '', {}", metadata=dict(tags=["parameters"])), nbformat.v4.new_code_cell(source)]
        kernel = dict(name="python3", display_name="", language="python")
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=dict(kernelspec=kernel)), tmp_path / "mnad.ipynb")
        monkeypatch.setitem(reproduce.PAPERS, "mnad", str(tmp_path / "mnad.ipynb"))
    return put

def test_a_notebook_that_fails_is_named(notebook, tmp_path):
    (tmp_path / "out").mkdir()
    notebook("1 / 0")
    message(lambda: reproduce.run_notebook("mnad", tmp_path / "out", root="x"), str(tmp_path / "out/mnad.ipynb"), "ZeroDivisionError", "cell 3")
    notebook("import os; os._exit(9)")
    message(lambda: reproduce.run_notebook("mnad", tmp_path / "out"), str(tmp_path / "out/mnad.ipynb"), "killed")

def test_a_problem_in_a_notebook_is_told_as_it_is(notebook, tmp_path):
    (tmp_path / "out").mkdir()
    notebook("class Problem(Exception): pass\nraise Problem('The disk is full.')")
    assert message(lambda: reproduce.run_notebook("mnad", tmp_path / "out")) == "The disk is full."

def endless(root, out):
    "vad reproduce with a training that would take an hour"
    from vad import cli
    everything = reproduce.reproduce
    reproduce.reproduce = lambda *args: everything(*args, **SMALL | dict(epochs=10**5))
    sys.argv = ["vad", "reproduce", "--data", str(root), "--tables", "headline", "--out", str(out), "--name", "run", "--device", "cpu"]
    cli.main()

def test_stopped(tiny, tmp_path):
    "nothing goes on behind one's back, and what was trained is saved"
    run = Apart(tmp_path, endless, tiny, tmp_path / "runs")
    run.wait_for(lambda: list((tmp_path / "runs").glob("run/models/*/losses.csv")), 120)
    kernels = psutil.Process(run.process.pid).children(recursive=True)
    assert kernels
    said = run.kill(signal.SIGINT).end()
    sentence(said, "stopped", code=130)
    assert not psutil.wait_procs(kernels, timeout=10)[1]
    folder, = (tmp_path / "runs/run/models").iterdir()
    assert (folder / "checkpoint.safetensors").exists() and not (folder / "model.safetensors").exists() and not list(folder.glob(".*.part*"))
    assert not (tmp_path / "runs/run/summary.html").exists()

def test_the_commands_defaults_are_the_presets(tmp_path):
    "make run at its defaults means what the presets say"
    assert set(PRESETS) == {"quick", "cpu", "paper"} and settings("paper") == settings()
    rows = reproduce.table2_rows("quick")
    assert len(rows) == 14 and len({json.dumps(r.training, sort_keys=True) for r in rows}) == 10 # rows that differ in scoring alone share a model
