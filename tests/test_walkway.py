"The walkway on the disk: whole or not at all, two writers at once, other sizes and seeds, many frames, a recipe that stays as it is."
import errno
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from apart import Apart, server
from sklearn.metrics import roc_auc_score

from vad.data import synthetic
from vad.core.errors import UserError
from vad.core.records import read_json
from vad.data.synthetic import KINDS, SCRIPTS, foliage, ground, video, write_walkway

GOLDEN = [("01", "cyclist", 36, 76), ("02", "cart", 0, 39), ("02", "loiterer", 89, 119), ("03", "runner", 17, 63),
          ("03", "bag", 100, 119), ("04", "cyclist", 0, 37), ("04", "wrong way", 87, 119)] # video, kind, first and last frame seen
LIGHT = [[82.3, 79.3, 62.4], [157.8, 142.2, 147.3], [141.0, 142.8, 145.2]] # mean grays of nine parts of a frame
TINY = dict(size=(48, 72), train=1, test=2, train_frames=6, test_frames=30)

def masks(root):
    "masks of all testing videos, as published: packed along the last axis"
    for file in sorted((root / "masks").iterdir()):
        z = np.load(file, allow_pickle=False)
        yield np.unpackbits(z["mask"], axis=-1)[..., :z["shape"][2]].astype(bool)

def labels(root): return np.load(root / "frame_labels_walkway.npy", allow_pickle=False)[0]

@pytest.mark.parametrize("size", [(48, 48), (64, 100), (150, 90), (240, 360)])
def test_any_size(tmp_path, size):
    root = write_walkway(tmp_path / "w", seed=2, **(TINY | dict(size=size)))
    for i, mask in enumerate(masks(root)):
        assert mask.shape == (30, *size)
        assert (mask.any((1, 2)) == labels(root)[30 * i:30 * i + 30]).all()
    frame = cv2.imread(str(root / "testing/frames/01/001.png"), cv2.IMREAD_UNCHANGED)
    assert frame.shape == size and frame.dtype == np.uint8 # one channel

def test_the_same_scene_at_twice_the_size(tmp_path):
    small, large = (write_walkway(tmp_path / str(k), **(TINY | dict(size=(96 * k, 144 * k)))) for k in (1, 2))
    assert (labels(small) == labels(large)).mean() > .95 # a pixel more or less may be seen at the edge
    for a, b in zip(masks(small), masks(large)):
        halved = b.reshape(len(b), 96, 2, 144, 2).mean((2, 4)) >= .5
        assert (a & halved).sum() > .8 * (a | halved).sum()

def test_a_thousand_frames_sort(tmp_path):
    root = write_walkway(tmp_path / "w", size=(48, 48), train=1, test=1, train_frames=1, test_frames=1001)
    names = [p.name for p in (root / "testing/frames/01").iterdir()]
    assert sorted(names) == [f"{i:04d}.png" for i in range(1, 1002)]
    assert (root / "training/frames/01/001.png").exists()

def test_full_disk_leaves_nothing(tmp_path, monkeypatch):
    wrote, left = Path.write_bytes, [9]
    def write_bytes(path, data):
        left[0] -= 1
        if left[0] < 0: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return wrote(path, data)
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(UserError, match="disk is full"): write_walkway(tmp_path / "w", **TINY)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    assert len(labels(write_walkway(tmp_path / "w", **TINY))) == 60

def write_walkway_for_ever(root): write_walkway(root, train_frames=100_000)

def test_killed_writer_is_not_trusted(tmp_path):
    root = tmp_path / "w"
    begun = lambda: any(tmp_path.glob(".w.*.part")) # noqa: E731
    assert Apart(tmp_path / "said", write_walkway_for_ever, root).wait_for(begun).kill(signal.SIGKILL).end()[0] == -signal.SIGKILL
    assert not root.exists()
    assert len(labels(write_walkway(root, **TINY))) == 60

def written(root, barrier):
    barrier.wait()
    write_walkway(root, **TINY)

def test_two_writers_at_once(tmp_path):
    barrier = server.Barrier(2)
    both = [server.Process(target=written, args=(tmp_path / "w", barrier)) for _ in range(2)]
    for p in both: p.start()
    for p in both: p.join(600)
    assert [p.exitcode for p in both] == [0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["w"]
    assert len(labels(tmp_path / "w")) == 60

def test_what_is_there_is_left_alone(tmp_path):
    (tmp_path / "empty").mkdir()
    root = write_walkway(tmp_path / "empty", **TINY) # an empty folder is as good as none
    (root / "testing/frames/01/001.png").unlink()
    with pytest.raises(UserError, match="delete it"): write_walkway(root, **TINY) # no longer whole
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="something else"): write_walkway(mine, **TINY)
    assert (mine / "thesis.txt").read_text() == "years of work"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="something else"): write_walkway(tmp_path / "file", **TINY)

@pytest.mark.parametrize("bad", [dict(size=(20, 200)), dict(train=0), dict(test=0), dict(test_frames=0), dict(seed=-1)])
def test_impossible_settings(tmp_path, bad):
    with pytest.raises(UserError, match="No videos can be drawn"): write_walkway(tmp_path / "w", **(TINY | bad))
    assert not list(tmp_path.iterdir())

def test_recipe_stays_as_it_is(tmp_path):
    "whoever changes what is drawn raises `VERSION` and these numbers: results on the old and the new walkway do not compare"
    root = write_walkway(tmp_path / "w", size=(60, 90), train=1, test=4, train_frames=3, test_frames=120)
    seen = [(e["video"], e["kind"], e["first"], e["last"]) for e in read_json(root / "walkway.json")["events"]]
    assert (synthetic.VERSION, seen) == (1, GOLDEN)
    frame = cv2.imread(str(root / "testing/frames/04/060.png"), cv2.IMREAD_UNCHANGED).astype(float)
    np.testing.assert_allclose(frame.reshape(3, 20, 3, 30).mean((1, 3)), LIGHT, atol=.5)

@pytest.mark.parametrize("seed", [1, 2])
def test_hard_for_any_seed(seed):
    back, leaves = ground(np.random.default_rng([seed, 0])), foliage(np.random.default_rng([seed, 3]))
    made = [video(back, leaves, np.random.default_rng([seed, 2, i]), 120, script) for i, script in enumerate(SCRIPTS)]
    assert {k for _, truth in made for k in np.unique(truth)} == set(range(len(KINDS) + 1))
    y = np.concatenate([(truth > 0).any((1, 2)) for _, truth in made])
    assert .35 < y.mean() < .55
    def micro(score, scale=False):
        s = [score(frames) for frames, _ in made]
        return roc_auc_score(y, np.concatenate([(v - v.min()) / np.ptp(v) for v in s] if scale else s))
    def difference(v): return np.abs(np.diff(v.astype(int), axis=0, prepend=v[1:2])).mean((1, 2))
    assert .25 < micro(lambda v: np.arange(len(v))) < .75
    for scale in (False, True):
        assert .25 < micro(lambda v: v.mean((1, 2)), scale) < .75
        assert micro(difference, scale) < .9

def test_scenes_of_another_process_that_was_first_are_not_taken_for_these(tmp_path, monkeypatch):
    real, few = synthetic.write_csv, dict(cameras=1, normal=1, size=(48, 64), frames=4)
    def late(path, table):
        real(path, table)
        monkeypatch.undo()
        synthetic.write_scenes(tmp_path / "s", seed=1, **few)
    monkeypatch.setattr(synthetic, "write_csv", late)
    with pytest.raises(UserError, match="something else than this dataset"): synthetic.write_scenes(tmp_path / "s", seed=0, **few)
    assert read_json(tmp_path / "s/scenes.json")["seed"] == 1
