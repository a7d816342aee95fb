"Where scoring, calibration and explorers used to answer wrongly, or not at all, and said nothing of it."
import errno
import os
import shutil
import signal
import socket
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import square
from test_window import TINY, Mean, camera, gray # noqa: F401 (a fixture)

from vad.core.errors import UserError
from vad.core.provenance import WEIGHTS, find_run
from vad.core.records import read_json, write_json
from vad.data.datasets import open_dataset
from vad.data.embedding import embed
from vad.data.feature_archives import write_synthetic_archive
from vad.data.film_writer import write_film
from vad.data.video import open_video
from vad.reproduce.figures import decision_matrices, draw_confusion
from vad.scores.detector import FrameDifference
from vad.training import trainer
from vad.training.classifier import ClassifierSettings, fit_classifier
from vad.training.evaluation import evaluate
from vad.training.splits import open_clips
from vad.use import browser, moments, sources
from vad.use.browser import explorer_of, serve_explorer
from vad.use.calibration import calibrate
from vad.use.explorer import explore_pair
from vad.use.export import Graph, export_onnx, largest_difference
from vad.use.first_minutes import fit_beginning
from vad.use.inspect_clips import ClipInspector
from vad.use.inspect_frames import ONLINE, PAPER, FrameInspector, view_frames
from vad.use.labelling import Labelling, load_own_labels, marks_in_words, saved_in_words
from vad.use.moments import film_key, film_names, given_options, score_folder
from vad.use.scorers import class_scorer, open_scorer
from vad.use.sources import Fetched, Source, films_under, open_source
from vad.use.streaming import Overlay, ScoredFrame, StreamSettings, score_video

BRIEF = dict(first=2., video=False) # speed's beginning


def film(path, seed=1, frames=60):
    "six seconds in which a square moves"
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [cv2.resize(square(t, seed), (64, 64), interpolation=cv2.INTER_NEAREST) for t in range(frames)]
    write_film(path, images, 10)
    return path

def frames(folder, n=30, seed=1):
    "a folder of frames"
    folder.mkdir(parents=True)
    for t in range(n): assert cv2.imwrite(str(folder / f"{t:03d}.png"), cv2.resize(square(t, seed), (64, 64)))
    return folder

@pytest.fixture
def films(tmp_path):
    "a folder of two films"
    for i, name in enumerate(("a", "b"), 1): film(tmp_path / f"films/{name}.mp4", i)
    return tmp_path / "films"


# ---- what is a film

@pytest.mark.parametrize("copies", [True, False])
def test_what_scoring_wrote_is_no_film(films, copies):
    "copies and curves in another folder of results are passed over"
    before = films_under(films)
    score_folder(films, "speed", films / "scores", first=2., video=copies)
    assert films_under(films) == before and (films / "scores/a.scored.mp4").exists() == copies
    scored, _, _ = score_folder(films, "speed", films / "more", **BRIEF)
    assert [f.shown for f in scored] == ["a.mp4", "b.mp4"]
    with pytest.raises(UserError, match="no frames"): score_video(films / "scores", "speed", films / "more", **BRIEF)
    shutil.copy(films / "a.mp4", films / "scores/mine.scored.mp4") # no record is beside it
    assert films_under(films) == [*before, films / "scores/mine.scored.mp4"]

def test_a_film_that_is_named_twice_calibrates_once(films, tmp_path):
    (tmp_path / "link.mp4").symlink_to(films / "a.mp4")
    score_folder(films, "speed", films / "scores", first=2.)
    c = calibrate("speed", [films, films / "b.mp4", tmp_path / "link.mp4", films / "../films/a.mp4"], tmp_path / "mine", first=2.)
    assert len(c.films) == 2 and c.minutes == pytest.approx((4 + 6) / 60, rel=.1)

def test_results_do_not_go_among_what_they_are_of(films, tmp_path):
    shots = frames(tmp_path / "shots")
    for score, source in ((score_folder, films), (score_video, films), (score_video, shots), (score_video, str(shots))):
        with pytest.raises(UserError, match="holds what is to be scored"): score(source, "speed", Path(source) / "../" / Path(source).name, **BRIEF)
    assert sorted(p.name for p in films.iterdir()) == ["a.mp4", "b.mp4"] and len(list(shots.iterdir())) == 30

def test_a_folder_that_is_called_by_a_dot_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(frames(tmp_path / "cam"))
    score_video(".", "speed", tmp_path / "out", first=.4, video=False)
    assert (tmp_path / "out/cam.scores.csv").exists()
    assert calibrate("speed", ["."], tmp_path / "mine", first=.4).films == ["cam"]

def test_a_small_two_is_no_camera():
    with pytest.raises(UserError, match="² does not exist"): open_source("²")


# ---- settings of scoring

def test_a_threshold_is_used_with_the_settings_that_it_is_of(films, tmp_path):
    "a calibrated run refuses others, and says what it is calibrated for"
    calibrate("ped2-gates", [films], tmp_path / "mine", device="cpu")
    for run in (tmp_path / "mine", "ped2-gates"):
        for name, value, words in (("alpha", 1., "calibrated for alpha = 0.6: leave alpha out"), ("test_update", "always", "leave test_update out"), ("gate", .5, "leave gate out")):
            with pytest.raises(UserError, match=words): open_scorer(run, "cpu", **{name: value})
        open_scorer(run, "cpu", alpha=.6, test_update="gated")
    with pytest.raises(UserError, match="alpha out"): score_folder(films, tmp_path / "mine", tmp_path / "out", device="cpu", alpha=1.)

@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    "a memory model that was evaluated, not calibrated"
    data = open_dataset(tiny)
    folder = trainer.fit(TINY, data, tmp_path_factory.mktemp("runs") / "memory", "cpu").folder
    evaluate(folder, data, "cpu")
    return folder

def test_where_no_threshold_is_known_the_record_says_so(run, tiny, tmp_path):
    path = tiny / "testing/frames/01"
    record = score_video(path, run, tmp_path, device="cpu", video=False, alpha=1.)
    assert record["threshold"] is None and "no threshold for alpha = 1:" in record["about"][-1]
    for options in (dict(), dict(alpha=1., threshold=2.)): assert not score_video(path, run, tmp_path, device="cpu", video=False, **options)["about"]

def test_other_training_film_does_not_replace_statistics(run, tiny, tmp_path):
    before = (run / "statistics.json").read_bytes()
    open_scorer(run, "cpu", training=tiny) # its own
    other = shutil.copytree(tiny, tmp_path / "other")
    shutil.rmtree(other / "training/frames/02")
    with pytest.raises(UserError, match="knows how its training film scores"): open_scorer(run, "cpu", training=other)
    assert (run / "statistics.json").read_bytes() == before
    film(tmp_path / "a.mp4")
    calibrate("speed", [tmp_path / "a.mp4"], tmp_path / "mine", first=2.)
    with pytest.raises(UserError, match="knows how its training film scores"): open_scorer(tmp_path / "mine", "cpu", training=tiny)

def test_what_would_have_no_say_is_refused(films, tmp_path):
    with pytest.raises(UserError, match="leave normal out"): class_scorer(tmp_path, watch="arson", normal="calm")
    for refused in (lambda: score_video(films / "a.mp4", "speed", tmp_path / "out", device="nonsense", **BRIEF), lambda: score_folder(films, "speed", tmp_path / "out", device="nonsense"),
                    lambda: calibrate("speed", [films], tmp_path / "mine", device="nonsense")):
        with pytest.raises(UserError, match="no device 'nonsense'"): refused()
    assert not (tmp_path / "out").exists() and not (tmp_path / "mine").exists()


# ---- the beginning of a film

def stream(n, **facts): # ten frames a second, whose number nobody knows
    "a film from a server"
    def read(stop):
        for t in range(n): yield Fetched(0, t / 10, np.repeat(cv2.resize(square(t, 1), (64, 64))[..., None], 3, 2))
    return Source("x", "stream", "http://x", 10., "stated", read, **facts)

def test_a_film_that_ends_within_its_beginning(films):
    with pytest.raises(UserError, match="take less than 6.0 with --first"): fit_beginning(stream(60))
    with pytest.raises(UserError, match="take less than 6.0"): fit_beginning(open_source(films / "a.mp4"), 5.95) # less than it lasts, and all its frames
    fitted = fit_beginning(stream(60, live=True)) # what comes too fast is dropped
    assert "the first 6.0 seconds (" in fitted.words() and fitted.frames <= 60
    assert "the first 5.9 seconds (59 frames)" in fit_beginning(stream(60), 5.9).words()

def test_the_watching_of_a_beginning_is_stopped(camera, tmp_path): # noqa: F811
    "by another thread's event; a camera would not be asked a second time"
    c, stop = camera([30, 30]), threading.Event()
    stop.set()
    with pytest.raises(UserError, match="gave no frame"): score_video(c.address, "speed", tmp_path, first=1., stop=stop, attempts=1)
    assert c.asked == 1 and not list(tmp_path.iterdir())

def test_a_duration_within_the_beginning(films, tmp_path):
    for options in (dict(first=2., duration=2.), dict(duration=1.)):
        with pytest.raises(UserError, match="ends within the first 2,"): score_video(films / "a.mp4", "speed", tmp_path, **options)
    assert not list(tmp_path.glob("*.scores.*"))

def test_no_frame_past_the_duration(tmp_path):
    for name, window in (("frames", None), ("windows", .5)):
        score_video(gray(range(40)), Mean(), tmp_path, name=name, fps=10, duration=1.05, window=window, mode="overlap")
        assert len(pd.read_csv(tmp_path / f"{name}.scores.csv")) == 11 == open_video(tmp_path / f"{name}.scored.mp4").frames


# ---- the files of a scored film

def test_what_shapes_scores_is_in_the_key(tiny, films, tmp_path, monkeypatch):
    path, folder = films / "a.mp4", shutil.copytree(WEIGHTS / "ped2-gates", tmp_path / "run")
    def key(path=path, **options): return film_key(path, folder, StreamSettings(), options)
    keys, shots = [key()], key(tiny / "testing/frames/01")
    monkeypatch.setenv("VAD_FIELDS", "stored")
    keys.append(key())
    assert key(tiny / "testing/frames/01") == shots # pictures are not decoded so
    write_json(folder / "metrics.json", dict(weighted=dict(w=2.)))
    keys.append(key())
    record, data = tmp_path / "cnn_record.json", shutil.copytree(tiny, tmp_path / "data")
    for width in (16, 24):
        write_json(record, dict(recipe=dict(method="cnn", width=width)))
        keys += [key(recipe=record), key(recipe=tmp_path)]
        assert keys[-1] == keys.pop() # by the file or by its folder
    keys.append(key(training=data))
    shutil.rmtree(data / "training/frames/02")
    keys.append(key(training=data))
    assert len(set(keys)) == len(keys) == 7
    assert given_options("speed", dict(smooth=1, alpha=None)) == dict(smooth=1)

def test_one_bad_film_does_not_end_a_folder(films, tmp_path, monkeypatch):
    shots = frames(films / "shots")
    (shots / "007.png").unlink()
    for link in (shots / "007.png", films / "gone.mp4"): link.symlink_to(tmp_path / "nowhere")
    (films / "round.mp4").symlink_to("round.mp4")
    scored, _, failed = score_folder(films, "speed", tmp_path / "out", **BRIEF)
    assert [f.shown for f in scored] == ["a.mp4", "b.mp4"] and set(failed) == {"gone.mp4", "round.mp4", "shots"}
    assert "shots/007.png cannot be read (No such file" in failed["shots"] and "gone.mp4 cannot be read" in failed["gone.mp4"]
    for code in (errno.ENOSPC, errno.EMFILE):
        def fails(*args): raise OSError(code, os.strerror(code), str(films / "a.mp4"))
        monkeypatch.setattr(moments, "score_film", fails)
        with pytest.raises(OSError, match=os.strerror(code)): score_folder(films, "speed", tmp_path / "out", **BRIEF)

def test_long_names_are_cut(tmp_path):
    names = [f"{'é' * 60}/{'x' * 100}{i}.mp4" for i in range(2)]
    called = film_names([tmp_path / n for n in names], tmp_path)
    assert len(set(called)) == 2 and all(len(os.fsencode(n)) <= sources.LONGEST for n in called)
    path = film(tmp_path / f"films/{'x' * 240}.mp4")
    score_video(path, "speed", tmp_path / "out", **BRIEF)
    score_folder(path.parent, "speed", tmp_path / "out", **BRIEF)
    assert len(list((tmp_path / "out").glob("xxx*.scores.csv"))) == 1

def test_no_older_copy_stays_beside_new_scores(films, tmp_path):
    for copy in (True, False):
        record = score_video(films / "a.mp4", "speed", tmp_path / "out", first=2., video=copy)
        assert (tmp_path / "out/a.scored.mp4").exists() == copy == ("a.scored.mp4" in record["files"])

def test_scores_of_another_film_are_not_written_over(films, tmp_path, monkeypatch):
    out = tmp_path / "out"
    score_video(films / "a.mp4", "speed", out, **BRIEF)
    monkeypatch.chdir(films)
    score_video("a.mp4", "speed", out, **BRIEF) # the same one
    before = (out / "a.scores.csv").read_bytes()
    other = film(tmp_path / "other/a.mp4", 2)
    with pytest.raises(UserError, match="a.scores.json tells of a.mp4, not of .*other/a.mp4: choose another folder"): score_video(other, "speed", out, **BRIEF)
    assert (out / "a.scores.csv").read_bytes() == before
    (out / "a.scores.json").write_text("{")
    score_video(other, "speed", out, **BRIEF) # nobody knows what it told of

def test_a_threshold_far_outside_is_drawn_nowhere():
    image = np.full((60, 80, 3), 90, np.uint8)
    for threshold in (1e10, -1e10, 1e300):
        drawn = Overlay((0., 3.), threshold).draw(ScoredFrame(0, 0., 1., image, None))
        assert (drawn[:-10] == Overlay((0., 3.), None).draw(ScoredFrame(0, 0., 1., image, None))[:-10])[20:].all()


# ---- explorers and export

def test_a_frame_without_a_past_is_not_shown(run, tiny):
    "nor what a clip over the end of the video before it would hold"
    data = open_dataset(tiny)
    def table(*numbers): return pd.DataFrame(dict(video="02", frame=list(numbers)))
    for number in (0, 3, 20):
        with pytest.raises(UserError, match=f"Video 02 has no score for frame {number}: ask for frames 4 to 19"): view_frames(run, data, table(number), "cpu")
    assert [v["frame_number"] for v in view_frames(run, data, table(4, 19), "cpu")] == [4, 19]

def test_an_evaluation_with_other_settings_is_not_shown(run, tiny, tmp_path):
    "scores and threshold go together"
    folder, data = shutil.copytree(run, tmp_path / "run"), open_dataset(tiny)
    here = FrameInspector(folder, data, "cpu")
    assert here.evaluated is not None and here.thresholds[PAPER] is not None
    evaluate(folder, data, "cpu", alpha=1.)
    anew = FrameInspector(folder, data, "cpu")
    assert anew.evaluated is None and anew.thresholds[PAPER] is None
    np.testing.assert_allclose(anew.trace(0).scores()[ONLINE], here.trace(0).scores()[ONLINE], atol=1e-4)

def test_a_port_that_cannot_be_used():
    "nothing is said or opened before"
    said = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port, words in ((70000, "Port 70000 cannot be used"), (taken.getsockname()[1], "in use")):
            with pytest.raises(UserError, match=words): serve_explorer("ped2-gates", "nowhere", port=port, tell=said.append)
    assert not said

def served(monkeypatch, *args):
    "what the notebook of a page would open"
    given = []
    monkeypatch.setattr(browser, "write_notebook", lambda folder, arguments: given.append(arguments) or folder)
    monkeypatch.setattr(browser, "new_server", lambda *args: SimpleNamespace(start=lambda: None))
    serve_explorer(*args, device="cpu", browser=False, tell=lambda words: None)
    return given[0]

def test_two_beside_each_other_on_a_page(run, tiny, tmp_path, monkeypatch):
    pytest.importorskip("ipympl", reason="ipympl is not installed: pip install ipympl")
    monkeypatch.chdir(tiny.parent) # where the run finds its data
    opened = served(monkeypatch, run, None, "ped2-gates") # both look at the first one's data
    assert opened["other"] == find_run("ped2-gates").absolute() and opened["run"] == run
    folder = shutil.copytree(run, tmp_path / "run")
    for name in ("statistics.json", "metrics.json"): (folder / name).unlink()
    pair = explore_pair(folder, FrameDifference((16, 16)), tiny, "cpu")
    assert "no kind of score in common" in pair.player.status.line.value

def test_a_classifier_is_seen_alone(run, monkeypatch):
    pytest.importorskip("ipympl", reason="ipympl is not installed: pip install ipympl")
    monkeypatch.setattr(browser, "holds_classifier", lambda path: path == "classes")
    for pair in (("classes", run), (run, "classes")):
        for see in (lambda a, b: explorer_of(a, "x", b), lambda a, b: serve_explorer(a, "x", b)):
            with pytest.raises(UserError, match="a classifier is seen alone"): see(*pair)

def test_an_export_writes_no_other_kind_of_file(run):
    before = (run / "model.safetensors").read_bytes()
    for package in ("onnx", "onnxscript", "onnxruntime"): pytest.importorskip(package, reason=f"{package} is not installed: pip install {package}")
    with pytest.raises(UserError, match="model.safetensors does not end in .onnx"): export_onnx(run, run / "model.safetensors")
    assert (run / "model.safetensors").read_bytes() == before


# ---- calibration

def test_damage_of_normal_film_is_told_and_kept(tmp_path):
    shots = frames(tmp_path / "shots", 40)
    (shots / "020.png").unlink()
    path = film(tmp_path / "whole.mp4")
    with pytest.warns(UserWarning, match="Normal film: .*lacks frame 20"): calibrate("speed", [path, shots], tmp_path / "mine", first=2.)
    assert "lacks frame 20" in read_json(tmp_path / "mine/record.json")["calibrated"]["notes"][0]


# ---- the page of an explorer

@pytest.fixture
def private(tmp_path, monkeypatch):
    "the folder of a page; the one where somebody stands holds settings of Voila, which are code"
    pytest.importorskip("voila", reason="voila is not installed: pip install voila")
    (tmp_path / "page").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("voila.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nc.Voila.token = ''\n")
    write_json(Path("voila.json"), dict(Voila=dict(ip="0.0.0.0")))
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path / "page"
    signal.signal(signal.SIGTERM, before)

def test_settings_of_the_folder_one_stands_in_have_no_say(private):
    app = browser.new_server(browser.write_notebook(private, dict(run="x")), browser.free_port(), "secret")
    assert (app.ip, app.token) == ("127.0.0.1", "secret") and not (private.parent / "ran").exists()

@pytest.mark.parametrize("setting", [dict(ip="0.0.0.0"), dict(token="")])
def test_a_page_that_would_be_open_to_others_is_not_served(private, setting):
    write_json(private / "voila.json", dict(Voila=setting))
    with pytest.raises(UserError, match="page holds settings of Voila that open the page to others: remove"):
        browser.new_server(browser.write_notebook(private, dict(run="x")), browser.free_port(), "secret")

@pytest.fixture
def beside(run, tiny, tmp_path):
    "a run and its data in a folder of their own, deeper than a run looks around itself"
    for name in ("ipympl", "anywidget"): pytest.importorskip(name, reason=f"{name} is not installed: pip install {name}")
    shutil.copytree(tiny, tmp_path / "here" / tiny.name)
    return shutil.copytree(run, tmp_path / "a/b/c/d/e/run")

def test_a_page_opens_the_data_that_the_check_found(beside, tiny, tmp_path, monkeypatch):
    "and by the labels of then: its kernel stands in another folder"
    monkeypatch.chdir(tmp_path / "here")
    opened = served(monkeypatch, beside)
    assert opened["data"] == tmp_path / "here" / tiny.name and opened["truth"] == open_dataset(tiny).truth
    monkeypatch.chdir(tmp_path / "a")
    inspector = explorer_of(**opened).inspector
    assert inspector.data.fingerprint() == open_dataset(tiny).fingerprint() and inspector.evaluated is not None

def test_a_folder_of_the_same_name_does_not_end_the_search(run, tiny, tmp_path, monkeypatch):
    folder = shutil.copytree(run, tmp_path / "run")
    shutil.copytree(tiny, tmp_path / "data" / tiny.name)
    (tmp_path / "here" / tiny.name).mkdir(parents=True) # empty
    monkeypatch.chdir(tmp_path / "here")
    assert FrameInspector(folder, device="cpu").data.root == tmp_path / "data" / tiny.name
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(UserError, match="is not there as it was"): FrameInspector(folder, device="cpu")

def test_labels_that_were_made_since_do_not_hide_a_runs_data(run, tmp_path, monkeypatch):
    for i in range(3): film(tmp_path / f"mine/{('training', 'testing')[i > 0]}/videos/{i}.mp4", i)
    fitted = trainer.fit(TINY, open_dataset(tmp_path / "mine"), tmp_path / "run", "cpu").folder
    monkeypatch.chdir(tmp_path)
    for v in (0, 1): marked(FrameInspector(fitted, device="cpu"), v).save()
    assert open_dataset(tmp_path / "mine").truth == "labels" and FrameInspector(fitted, device="cpu").data.truth is None


# ---- labels made by hand

def marked(inspector, v=0):
    "frames 10 to 20 of a video"
    labelling = Labelling(inspector)
    labelling.open(v)
    labelling.mark(10, 20)
    return labelling

@pytest.fixture
def evaluated(run, films, tmp_path):
    "a run that was evaluated without labels on two films"
    folder = shutil.copytree(run, tmp_path / "run")
    evaluate(folder, open_dataset(films), "cpu")
    return folder

def test_labels_made_by_hand_are_shown_in_an_evaluated_run(evaluated, films):
    def look(): return FrameInspector(evaluated, films, "cpu")
    def shown(inspector): return np.flatnonzero(inspector.labels[0]).tolist() == inspector.trace(0).frames[inspector.trace(0).labels == 1].tolist() == list(range(10, 21))
    first = look()
    assert first.evaluated is not None and first.trace(1).labels is None
    labelling = marked(first) # before the video is looked at
    assert shown(first)
    labelling.save()
    again = look() # the next explorer knows them
    assert load_own_labels(again) == [] and again.evaluated is not None and shown(again) and again.trace(1).labels is None
    np.testing.assert_array_equal(again.trace(0).scores()[PAPER], first.trace(0).scores()[PAPER])

def test_labels_of_an_evaluation_are_those_of_the_dataset(run, tiny):
    inspector = FrameInspector(run, open_dataset(tiny), "cpu")
    for v, labels in enumerate(inspector.labels): np.testing.assert_array_equal(inspector.trace(v).labels, labels[4:])

def test_the_file_of_marks_that_were_taken_back_goes(films, evaluated):
    labelling, file = marked(FrameInspector(evaluated, films, "cpu")), films / "labels/a.npy"
    assert "Not saved" in marks_in_words(labelling) and saved_in_words(labelling.save()) == f"Saved: 1 file in {file.parent}." and file.exists()
    labelling.undo()
    assert "Not saved" in marks_in_words(labelling)
    said = saved_in_words(labelling.save())
    assert said == f"Removed from {file.parent}, as no mark is left: a.npy." and not file.exists() and "Not saved" not in marks_in_words(labelling)
    labelling.mark(3, 5)
    labelling.undo() # nobody saved it
    with pytest.raises(UserError, match="nothing to save"): labelling.save()
    labelling.mark(3, 5)
    labelling.save()
    labelling.open(1)
    labelling.mark(7, 8)
    labelling.open(0)
    labelling.undo()
    assert saved_in_words(labelling.save()) == f"Saved: 1 file in {file.parent}. Removed from {file.parent}, as no mark is left: a.npy."

def test_a_file_that_nobody_wrote_here_stays(films, evaluated):
    "one that does not fit, beside marks that were taken back before they were saved"
    (films / "labels").mkdir()
    for name, n in (("a", 3), ("b", 60)): np.save(films / f"labels/{name}.npy", np.zeros(n, np.uint8))
    inspector = FrameInspector(evaluated, films, "cpu")
    assert "holds 3 labels" in load_own_labels(inspector)[0]
    labelling = marked(inspector)
    labelling.undo()
    with pytest.raises(UserError, match="nothing to save"): labelling.save()
    assert len(np.load(films / "labels/a.npy")) == 3

def test_marks_go_back_to_what_was_saved_before(films, evaluated):
    marked(FrameInspector(evaluated, films, "cpu")).save()
    again = FrameInspector(evaluated, films, "cpu")
    load_own_labels(again)
    labelling = Labelling(again)
    labelling.open(0)
    labelling.mark(0, 59, False)
    labelling.save()
    labelling.undo()
    labelling.save()
    assert np.flatnonzero(np.load(films / "labels/a.npy")).tolist() == list(range(10, 21))

@pytest.mark.parametrize("whole", [True, False])
def test_two_films_of_one_stem_share_no_labels(run, films, whole):
    "whether both are looked at, or one; what else is marked is saved all the same"
    film(films / "a.mkv", 3)
    inspector = FrameInspector(run, films if whole else films / "a.mp4", "cpu")
    labelling = marked(inspector)
    if whole:
        labelling.open(2)
        labelling.mark(1, 2)
    with pytest.raises(UserError, match=r"a\.m.. and a\.m.. beside it would share the labels in .*labels/a\.npy: rename one of them\."): labelling.save()
    assert (films / "labels/b.npy").exists() == whole and not (films / "labels/a.npy").exists()
    assert [m.saved for m in labelling.marks.values()] == [False, True][:1 + whole]
    for p in films.glob("a.m*"):
        if p.name != inspector.data.test[0].path.name: p.unlink()
    (films / "a").mkdir() # results, perhaps: no video
    assert [p.name for p in labelling.save()] == ["a.npy"]


# ---- classes of a classifier, and numbers of an export

@pytest.fixture(scope="module")
def three(tmp_path_factory):
    "embeddings of three classes, and of three others"
    root = tmp_path_factory.mktemp("three")
    for name, classes in dict(mine=("normal", "arson", "fight"), theirs=("normal", "robbery", "vandalism")).items():
        for k, c in enumerate(classes):
            for i in range(2): film(root / f"{name}_films/{c}/{c}{i}.mp4", 10 * k + i, 12)
        embed(root / f"{name}_films", root / name, method="cnn", frames=6, width=16, size=32, device="cpu", kind="multiclass")
    return root

def classes_of(three, kind, folder):
    s = ClassifierSettings(hidden=8, projection=8, heads=2, epochs=1, batch=4)
    return fit_classifier(s, open_clips(three / "mine", kind=kind), folder, "cpu").folder

def test_no_outputs_under_the_names_of_other_classes(three, tmp_path):
    folder = classes_of(three, "multiclass", tmp_path / "run")
    assert ClipInspector(folder, three / "mine", device="cpu").clips.classes == ("normal", "arson", "fight")
    for theirs in (three / "theirs", open_clips(three / "theirs")):
        with pytest.raises(UserError, match="knows the classes normal, arson, fight, and theirs has normal, robbery, vandalism: name the emb"): ClipInspector(folder, theirs, device="cpu")
    with pytest.raises(UserError, match="for 3 classes, and mine has"): ClipInspector(folder, open_clips(three / "mine", kind="binary"), device="cpu")

def test_a_binary_run_opens_the_embeddings_that_it_was_trained_on(three, tmp_path):
    folder = classes_of(three, "binary", tmp_path / "run")
    for given in (three / "mine", open_clips(three / "mine"), open_clips(three / "mine", kind="binary")):
        inspector = ClipInspector(folder, given, device="cpu")
        assert inspector.clips.classes == ("normal", "anomalous") and inspector.clips.fingerprint() == open_clips(three / "mine", kind="binary").fingerprint()
        assert {Path(x.name).parent.name: x.label for x in map(inspector.explain, range(6))} == dict(normal="normal", arson="anomalous", fight="anomalous")
    unsaid = replace(open_clips(three / "mine"), has_normal=False)
    with pytest.raises(UserError, match="mine has normal, arson, fight, and nothing says which is normal: give open_clips"): ClipInspector(folder, unsaid, device="cpu")

def test_a_binary_run_opens_the_archive_that_it_was_trained_on(tmp_path):
    "whose normal class has a name of its own"
    archive = write_synthetic_archive(tmp_path, videos=30)
    known = open_clips(archive, kind="binary", segments=4)
    assert open_clips(archive).normal == "Normal" and known.classes == ("normal", "anomalous")
    folder = fit_classifier(ClassifierSettings(hidden=8, projection=8, heads=2, epochs=1), known, tmp_path / "run", "cpu").folder
    assert ClipInspector(folder, archive, device="cpu").clips.fingerprint() == known.fingerprint()

def test_an_export_that_answers_with_no_number_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install onnx")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Sqrt", ["x"], ["y"])], "root", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "root.onnx")
    class Root(torch.nn.Module):
        def forward(self, x): return x.abs().sqrt()
    def off(*numbers): return largest_difference(Graph(Root(), dict(x=torch.tensor(numbers)), ("y",)), tmp_path / "root.onnx")
    assert off(4., 9.) < 1e-6
    with pytest.raises(UserError, match="root.onnx and the run differ by nan, which is no number: please report it"): off(4., -9.)


# ---- what an interrupt or a word breaks

def test_a_trace_that_was_interrupted_is_done_anew(films):
    def look(): return FrameInspector(FrameDifference((16, 24)), films, "cpu")
    def interrupt(share):
        if share > .5: raise KeyboardInterrupt
    whole, stopped = look(), look()
    with pytest.raises(KeyboardInterrupt): stopped.trace(0, interrupt)
    for v in (0, 1):
        for name, x in whole.trace(v).scores().items(): np.testing.assert_array_equal(stopped.trace(v).scores()[name], x)
        for t in (5, 20, 50): np.testing.assert_array_equal(stopped.at(v, t).pictures["squared difference"], whole.at(v, t).pictures["squared difference"])

def test_a_reason_may_be_any_words(films, tmp_path):
    said = 'fast, "large",\nand late'
    class Talkative(FrameDifference):
        def reason(self, parts): return said
    score_video(films / "a.mp4", Talkative((16, 24)), tmp_path / "out", name="a", threshold=-30., video=False)
    t = pd.read_csv(tmp_path / "out/a.scores.csv", keep_default_na=False)
    assert len(t) == 60 and set(t.reason) == {said, ""} and (t.reason[pd.to_numeric(t.score) >= -30] == said).all()

def test_decisions_without_training_scores(run, tiny, tmp_path):
    "the best threshold of the test labels is not shown as one from training"
    evaluated = shutil.copytree(run, tmp_path / "evaluated")
    m = evaluate(evaluated, open_dataset(tiny), "cpu")
    titles = ["threshold from training scores (online score)", "best F1 on the test labels: optimistic", "as published: classes swapped"]
    assert [title for title, *_ in decision_matrices(m)] == titles
    m["online"]["at_threshold"] = None
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run/metrics.json", m)
    for runs in (dict(a=tmp_path / "run"), dict(a=evaluated, b=tmp_path / "run")):
        draw_confusion(runs, tmp_path / "x.png")
        t = pd.read_csv(tmp_path / "x.csv")
        assert {n: x.threshold.unique().tolist() for n, x in t.groupby("run")} == {n: titles if r == evaluated else titles[1:] for n, r in runs.items()}
