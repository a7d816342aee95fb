"One's own film, without training data: weights that come with the package, speed by name, calibration, and a folder's worst moments."
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import call

from vad.core.errors import UserError
from vad.core.provenance import WEIGHTS, find_run, shared
from vad.core.records import read_json
from vad.data.datasets import open_dataset
from vad.data.film_writer import write_film
from vad.data.synthetic import foliage, ground, video, write_walkway
from vad.scores.detector import open_detector
from vad.scores.practice import practice
from vad.training.checkpoints import load_tensors
from vad.training.evaluation import evaluate, own_folder
from vad.training.trainer import fit, load_model
from vad.training.trainer import settings as preset
from vad.use import first_minutes, moments, streaming
from vad.use.calibration import Calibration, calibrate, calibration
from vad.use.explorer import explore, explore_pair
from vad.use.first_minutes import fit_beginning, first_seconds
from vad.use.inspect_frames import words_about
from vad.use.moments import film_names, score_folder
from vad.use.scorers import open_scorer
from vad.use.shipping import ship
from vad.use.sources import Fetched, Source, films_under, open_source
from vad.use.streaming import score_video


def walk(path, seed, frames, script=()):
    "a film of the walkway by its own camera; -> which frames are odd"
    rng, size = np.random.default_rng([7, seed]), (120, 180)
    path.parent.mkdir(parents=True, exist_ok=True)
    seen, truth = video(ground(np.random.default_rng(7), size), foliage(np.random.default_rng(8), size), rng, frames, script)
    write_film(path, seen)
    return (truth > 0).any((1, 2))

@pytest.fixture(scope="module")
def films(tmp_path_factory):
    "normal.mp4, and a folder of three films, one of them damaged, one in a folder of its own, beside what is no film"
    root = tmp_path_factory.mktemp("own")
    walk(root / "normal.mp4", 1, 300)
    walk(root / "films/front door.mp4", 2, 240, [("cyclist", .6)])
    walk(root / "films/Monday/yard #2.mp4", 3, 240)
    (root / "films/broken.mp4").write_bytes(os.urandom(3000))
    (root / "films/notes.txt").write_text("seen nothing")
    return root

def vad(folder, *args, code=0):
    rc, out, err = call(folder, *args)
    assert rc == code and "Traceback" not in err, (out, err)
    return re.sub(r"\s+", " ", out + err)

class Page(HTMLParser):
    "the links, pictures and texts of a page"
    def __init__(self, path):
        super().__init__()
        self.links, self.pictures, self.words = [], [], ""
        self.feed(path.read_text(encoding="utf-8"))
    def handle_starttag(self, tag, attrs):
        if tag == "a": self.links.append(dict(attrs)["href"])
        if tag == "img": self.pictures.append(dict(attrs))
    def handle_data(self, data): self.words += data


# ---- weights that come with the package

def test_a_name_is_as_good_as_a_folder(films, tmp_path):
    said = vad(tmp_path, "score", "ped2-gates", films / "normal.mp4", "--out", tmp_path / "out", "--no-video")
    for words in ("trained on UCSD Ped2", "research", "96 x 96", "vad calibrate ped2-gates"): assert words in said, said
    record = read_json(tmp_path / "out/normal.scores.json")
    assert record["run"] == "ped2-gates" and record["threshold"] == pytest.approx(2.47, abs=.01) and len(record["about"]) == 2
    before = vad(tmp_path, "score", films / "normal.mp4", "--model", "ped2-gates", "--out", tmp_path / "older", "--no-video")
    assert "trained on UCSD Ped2" in before
    same = [(tmp_path / out / "normal.scores.csv").read_bytes() for out in ("out", "older")]
    assert same[0] == same[1]

def test_a_name_that_is_none_lists_those_there_are(films, tmp_path):
    for name, words in (("ped9", "ped2-gates or, to score a film, speed"), ("speed ", "ped2-gates")):
        with pytest.raises(UserError, match=words): find_run(name)
    with pytest.raises(UserError, match="fitted to the film that it scores"): open_detector("speed")
    assert "ped2-gates" in vad(tmp_path, "score", "ped9", films / "normal.mp4", code=1)
    for args in (("score", "ped2-gates"), ("score", "a", "b", "--model", "c")): assert "vad score RUN VIDEO" in vad(tmp_path, *args, code=1)

def test_weights_are_small_sealed_and_whole():
    for run in WEIGHTS.iterdir():
        assert {p.name for p in run.iterdir()} == {"model.safetensors", "record.json", "statistics.json"}
        assert sum(p.stat().st_size for p in run.iterdir()) < 5e6
        model, items, _ = load_model(run) # checks the seal
        assert {p.dtype for p in model.parameters()} == {items.dtype} == {torch.float32}
        text = (run / "record.json").read_text()
        assert words_about(run) and "/home" not in text and "machine" not in json.loads(text)
        detector = open_detector(run.name, "cpu")
        detector.refer()
        assert detector.calibrated and detector.thresholds["online"]

def test_shipped_weights_score_as_the_run_does():
    "numbers of the run that they were made of, as its evaluation left them, in deviations of training frames"
    ped2 = shared("data/ped2")
    if ped2 is None: pytest.skip("UCSD Ped2 is not in the shared folder")
    detector = open_detector("ped2-gates", "cpu")
    detector.refer()
    scores = np.concatenate([said.score for _, said in detector.score(open_dataset(ped2).test[:1])])
    theirs = {4: 1.100, 40: 1.480, 80: 2.034, 120: 1.757, 160: 3.367, 179: 4.041}
    np.testing.assert_allclose([scores[t - 4] for t in theirs], list(theirs.values()), atol=.15)

@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    root = tmp_path_factory.mktemp("ship")
    data = open_dataset(write_walkway(root / "walkway", train=3, test=1, train_frames=40, test_frames=40))
    run = fit(preset("quick", size=(24, 32), width=4, epochs=2, attention="gate", precision="fp32"), data, root / "run", "cpu").folder
    evaluate(run, data, "cpu")
    return run, data

def test_shipping_keeps_scores_and_leaves_traces_behind(evaluated, tmp_path):
    run, data = evaluated
    shipped = ship(run, tmp_path / "tiny", "Trained on nothing much.")
    assert shipped.joinpath("model.safetensors").stat().st_size < .7 * (run / "model.safetensors").stat().st_size
    def scores(folder):
        detector = open_detector(folder, "cpu")
        detector.refer()
        return np.concatenate([x.score for _, x in detector.score(data.test)]), detector.thresholds
    (a, at), (b, same) = scores(run), scores(shipped)
    np.testing.assert_allclose(a, b, atol=.05 * a.std())
    assert at == same
    tensors, _ = load_tensors(shipped / "model.safetensors")
    kinds = {x.dtype for n, x in tensors.items() if x.dim() > 1 and n != "items"}
    assert kinds == {torch.float16} and tensors["items"].dtype == torch.float32
    record = read_json(shipped / "record.json")
    assert not {"machine", "evaluated", "device"} & set(record) and record["shipped"]["name"] == "tiny"
    before = (shipped / "statistics.json").read_bytes()
    evaluate(shipped, open_dataset(write_walkway(tmp_path / "other", seed=3, train=2, test=1, train_frames=30, test_frames=30)), "cpu")
    assert (shipped / "statistics.json").read_bytes() == before # fixed

def test_what_cannot_be_shipped_is_refused(evaluated, tmp_path):
    run, _ = evaluated
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/statistics.json").unlink()
    with pytest.raises(UserError, match="evaluate the run first"): ship(tmp_path / "run", tmp_path / "new", "")
    with pytest.raises(UserError, match="holds no detector"): ship(tmp_path, tmp_path / "new", "")
    with pytest.raises(UserError, match="there already"): ship(run, run, "")
    assert not (tmp_path / "new").exists()

def test_damaged_weights_are_named(tmp_path):
    shutil.copytree(WEIGHTS / "ped2-gates", tmp_path / "w")
    data = bytearray((tmp_path / "w/model.safetensors").read_bytes())
    data[-5000] ^= 1
    (tmp_path / "w/model.safetensors").write_bytes(data)
    with pytest.raises(UserError, match="damaged"): open_scorer(tmp_path / "w", "cpu")

def test_an_evaluation_writes_beside_a_copy(evaluated, tmp_path, monkeypatch):
    _, data = evaluated
    monkeypatch.chdir(tmp_path)
    before = {p: p.read_bytes() for p in (WEIGHTS / "ped2-gates").iterdir()}
    found = evaluate("ped2-gates", data, "cpu")
    assert found["online"]["auc_micro"] and (tmp_path / "runs/ped2-gates/scores.csv").exists()
    assert {p: p.read_bytes() for p in (WEIGHTS / "ped2-gates").iterdir()} == before
    (tmp_path / "runs/ped2-gates/model.safetensors").write_bytes(b"others")
    with pytest.raises(UserError, match="other weights than the package"): own_folder("ped2-gates")

def test_it_is_explored_by_name(films):
    pytest.importorskip("ipympl", reason="ipympl is not installed: pip install ipympl")
    explorer = explore("ped2-gates", films / "normal.mp4", "cpu")
    assert "squared error" in explorer.panels.images and "vad calibrate ped2-gates" in explorer.decisions.table.value

def test_two_detectors_beside_each_other_know_own_labels(tmp_path):
    pytest.importorskip("ipympl", reason="ipympl is not installed: pip install ipympl")
    labels = [walk(tmp_path / f"films/{name}.mp4", seed, 60, [("cyclist", .6)]) for seed, name in ((2, "door"), (3, "yard"))]
    (tmp_path / "films/labels").mkdir()
    np.save(tmp_path / "films/labels/door.npy", labels[0]) # the yard is not labelled yet
    pair = explore_pair("ped2-gates", "ped2-gates", tmp_path / "films", "cpu")
    for trace in pair.traces.values(): assert np.array_equal(trace.labels, labels[0][trace.frames])
    pair.player.open(1)
    assert all(trace.labels is None for trace in pair.traces.values())


# ---- speed by name

def test_speed_scores_what_comes_after_the_first_minutes(films, tmp_path):
    path = films / "films/front door.mp4"
    said = vad(tmp_path, "score", "speed", path, "--out", tmp_path / "out", "--first", 6, "--no-video")
    assert "fitted to the first 6.0 seconds (90 frames)" in said and "taken for normal" in said and "expect false alarms" in said
    table, record = pd.read_csv(tmp_path / "out/front door.scores.csv"), read_json(tmp_path / "out/front door.scores.json")
    assert table.score[:90].isna().all() and table.score[90:].notna().all() and list(table.frame) == list(range(240))
    assert record["run"] == "speed" and record["scorer"]["kind"] == "speed" and record["about"][0] in said.replace("  ", " ")
    odd = walk(tmp_path / "again.mp4", 2, 240, [("cyclist", .6)])
    odd, late = np.flatnonzero(odd), table.score[90:]
    assert late[odd].mean() > 2 * late.drop(odd).mean()

def test_how_long_the_beginning_is(films):
    def film(frames): return Source("x", "file", "x.mp4", 25., "stated", None, frames=frames)
    assert first_seconds(film(25 * 60)) == 20 and first_seconds(film(25 * 3600)) == 120 and first_seconds(film(None)) == 120
    assert first_seconds(film(25 * 60), 50.) == 50
    for wrong in (0, -1, 60, 61): # of a minute nothing would be left
        with pytest.raises(UserError, match="lasts 60.0"): first_seconds(film(25 * 60), wrong)

def test_a_live_source_is_watched_and_then_opened_again(tmp_path, monkeypatch):
    "what is scored are the frames that come then; a camera that broke off in between leaves two stretches"
    images = video(ground(np.random.default_rng(7), (120, 180)), foliage(np.random.default_rng(8), (120, 180)), np.random.default_rng(3), 200)[0]
    opened, closed, seen, real = [], [], [], first_minutes.Beginning
    def camera(*args, **kwargs):
        opened.append(0 if not opened else 150)
        def read(stop):
            for i, image in enumerate(images[opened[-1]:]):
                if stop.wait(.004): return
                yield Fetched(i // 60, i / 15, np.repeat(image[..., None], 3, 2), (i + 1) / 15, i)
        return Source("camera0", "camera", "camera 0", 15., "stated", read, live=True, close=lambda: closed.append(1))
    monkeypatch.setattr(streaming, "open_source", camera)
    monkeypatch.setattr(first_minutes, "Beginning", lambda *args: seen.append(real(*args)) or seen[-1])
    record = score_video(0, "speed", tmp_path, first=8., video=False)
    assert len(opened) == 2 and closed and len(seen[0].lengths) == 2 and seen[0].lengths.sum() + 10 > 120
    assert "the stream was then opened again" in record["about"][0] and record["frames"] + record["source"]["dropped"] == 50
    assert record["scored"] == record["frames"] - 1 # what came after, from its second frame on

def test_speed_refuses_what_it_cannot_do(films, tmp_path):
    film = films / "normal.mp4"
    for options, words in ((dict(alpha=1.), "alpha is no option of speed"), (dict(first=900), "lasts 20.0"), (dict(first=.1), "too short")):
        with pytest.raises(UserError, match=words): score_video(film, "speed", tmp_path / "out", **options)
    with pytest.raises(UserError, match="can be read once"): score_video(iter([np.zeros((48, 64, 3), np.uint8)]), "speed", tmp_path / "out")
    with pytest.raises(UserError, match="first is for speed"): score_video(film, "ped2-gates", tmp_path / "out", first=5, device="cpu")
    assert not (tmp_path / "out").exists()
    fitted = fit_beginning(open_source(film), 5., 1)
    assert fitted.detector.settings.smooth == 1 and fitted.frames == 75


# ---- calibration

def table_of(scores, fps=10.): return pd.DataFrame(dict(seconds=np.arange(len(scores)) / fps, score=scores))

@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), min_size=20, max_size=200), min_size=1, max_size=3), st.floats(.5, 5000), st.integers(0, 99))
def test_a_threshold_keeps_what_it_promises(films, per_hour, seed):
    noise = np.random.default_rng(seed)
    tables = [table_of(np.array(f, float) + noise.random(len(f))) for f in films]
    c = calibration(tables, per_hour, ["a"])
    every, times = np.concatenate([t.score for t in tables]), [t.seconds.to_numpy() for t in tables]
    found = practice(np.zeros(len(every), int), every, times, c.threshold)
    assert found["false_alarms"] == c.alarms <= max(per_hour * found["normal_hours"], 0) + 1e-6
    assert c.threshold >= np.quantile(every, .99) and c.most >= c.alarms / (c.minutes / 60)

def test_words_of_a_calibration():
    assert "at most 36 an hour, with 95 % confidence" in Calibration(3., 1, 0, 5, ["a"]).words() # the rule of three
    assert "To see 1 an hour takes 60 minutes of it" in Calibration(3., 1, 0, 5, ["a"]).words()
    assert "To see" not in Calibration(3., 1, 1, 61, ["a"]).words() and "1 alarm at" in Calibration(3., 1, 1, 61, ["a"]).words()

def test_calibrated_by_normal_film_that_film_is_quiet(films, tmp_path):
    "the whole way by the command: threshold, statistics and record of the new run, and the same film scored by it"
    said = vad(tmp_path, "calibrate", "ped2-gates", films / "normal.mp4", "--out", tmp_path / "mine", "--per-hour", 2)
    assert "0 alarms" in said and "normal.mp4" in said and "30 minutes of it" in said, said
    before = {p.name: p.read_bytes() for p in (tmp_path / "mine").iterdir()}
    record = read_json(tmp_path / "mine/record.json")
    known = record["calibrated"]
    assert known["films"] == ["normal.mp4"] and known["minutes"] == pytest.approx(20 / 60, rel=.02) and known["per_hour"] == 2
    assert known["alarms"] == 0 and known["most_per_hour"] == pytest.approx(3 / (20 / 3600), rel=.03) and record["shipped"]["name"] == "ped2-gates"
    said = vad(tmp_path, "score", tmp_path / "mine", films / "normal.mp4", "--out", tmp_path / "out", "--no-video")
    assert "Calibrated by 0.3 minutes" in said and "need calibration" not in said and "UCSD Ped2" in said
    table, record = pd.read_csv(tmp_path / "out/normal.scores.csv"), read_json(tmp_path / "out/normal.scores.json")
    assert record["threshold"] == known["threshold"] > table.score.max() > record["threshold"] - .1
    assert abs(table.score.mean()) < .2 and .3 < table.score.std() < 2 # in deviations of this film
    data = open_dataset(write_walkway(tmp_path / "other", train=2, test=1, train_frames=30, test_frames=30))
    evaluate(tmp_path / "mine", data, "cpu")
    after = {p.name: p.read_bytes() for p in (tmp_path / "mine").iterdir() if p.is_file()}
    assert after["statistics.json"] == before["statistics.json"] and after["model.safetensors"] == before["model.safetensors"]

def test_speed_is_calibrated_by_what_follows(films, tmp_path):
    more = films / "films/Monday"
    c = calibrate("speed", [films / "normal.mp4", more], tmp_path / "mine", first=8.)
    assert c.minutes == pytest.approx((12 + 16) / 60, rel=.02) and c.films == ["normal.mp4", "yard #2.mp4"]
    detector = open_detector(tmp_path / "mine")
    assert detector.thresholds == dict(online=c.threshold)
    detector.refer()
    assert detector.thresholds == dict(online=c.threshold) # as explorers ask for it
    with pytest.raises(UserError, match="calibrated for smooth = 5"): open_detector(tmp_path / "mine", smooth=1)
    record = score_video(more / "yard #2.mp4", tmp_path / "mine", tmp_path / "out", video=False)
    assert record["threshold"] == c.threshold and record["about"] == [c.words()]
    assert pd.read_csv(tmp_path / "out/yard #2.scores.csv").score.max() < c.threshold

def test_a_speed_run_moves_to_another_camera(films, tmp_path):
    calibrate("speed", [films / "normal.mp4"], tmp_path / "first", first=8.)
    c = calibrate(tmp_path / "first", [films / "films/Monday"], tmp_path / "second")
    a, b = (open_detector(tmp_path / name) for name in ("first", "second"))
    assert (a.normal.background != b.normal.background).any() and (a.normal.nearest.bank == b.normal.nearest.bank).all()
    assert b.thresholds["online"] == c.threshold != a.thresholds["online"]

def test_what_cannot_be_calibrated(films, tmp_path):
    film = films / "normal.mp4"
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    for run, out, options, words in (("ped2-gates", "full", {}, "holds something already"), ("ped9", "new", {}, "ped2-gates"), ("speed", "new", dict(first=99), "lasts 20.0"),
                                     ("ped2-gates", "new", dict(per_hour=0), "over 0"), ("ped2-gates", "new", dict(first=3), "first is for speed")):
        with pytest.raises(UserError, match=words): calibrate(run, [film], tmp_path / out, device="cpu", **options)
    with pytest.raises(UserError, match="nowhere"): calibrate("ped2-gates", [films / "nowhere.mp4"], tmp_path / "new", device="cpu")
    write_film(tmp_path / "short.mp4", [np.zeros((48, 64), np.uint8)] * 3)
    with pytest.raises(UserError, match="too few frames"): calibrate("ped2-gates", [tmp_path / "short.mp4"], tmp_path / "new", device="cpu")
    assert not (tmp_path / "new").exists()


# ---- a folder of films

def test_a_folder_in_a_sheet_out(films, tmp_path, monkeypatch):
    out = tmp_path / "out"
    said = vad(tmp_path, "score", "speed", films / "films", "--out", out, "--first", 8)
    assert "Left out: broken.mp4" in said and "2 films scored, 1 left out" in said and "front door.mp4 at 0:00:" in said, said
    table = pd.read_csv(out / "moments.csv")
    assert {"film", "begin", "end", "seconds", "score", "reason"} <= set(table) and table.film[0] == "front door.mp4"
    excess = table.score - table.threshold
    assert table.alarm.all() and (excess.diff().dropna() <= 0).all() and table.reason.str.contains("normal|training").all()
    page = Page(out / "index.html")
    assert len(page.pictures) == len(table) and all(x["alt"] and x["src"].startswith("data:image/jpeg") for x in page.pictures)
    for link in page.links:
        path, _, seconds = link.partition("#t=")
        assert (out / unquote(path)).is_file() and 0 <= float(seconds) < 20, link
    for words in ("front door.mp4", "Monday/yard #2.mp4", "broken.mp4", "0:00:1", "times"): assert words in page.words, words
    assert not re.search(r"https?://", (out / "index.html").read_text())
    before = {p.name: p.stat().st_mtime_ns for p in out.glob("*.scores.*")}
    assert "2 films scored" in vad(tmp_path, "score", "speed", films / "films", "--out", out, "--first", 8)
    assert {p.name: p.stat().st_mtime_ns for p in out.glob("*.scores.*")} == before # nothing is scored anew
    (out / "front door.scores.csv").write_text("frame,seconds,score,reason\n")
    score_folder(films / "films", "speed", out, first=8.)
    after = {p.name: p.stat().st_mtime_ns for p in out.glob("*.scores.csv")}
    assert [n for n in after if after[n] != before[n]] == ["front door.scores.csv"] # damaged: that one is
    monkeypatch.setattr(moments, "score_video", lambda *args, **kwargs: pytest.fail("scored"))
    with pytest.raises(pytest.fail.Exception): score_folder(films / "films", "speed", out, first=7.) # other settings

@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_highest_moments_are_the_highest(scores):
    "each is the highest score that is over two seconds from all before it, wherever that lies on a peak's slope"
    table = pd.DataFrame(dict(seconds=np.arange(len(scores)) / 2, score=scores, frame=range(len(scores))))
    film = SimpleNamespace(table=table, threshold=None, shown="a", record=dict(source=dict(fps=2)))
    found = moments.highest_moments(film, 5)
    for i, m in enumerate(found):
        left = [s for t, s in zip(table.seconds, scores) if all(abs(t - f["peak"]) > 2 for f in found[:i])]
        assert m["score"] == max(left) == scores[m["frame"]] and m["begin"] <= m["peak"] < m["end"]
    assert len(found) == 5 or all(any(abs(t - m["peak"]) <= 2 for m in found) for t in table.seconds)

def test_where_nothing_alarms_the_page_says_so(films, tmp_path):
    shutil.copytree(films / "films/Monday", tmp_path / "films")
    scored, found, failed = score_folder(tmp_path / "films", "ped2-gates", tmp_path / "films/scores", device="cpu", threshold=1e6, video=False)
    assert not failed and not found.alarm.any() and 0 < len(found) <= moments.SHOWN and (np.diff(np.sort(found.peak)) > 2 - 1e-6).all()
    page = Page(tmp_path / "films/scores/index.html")
    assert "none is an alarm" in page.words and "trained on UCSD Ped2" in page.words and len(page.pictures) == len(found)
    assert all((tmp_path / "films/scores" / unquote(link.partition("#")[0])).is_file() for link in page.links) # the films themselves
    assert films_under(tmp_path / "films", tmp_path / "films/scores") == [tmp_path / "films/yard #2.mp4"]

def test_where_none_can_be_scored_the_command_fails(tmp_path):
    (tmp_path / "films").mkdir()
    for name in ("a.mp4", "b.avi"): (tmp_path / "films" / name).write_bytes(os.urandom(500))
    said = vad(tmp_path, "score", "speed", tmp_path / "films", "--out", tmp_path / "out", code=1)
    assert "None of the 2 films" in said and "a.mp4" in said and not (tmp_path / "out/index.html").exists()

def test_a_folder_of_frames_is_one_film(films, tmp_path):
    data = open_dataset(write_walkway(tmp_path / "w", train=1, test=1, train_frames=20, test_frames=30))
    frames = Path(data.test[0].path)
    assert films_under(frames) == [] and frames in films_under(tmp_path / "w")
    vad(tmp_path, "score", "ped2-gates", frames, "--out", tmp_path / "out", "--no-video")
    assert (tmp_path / "out/01.scores.csv").exists() and not (tmp_path / "out/index.html").exists()

@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["a.mp4", "a.avi", "a/b.mp4", "a_b.mp4", "a_b.avi", "b/a", "A.mp4", "a.mp4.avi"]), unique=True, min_size=1))
def test_no_two_films_share_a_name(names):
    found = film_names([Path("root") / n for n in names], Path("root"))
    assert len(set(found)) == len(names) and not any("/" in n for n in found)
