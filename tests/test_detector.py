"Detectors: one interface for whatever scores frames, from ten lines to a trained network."
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import write_tiny

from vad.scores import frame_scores
from vad.training import evaluation
from vad.data.frame_cache import cache_frames
from vad.core.errors import UserError
from vad.data.datasets import open_dataset
from vad.scores.detector import BLOCK, FrameDifference, Scored
from vad.training.trainer import Settings

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
