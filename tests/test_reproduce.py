"The catalogue, executed on a tiny dataset: jobs, tables, figures, one page; and what happens when one of them cannot finish."
import json
import os
import re
import shutil
import signal
import sys
import time
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
from vad.reproduce import experiment, runner
from vad.reproduce.registry import ENTRIES, chosen, folder_of, jobs_of, key_of, read_entry
from vad.core.records import read_json, write_csv
from vad.data.datasets import open_dataset
from vad.training.trainer import PRESETS, settings
from vad.reproduce.report import read_plan, write_page
from vad.reproduce.ablation import run_folder
from vad.data.synthetic_clips import write_scenes

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
        self.pictures += tag == "img" and attrs["src"].startswith("data:image/png;base64,")
        if "id" in attrs: self.ids.add(attrs["id"])
        if tag in ("script", "link", "iframe"): self.links.append(tag)
        for v in (v for k, v in attrs.items() if k in ("src", "href") and not v.startswith("data:")): self.anchors.add(v[1:]) if v[0] == "#" else self.links.append(v)

def read_page(folder, name="summary"):
    text = (folder / f"{name}.html").read_text(encoding="utf-8")
    page = Outside()
    page.feed(text)
    assert page.anchors <= page.ids and all((folder / link).exists() for link in page.links)
    return page, text, re.sub('data:image/png;base64,[^"]+', "", text)

def test_the_page_stands_alone(plan, work, tiny):
    page, text, words = read_page(work / "run")
    assert page.links[:1] == ["mnad.ipynb"] and "gates.ipynb" in page.links and "jobs/gates-seed1/notebook.ipynb" in page.links
    assert not [w for w in ("http", "url(", "@import") if w in words] and page.pictures >= 9
    for word in ("paper versus ours", "published", "predict with memory", "attention gates, frozen as published", "causal", "orientation only", "seeds 0 1",
                 "frame index", "95 %", "unfinished: ", "missing data: needs a folder of clips", "never trained", "To beat"): assert word in words, word
    assert str(work) not in text and str(tiny) not in text and "nan" not in words

def test_the_published_page_leads_nowhere(plan, work):
    "pictures and words as in the run's own, no link to a notebook that stays behind"
    here, there = read_page(work / "run"), read_page(work / "published", "tiny")
    assert there[0].links == [] and there[0].pictures == here[0].pictures and there[0].anchors == here[0].anchors <= there[0].ids

def test_every_entry_has_a_state(plan):
    states = {n: read_entry(e, plan)["state"] for n, e in ENTRIES.items()}
    asked = [n for n in ENTRIES if n in SOME or n.startswith("gates")]
    assert all(states[n] == ("measured" if n in asked else "unfinished" if n.startswith("mnad") else "missing data") for n in ENTRIES), states
    said = runner.catalogue(plan.frames, name="run", out=plan.folder.parent, device="cpu", seeds=(0, 1), **SMALL)
    assert re.search(r"gates\.roc .* measured +[\d.]+ \[[\d.]+ to [\d.]+\] +0 1 +20\d\d-", said) and "mnad.table2" in said and "missing data" in said
    one = read_entry(ENTRIES["gates.roc"], plan)
    t = pd.read_csv(plan.folder / "figures/gates/tiny.table.csv").set_index("row").loc["attention gates"]
    assert (one["value"], one["low"], one["published"], one["seeds"]) == (t.ours, t.low, 93.79, [0, 1]) and one["seconds"] > 0 and one["machine"]

def test_the_table_has_published_and_ours(plan, work):
    t = pd.read_csv(work / "run/figures/gates/tiny.frozen.csv").set_index("row")
    assert t.published.to_dict() | {"attention gates, frozen as published": 0} == {"baseline": 92.89, "attention gates": 93.79, "attention gates, frozen as published": 0}
    assert t.ours.between(0, 100).all() and t.sd.notna().all() and (t.low <= t.ours).all() and (t.ours <= t.high).all() and (t.seeds == 2).all()
    np.testing.assert_allclose(t.difference.dropna(), (t.ours - t.published).dropna(), atol=2e-4)
    runs = pd.read_csv(work / "run/figures/gates/tiny.runs.csv")
    for name, mean in runs.groupby("row").auc.mean().items(): assert abs(t.ours[name] - mean) < 1e-3
    latex = (work / "run/figures/gates/tiny.frozen.tex").read_text()
    assert f"attention gates & 93.8 & {t.ours['attention gates']:.1f} \u00b1 " in latex and latex.count("\\\\") >= 4

def test_ours_is_what_the_scores_say(plan, work):
    from sklearn.metrics import roc_auc_score
    for folder in (work / "run/models").iterdir():
        scores = pd.read_csv(folder / "scores.csv")
        auc = roc_auc_score(scores.label, 1 - scores.regularity)
        assert abs(read_json(folder / "metrics.json")["regularity"]["auc_micro"] - auc) < 1e-4

def test_papers_share_models(plan, work):
    "baseline and full prediction are the same run: three rows with two seeds, one more row for the figure of items"
    assert len(list((work / "run/models").iterdir())) == 7

def test_figures_stand_beside_their_tables(plan, work):
    pictures = sorted((work / "run/figures").glob("*/*.png"))
    assert {p.name.split(".")[1] for p in pictures} >= {"scores", "frames", "tsne", "table", "roc", "confusion", "comparison", "frozen"}
    for p in pictures: assert p.read_bytes()[:4] == b"\x89PNG" and len(pd.read_csv(p.with_suffix(".csv"))) > 0, p
    copies = sorted(p.relative_to(work / "published") for p in (work / "published").glob("*/*"))
    assert copies == sorted(p.relative_to(work / "run/figures") for p in (work / "run/figures").rglob("*") if p.is_file())

def test_executed_notebooks_are_clean(plan, work):
    made = sorted((work / "run/jobs").glob("*/notebook.ipynb"))
    assert len(made) == 7
    for path in [*made, *(work / f"run/{paper}.ipynb" for paper in ("mnad", "gates"))]:
        nb = nbformat.read(path, 4)
        given = next(c.source for c in nb.cells if "injected-parameters" in c.metadata.get("tags", []))
        assert '"epochs": 1' in given
        outputs = [o for c in nb.cells if c.cell_type == "code" for o in c.outputs]
        assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"], path
        assert sum("image/jpeg" in o.get("data", {}) for o in outputs) >= 2

def test_the_record(plan, work, tiny):
    record = read_json(work / "run/record.json")
    assert record["preset"] == "quick" and record["seeds"] == [0, 1] and record["data"]["name"] == "tiny" and record["plan"]["changes"]["width"] == 2
    assert read_json(work / "run/figures/gates/tiny.record.json")["settings"]["width"] == 2
    assert 0 < record["peak_memory_gb"] < 3 and str(tiny) not in json.dumps(record)

def test_the_page_can_be_written_again(plan, work, tmp_path):
    "from the folder alone, and what another dataset left there stays out"
    shutil.copytree(work / "run", tmp_path / "run", ignore=shutil.ignore_patterns("models"))
    for p in (tmp_path / "run/figures").glob("*/tiny.*"): shutil.copyfile(p, p.with_name(p.name.replace("tiny", "another")))
    for p in (tmp_path / "run/figures").glob("*/another.*.csv"): pd.read_csv(p).assign(dataset="another", ours=1.).to_csv(p, index=False)
    write_page(read_plan(tmp_path / "run"))
    assert (tmp_path / "run/summary.html").read_text() == (work / "run/summary.html").read_text()

def changed(folder):
    "dates of all that a second call must leave alone"
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.suffix in (".safetensors", ".ipynb", ".png") or p.name in ("job.json", "metrics.json")}

def test_a_second_call_does_nothing_again(plan, work, tiny):
    before = changed(work / "run")
    runner.reproduce(SOME, tiny, seeds=(0, 1), jobs=2, name="run", out=work, device="cpu", **SMALL)
    assert changed(work / "run") == before and len(before) > 20

def test_entries_keep_their_own_seeds(plan, work, tiny, tmp_path):
    "one is asked for again with one seed: it changes, the others stand as they were measured"
    shutil.copytree(work / "run", tmp_path / "run")
    was = {n: read_entry(e, plan) for n, e in ENTRIES.items()}
    again = lambda seeds: runner.reproduce(("gates.frozen",), tiny, seeds=seeds, jobs=1, name="run", out=tmp_path, device="cpu", **SMALL)
    now = again((0,))
    for n in was.keys() - {"gates.frozen"}:
        if was[n]["state"] == "measured": assert read_entry(ENTRIES[n], now) == was[n], n
    found = read_entry(ENTRIES["gates.frozen"], now)
    assert (found["state"], found["seeds"]) == ("measured", [0]) and (pd.read_csv(tmp_path / "run/figures/gates/tiny.frozen.csv").seeds == 1).all()
    words = read_page(tmp_path / "run")[2]
    assert "seeds 0 1," in words and "seeds 0," in words
    now = again((0, 1))
    assert read_entry(ENTRIES["gates.frozen"], now)["value"] == was["gates.frozen"]["value"] and len(list((tmp_path / "run/jobs").iterdir())) == 7


@pytest.mark.parametrize("years", [-1, 1])
def test_dates_say_nothing_about_what_was_drawn(plan, work, tiny, tmp_path, years):
    "a clock that is ahead, here or where the files lie: what was written anew counts, what was there before does not"
    shutil.copytree(work / "run", tmp_path / "run")
    def dated():
        for p in (tmp_path / "run").rglob("*"): os.utime(p, (time.time() + years * 365 * 86400,) * 2)
    entry, there = ENTRIES["gates.metrics"], read_plan(tmp_path / "run")
    dated()
    assert runner.drawn(entry, there, "tiny")
    before = runner.left_by(entry, there, "tiny")
    assert not runner.drawn(entry, there, "tiny", before)
    table = tmp_path / "run/figures/gates/tiny.metrics.csv"
    write_csv(table, pd.read_csv(table))
    dated()
    assert runner.drawn(entry, there, "tiny", before)
    table.unlink()
    assert not runner.drawn(entry, there, "tiny", before)


# ---- the half on clips

CLIPS = ("embeddings", "srupp.leaks", "srupp.table1", "srupp.table2_binary", "srupp.curves", "srupp.decisions")

@pytest.fixture(scope="module")
def clips_plan(work):
    "a run over entries of both papers on clips"
    write_scenes(work / "street", cameras=6, frames=16, size=(48, 64))
    return runner.reproduce(CLIPS, clips=work / "street", jobs=2, name="clips", out=work, device="cpu", publish=work / "published clips")

def test_clips_have_a_page_of_their_own(clips_plan, work):
    page, text, words = read_page(work / "clips")
    assert page.links[0] == "embeddings.ipynb" and "srupp.ipynb" in page.links and page.pictures >= 5
    for word in ("Clips of street", "ResNet50 + SRU++ + cluster weighting", "as published", "by source", "drawn", "orientation only", "majority", "shuffled",
                 "18 normal", "6 source videos", "eleven experiments"): assert word in words, word
    assert str(work) not in text and "Frames of" not in text and "nan" not in words
    assert "srupp.table2_binary" in runner.in_short(clips_plan)

def test_clips_accuracy_is_what_the_predictions_say(clips_plan, work):
    t = pd.read_csv(work / "clips/figures/srupp/street.table2_binary.csv").set_index("row")
    for row, into, kind in (("CNN + SRU", "cnn-by_source/sru", "plain"), ("ResNet50 + SRU++ + cluster weighting", "resnet50-as_published/srupp", "weighted")):
        hits = []
        for fold in range(3):
            said = pd.read_csv(work / f"clips/models/binary/{into}-seed0-fold{fold}/predictions.csv")
            hits.append(((said[f"{kind} anomalous"] > .5) == (said.label == "anomalous")).mean())
        protocol = "by_source" if "source" in into else "as_published"
        assert abs(t[protocol][row] - 100 * np.mean(hits)) < 1e-3 and abs(t[f"{protocol}_sd_folds"][row] - 100 * np.std(hits, ddof=1)) < 1e-3
    assert t.published["CNN + SRU++"] == 88.69 and np.isnan(t.published["cnn: majority"]) and abs(t.by_source["cnn: majority"] - 50) < 15

def test_no_source_was_trained_on_and_tested(clips_plan, work):
    "read back from the files of the runs"
    films = pd.read_csv(work / "street/sources.csv").set_index("clip").source
    tested = []
    for fold in range(3):
        said = pd.read_csv(work / f"clips/models/binary/resnet50-by_source/srupp-seed0-fold{fold}/predictions.csv")
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
    for path in [*(work / "clips/jobs").glob("*/notebook.ipynb"), *(work / f"clips/{paper}.ipynb" for paper in ("embeddings", "srupp"))]:
        outputs = [o for c in nbformat.read(path, 4).cells if c.cell_type == "code" for o in c.outputs]
        assert outputs and not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"], path

def test_an_experiment_is_a_job(clips_plan):
    job = jobs_of([ENTRIES["srupp.experiments"]], clips_plan)["experiment-09"]
    assert runner.run_job(job, clips_plan, key_of(job, clips_plan))["state"] == "finished"
    assert read_entry(ENTRIES["srupp.experiments"], clips_plan)["state"] == "unfinished"
    assert (clips_plan.folder / "models/experiments/resnet50-sru-1-by_source/model.safetensors").exists()

@pytest.mark.parametrize("given, words", [(dict(epochs=0), "epochs"), (dict(hiden=3), "hiden"), (dict(preset="huge"), "huge")])
def test_settings_of_a_study_that_cannot_be(tmp_path, given, words):
    message(lambda: experiment.begin("srupp", str(tmp_path), **dict(preset="quick", seeds=[0], device="cpu", out=str(tmp_path / "out")) | given), words)

def test_the_normal_class_can_be_named(tmp_path, monkeypatch):
    "of folders whose names say nothing: the plan, its jobs and the record of the run keep it, and another choice is another key"
    from vad.cli import run_app
    write_scenes(tmp_path / "street", cameras=3, frames=6, size=(48, 64))
    for old, new in zip(sorted(p for p in (tmp_path / "street").iterdir() if p.is_dir()), ("east", "west", "north")): old.rename(tmp_path / "street" / new)
    (tmp_path / "street/sources.csv").unlink(missing_ok=True)
    made = lambda **given: runner.make_plan(clips=tmp_path / "street", out=tmp_path, device="cpu", **given)
    message(made, "--normal")
    (west, _, found), (east, _, _) = made(normal=("west",)), made(normal=("east",))
    assert found.normal == "west" and west.normal == ("west",) and west.data != east.data
    for job in jobs_of(chosen(("embeddings.map", "srupp.experiments")), west).values(): assert job.parameters["normal"] == ["west"]
    assert experiment.begin("srupp", west.clips, "quick", [0], "cpu", str(tmp_path), normal=["west"]).data.normal == "west"
    monkeypatch.setattr(runner, "run_jobs", lambda *args: 1 / 0) # by then the record is written
    words = ["reproduce", "embeddings", "--clips", tmp_path / "street", "--normal", "west", "--out", tmp_path / "runs", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["vad", *map(str, words)])
    with pytest.raises(ZeroDivisionError): run_app()
    record = json.loads((tmp_path / "runs/street-quick/record.json").read_text())
    assert record["plan"]["normal"] == ["west"] and record["clips"]["normal"] == "west"
    assert read_plan(tmp_path / "runs/street-quick").normal == ("west",)
    message(lambda: runner.make_plan(normal=("west",), out=tmp_path, device="cpu"), "--clips")

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

def test_one_failure_is_not_the_others(tiny, tmp_path):
    "a row cannot be trained: its entries fail and say where to look, the others are measured; mended, only that row is done again"
    call = lambda: runner.reproduce(("mnad.scores", "gates.frames"), tiny, jobs=2, name="run", out=tmp_path, device="cpu", **SMALL)
    blocked = run_folder(tmp_path / "run/models", settings("quick", attention="gate", **SMALL), open_dataset(tiny))
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    plan = call()
    states = {n: read_entry(ENTRIES[n], plan) for n in ("mnad.scores", "gates.frames")}
    assert [s["state"] for s in states.values()] == ["measured", "failed"] and list(runner.failures(plan, ("mnad.scores", "gates.frames"))) == ["gates.frames"]
    target = tmp_path / "run/jobs/gates-seed0/notebook.ipynb"
    assert "gates-seed0 failed" in states["gates.frames"]["why"] and str(target) in states["gates.frames"]["why"]
    last = [o for c in nbformat.read(target, 4).cells if c.cell_type == "code" for o in c.outputs if o.output_type == "error"]
    assert last and "work.run(key)" in "".join(last[0].traceback)
    assert "failed" in read_page(tmp_path / "run")[1]
    blocked.unlink()
    other = (tmp_path / "run/jobs/predict-full-seed0/job.json").stat().st_mtime_ns
    assert read_entry(ENTRIES["gates.frames"], call())["state"] == "measured"
    assert (tmp_path / "run/jobs/predict-full-seed0/job.json").stat().st_mtime_ns == other

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
    cli.main()

@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGKILL])
def test_stopped(tiny, tmp_path, sig):
    "nothing goes on behind one's back, and what was trained is saved"
    run = Apart(tmp_path, endless, tiny, tmp_path / "runs")
    run.wait_for(lambda: len(list((tmp_path / "runs").glob("run/models/*/losses.csv"))) == 2)
    others = psutil.Process(run.process.pid).children(recursive=True)
    assert len(others) >= 4 # two workers, two notebooks
    said = run.kill(sig).end()
    if sig == signal.SIGINT: sentence(said, "stopped", code=130)
    assert gone(others)
    folders = list((tmp_path / "runs/run/models").iterdir())
    assert len(folders) == 2 and not (tmp_path / "runs/run/summary.html").exists()
    for folder in folders: assert (folder / "checkpoint.safetensors").exists() and not (folder / "model.safetensors").exists() and not list(folder.glob(".*.part*"))
    states = [read_json(p) for p in (tmp_path / "runs/run/jobs").glob("*/job.json")]
    assert len(states) == 2 and all(s["state"] in (("stopped",) if sig == signal.SIGINT else ("stopped", "running")) for s in states)

def descendants(pid):
    "a process's children and theirs"
    try: return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess: return []

@pytest.mark.parametrize("what", ["workers", "notebooks"])
def test_killed_while_they_start(tiny, tmp_path, what):
    "whoever asked is dead before a worker, or a notebook's process, can say that it is there: it ends by itself"
    run = Apart(tmp_path, endless, tiny, tmp_path / "runs")
    def worker(p):
        try: return "loky" in (said := " ".join(p.cmdline())) and "tracker" not in said
        except psutil.Error: return False # it is gone already
    begun = (lambda: any(map(worker, descendants(run.process.pid)))) if what == "workers" else lambda: list((tmp_path / "runs").glob("run/jobs/*/job.json"))
    run.wait_for(begun)
    others = descendants(run.process.pid)
    run.kill(signal.SIGKILL).end()
    assert len(others) >= 2 and gone(others)
    assert not list((tmp_path / "runs").glob("run/models/*/model.safetensors"))

def whole(root, out, held=False):
    "vad reproduce on two entries, one job at a time; held: it never gets through the second job"
    from vad import cli
    if held: hold(runner, "execute", 2)
    everything = runner.reproduce
    runner.reproduce = lambda *args, **kwargs: everything(*args, **kwargs | SMALL)
    sys.argv = ["vad", "reproduce", "mnad.scores", "gates.roc", "--data", str(root), "--out", str(out), "--name", "run", "--device", "cpu", "--jobs", "1"]
    cli.main()

def test_killed_half_way(tiny, tmp_path):
    "the same command does only what was unfinished"
    done = lambda: [p for p in (tmp_path / "runs").glob("run/jobs/*/job.json") if read_json(p)["state"] == "finished"]
    run = Apart(tmp_path, whole, tiny, tmp_path / "runs", True).wait_for(lambda: len(done()) == 1)
    run.kill(signal.SIGKILL).end()
    (first,) = done()
    before, model = first.read_bytes(), next((tmp_path / "runs/run/models").glob("*/model.safetensors"))
    trained = model.stat().st_mtime_ns
    code, out, err = Apart(tmp_path, whole, tiny, tmp_path / "runs").end()
    assert code == 0 and "gates.roc" in out and "2 done" in err.replace("\r", "\n").splitlines()[-1], (code, out, err)
    assert first.read_bytes() == before and model.stat().st_mtime_ns == trained and len(done()) == 2

def test_a_cluster(plan, tiny, work, tmp_path):
    "two workers of Dask measure what two local processes measured"
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(vad.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1") as cluster:
        there = runner.reproduce(("gates.roc",), tiny, name="run", out=tmp_path, device="cpu", engine="dask", address=cluster.scheduler_address, **SMALL)
    here = pd.read_csv(work / "run/figures/gates/tiny.runs.csv")
    ours = pd.read_csv(there.folder / "figures/gates/tiny.runs.csv")
    assert list(ours.auc) == list(here[here.seed == 0].auc)
    assert {read_json(folder_of(j, there) / "job.json")["pid"] for j in jobs_of([ENTRIES["gates.roc"]], there).values()}.isdisjoint({os.getpid()})

def test_the_commands_defaults_are_the_presets():
    "make run at its defaults means what the presets say"
    assert set(PRESETS) == {"quick", "cpu", "paper"} and settings("paper") == settings()
