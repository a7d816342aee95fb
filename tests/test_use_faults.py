"Where scoring, calibration and explorers used to answer wrongly, or not at all, and said nothing of it."
import errno
import os
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import square
from test_window import TINY, Mean, gray

from vad.core.errors import UserError
from vad.core.provenance import WEIGHTS, find_run
from vad.core.records import read_json, write_json
from vad.data.datasets import open_dataset
from vad.data.film_writer import write_film
from vad.data.video import open_video
from vad.scores.detector import FrameDifference
from vad.training import trainer
from vad.training.evaluation import evaluate
from vad.use import browser, moments, sources
from vad.use.browser import explorer_of, serve_explorer
from vad.use.calibration import calibrate
from vad.use.explorer import explore_pair
from vad.use.export import export_onnx
from vad.use.first_minutes import fit_beginning
from vad.use.inspect_frames import ONLINE, PAPER, FrameInspector, view_frames
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
