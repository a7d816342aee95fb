"The speed detector: what moves how fast, in which row, like nothing in training; as a stream, from its file, and through the command line."
import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import call

from vad.core.errors import UserError
from vad.data.datasets import open_dataset
from vad.data.feature_archives import write_synthetic_archive
from vad.data.frame_cache import cache_frames
from vad.data.synthetic import write_walkway
from vad.models.speed import SpeedSettings, Terms, cell_means, cells_of, fastest_by_row, foreground, frame_terms
from vad.models.speed import reason_of
from vad.scores.detector import open_detector, stored_frames
from vad.training.classifier import ClassifierSettings
from vad.training.evaluation import evaluate
from vad.training.speed_detector import STATE, HeldOut, SpeedDetector, fit_speed, smoothed_threshold, stretches
from vad.use.explorer import explore
from vad.use.export import export_onnx
from vad.use.calibration import calibrate
from vad.use.streaming import StreamSettings, score_video

PLAIN = SpeedSettings()


@pytest.fixture(scope="module")
def walkway(tmp_path_factory): return open_dataset(write_walkway(tmp_path_factory.mktemp("speed") / "walkway", train=4, test=4))

@pytest.fixture(scope="module")
def run(walkway, tmp_path_factory): return fit_speed(PLAIN, walkway, tmp_path_factory.mktemp("speed run") / "run").folder

def texture(h, w, seed):
    noise = cv2.GaussianBlur(np.random.default_rng(seed).integers(0, 256, (h, w), np.uint8), (0, 0), 2)
    return cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)

def scores(detector, videos): return np.concatenate([said.score for _, said in detector.score(videos)])

def seen(stream, frames, sizes):
    t, said = 0, []
    for n in sizes:
        said.append(stream.see(frames[t:t + n]))
        t += n
    return [x for x in said if len(x.score)]


# ---- properties

@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 100, width=32), min_size=2, max_size=60), st.integers(0, 60), st.floats(0, .5))
def test_a_threshold_alarms_no_more_than_was_asked(scores, same, alarms):
    "also where most frames have one score, as film has in which nothing moves"
    found = np.array(scores + [scores[0]] * same, float)
    at = smoothed_threshold(HeldOut(1., found, np.array([len(found)])), replace(PLAIN, smooth=1, alarms=alarms))
    beyond = (1 - alarms) * (len(found) - 1)
    assert (found >= at).sum() <= max(alarms * len(found), len(found) - beyond + 1e-6)
    assert np.isfinite(at)

def test_still_film_is_no_alarm(tmp_path):
    "nothing moves in training: nothing that does not move is an alarm, and what moves is one"
    still = np.repeat(texture(96, 144, 0)[None], 12, 0)
    moved = still.copy()
    for t in range(4, 8): moved[t, 20:60, 10 * t:10 * t + 40] = 255 - moved[t, 20:60, 10 * t:10 * t + 40]
    for name, film in dict(a=still, b=still[:9], c=moved).items():
        folder = tmp_path / "x" / ("testing" if name == "c" else "training") / "frames" / name
        folder.mkdir(parents=True)
        for t, picture in enumerate(film): cv2.imwrite(str(folder / f"{t:03d}.png"), picture)
    data = open_dataset(tmp_path / "x")
    detector = SpeedDetector(PLAIN)
    detector.fit(data)
    assert 0 < detector.thresholds["online"] < 1e-3
    assert (scores(detector, data.train) < detector.thresholds["online"]).all()
    assert (scores(detector, data.test)[3:7] >= detector.thresholds["online"]).all()

@settings(max_examples=15, deadline=None)
@given(st.integers(-4, 4), st.integers(-4, 4), st.integers(0, 99))
def test_a_moving_square_has_the_speed_it_was_moved_by(dx, dy, seed):
    "also when it stands still"
    ground, square = texture(96, 144, seed) // 4 + 30, texture(40, 40, seed + 1) // 2 + 128
    before, now = ground.copy(), ground.copy()
    before[28:68, 50:90] = square
    now[28 + dy:68 + dy, 50 + dx:90 + dx] = square
    cells = cells_of(before, now, ground, PLAIN)
    inside = cells.looks[:, -1] > 1.9 # wholly foreground
    assert inside.any()
    np.testing.assert_allclose(np.median(cells.moves[inside], 0), [dx, dy, np.hypot(dx, dy)], atol=.25)

@settings(max_examples=25, deadline=None)
@given(st.integers(3, 9), st.integers(3, 9), st.integers(0, 99))
def test_cells_are_means(h, w, seed):
    x = np.random.default_rng(seed).random((8 * h, 8 * w), np.float32)
    literal = [[x[8 * i:8 * i + 24, 8 * j:8 * j + 24].mean() for j in range(w - 2)] for i in range(h - 2)]
    np.testing.assert_allclose(cell_means(x), literal, rtol=1e-4)

@settings(max_examples=25, deadline=None)
@given(st.floats(.2, 5), st.integers(0, 99))
def test_rows_scale_with_the_speeds(factor, seed):
    "a camera twice as near sees everything twice as fast, and nothing stands out more; one scale for all where rows are off"
    rng = np.random.default_rng(seed)
    rows, speeds = rng.integers(2, 8, 2000), rng.random(2000) + .5
    one = fastest_by_row(rows, speeds, 10, PLAIN)
    np.testing.assert_allclose(fastest_by_row(rows, factor * speeds, 10, PLAIN), factor * one, rtol=1e-5)
    assert one[0] == one[2] and one[9] == one[7]
    assert np.ptp(fastest_by_row(rows, speeds, 10, replace(PLAIN, rows=False))) == 0
    shuffled = rng.permutation(2000)
    np.testing.assert_array_equal(fastest_by_row(rows[shuffled], speeds[shuffled], 10, PLAIN), one)

@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 9, width=32), max_size=20), st.integers(1, 6))
def test_the_score_is_the_mean_of_the_highest_cells(values, top):
    x = np.array(values, np.float32)
    speed, appearance, _ = frame_terms(Terms(x, np.zeros_like(x), x), top)
    assert appearance == 0 and speed == pytest.approx(sum(sorted(values)[-top:]) / top)

@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 900), min_size=1, max_size=40), st.integers(64, 2000))
def test_stretches_lie_within_films(lengths, most):
    starts = np.cumsum([0, *lengths])
    found = stretches(starts, most)
    film = np.searchsorted(starts, [a for a, _ in found], "right")
    assert (film == np.searchsorted(starts, [b - 1 for _, b in found], "right")).all() and all(b - a > 1 for a, b in found)
    assert sum(b - a for a, b in found) <= max(most, 64) and all(b <= c for (_, b), (c, _) in zip(found, found[1:]))

def test_reasons():
    assert reason_of(1.3, .2, 2.3) == "2.3 times the fastest of normal at this height"
    assert reason_of(0., 1.7, .4) == "1.7 times as far from anything in training as is usual"
    assert reason_of(.3, 1.7, 1.4).endswith("and 1.4 times the fastest of normal at this height") and reason_of(0, .5, .9) == ""
    assert "," not in reason_of(2., 3., 2.), "reasons stand in a table"


# ---- as a detector

def test_it_beats_its_controls(walkway, run):
    found = evaluate(run, walkway, "cpu")
    controls = pd.read_csv(run / "controls.csv").set_index("control").auc_micro
    beaten = ["frame index", "random", "frame difference", "frame difference, min-max", "flow speed"]
    assert found["online"]["auc_micro"] > controls[beaten].max() + .02, controls[beaten]
    assert found["rbdc"] > 0 and found["pixel_auc"] > .8 and found["key"]["settings"]["smooth"] == 5
    table = pd.read_csv(run / "scores.csv")
    np.testing.assert_allclose(table.online, table.speed + table.appearance)
    assert (table.frame.groupby(table.video).min() == 1).all()
    assert evaluate(run, walkway, "cpu", into="single", smooth=1)["online"]["auc_micro"] != found["online"]["auc_micro"]

@pytest.mark.parametrize("sizes", [[1] * 60, [7, 1, 30, 22], [59, 1]])
def test_a_stream_in_any_blocks_says_the_same_to_the_bit(walkway, run, sizes):
    detector = open_detector(run)
    frames = stored_frames(cache_frames(walkway.test, detector.size, 1, interpolation="area"), 0, 60)
    once, = seen(detector.stream(), frames, [60])
    parts = seen(detector.stream(), frames, sizes)
    assert len(once.score) == 59
    np.testing.assert_array_equal(np.concatenate([x.score for x in parts]), once.score)
    np.testing.assert_array_equal(np.concatenate([x.map for x in parts]), once.map)
    assert 0 <= once.map.min() and once.map.max() <= 1

def test_threads_change_nothing(walkway, run):
    detector, before, found = open_detector(run), cv2.getNumThreads(), []
    for n in (1, 4):
        cv2.setNumThreads(n)
        found.append(scores(detector, walkway.test[:1]))
    cv2.setNumThreads(before)
    np.testing.assert_array_equal(*found)

def test_its_state_gives_the_same_scores(walkway, run, tmp_path):
    fitted, opened = SpeedDetector(PLAIN), open_detector(run)
    fitted.fit(walkway)
    np.testing.assert_array_equal(scores(fitted, walkway.test), scores(opened, walkway.test))
    assert fitted.thresholds == opened.thresholds and (run / STATE).stat().st_size < 3e6
    shutil.copytree(run, tmp_path / "run")
    before = (tmp_path / "run" / STATE).stat().st_mtime_ns
    fit_speed(PLAIN, walkway, tmp_path / "run")
    assert (tmp_path / "run" / STATE).stat().st_mtime_ns == before # found
    with pytest.raises(UserError, match="of other settings"): fit_speed(SpeedSettings(top=3), walkway, tmp_path / "run")

@pytest.mark.parametrize("harm", ["cut", "flipped", "gone", "text"])
def test_a_damaged_state_is_named(run, tmp_path, harm):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / STATE
    data = bytearray(path.read_bytes())
    if harm == "flipped": data[-1000] ^= 1
    path.write_bytes(dict(cut=data[:len(data) // 2], text=b"no tensors").get(harm, data))
    if harm == "gone": path.unlink()
    with pytest.raises(UserError, match="run"): open_detector(tmp_path / "run")

def test_few_held_out_frames_alarm(walkway, run):
    detector = open_detector(run)
    held = detector.held
    assert held.lengths.sum() == len(held.scores) == sum(v.frames - 1 for v in walkway.train)
    tighter = SpeedDetector(replace(PLAIN, alarms=.001))
    tighter.held = held
    tighter.refer()
    assert tighter.thresholds["online"] > detector.thresholds["online"]

def test_another_dataset_sets_a_threshold_of_its_own(walkway, run, tmp_path):
    detector = open_detector(run)
    own = detector.thresholds["online"]
    detector.refer(walkway)
    assert detector.thresholds["online"] == own
    detector.refer(open_dataset(write_walkway(tmp_path / "other", seed=3, train=1, test=1, train_frames=30, test_frames=30)))
    assert detector.thresholds["online"] != own


# ---- films of all kinds

@pytest.mark.parametrize("size", [(16, 16), (32, 32), (50, 70)])
def test_tiny_frames(tmp_path, size):
    data = open_dataset(write_walkway(tmp_path / "w", size=(max(48, size[0]),) * 2, train=2, test=1, train_frames=20, test_frames=20))
    detector = SpeedDetector(SpeedSettings(height=max(24, size[0])))
    detector.fit(data)
    assert np.isfinite(scores(detector, data.test)).all()

def write_film(root, frames, name):
    for t, f in enumerate(frames):
        (root / name).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name / f"{t:03d}.png"), f)

def test_nothing_moves_in_training(tmp_path):
    "nobody was ever there: whoever comes is unlike anything"
    ground = texture(64, 96, 0) // 2 + 60
    visited = ground.copy()
    visited[20:50, 30:60] = 255
    write_film(tmp_path, [ground] * 6, "training/frames/01")
    write_film(tmp_path, [ground] * 4 + [visited] * 4, "testing/frames/01")
    data, detector = open_dataset(tmp_path), SpeedDetector(replace(PLAIN, smooth=1))
    detector.fit(data) # one video alone: halves of its time
    found = scores(detector, data.test)
    assert (found[:3] == 0).all() and (found[3:] > detector.thresholds["online"]).all()

def test_too_short_to_learn_from(tmp_path):
    write_film(tmp_path, [texture(64, 96, 0)] * 3, "training/frames/01")
    write_film(tmp_path, [texture(64, 96, 0)] * 3, "testing/frames/01")
    with pytest.raises(UserError, match="too short"): SpeedDetector().fit(open_dataset(tmp_path, partial=True, clip=2))

def test_colour_and_other_sizes(walkway, run, tmp_path):
    "a film of another size is resized to what was fitted; one in three equal channels scores as in gray"
    frames = [cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in sorted((walkway.root / "testing/frames/01").iterdir())[:40]]
    for name, change in dict(gray=lambda f: f, colour=lambda f: cv2.cvtColor(f, cv2.COLOR_GRAY2BGR),
                             large=lambda f: cv2.resize(f, (360, 240), interpolation=cv2.INTER_CUBIC)).items():
        write_film(tmp_path, [change(f) for f in frames], f"{name}/testing/frames/01")
    detector = open_detector(run)
    gray, colour, large = (scores(detector, open_dataset(tmp_path / n, partial=True).test) for n in ("gray", "colour", "large"))
    np.testing.assert_array_equal(gray, colour)
    assert np.corrcoef(gray, large)[0, 1] > .9


# ---- everywhere else

def test_the_scored_film_says_why(walkway, run, tmp_path):
    record = score_video(walkway.test[0].path, run, tmp_path, name="film", fps=15.)
    table = pd.read_csv(tmp_path / "film.scores.csv", keep_default_na=False)
    alarmed = pd.to_numeric(table.score, errors="coerce") >= record["threshold"]
    assert record["scorer"]["kind"] == "speed" and record["threshold"] == pytest.approx(open_detector(run).thresholds["online"])
    assert alarmed.any() and (table.reason[alarmed] != "").mean() > .9 and (table.reason[~alarmed] == "").all()
    assert table.reason.str.contains("times the fastest of normal at this height").any()
    np.testing.assert_allclose(pd.to_numeric(table.score[1:]), scores(open_detector(run), walkway.test[:1]), rtol=1e-5)

def test_it_is_explored(walkway, run):
    pytest.importorskip("ipympl", reason="ipympl is not installed: pip install ipympl")
    explorer = explore(run, replace(walkway, test=walkway.test[:1], labels=walkway.labels[:1], masks=None), "cpu")
    assert {"flow", "foreground", "speed and appearance"} <= set(explorer.panels.images)
    assert "Why: " in explorer.player.readout.value and "speed" in explorer.player.readout.value

def test_there_is_no_network_to_export(run):
    with pytest.raises(UserError, match="no network to export"): export_onnx(run)

def test_the_whole_way_by_the_command(walkway, tmp_path):
    def vad(*args):
        code, out, err = call(tmp_path, *args)
        return code, out + err
    out = tmp_path / "run"
    code, said = vad("train", walkway.root, "--out", out, "--detector", "speed", "--smooth", 3)
    assert code == 0 and "normal cells are remembered" in said, said
    assert json.loads((out / "record.json").read_text())["settings"]["smooth"] == 3
    code, said = vad("evaluate", out, walkway.root)
    assert code == 0 and "flow speed" in said and "RBDC" in said and (out / "roc_curve.png").exists(), said
    code, said = vad("score", out, walkway.test[1].path, "--out", tmp_path / "scores", "--smooth", 1)
    assert code == 0 and list((tmp_path / "scores").glob("*.scored.mp4")), said
    for args, words in ((("train", walkway.root, "--out", tmp_path / "x", "--detector", "speed", "--width", 8), "width is no setting of the detector speed"),
                        (("train", walkway.root, "--out", tmp_path / "x", "--smooth", 3), "smooth is no setting of the detector memory"),
                        (("train", walkway.root, "--out", tmp_path / "x", "--detector", "sped"), "not one of 'memory', 'speed'"),
                        (("train", walkway.root, "--out", tmp_path / "x", "--detector", "speed", "--top", 0), "top = 0"),
                        (("train", walkway.root, "--out", tmp_path / "x", "--detector", "speed", "--preset", "cpu"), "--preset is for training"),
                        (("train", walkway.root, "--out", out, "--detector", "speed", "--resume"), "--resume is for training"),
                        (("train", walkway.root, "--out", tmp_path / "x", "--detector", "speed", "--device", "cuda"), "--device is for training"),
                        (("score", out, walkway.test[1].path, "--out", tmp_path / "x", "--gate", .1), "'gate'"),
                        (("score", "speed", walkway.test[1].path, "--out", tmp_path / "x", "--gate", .1), "gate is no option of speed"),
                        (("evaluate", out, walkway.root, "--alpha", 1), "alpha is no setting of the detector speed"),
                        (("evaluate", out, walkway.root, "--gate", .1), "gate is no setting of the detector speed"), (("export", out), "no network to export")):
        code, said = vad(*args)
        assert code == 1 + ("not one of" in words) and words in said and "Traceback" not in said, said

def test_another_camera_has_its_own_background(walkway, run, tmp_path):
    "what is normal stays; what stands there is taken from its own frames"
    other = open_dataset(write_walkway(tmp_path / "other", seed=3, train=1, test=1, train_frames=20, test_frames=30))
    detector = open_detector(run)
    before = detector.normal
    detector.move_to(other.test)
    assert (detector.normal.background != before.background).any() and detector.normal.nearest is before.nearest
    frame, differs = stored_frames(cache_frames(other.test, detector.size, 1, interpolation="area"), 0, 1)[0, ..., 0], PLAIN.differs
    now, was = (foreground(frame, b, differs).mean() for b in (detector.normal.background, before.background))
    assert now < was - .1 and np.isfinite(scores(detector, other.test)).all() # before, nearly all was foreground

def test_sheets_show_what_such_a_detector_has(tmp_path, run, walkway):
    rc, out, err = call(tmp_path, "visualize", run, walkway.root, "--out", tmp_path / "sheets", "--num_videos", 2, "--frames_per_video", 2)
    sheets = sorted((tmp_path / "sheets").glob("*.png"))
    assert rc == 0 and len(sheets) == 4 and all(s.with_suffix(".csv").exists() and cv2.imread(str(s)).shape[1] > 400 for s in sheets), err
    other = fit_speed(SpeedSettings(smooth=1), walkway, tmp_path / "other").folder
    rc, out, err = call(tmp_path, "compare", run, other, walkway.root, "--out", tmp_path / "both.png", "--num_videos", 1, "--frames_per_video", 2)
    table = pd.read_csv(tmp_path / "both.csv", dtype=dict(video=str))
    assert rc == 0 and {"video", "frame", "online run", "online other"} <= set(table) and len(table) == 2, err
    assert not table["online run"].equals(table["online other"]) and cv2.imread(str(tmp_path / "both.png")).shape[0] > 400

def test_no_network_is_trained_into_its_folder(walkway, run, tmp_path):
    "nor is the detector fitted where a network has begun"
    shutil.copytree(run, tmp_path / "run")
    def held(): return {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    before = held()
    archive = write_synthetic_archive(tmp_path / "made")
    for words in (("train", walkway.root, "--epochs", 1), ("classify", archive, "--epochs", 1)):
        code, _, err = call(tmp_path, *words, "--out", tmp_path / "run", "--device", "cpu")
        assert code == 1 and "holds a speed detector: choose another folder" in err, err
    assert held() == before
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/checkpoint.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="another kind of model"): fit_speed(PLAIN, walkway, tmp_path / "begun")

@pytest.mark.parametrize("make, words", [
    (lambda: SpeedDetector(replace(PLAIN, seed=-1)), "seed = -1"), (lambda: ClassifierSettings(seed=-1), "seed = -1"), (lambda: ClassifierSettings(seed=2**32), "must be below 4294967296"),
    (lambda: StreamSettings(threshold=float("nan")), "threshold = nan"), (lambda: StreamSettings(threshold=float("inf")), "threshold = inf"), (lambda: calibrate("speed", [], "none", float("inf")), "per_hour = inf"),
])
def test_numbers_that_cannot_be(make, words):
    with pytest.raises(UserError, match=words): make()
