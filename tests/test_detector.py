"Detectors: one interface for whatever scores frames, from ten lines to a trained network."
import json
import shutil
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from conftest import write_tiny

from vad.scores import frame_scores
from vad.training import evaluation
from vad.data.frame_cache import cache_frames
from vad.core.errors import UserError
from vad.data.datasets import open_dataset
from vad.scores.detector import BLOCK, DETECTORS, Detector, FrameDifference, Scored, stored_frames
from vad.training.trainer import Settings
from vad.use.explorer import explore
from vad.use.inspect_frames import ONLINE, FrameInspector
from vad.use.streaming import score_video

TINY = Settings(size=(16, 16), channels=1, width=2, items=3, batch=4, epochs=1, lr=1e-3, schedule="step", precision="fp32")


@pytest.fixture(scope="module")
def data(tmp_path_factory): return open_dataset(write_tiny(tmp_path_factory.mktemp("detector") / "tiny"))


class Brightest:
    "the largest value of a frame beside that of training frames, without a map"
    def __init__(self, first=0, skip=0): self.first, self.skip = first, skip
    def fit(self, data): self.usual = max(f.max() for v in data.train for f in v.read(gray=True))
    def score(self, videos):
        for i, video in enumerate(videos):
            values = np.array([f.max() for f in video.read(gray=True)][self.first + self.skip:], float)
            for part in np.array_split(values, 3): yield i, Scored(part - self.usual) # in blocks

def test_a_detector_of_ten_lines_is_measured(data, tmp_path):
    "the anomalous square is brighter than any in training: it is found without fault"
    found = evaluation.evaluate(Brightest(), data, into=str(tmp_path / "brightest"))
    assert found["online"]["auc_micro"] == found["regularity"]["auc_micro"] == 1 and found["pixel_auc"] is None
    assert found["online"]["interval"]["auc_micro"] == (1, 1)
    table = frame_scores.read_table(tmp_path / "brightest/scores.csv", "online", "label")
    assert len(table) == sum(v.frames for v in data.test) and (table.online[table.label == 1] > 0).all()
    controls = pd.read_csv(tmp_path / "brightest/controls.csv").set_index("control")
    assert controls.auc_micro["perfect, 0 frames late"] == 1 and "frame difference" in controls.index
    assert evaluation.read_metrics(tmp_path / "brightest")["online"]["auc_micro"] == 1

def test_the_first_frames_are_left_out_with_their_labels(data):
    found, lengths, _ = evaluation.collect_scores(fitted(Brightest(first=4), data), data)
    table = evaluation.frame_table(found, lengths, data, 4)
    assert list(lengths) == [16] * 3 and list(table.frame[:2]) == [4, 5]
    assert (table.label == (table.online > 0)).all()

def fitted(detector, data):
    detector.fit(data)
    return detector

def test_frames_that_a_detector_leaves_out_are_missed(data):
    "a score beside another frame's label would be wrong in silence"
    with pytest.raises(UserError, match="scored 19 frames of video .*, which has 20"): evaluation.evaluate(Brightest(skip=1), data)

def test_a_training_threshold_is_honest(data):
    found = evaluation.evaluate(Brightest(), data)
    scores = np.concatenate([said.score for _, said in fitted(Brightest(), data).score(data.train)])
    assert found["online"]["at_threshold"]["threshold"] == np.quantile(scores, .99)

@pytest.mark.parametrize("first", [0, 1, 4, 25])
@pytest.mark.parametrize("block", [BLOCK, 7, 1])
def test_frame_differences_are_those_of_neighbours(data, monkeypatch, first, block):
    "in blocks of any size, and the first frame has the second's"
    monkeypatch.setattr("vad.scores.detector.BLOCK", block)
    frames = cache_frames(data.test, (16, 24), 1)
    said = [[] for _ in data.test]
    for v, x in FrameDifference((16, 24), first=first).score(data.test): said[v].append(x)
    for v, (a, b) in enumerate(zip(frames.starts[:-1], frames.starts[1:])):
        x = frames.cut(np.arange(a, b)).numpy().astype(np.float32) / 255
        errors = np.square(np.diff(x, axis=0))
        want = 10 * np.log10(np.maximum(errors.mean((1, 2, 3)), 1e-10))
        want, maps = np.r_[want[0], want][first:], np.concatenate([errors[:1], errors])[first:]
        assert sum(len(x.score) for x in said[v]) == len(want)
        if not len(want): continue
        np.testing.assert_allclose(np.concatenate([x.score for x in said[v]]), want, rtol=1e-5)
        np.testing.assert_allclose(np.concatenate([x.map for x in said[v]]), maps[..., 0], atol=1e-6)

def test_the_memory_model_is_a_detector(data, tmp_path):
    "fitted here or found in a run's folder, it says the same"
    detector = evaluation.MemoryDetector(TINY, tmp_path / "run", "cpu")
    ours = evaluation.evaluate(detector, data)
    theirs = evaluation.evaluate(tmp_path / "run", data, "cpu")
    for kind in ("regularity", "online"):
        for name in ("auc_micro", "ap", "eer", "at_threshold"): assert ours[kind][name] == theirs[kind][name], (kind, name)
    assert ours["pixel_auc"] == theirs["pixel_auc"] and ours["rbdc"] == theirs["rbdc"]

def test_without_labels_nothing_is_measured(data):
    found = evaluation.evaluate(Brightest(), replace(data, labels=None, masks=None))
    assert "online" not in found and found["frames_per_second"] > 0


# ---- as frames come, in explorers, and from a run's folder

@dataclass
class Height(Detector):
    "a toy of its own kind: a running background, and at what height the frame differs from it; the state is one number in a file"
    size: tuple = (16, 24)
    usual: float = 0.
    first, map_name, bounds = 3, "foreground", (0., 5.)

    def fit(self, data):
        self.thresholds, self.usual = {}, 1.
        self.usual = float(np.mean(np.concatenate([said.score for _, said in self.score(data.train)])))

    def stream(self, after=None): return Foreground(self, after and after.background)

    def save(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "height.json").write_text(json.dumps([self.usual, self.thresholds]))

    @classmethod
    def open(cls, folder, device="auto", usual=None):
        detector = cls()
        detector.usual, detector.thresholds = json.loads((folder / "height.json").read_text())
        if usual: detector.usual = usual
        return detector

class Foreground:
    def __init__(self, detector, background): self.detector, self.background, self.seen = detector, background, 0
    def see(self, frames):
        differs = []
        for f in frames[..., 0].astype(float):
            if self.background is None: self.background = f.copy()
            differs.append(np.abs(f - self.background) / 255)
            self.background += .1 * (f - self.background) # in place: an explorer has to copy it
        skip = max(0, self.detector.first - self.seen)
        self.seen += len(frames)
        if not (kept := differs[skip:]): return Scored(np.empty(0))
        maps, rows = np.stack(kept), np.arange(16)[:, None]
        where = (maps * rows).sum((1, 2)) / np.maximum(maps.sum((1, 2)), 1e-9)
        return Scored(maps.mean((1, 2)) / self.detector.usual, maps, dict(height=where), dict(rows=np.sqrt(maps)))

@pytest.fixture
def toy(data, tmp_path, monkeypatch):
    "a fitted detector of a kind that nobody has heard of, in the folder of a run"
    monkeypatch.setitem(DETECTORS, "height.json", Height.open)
    detector = fitted(Height(), data)
    detector.refer(data)
    detector.save(tmp_path / "run")
    return detector, tmp_path / "run"

def whole(detector, data, v=0): return np.concatenate([said.score for i, said in detector.score(data.test) if i == v])

@pytest.mark.parametrize("sizes", [[20], [1] * 20, [2, 1, 7, 10]])
def test_a_stream_says_what_the_whole_video_gets(data, toy, sizes):
    frames = cache_frames(data.test, (16, 24), 1)
    for detector in (toy[0], FrameDifference((16, 24))):
        stream, t, said = detector.stream(), 0, []
        for n in sizes:
            said.append(stream.see(stored_frames(frames, t, t + n)).score)
            t += n
        first = max(detector.first, 1)
        np.testing.assert_allclose(np.concatenate(said), whole(detector, data)[first - detector.first:], rtol=1e-6)

def test_a_run_of_a_new_kind_is_measured(data, toy):
    detector, run = toy
    found = evaluation.evaluate(run, data, "cpu")
    assert found["online"]["auc_micro"] > .5 and found["key"]["settings"]["usual"] == detector.usual
    table = frame_scores.read_table(run / "scores.csv", "online", "label")
    assert {"height", "regularity"} <= set(table) and (table.frame.groupby(table.video).min() == 3).all()
    assert evaluation.evaluate(run, data, "cpu") == found # found, not measured again
    assert evaluation.evaluate(run, data, "cpu", into="other", usual=2.)["key"] != found["key"]
    with pytest.raises(UserError, match="alpha.*leave it out"): evaluation.evaluate(run, data, "cpu", alpha=1.)

def test_a_new_kind_is_streamed(data, toy, tmp_path):
    "from its folder or as it is, with a threshold, where it is and what the record says of it"
    detector, run = toy
    for name, source in (("folder", run), ("itself", detector)):
        record = score_video(data.test[0].path, source, tmp_path / "out", name=name, device="cpu")
        t = pd.read_csv(tmp_path / f"out/{name}.scores.csv")
        assert t.score[:3].isna().all() and record["scored"] == len(t) - 3 and record["scorer"]["kind"] == "Height"
        np.testing.assert_allclose(t.score[3:], whole(detector, data), rtol=1e-4)
        assert record["threshold"] == pytest.approx(detector.thresholds["online"]) and record["run"] == (str(run) if name == "folder" else None)
    record = score_video(data.test[0].path, FrameDifference((16, 24)), tmp_path / "out", name="control", device="cpu")
    np.testing.assert_allclose(pd.read_csv(tmp_path / "out/control.scores.csv").score[1:], whole(FrameDifference((16, 24)), data)[1:], rtol=1e-4)
    assert record["threshold"] is None and (tmp_path / "out/control.scored.mp4").exists()
    with pytest.raises(UserError, match="watch is for classifiers"): score_video(data.test[0].path, run, tmp_path / "out", watch="fight")
    with pytest.raises(UserError, match="alpha.*leave it out"): score_video(data.test[0].path, run, tmp_path / "out", alpha=1.)

def test_behind_a_break_it_goes_on_with_what_it_learned(data, toy):
    stream = toy[0].stream()
    stream.see(stored_frames(cache_frames(data.test, (16, 24), 1), 0, 10))
    assert toy[0].stream(stream).background is not None and toy[0].stream().background is None

def test_a_new_kind_is_explored(data, toy):
    "any frame in any order, each as it was in its turn; what only a memory model has is absent"
    pytest.importorskip("ipympl", reason="ipympl is not installed: pip install ipympl")
    explorer = explore(toy[1], data, "cpu")
    assert list(explorer.panels.images) == ["frame", "foreground", "rows"] and explorer.trace.frames[0] == 3
    assert list(explorer.trace.scores()) == [ONLINE] and explorer.decisions.threshold.value == pytest.approx(toy[0].thresholds["online"])
    assert "height" in explorer.player.readout.value and "PSNR" not in explorer.player.readout.value
    assert explorer.gallery.box not in explorer.widget.children
    np.testing.assert_allclose(explorer.decisions.scores, whole(toy[0], data), rtol=1e-6)
    forgetful = FrameInspector(toy[1], data, "cpu", keep=1)
    for t in (19, 3, 17, 4):
        for title, x in explorer.inspector.at(0, t).pictures.items():
            np.testing.assert_array_equal(x, forgetful.at(0, t).pictures[title])
    maps = np.concatenate([said.map for i, said in toy[0].score(data.test) if i == 0])
    np.testing.assert_allclose(forgetful.at(0, 17).pictures["foreground"], maps[14], atol=1e-3)
    with pytest.raises(UserError, match="frames 3 to 19"): forgetful.at(0, 2)

def test_the_control_is_explored(data):
    pytest.importorskip("ipympl", reason="ipympl is not installed: pip install ipympl")
    control = FrameDifference((16, 24))
    explorer = explore(control, data)
    assert list(explorer.panels.images) == ["frame", "squared difference"] and "FrameDifference" in repr(explorer)
    np.testing.assert_allclose(explorer.decisions.scores, whole(control, data)[1:], rtol=1e-6)
    assert "No training frames set a threshold" in explorer.decisions.table.value
    control.refer(data)
    assert explore(control, data).decisions.threshold.value == pytest.approx(control.thresholds["online"])

def test_a_folder_of_no_kind(data, tmp_path):
    for call in (lambda: FrameInspector(tmp_path, data, "cpu"), lambda: evaluation.evaluate(tmp_path, data, "cpu"), lambda: score_video(data.test[0].path, tmp_path, tmp_path / "out")):
        with pytest.raises(UserError, match="holds no detector"): call()


# ---- which run, and which data

def test_of_a_reproduction_the_gated_model_over_its_own_data(data, tmp_path, capsys):
    for name, more in (("a-plain", dict(memory=False)), ("b-frozen", dict(attention="gate", gates="frozen")), ("c-trained", dict(attention="gate"))):
        evaluation.MemoryDetector(replace(TINY, **more), tmp_path / "rep/models" / name, "cpu").fit(data)
    shutil.copytree(data.root, tmp_path / "rep/data/tiny")
    inspector = FrameInspector(tmp_path / "rep", device="cpu")
    said = capsys.readouterr().out
    assert inspector.folder.name == "c-trained" and all(name in said for name in ("a-plain", "b-frozen", "c-trained"))
    assert inspector.data.root == (tmp_path / "rep/data/tiny").resolve() and inspector.data.fingerprint() == data.fingerprint()
    shutil.rmtree(tmp_path / "rep/models/c-trained")
    assert FrameInspector(tmp_path / "rep", device="cpu").folder.name == "a-plain"
    next((tmp_path / "rep/data/tiny/testing").rglob("*.png")).unlink() # no more what it was trained for
    with pytest.raises(UserError, match="dataset tiny of b-frozen is not there as it was"): FrameInspector(tmp_path / "rep/models/b-frozen", device="cpu")
    shutil.rmtree(tmp_path / "rep/data")
    with pytest.raises(UserError, match="dataset tiny of b-frozen.*data="): FrameInspector(tmp_path / "rep/models/b-frozen", device="cpu")
    shutil.rmtree(tmp_path / "rep/models")
    (tmp_path / "rep/models").mkdir()
    with pytest.raises(UserError, match="no detector under models"): FrameInspector(tmp_path / "rep", device="cpu")
