"Every table and figure, measured on a tiny dataset: results, tables, figures, one page; and what happens when something cannot finish."
import json
import os
import re
import shutil
import signal
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
from apart import Apart, hold
from test_cli import sentence
from test_learner import message

import vad
from vad.reproduce import cards, runner
from vad.reproduce.ablation import rows, run_folder
from vad.reproduce.beyond import MODELS, VARIANTS
from vad.reproduce.experiment import EMBEDDED_BY, embedded
from vad.reproduce.feature_groups import feature_groups
from vad.core.provenance import modules_behind
from vad.core.records import read_json, write_json
from vad.data.datasets import open_dataset
from vad.training.splits import SplitSettings, split_clips
from vad.training.trainer import PRESETS, Settings, settings
from vad.reproduce.registry import (
    ENTRIES, measuring_order, needed, published, results_for, results_in, seconds_spent, tables_of,
)
from vad.reproduce.report import as_text, make_page, published_report, report_of, verdict, with_published, write_page
from vad.reproduce.results import Measurement, key_of, lines_of, read_plan, read_results, write_results
from vad.data.synthetic import write_scenes, write_walkway

SMALL = dict(size=(16, 16), width=2, items=3, batch=4, epochs=1)
SOME = ("mnad.scores", "mnad.frames", "mnad.controls", "mnad.runtime", "mnad.tsne", "gates")


@pytest.fixture(scope="module")
def work(tmp_path_factory): return tmp_path_factory.mktemp("reproduce")

@pytest.fixture(scope="module")
def plan(tiny, work):
    "a run over entries of both papers on frames, two jobs at once"
    return runner.reproduce(SOME, tiny, seeds=(0, 1), jobs=2, name="run", out=work, device="cpu", publish=work / "published", **SMALL)

class Outside(HTMLParser):
    "collects everything a page would fetch from elsewhere"
    def __init__(self):
        super().__init__()
        self.links, self.pictures, self.ids, self.anchors = [], 0, set(), set()
    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.pictures += tag == "img" and attrs["src"].startswith("data:image/")
        if "id" in attrs: self.ids.add(attrs["id"])
        if tag in ("script", "link", "iframe"): self.links.append(tag)
        for v in (v for k, v in attrs.items() if k in ("src", "href") and not v.startswith("data:")): self.anchors.add(v[1:]) if v[0] == "#" else self.links.append(v)

def read_page(folder, name="summary"):
    text = (folder / f"{name}.html").read_text(encoding="utf-8")
    page = Outside()
    page.feed(text)
    assert page.anchors <= page.ids and all((folder / link).exists() for link in page.links)
    return page, text, re.sub('data:image/[a-z]+;base64,[^"]+', "", text)

def state_of(plan, name): return report_of(plan).states[name]
def measured_in(plan): return {n: r for n, r in results_in(plan).items() if r["state"] == "finished"}
def table(plan, name, file): return report_of(plan).tables[name][file]

def test_the_page_stands_alone(plan, work, tiny):
    page, text, words = read_page(work / "run")
    on_clips = sum(e.half == "clips" and not e.needs[0].startswith("archive") for e in ENTRIES.values())
    assert page.links[:2] == ["mnad.html", "mnad.ipynb"] and {"gates.html", "gates.ipynb"} <= set(page.links) and any(p.startswith("results/row-gates-seed1-") for p in page.links)
    assert not [w for w in ("http", "url(", "@import") if w in words] and page.pictures >= 9
    for word in ("paper versus ours", "published", "predict with memory", "attention gates, frozen as published", "online", "orientation only", "seeds 0 1",
                 "frame index", "95 %", "unfinished: ", f"{on_clips} entries need a folder of clips", "never trained", "To beat", "trainings"): assert word in words, word
    assert str(work) not in text and str(tiny) not in text and "nan" not in words
    assert words.count("<h1>") == words.count("<title>") == 1

def test_the_published_page_leads_nowhere(plan, work):
    "pictures and words as in the run's own, no link to a notebook or a result that stays behind"
    here, there = read_page(work / "run"), read_page(work / "published", "tiny")
    assert there[0].links == [] and there[0].pictures == here[0].pictures and there[0].anchors == here[0].anchors <= there[0].ids

def test_published_results_make_the_same_tables(plan, work):
    there, here = published_report(work / "published", "tiny"), report_of(plan)
    for name, tables in here.tables.items():
        for file, t in tables.items(): pd.testing.assert_frame_equal(t, there.tables[name][file])
    begun = {n for n, s in here.states.items() if s["state"] == "unfinished"} # for others alone: nobody asked for them
    assert {n: s["state"] for n, s in there.states.items()} == {n: "never run" if n in begun else s["state"] for n, s in here.states.items()}

def test_publishing_a_part_keeps_the_rest(plan, work, tmp_path):
    shutil.copytree(work / "published", tmp_path / "published")
    path, = (tmp_path / "published").glob("*.results.jsonl")
    before = published_report(tmp_path / "published", path.name.removesuffix(".results.jsonl"))
    shutil.copytree(plan.folder, tmp_path / "part", ignore=shutil.ignore_patterns("models"))
    shutil.rmtree(tmp_path / "part/figures/mnad")
    for p in (tmp_path / "part/results").glob("*.json"):
        if not p.name.startswith("row-gates-seed"): p.unlink()
    cards.publish_run(read_plan(tmp_path / "part"), tmp_path / "published")
    after = published_report(tmp_path / "published", path.name.removesuffix(".results.jsonl"))
    assert set(after.results) == set(before.results) and after.states == before.states
    begun = {n for n, s in report_of(read_plan(tmp_path / "part")).states.items() if s["state"] == "unfinished"}
    assert begun & {n for n, s in before.states.items() if s["state"] == "measured"} # the part has only begun what stays whole
    pages = [(folder / path.name.replace(".results.jsonl", ".html")).read_text() for folder in (work / "published", tmp_path / "published")]
    assert pages[0].count("<img ") == pages[1].count("<img ") > 3 # with those of the entries that the part did not draw
    assert "missing data" not in pages[1] # in one sentence above, and without sections
    for name, tables in before.tables.items():
        for file, t in tables.items(): pd.testing.assert_frame_equal(after.tables[name][file], t)

def test_a_table_grows_by_a_seed_at_a_time(plan, tmp_path):
    "seeds of the same code stand beside each other, whenever they were published; those of older code make room"
    def published_seed(seed):
        shutil.copytree(plan.folder, tmp_path / f"seed{seed}", ignore=shutil.ignore_patterns("models"))
        for p in (tmp_path / f"seed{seed}/results").glob(f"*seed{1 - seed}-*.json"): p.unlink()
        record = read_json(tmp_path / f"seed{seed}/record.json")
        write_json(tmp_path / f"seed{seed}/record.json", record | dict(seeds=[seed], plan=record["plan"] | dict(seeds=[seed])))
        cards.publish_run(read_plan(tmp_path / f"seed{seed}"), tmp_path / "published")
        return published_report(tmp_path / "published", "tiny")
    assert published_seed(0).plan.seeds == (0,)
    grown = published_seed(1)
    assert grown.plan.seeds == (0, 1)
    whole, t = report_of(plan).tables["gates.frozen"]["frozen"], grown.tables["gates.frozen"]["frozen"]
    pd.testing.assert_frame_equal(t, whole)
    saved = pd.read_csv(tmp_path / "published/gates/tiny.frozen.csv")
    assert (saved.seeds == "0 1").all() and np.allclose(saved.ours, whole.ours, atol=1e-4)
    path = tmp_path / "published/tiny.results.jsonl"
    record, results = read_results(path)
    write_results(path, record, {n: r | dict(key="row-of-old-code") for n, r in results.items()})
    shutil.rmtree(tmp_path / "seed1")
    assert set(published_seed(1).tables["gates.frozen"]["frozen"].seeds) == {"1"}

def test_nothing_worse_takes_the_place_of_what_was_published(plan, work, tmp_path):
    "a measurement that failed, or whose code has changed since, and pictures that nobody measured anew"
    shutil.copytree(work / "published", tmp_path / "published")
    path = tmp_path / "published/tiny.results.jsonl"
    before, pictures = published_report(tmp_path / "published", "tiny"), {p: p.read_bytes() for p in path.parent.rglob("*.png")}
    for name, change in dict(failed=dict(state="failed", why="no memory"), old=dict(key="row-of-old-code")).items():
        shutil.copytree(plan.folder, tmp_path / name, ignore=shutil.ignore_patterns("models"))
        for p in (tmp_path / name / "results").glob("*.json"): write_json(p, read_json(p) | change)
        for p in (tmp_path / name / "figures").rglob("*.png"): p.write_bytes(b"drawn by something else")
        cards.publish_run(read_plan(tmp_path / name), tmp_path / "published")
        after = published_report(tmp_path / "published", "tiny")
        assert after.results == before.results and after.states == before.states, name
        assert {p: p.read_bytes() for p in path.parent.rglob("*.png")} == pictures, name

@pytest.mark.parametrize("what, change", [("preset", dict(preset="cpu")), ("changes", dict(changes=dict(SMALL, epochs=2))), ("frames data", dict(prints=dict(frames="other"))), ("truth", dict(truth="masks"))])
def test_what_cannot_stand_beside_published_results_is_refused(plan, work, tmp_path, what, change):
    "before it is measured, and before anything is written"
    shutil.copytree(work / "published", tmp_path / "published")
    path = tmp_path / "published/tiny.results.jsonl"
    record, results = read_results(path)
    write_results(path, record | dict(plan=record["plan"] | change), results)
    before = {p: p.read_bytes() for p in (tmp_path / "published").rglob("*.*")}
    message(lambda: cards.publish_run(plan, tmp_path / "published"), "tiny.results.jsonl", f"other {what}", "another folder")
    def again(): runner.reproduce(("gates.roc",), plan.frames, out=tmp_path, name="again", device="cpu", publish=tmp_path / "published", seeds=(0, 1), **SMALL)
    message(again, f"other {what}")
    assert not list((tmp_path / "again/results").glob("*.json"))
    assert {p: p.read_bytes() for p in (tmp_path / "published").rglob("*.*")} == before

def test_a_published_file_without_a_plan(work, tmp_path):
    shutil.copytree(work / "published", tmp_path / "published")
    path = tmp_path / "published/tiny.results.jsonl"
    write_results(path, {}, read_results(path)[1])
    message(lambda: published_report(tmp_path / "published", "tiny"), "tiny.results.jsonl", "plan")

def test_a_card_says_how_it_is_measured_again(plan):
    assert cards.asked_for(plan, "frames").startswith(" --size 16 16 --width 2")
    asked = replace(plan, truth="masks", partial=True, changes=dict(channels_last=False, test_update="never"), normal=("Walk", "Sit"))
    assert cards.asked_for(asked, "frames") == " --truth masks --partial --no-channels-last --test-update never"
    assert cards.asked_for(asked, "clips") == " --normal Walk --normal Sit"

def test_every_entry_has_a_state(plan):
    states = {n: s["state"] for n, s in report_of(plan).states.items()}
    asked = [n for n in ENTRIES if n in SOME or n.startswith("gates")]
    rest = dict(mnad="unfinished", beyond="never run")
    assert all(states[n] == ("measured" if n in asked else rest.get(n.partition(".")[0], "missing data"))
               for n in ENTRIES if n != "beyond.transfer"), states
    assert states["beyond.transfer"] == "missing data" # a second dataset
    said = runner.catalogue(plan.frames, name="run", out=plan.folder.parent, device="cpu", seeds=(0, 1), **SMALL)
    assert re.search(r"gates\.roc .* measured +[\d.]+ +[\d.]+ \[[\d.]+ to [\d.]+\] +0 1", said) and "mnad.table2" in said
    assert f"{sum(e.half == 'clips' for e in ENTRIES.values()) + 1} missing data" in said # all of clips, and beyond.transfer

def test_a_result_holds_what_a_table_needs(plan):
    found = measured_in(plan)["row-gates-seed1"]
    line, = found["lines"]
    assert (found["seed"], found["preset"], len(line["draws"])) == (1, "quick", 1000) and found["versions"]["torch"] and found["finished"] >= found["started"]
    assert found["train_seconds"] > 0 and found["score_seconds"] > 0 and found["machine"] and line["low"] <= line["auc"] <= line["high"]

def test_the_table_has_published_and_ours(plan, work):
    t = pd.read_csv(work / "run/figures/gates/tiny.frozen.csv").set_index("row")
    assert t.published.dropna().to_dict() == {"predict with memory": 92.89, "attention gates": 93.79} and len(t) == 3
    assert t.ours.between(0, 100).all() and t.sd.notna().all() and (t.low <= t.ours).all() and (t.ours <= t.high).all() and (t.seeds == "0 1").all()
    np.testing.assert_allclose(t.difference.dropna(), (t.ours - t.published).dropna(), atol=2e-4)
    lines = lines_of(measured_in(plan), "row").query("key == 'gates'")
    assert abs(t.ours["attention gates"] - lines.auc.mean()) < 1e-3
    latex = (work / "run/figures/gates/tiny.frozen.tex").read_text()
    assert f"attention gates & 93.8 & {t.ours['attention gates']:.1f} \u00b1 " in latex and latex.count("\\\\") >= 4

def test_one_row_has_one_number(plan):
    "prediction with memory is the same row in both papers, on all seeds that were trained"
    assert set(table(plan, "mnad.table1", "table1").set_index("row").loc["predict with memory", ["ours", "seeds"]]) == \
        set(table(plan, "gates.roc", "table").set_index("row").loc["predict with memory", ["ours", "seeds"]])

def test_ours_is_what_the_scores_say(plan, work):
    from sklearn.metrics import roc_auc_score
    for r in measured_in(plan).values():
        scores = pd.read_csv(work / "run/models" / r["lines"][0]["folder"] / "scores.csv")
        assert abs(r["lines"][0]["auc"] - 100 * roc_auc_score(scores.label, 1 - scores.regularity)) < 1e-2

def test_papers_share_models(plan, work):
    "baseline and full prediction are the same run: three rows with two seeds, one more row for the figure of items"
    assert len(list((work / "run/models").iterdir())) == 7 == len(measured_in(plan))

def test_figures_stand_beside_their_tables(plan, work):
    pictures = sorted((work / "run/figures").glob("*/*.png"))
    assert {p.name.split(".")[1] for p in pictures} >= {"scores", "frames", "tsne", "table", "roc", "confusion", "comparison", "frozen"}
    for p in pictures: assert p.read_bytes()[:4] == b"\x89PNG" and len(pd.read_csv(p.with_suffix(".csv"))) > 0, p
    copies = sorted(p.relative_to(work / "published") for p in (work / "published").glob("*/*"))
    assert copies == sorted(p.relative_to(work / "run/figures") for p in (work / "run/figures").rglob("*") if p.is_file())

def test_pictures_say_their_seeds(plan, work):
    "the ROC shows each seed of its table, and a picture of one model says which"
    drawn = set(pd.read_csv(work / "run/figures/gates/tiny.roc.csv").run)
    assert drawn == {f"{name}, seed {k}" for name in ("predict with memory", "attention gates") for k in (0, 1)}
    assert set(pd.read_csv(work / "run/figures/mnad/tiny.scores.csv").run) == {"predict with memory, seed 0"}

def test_executed_notebooks_are_clean(plan, work):
    for path in (work / f"run/{paper}.ipynb" for paper in ("mnad", "gates")):
        nb = nbformat.read(path, 4)
        given = next(c.source for c in nb.cells if "injected-parameters" in c.metadata.get("tags", []))
        assert '"epochs": 1' in given
        outputs = [o for c in nb.cells if c.cell_type == "code" for o in c.outputs]
        assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"], path
        assert sum("image/jpeg" in o.get("data", {}) for o in outputs) >= 2

def test_an_executed_notebook_is_a_page_too(plan, work):
    "it stands alone: pictures inside, nothing loaded, no link that leads out of the folder"
    page, _, words = read_page(work / "run", "gates")
    assert page.links == [] and not [w for w in ("http", "<script", "@import") if w in words]
    assert "Attention gates" in words and page.pictures >= 2

def test_the_record(plan, work, tiny):
    record = read_json(work / "run/record.json")
    assert record["preset"] == "quick" and record["seeds"] == [0, 1] and record["data"]["name"] == "tiny" and record["plan"]["changes"]["width"] == 2
    assert record["settings"]["frames"]["width"] == 2
    assert 0 < record["peak_memory_gb"] < record["machine"]["memory_gb"] and str(tiny) not in json.dumps(record)
    published, results = read_results(work / "published/tiny.results.jsonl")
    assert published["settings"] == record["settings"] and results == measured_in(plan)

def test_the_page_can_be_written_again(plan, work, tmp_path):
    "from the folder alone, and what another dataset left there stays out"
    shutil.copytree(work / "run", tmp_path / "run", ignore=shutil.ignore_patterns("models"))
    for p in (tmp_path / "run/figures").glob("*/tiny.*"): shutil.copyfile(p, p.with_name(p.name.replace("tiny", "another")))
    for p in (tmp_path / "run/figures").glob("*/another.*.csv"): pd.read_csv(p).assign(dataset="another", ours=1.).to_csv(p, index=False)
    write_page(read_plan(tmp_path / "run"))
    assert (tmp_path / "run/summary.html").read_text() == (work / "run/summary.html").read_text()

def changed(folder):
    "dates of all that a second call must leave alone"
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.suffix in (".safetensors", ".ipynb", ".png") or p.parent.name == "results" and p.suffix == ".json"}

def test_a_second_call_does_nothing_again(plan, work, tiny):
    before = changed(work / "run")
    runner.reproduce(SOME, tiny, seeds=(0, 1), jobs=2, name="run", out=work, device="cpu", **SMALL)
    assert changed(work / "run") == before and len(before) > 20

def test_a_row_stands_on_every_seed(plan, work, tiny, tmp_path):
    "an entry that is asked for again with fewer seeds keeps the number of all that were trained; a seed more joins it"
    shutil.copytree(work / "run", tmp_path / "run")
    def again(seeds): return runner.reproduce(("gates.frozen",), tiny, seeds=seeds, jobs=1, name="run", out=tmp_path, device="cpu", **SMALL)
    was = report_of(plan)
    now = report_of(again((0,)))
    same = [r.tables["gates.frozen"]["frozen"] for r in (now, was)]
    assert same[0].equals(same[1]) and now.states["gates.roc"] == was.states["gates.roc"]
    shutil.rmtree(tmp_path / "run/results")
    now = report_of(again((1,)))
    assert set(now.tables["gates.frozen"]["frozen"].seeds) == {"1"} and len(list((tmp_path / "run/models").iterdir())) == 7
    assert now.states["gates.roc"]["state"] == "unfinished" # it was asked for with two seeds

@pytest.mark.parametrize("years", [-1, 1])
def test_dates_say_nothing_about_what_was_drawn(plan, work, tiny, tmp_path, years):
    "a clock that is ahead, here or where the files lie: what is there is not drawn again, what is not there is"
    shutil.copytree(work / "run", tmp_path / "run")
    for p in (tmp_path / "run").rglob("*"): os.utime(p, (time.time() + years * 365 * 86400,) * 2)
    def call(): runner.reproduce(("gates.metrics",), tiny, seeds=(0, 1), jobs=1, name="run", out=tmp_path, device="cpu", **SMALL)
    notebook, made = tmp_path / "run/gates.ipynb", tmp_path / "run/figures/gates/tiny.metrics.csv"
    before = notebook.read_bytes()
    call()
    assert notebook.read_bytes() == before
    made.unlink()
    call()
    assert notebook.read_bytes() != before and made.exists()


# ---- keys

def test_what_shapes_a_result_outdates_it(plan, tmp_path):
    "other code, settings or data: a new key; where it runs: the same"
    m = needed(ENTRIES["mnad.scores"], plan)[0]
    assert key_of(m, plan) == key_of(m, replace(plan, device="cuda", folder=tmp_path, seeds=(7,)))
    for other in (dict(changes=plan.changes | dict(width=4)), dict(prints=dict(frames="other")), dict(preset="cpu")):
        assert key_of(m, replace(plan, **other)) != key_of(m, plan)

@pytest.mark.parametrize("file, more, same", [
    ("models/memory.py", b"\n# a comment\n", True), ("models/memory.py", b"\nx = 1\n", False), ("kernels/rank_areas.py", b"\nx = 1\n", False),
    ("data/frame_cache.py", b"\nx = 1\n", False), ("data/labels.py", b"\nx = 1\n", False), ("core/devices.py", b"\nx = 1\n", False),
    ("core/plot.py", b"\nx = 1\n", True), ("core/errors.py", b"\nx = 1\n", True), ("reproduce/report.py", b"\nx = 1\n", True)])
def test_which_code_outdates_a_result(plan, monkeypatch, file, more, same):
    "a formula does, wherever it stands behind the row; a comment, a picture, a message and the page do not. A picture's own key knows what draws it"
    m, real = needed(ENTRIES["mnad.scores"], plan)[0], Path.read_bytes
    was, results = plan_key(plan, m), results_in(plan)
    drawn = runner.drawing_key(ENTRIES["mnad.scores"], plan, results)
    monkeypatch.setattr(Path, "read_bytes", lambda p: real(p) + (more if p == Path(vad.__file__).parent / file else b""))
    modules_behind.cache_clear()
    now, redrawn = key_of(m, plan), runner.drawing_key(ENTRIES["mnad.scores"], plan, results)
    monkeypatch.undo()
    modules_behind.cache_clear()
    assert (now == was) == same and (redrawn == drawn) == (same and file != "core/plot.py")

def plan_key(plan, m): return read_json(next((plan.folder / "results").glob(f"{m.name}-*.json")))["key"]

def test_seeds_of_other_code_are_not_averaged_in(plan, work, tmp_path):
    "a result of another key is left out where the row has a current one"
    shutil.copytree(work / "run", tmp_path / "run", ignore=shutil.ignore_patterns("models", "figures"))
    path = next((tmp_path / "run/results").glob("row-gates-seed1-*.json"))
    old = path.with_name("row-gates-seed1-00000000.json")
    write_json(old, read_json(path) | dict(key=old.stem))
    path.unlink()
    results = results_in(read_plan(tmp_path / "run"))
    assert "row-gates-seed1" not in results and results["row-gates-seed0"]["state"] == "finished"
    next((tmp_path / "run/results").glob("row-gates-seed0-*.json")).unlink()
    assert results_in(read_plan(tmp_path / "run"))["row-gates-seed1"]["state"] == "outdated" # nothing newer: shown, and said so


# ---- claims

def test_a_verdict_does_not_reward_imprecision():
    assert [verdict(97, *ends) for ends in ((95, 98), (91, 97), (90, 98), (90, 96.9), (np.nan, 98))] == ["within", "within", "undecided", "outside", ""]

def test_synthetic_data_is_not_compared():
    "neither a published column nor a difference"
    t = pd.DataFrame([dict(row="predict with memory", published=97., ours=90., sd=np.nan, seeds="0", low=88., high=92., difference=-7., fps=1.)])
    assert not {"published", "difference", "verdict"} & set(as_text(t, "walkway")) and {"published", "difference", "verdict"} <= set(as_text(t, "ped2"))
    assert published("mnad.table1", "walkway").value.isna().all()

def test_rows_of_tables_are_rows():
    "every key in tables.csv is measured by something, and every row that is published for UCSD Ped2 has a key"
    every = {*rows("quick"), *VARIANTS, *MODELS}
    for e in ENTRIES.values():
        if e.half != "frames": continue
        assert set(e.needs) <= set(every), e.name
        t = published(e.name, "ped2").query("metric in ('frame_auc', 'gain')")
        for needs in t.needs: assert needs and set(needs.split()) <= set(e.needs), (e.name, needs)

@pytest.mark.parametrize("data, beside", [("avenue", 88.5), ("mine", 97.), ("avenue_part", None), ("walkway", None)])
def test_a_part_of_a_dataset_has_nothing_published_beside_it(data, beside):
    "own videos have Ped2's values for orientation; a part of what a paper measured is not that"
    value, = published("mnad.table1", data).query("row == 'predict with memory'").value
    assert np.isnan(float(value)) if beside is None else float(value) == beside

def test_published_figures_are_as_measured():
    "what was measured is the mean of its seeds, and the lines that were carried over say what the published tables said"
    ped2, fights = (published_report(Path(vad.__file__).parents[1] / "figures", name) for name in ("ped2", "fights"))
    lines = lines_of(ped2.results, "row")
    t = ped2.tables["gates.frozen"]["frozen"].set_index("row")
    for row, key in {"predict with memory": "predict-full", "attention gates": "gates", "attention gates, frozen as published": "gates-frozen"}.items():
        mine = lines[lines.key == key]
        assert sorted(mine.seed) == [0, 1, 2] and t.seeds[row] == "0 1 2" and t.ours[row] == pytest.approx(mine.auc.mean()) and t.sd[row] == pytest.approx(mine.auc.std())
    assert t.ours.round(1).to_dict() == {"predict with memory": 93.4, "attention gates": 94.7, "attention gates, frozen as published": 94.5}
    t = ped2.tables["mnad.table2"]["table2"].set_index("row")
    assert set(t.seeds) == {"0 1 2"} and len(t) == 14
    one = t.loc["predict: memory with compactness only"]
    assert (one.ours.round(4), one.low.round(4)) == (91.5205, 86.5686)
    gained, mean = ped2.tables["mnad.table2"]["gains"].set_index("row"), lines.groupby("key").auc.mean()
    assert gained.ours["predict: full over no memory"] == pytest.approx(mean["predict-full"] - mean["predict-no_memory"])
    t = fights.tables["srupp.table2_binary"]["table2_binary"].set_index("row").round(4)
    assert (t.by_source["ResNet50 + SRU"], t.by_source_sd_folds["ResNet50 + SRU"], t.as_published["resnet50: linear"]) == (75.9899, 7.1804, 89.6667)
    crime = published_report(Path(vad.__file__).parents[1] / "figures", "ucf_crime").tables
    t = crime["srupp.archive_group_frames"]["archive_group_frames"].set_index("row").round(1)
    assert t.loc["SRU++ on changes, top segments", ["all", "normal_group"]].tolist() == [81.3, 61.7]
    crime = crime["srupp.archive_groups"]
    t = crime["archive_groups"].set_index("row").round(1)
    assert (t.official_balanced["the group alone, found without labels"], t.official_balanced["SRU++"], t.inside_balanced["SRU++"]) == (95.3, 90.6, 56.9)
    assert set(crime["archive_group_classes"].second_group) == {0, 100} # no class lies in both
    trained = seconds_spent(results_for(ENTRIES["gates.roc"], ped2.plan, ped2.results))[0]
    assert trained == pytest.approx(lines[lines.key.isin(("predict-full", "gates"))].train_seconds.sum())


# ---- beyond the papers

@pytest.fixture(scope="module")
def beyond_plan(work):
    "the speed detector beside the papers' models on a small walkway, and on a second one"
    data, other = (write_walkway(work / name, seed, train=2, test=2, train_frames=40, test_frames=60) for seed, name in enumerate(("near", "far")))
    return runner.reproduce(("beyond",), data, other=other, jobs=2, name="beyond", out=work, device="cpu", **SMALL)

def test_beyond_the_papers(beyond_plan, work):
    "all tables, on data that is rendered here; controls beside; a second call finds all"
    tables = {n: t for n, t in report_of(beyond_plan).tables.items() if n.startswith("beyond")}
    assert set(tables) == {f"beyond.{n}" for n in ("headline", "practice", "ingredients", "transfer", "fusion")}
    t = tables["beyond.headline"]["headline"].set_index("row")
    assert list(t.index[:2]) == ["speed detector, mean of 5 frames", "speed detector, frame by frame"] and len(t) == 7
    assert t.micro.between(0, 100).all() and (t.low <= t.micro).sum() == 4 and t.recall.notna().sum() == 4
    assert len(tables["beyond.ingredients"]["ingredients"]) == 6 and set(tables["beyond.transfer"]["transfer"].scored) == {"far"}
    practical = tables["beyond.practice"]["practice"]
    assert len(practical) == 4 and practical.events.gt(0).all() and practical.caught.between(0, 100).all()
    for practical in (practical, tables["beyond.transfer"]["transfer_practice"]):
        np.testing.assert_allclose(practical.per_hour, 60 * practical.alarms / practical.minutes)
        assert practical.in_alarm.between(0, 100).all()
    fusion = tables["beyond.fusion"]["fusion"]
    np.testing.assert_allclose(fusion.gain, fusion.fused - fusion.speed)
    assert (fusion.low <= fusion.gain).all() and (fusion.gain <= fusion.high).all()
    for name in ("headline", "practice", "ingredients", "transfer", "transfer_practice", "fusion"): assert (work / f"beyond/figures/beyond/walkway.{name}.csv").exists()
    assert all(s["state"] == "measured" for n, s in report_of(beyond_plan).states.items() if n.startswith("beyond"))
    page, text, words = read_page(work / "beyond")
    assert "flow speed" in words and "transferred" in words and str(work) not in text

def test_a_page_on_data_that_a_paper_has_measured(beyond_plan, plan, work):
    "tables without published values stand beside those with"
    for p in (beyond_plan, plan):
        r = report_of(p)
        named = replace(r, record=r.record | dict(data=r.record["data"] | dict(name="ped2")))
        (p.folder / "named.html").write_text(make_page(named))
        words = read_page(p.folder, "named")[2]
        assert ("transferred" in words) == (p is beyond_plan) and "nan" not in words

def test_the_second_dataset_shapes_the_transfer_alone(beyond_plan, work):
    moved = replace(beyond_plan, prints=beyond_plan.prints | dict(other="another"))
    assert key_of(Measurement("transfer", ("speed",), 0), moved) != key_of(Measurement("transfer", ("speed",), 0), beyond_plan)
    assert key_of(Measurement("detector", ("speed",), 0), moved) == key_of(Measurement("detector", ("speed",), 0), beyond_plan)
    message(lambda: runner.reproduce(("beyond.transfer",), beyond_plan.frames, out=work / "none"), "needs a second dataset")


# ---- the half on clips

CLIPS = ("embeddings", "srupp.leaks", "srupp.table1", "srupp.table2_binary", "srupp.curves", "srupp.decisions")

@pytest.fixture(scope="module")
def clips_plan(work):
    "a run over entries of both papers on clips"
    write_scenes(work / "street", cameras=6, frames=8, size=(48, 64))
    write_scenes(work / "yard", cameras=3, frames=8, size=(48, 64), seed=7)
    return runner.reproduce(CLIPS, clips=work / "street", other=work / "yard", jobs=2, name="clips", out=work, device="cpu", publish=work / "published clips", classifier=dict(epochs=2))

def test_clips_have_a_page_of_their_own(clips_plan, work):
    page, text, words = read_page(work / "clips")
    assert page.links[:2] == ["embeddings.html", "embeddings.ipynb"] and "srupp.html" in page.links and page.pictures >= 5
    for word in ("Clips of street", "ResNet50 + SRU++ + cluster weighting", "as published", "by source", "randomly initialised", "orientation only", "majority", "shuffled",
                 "18 normal", "6 source videos", "eleven experiments"): assert word in words, word
    assert str(work) not in text and "Frames of" not in text and "nan" not in words
    assert "srupp.table2_binary" in runner.in_short(clips_plan)

def test_what_was_trained_on_one_dataset_is_tested_on_the_other(clips_plan, work):
    t = pd.read_csv(work / "clips/figures/embeddings/street.transfer.csv")
    assert set(zip(t.trained_on, t.tested_on)) == {("street", "yard"), ("yard", "street")} and set(t.classifier) == {"SRU++", "linear", "nearest"}
    folder = next((clips_plan.folder / "models").glob("clip_transfer-*"))
    for row in t[t.classifier == "SRU++"].itertuples():
        said = pd.read_csv(folder / f"on {row.trained_on}/predictions.csv")
        assert said.video.str.startswith(f"{row.tested_on}/").all() # no clip of its own dataset
        assert abs(row.accuracy - 100 * ((said["plain anomalous"] > .5) == (said.label == "anomalous")).mean()) < 1e-3
    message(lambda: runner.reproduce(("embeddings.transfer",), clips=work / "street", out=work / "none"), "needs a second dataset")

def test_what_is_published_without_the_second_dataset_keeps_it(clips_plan, work):
    alone = replace(clips_plan, other=None, prints={k: v for k, v in clips_plan.prints.items() if k != "other"})
    both = with_published(report_of(alone), work / "published clips/street.results.jsonl")
    assert (both.plan.other, both.plan.prints) == ("yard", clips_plan.prints) and both.states["embeddings.transfer"] == dict(state="measured")

def test_groups_of_embeddings_are_worth_what_their_majorities_are(clips_plan, work):
    "each clip of a source that is tested has the class that most training clips of its group have"
    t = pd.read_csv(work / "clips/figures/embeddings/street.groups.csv").set_index("method")
    assert list(t.index) == list(EMBEDDED_BY["quick"]) and t.notna().all(axis=None)
    for name in ("group", "feature", "nearest", "linear"): assert (t[f"{name}_low"] <= t[name]).all() and t[name].between(0, t[f"{name}_high"]).all()
    for method in t.index:
        clips = embedded(clips_plan, method)
        group, said = feature_groups(clips), np.full(len(clips), -1)
        for train, test in split_clips(clips, SplitSettings("source", "none", 3), 42):
            majority = [np.bincount(clips.labels[train][group[train] == g], minlength=len(clips.classes)).argmax() for g in (0, 1)]
            said[test] = np.where(np.isin(group[test], group[train]), np.array(majority)[group[test]], np.bincount(clips.labels[train]).argmax())
        hits = pd.Series(said == clips.labels).groupby(clips.labels).mean()
        assert t.group[method] == pytest.approx(100 * hits.mean(), abs=1e-3)

def run_of(plan, row, under, fold):
    "the folder of one training"
    t = lines_of(measured_in(plan), "pipeline")
    return plan.folder / "models" / t[(t.row == row) & (t.protocol == under) & (t.fold == fold)].run.iloc[0]

def test_clips_accuracy_is_what_the_predictions_say(clips_plan, work):
    t = pd.read_csv(work / "clips/figures/srupp/street.table2_binary.csv").set_index("row")
    for row, into, kind in (("CNN + SRU", "by_source", "plain"), ("ResNet50 + SRU++ + cluster weighting", "as_published", "weighted")):
        hits = []
        for fold in range(3):
            said = pd.read_csv(run_of(clips_plan, row, into, fold) / "predictions.csv")
            hits.append(((said[f"{kind} anomalous"] > .5) == (said.label == "anomalous")).mean())
        assert abs(t[into][row] - 100 * np.mean(hits)) < 1e-3 and abs(t[f"{into}_sd_folds"][row] - 100 * np.std(hits, ddof=1)) < 1e-3
    assert t.published["CNN + SRU++"] == 88.69 and np.isnan(t.published["cnn: majority"]) and abs(t.by_source["cnn: majority"] - 50) < 15

def test_no_source_was_trained_on_and_tested(clips_plan, work):
    "read back from the files of the runs"
    films = pd.read_csv(work / "street/sources.csv").set_index("clip").source
    tested = []
    for fold in range(3):
        said = pd.read_csv(run_of(clips_plan, "ResNet50 + SRU++", "by_source", fold) / "predictions.csv")
        assert (said.video.map(films) == said.source).all() and not said.video.str.contains("mirrored").any()
        tested.append(set(said.source))
    assert sum(map(len, tested)) == len(set.union(*tested)) == 6
    leaks = pd.read_csv(work / "clips/figures/srupp/street.leaks.csv").set_index("protocol")
    assert leaks.same_source.by_source == leaks.mirror_image.by_clip == 0 and leaks.mirror_image.as_published > 40 and leaks.same_source.by_clip > 80

def test_clips_figures_stand_beside_their_tables(clips_plan, work):
    pictures = sorted((work / "clips/figures").glob("*/*.png"))
    assert {p.parent.name for p in pictures} == {"embeddings", "srupp"} and len(pictures) >= 5
    for p in pictures: assert p.read_bytes()[:4] == b"\x89PNG" and len(pd.read_csv(p.with_suffix(".csv"))) > 0, p
    assert sorted(p.name for p in (work / "published clips").glob("*/*.*")) == sorted(p.name for p in (work / "clips/figures").rglob("*.*"))

def test_clips_notebooks_are_clean(clips_plan, work):
    for path in (work / f"clips/{paper}.ipynb" for paper in ("embeddings", "srupp")):
        outputs = [o for c in nbformat.read(path, 4).cells if c.cell_type == "code" for o in c.outputs]
        assert outputs and not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"], path

def test_an_experiment_is_a_measurement(clips_plan):
    m = next(m for m in measuring_order([ENTRIES["srupp.experiments"]], clips_plan) if m.name == "experiment-09-seed0")
    found = runner.measure_once(m, clips_plan, key_of(m, clips_plan))
    assert found["state"] == "finished" and found["lines"][0]["row"] == "ResNet50 + SRU 10 epochs"
    assert state_of(clips_plan, "srupp.experiments")["state"] == "unfinished"
    assert list((clips_plan.folder / "models" / found["key"]).glob("resnet50-sru-1-by_source/model.safetensors"))

@pytest.mark.parametrize("given, words", [(dict(epochs=0), "epochs"), (dict(hiden=3), "hiden"), (dict(preset="huge"), "huge")])
def test_settings_of_a_study_that_cannot_be(tmp_path, given, words):
    preset = given.pop("preset", "quick")
    message(lambda: runner.begin("srupp", str(tmp_path), preset, [0], "cpu", str(tmp_path / "out"), changes=given), words)

def test_the_normal_class_can_be_named(tmp_path):
    "of folders whose names say nothing: the plan, its jobs and the record of the run keep it, and another choice is another key"
    write_scenes(tmp_path / "street", cameras=3, frames=6, size=(48, 64))
    for old, new in zip(sorted(p for p in (tmp_path / "street").iterdir() if p.is_dir()), ("east", "west", "north")): old.rename(tmp_path / "street" / new)
    (tmp_path / "street/sources.csv").unlink(missing_ok=True)
    def made(**given): return runner.make_plan(None, tmp_path / "street", out=tmp_path, device="cpu", **given)
    message(made, "--normal")
    west, east = made(normal=("west",)), made(normal=("east",))
    assert west.normal == ("west",)
    one = Measurement("leaks")
    assert key_of(one, west) != key_of(one, east)
    assert runner.begin("srupp", west.clips, "quick", [0], "cpu", str(tmp_path / "paper"), normal=["west"]).data.normal == "west"
    message(lambda: runner.make_plan("", normal=("west",), out=tmp_path, device="cpu"), "--clips")

def test_clips_that_are_no_clips(tiny, tmp_path):
    message(lambda: runner.reproduce(clips=tmp_path / "none", out=tmp_path / "runs"), "none")
    message(lambda: runner.reproduce(("srupp.table1",), tiny, out=tmp_path / "runs"), "needs a folder of clips")
    assert not (tmp_path / "runs").exists()


# ---- what goes wrong

def test_mistakes_are_found_before_anything_is_trained(tiny, tmp_path):
    message(lambda: runner.reproduce(data=tmp_path / "none", out=tmp_path / "runs"), "none")
    message(lambda: runner.reproduce(data=tiny, preset="huge", out=tmp_path / "runs"), "huge")
    message(lambda: runner.reproduce(("some",), tiny, out=tmp_path / "runs"), "some")
    message(lambda: runner.reproduce(data=tiny, device="abacus", out=tmp_path / "runs"), "abacus")
    message(lambda: runner.reproduce(data=tiny, engine="abacus", out=tmp_path / "runs"), "abacus")
    message(lambda: runner.reproduce(data=tiny, out=tmp_path / "runs", widht=3), "widht")
    shutil.copytree(tiny, tmp_path / "bare", ignore=shutil.ignore_patterns("frame_labels*", "masks"))
    message(lambda: runner.reproduce(data=tmp_path / "bare", out=tmp_path / "runs"), "labels")
    message(lambda: read_plan(tmp_path), str(tmp_path), "vad reproduce")
    assert not (tmp_path / "runs").exists()

@pytest.mark.parametrize("given, words", [
    (dict(task="reconstruct"), "task is set by the rows"), (dict(memory=False), "memory is set by the rows"), (dict(attention="gate"), "attention is set by"),
    (dict(alpha=1.), "alpha is set by the rows"), (dict(threshold=.1), "threshold is set by"), (dict(address="tcp://host:1"), "--address is of a cluster"),
    (dict(normal=("quiet",)), "--clips"), (dict(classifier=dict(epochs=2)), "--clips")])
def test_what_would_be_ignored_is_refused(tiny, tmp_path, given, words):
    message(lambda: runner.reproduce(("mnad.runtime",), tiny, out=tmp_path / "runs", device="cpu", **given), words)
    assert not (tmp_path / "runs").exists()

@pytest.mark.parametrize("given", [dict(cell="gru"), dict(seed=5), dict(cell="sru", epochs=1)])
def test_what_rows_are_named_by_is_theirs(tmp_path, given):
    message(lambda: runner.make_plan(None, "", out=tmp_path / "runs", device="cpu", classifier=given), f"{next(iter(given))} is set by the rows")
    assert not (tmp_path / "runs").exists()

def test_two_datasets_of_one_name(tmp_path):
    for n in "ab": write_scenes(tmp_path / n / "data", cameras=2, takes=1, frames=4, size=(48, 64))
    message(lambda: runner.make_plan(None, tmp_path / "a/data", out=tmp_path / "runs", device="cpu", other=tmp_path / "b/data"), "b/data", "rename one")

def test_options_of_long_videos_are_not_for_clips(tmp_path):
    for given in (dict(epochs=7), dict(truth="masks"), dict(partial=True)):
        message(lambda: runner.make_plan(None, "", out=tmp_path / "runs", device="cpu", **given), next(iter(given)), "--data")
    assert not (tmp_path / "runs").exists()

def test_entries_without_data_are_no_success(tiny, tmp_path):
    message(lambda: runner.reproduce(("srupp",), tiny, out=tmp_path / "runs", device="cpu"), "needs a folder of clips")

def test_labels_of_one_kind_have_no_auc(tmp_path):
    write_walkway(tmp_path / "still", 0, (48, 64), 2, 4, 30, 40)
    path = next((tmp_path / "still").glob("frame_labels*.npy"))
    np.save(path, np.zeros_like(np.load(path)))
    message(lambda: runner.reproduce(("gates.roc",), tmp_path / "still", out=tmp_path / "runs", device="cpu", **SMALL), "labelled alike")

def test_one_name_and_two_datasets(tmp_path):
    "what was measured of the first is no part of the second's tables, though the folder keeps it"
    made = [write_walkway(tmp_path / f"{k}/cam", k, (48, 64), 2, 4, 30, 40) for k in (0, 1)]
    first, second = (runner.reproduce(("gates.roc",), data, jobs=1, name="run", out=tmp_path / "runs", device="cpu", **SMALL) for data in made)
    apart = runner.reproduce(("gates.roc",), made[1], jobs=1, name="apart", out=tmp_path / "runs", device="cpu", **SMALL)
    def found(plan): return {n: r["lines"][0]["auc"] for n, r in results_in(plan).items()}
    assert found(second) == found(apart) and found(first) != found(second) and found(first).keys() == found(second).keys()
    shorter = runner.make_plan(made[1], name="run", out=tmp_path / "runs", device="cpu", **SMALL | dict(epochs=2))
    assert results_in(shorter) == {} # of other settings

def test_a_call_that_leaves_data_out_loses_no_page(plan, tiny, tmp_path):
    shutil.copytree(plan.folder, tmp_path / "run", ignore=shutil.ignore_patterns("models", "figures"))
    write_scenes(tmp_path / "street", cameras=3, frames=6, size=(48, 64))
    message(lambda: runner.reproduce(("srupp.leaks",), clips=tmp_path / "street", name="run", out=tmp_path, device="cpu"), "--data", "--name")

def test_an_evaluation_on_other_data_is_not_drawn(plan, tmp_path):
    "a run that was evaluated elsewhere since then"
    where = plan.folder / "models" / lines_of(results_in(plan), "row").folder.iloc[0]
    shutil.copytree(where, tmp_path / "run")
    runner.validate_evaluation(tmp_path / "run", plan)
    facts = read_json(tmp_path / "run/metrics.json")
    write_json(tmp_path / "run/metrics.json", facts | dict(key=facts["key"] | dict(data="another")))
    message(lambda: runner.validate_evaluation(tmp_path / "run", plan), "other data", "vad evaluate")

def test_a_notebook_that_failed_has_drawn_nothing(plan, tmp_path, monkeypatch):
    "tables that the page has written stand already"
    shutil.copytree(plan.folder, tmp_path / "run")
    copy, entry = replace(plan, folder=tmp_path / "run"), ENTRIES["mnad.scores"]
    note = copy.folder / "entries/mnad.scores.json"
    assert read_json(note)["drawn"]
    note.unlink()
    monkeypatch.setattr(runner, "execute", lambda *_: "the kernel was killed")
    runner.draw_entries([entry], copy, dict(frames=open_dataset(plan.frames).name, clips=None))
    assert "drawn" not in read_json(note) and read_json(note)["why"] == "the kernel was killed"
    assert state_of(copy, entry.name)["state"] == "failed"

def test_the_second_dataset_is_of_the_half_that_transfers(beyond_plan, monkeypatch):
    given = []
    monkeypatch.setattr(runner, "execute", lambda source, target, parameters: given.append(parameters["other"]) or "not now")
    both = replace(beyond_plan, clips=str(beyond_plan.folder))
    for name in ("beyond.headline", "embeddings.methods"): runner.draw_paper(name.split(".")[0], [ENTRIES[name]], both)
    assert given == [both.other, ""] and both.other

def test_entries_of_one_seed_show_one(plan):
    "the eleven experiments, asked for with one seed and then with another"
    def said(seed): return dict(kind="experiment", state="finished", seed=seed, lines=[dict(row="CNN + SRU", number=1, epochs=50, as_published=50. + seed, by_source=40.)])
    both = {f"experiment-01-seed{k}": said(k) for k in (0, 1)}
    t = tables_of(ENTRIES["srupp.experiments"], both, "scenes", 1)["experiments"]
    assert t.as_published.tolist() == [51.]

def test_one_failure_is_not_the_others(tiny, tmp_path):
    "a row cannot be trained: its entries fail and say why, the others are measured; mended, only that row is done again"
    def call(): return runner.reproduce(("mnad.scores", "gates.frames"), tiny, jobs=2, name="run", out=tmp_path, device="cpu", **SMALL)
    blocked = run_folder(tmp_path / "run/models", settings("quick", attention="gate", **SMALL), open_dataset(tiny))
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    plan = call()
    states = {n: state_of(plan, n) for n in ("mnad.scores", "gates.frames")}
    assert [s["state"] for s in states.values()] == ["measured", "failed"] and list(runner.failures(plan, ("mnad.scores", "gates.frames"))) == ["gates.frames"]
    path = next((tmp_path / "run/results").glob("row-gates-seed0-*.json"))
    assert "row-gates-seed0 failed" in states["gates.frames"]["why"] and str(path) in states["gates.frames"]["why"]
    assert "trainer.py" in read_json(path)["trace"] and "failed" in read_page(tmp_path / "run")[1]
    blocked.unlink()
    other = next((tmp_path / "run/results").glob("row-predict-full-seed0-*.json"))
    before = other.stat().st_mtime_ns
    assert state_of(call(), "gates.frames")["state"] == "measured" and other.stat().st_mtime_ns == before

def steps(folder):
    "what each measurement of a run does now"
    return {p.stem: runner.last_step(p) for p in folder.glob("results/*.log")}

def test_a_live_view_names_what_runs(tiny, tmp_path):
    "the measurement and its step, read while it trains; one line for each that is done, and no carriage return"
    run = Apart(tmp_path, endless, tiny, tmp_path / "runs")
    run.wait_for(lambda: len(said := steps(tmp_path / "runs/run")) == 2 and all(s.startswith("epoch ") for s in said.values()))
    plan = read_plan(tmp_path / "runs/run")
    view = runner.View({k: Measurement("row") for k in steps(plan.folder)}, plan, 3)
    one = r"row-(gates|predict-full)-seed0 \(epoch \d+/100000[^)]*\)"
    assert re.fullmatch(f"3 of 5 done, running: {one}, {one}", said := view.say()), said
    run.kill(signal.SIGKILL).end()

def gone(processes, seconds=300):
    "until none of these processes runs any more; in a container nobody may wait for orphans"
    alive, until = processes, time.monotonic() + seconds
    while (alive := [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]) and time.monotonic() < until: time.sleep(.05)
    return not alive

def endless(root, out):
    "vad reproduce with a training that would take an hour"
    from vad import cli
    everything = runner.reproduce
    runner.reproduce = lambda *args, **kwargs: everything(*args, **kwargs | SMALL | dict(epochs=10**5))
    sys.argv = ["vad", "reproduce", "gates.roc", "--data", str(root), "--out", str(out), "--name", "run", "--device", "cpu", "--jobs", "2"]
    cli.run_command()

@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGKILL])
def test_stopped(tiny, tmp_path, sig):
    "nothing goes on behind one's back, and what was trained is saved"
    run = Apart(tmp_path, endless, tiny, tmp_path / "runs")
    run.wait_for(lambda: len(said := steps(tmp_path / "runs/run")) == 2 and all(s.startswith("epoch ") for s in said.values()))
    others = psutil.Process(run.process.pid).children(recursive=True)
    assert len(others) >= 2 # two workers
    said = run.kill(sig).end()
    if sig == signal.SIGINT: sentence(said, "stopped", code=130)
    assert gone(others)
    folders = list((tmp_path / "runs/run/models").iterdir())
    assert len(folders) == 2 and not (tmp_path / "runs/run/summary.html").exists()
    for folder in folders: assert (folder / "checkpoint.safetensors").exists() and not (folder / "model.safetensors").exists() and not list(folder.glob(".*.part*"))
    states = [read_json(p) for p in (tmp_path / "runs/run/results").glob("*.json")]
    assert len(states) == 2 and all(s["state"] in (("stopped",) if sig == signal.SIGINT else ("stopped", "running")) for s in states)

def descendants(pid):
    "a process's children and theirs"
    try: return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess: return []

@pytest.mark.parametrize("what", ["workers", "measurements"])
def test_killed_while_they_start(tiny, tmp_path, what):
    "whoever asked is dead before a worker can say that it is there, or just when it has begun: it ends by itself"
    run = Apart(tmp_path, endless, tiny, tmp_path / "runs")
    def worker(p):
        try: return "loky" in (said := " ".join(p.cmdline())) and "tracker" not in said
        except psutil.Error: return False # it is gone already
    begun = (lambda: any(map(worker, descendants(run.process.pid)))) if what == "workers" else lambda: list((tmp_path / "runs").glob("run/results/*.json"))
    run.wait_for(begun)
    others = descendants(run.process.pid)
    run.kill(signal.SIGKILL).end()
    assert len(others) >= 2 and gone(others)
    assert not list((tmp_path / "runs").glob("run/models/*/model.safetensors"))

def whole(root, out, held=False):
    "vad reproduce on two entries, one job at a time; held: it never gets through the second job"
    from vad import cli
    if held: hold(runner, "outcome", 2)
    everything = runner.reproduce
    runner.reproduce = lambda *args, **kwargs: everything(*args, **kwargs | SMALL)
    sys.argv = ["vad", "reproduce", "mnad.scores", "gates.roc", "--data", str(root), "--out", str(out), "--name", "run", "--device", "cpu", "--jobs", "1"]
    cli.run_command()

def test_killed_half_way(tiny, tmp_path):
    "the same command does only what was unfinished"
    done = lambda: [p for p in (tmp_path / "runs").glob("run/results/*.json") if read_json(p)["state"] == "finished"]
    run = Apart(tmp_path, whole, tiny, tmp_path / "runs", True).wait_for(lambda: len(done()) == 1)
    run.kill(signal.SIGKILL).end()
    (first,) = done()
    before, model = first.read_bytes(), next((tmp_path / "runs/run/models").glob("*/model.safetensors"))
    trained = model.stat().st_mtime_ns
    code, out, err = Apart(tmp_path, whole, tiny, tmp_path / "runs").end()
    assert code == 0 and "gates.roc" in out and re.search(r"^2 of 2 done: row-gates-seed0 finished in \d+ s$", err, re.M) and "\r" not in err, (code, out, err)
    assert first.read_bytes() == before and model.stat().st_mtime_ns == trained and len(done()) == 2

def test_a_cluster(plan, tiny, work, tmp_path):
    "two workers of Dask measure what two local processes measured"
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(vad.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1") as cluster:
        there = runner.reproduce(("gates.roc",), tiny, name="run", out=tmp_path, device="cpu", engine="dask", address=cluster.scheduler_address, **SMALL)
    here, ours = (lines_of(measured_in(p), "row").query("seed == 0 and key in ('gates', 'predict-full')").sort_values("key") for p in (plan, there))
    assert list(ours.auc) == list(here.auc)
    assert {r["pid"] for r in measured_in(there).values()}.isdisjoint({os.getpid()})

def test_the_commands_defaults_are_the_presets():
    "make run at its defaults means what the presets say"
    assert set(PRESETS) == {"quick", "cpu", "paper"} and settings("paper") == Settings() and settings("quick") == settings()
