"Layouts, labels and the contract: what a dataset may look like, and one clear sentence for everything it may not."
import json
import shutil
import time

import cv2
import numpy as np
import pytest
import scipy.io
from hypothesis import given, strategies as st

from vad.core.errors import UserError
from vad.core.provenance import shared
from vad.data.datasets import PUBLISHED, cut_labels, known_name, open_dataset
from vad.data.labels import fill, read_labels
from vad.data.video import Video, gaps, natural, open_video

needs_ped2 = pytest.mark.skipif(shared("data/ped2") is None, reason="UCSD Ped2 is not in the shared folder (VAD_SHARED)")
needs_avenue = pytest.mark.skipif(shared("data/avenue_sample") is None, reason="the Avenue sample is not in the shared folder (VAD_SHARED)")


def pictures(n, seed=0, h=16, w=24):
    return np.random.default_rng(seed).integers(0, 256, (n, h, w, 3), np.uint8)

def folder(path, n, seed=0, suffix=".png", h=16, w=24, name="{:d}"):
    "a folder of n random frames"
    path.mkdir(parents=True)
    for i, f in enumerate(pictures(n, seed, h, w)): assert cv2.imwrite(str(path / (name.format(i + 1) + suffix)), f)
    return path

def film(path, n, seed=0, h=16, w=24, code="FFV1"):
    "a video file of n random frames"
    path.parent.mkdir(parents=True, exist_ok=True)
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 25, (w, h))
    assert out.isOpened()
    for f in pictures(n, seed, h, w): out.write(f)
    out.release()
    return path

def seed_layout(root, files=False, name="toy", beside=False):
    "2 training videos, 2 testing videos of 7 and 12 frames, labels"
    make = (lambda p, *a: film(p.with_name(p.name + ".avi"), *a)) if files else folder
    for i, n in ((1, 8), (2, 9)): make(root / f"training/frames/{i:02d}", n, i)
    for i, n in ((1, 7), (2, 12)): make(root / f"testing/frames/{i:02d}", n, 10 + i)
    np.save((root.parent if beside else root) / f"frame_labels_{name}.npy", np.r_[np.zeros(10), np.ones(9)].astype(np.int8)[None])
    return root

def problem(call, *words):
    "the message of the UserError that `call` ends in"
    with pytest.raises(UserError) as e: call()
    message = str(e.value)
    for word in words: assert word in message, message
    assert "\n" not in message and message.endswith((".", "=True."))
    return message


# ---- order

@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=30, unique=True), st.sampled_from(["{}.jpg", "frame{}.tif", "{:03d}.png", "a2_{}.bmp"]))
def test_frames_sort_as_numbers(numbers, pattern):
    names = [pattern.format(n) for n in numbers]
    assert [n for _, n in sorted(zip(names, numbers), key=lambda p: natural(p[0]))] == sorted(numbers)

@given(st.sets(st.integers(0, 60), min_size=1))
def test_gaps_are_what_is_missing(numbers):
    names = sorted((f"{n}.jpg" for n in numbers), key=natural)
    assert gaps(names) == sorted(set(range(min(numbers), max(numbers) + 1)) - numbers)[:10]

def test_order_in_a_folder(tmp_path):
    d = tmp_path / "01"
    d.mkdir()
    for n in (1, 2, 10, 9, 11, *range(3, 9)): cv2.imwrite(str(d / f"{n}.PNG"), np.full((8, 8, 3), n, np.uint8))
    (d / ".DS_Store").write_text("x"); (d / "._1.png").write_text("x"); (d / "notes.txt").write_text("x")
    assert [f[0, 0, 0] for f in open_video(d).read()] == list(range(1, 12))


# ---- layouts

@pytest.mark.parametrize("files", [False, True])
@pytest.mark.parametrize("beside", [False, True])
def test_seed_layout(tmp_path, files, beside):
    data = open_dataset(seed_layout(tmp_path / "toy", files, beside=beside))
    assert data.name == "toy" and data.truth == "frame_labels_toy.npy" and data.masks is None and data.warnings == ()
    assert [(v.name, v.frames, v.size) for v in data.train] == [("01", 8, (16, 24)), ("02", 9, (16, 24))]
    assert [y.tolist() for y in data.labels] == [[0] * 7, [0] * 3 + [1] * 9]
    assert all((a == b).all() for a, b in zip(data.test[1].read(), pictures(12, 12), strict=True))
    record = data.record()
    assert json.loads(json.dumps(record)) == record and str(tmp_path) not in json.dumps(record)
    assert record["test"] == dict(videos=2, frames=19, anomalous=9)

def test_videos_folder_and_bare_files(tmp_path):
    for sub in ("videos", "."):
        root = tmp_path / sub.strip(".") / "toy"
        for split, seed in (("training", 0), ("testing", 1)): film(root / split / sub / "01.avi", 8, seed)
        data = open_dataset(root)
        assert len(data.train) == len(data.test) == 1 and data.labels is None and data.truth is None

def test_fingerprint_is_content(tmp_path):
    a = open_dataset(seed_layout(tmp_path / "a" / "toy"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert open_dataset(tmp_path / "b/toy").fingerprint() == a.fingerprint()
    np.save(tmp_path / "b/toy/frame_labels_toy.npy", np.ones(19, int))
    assert open_dataset(tmp_path / "b/toy").fingerprint() != a.fingerprint()

def ucsd(root, numbers=(1, 2), script=True):
    for i in (1, 2): folder(root / f"Train/Train{i:03d}", 6, i, ".tif", name="{:03d}")
    rng = np.random.default_rng(5)
    masks = {}
    for i in numbers:
        folder(root / f"Test/Test{i:03d}", 9, 10 + i, ".tif", name="{:03d}")
        (root / f"Test/Test{i:03d}_gt").mkdir()
        masks[i] = np.zeros((9, 16, 24), bool)
        masks[i][i:i + 3] = rng.random((3, 16, 24)) < .2
        for k, m in enumerate(masks[i]): cv2.imwrite(str(root / f"Test/Test{i:03d}_gt/frame{k + 1:03d}.bmp"), m.astype(np.uint8) * 255)
    if script: (root / "Test/UCSDped2.m").write_text("TestVideoFile = {};\n" + "".join(f"TestVideoFile{{end+1}}.gt_frame = [{i + 1}:{i + 3}, 9];\n" for i in (1, 2, 3)))
    return masks

def test_ucsd_layout(tmp_path):
    root = tmp_path / "UCSDped2"
    masks = ucsd(root)
    (root / "Test/._.DS_Store").write_text("x")
    message = problem(lambda: open_dataset(root), "ped2", "2 of the 16", "partial=True")
    assert "UCSDped2" in message
    data = open_dataset(root, partial=True)
    assert data.name == "ped2_part" and data.truth == "UCSDped2.m" and len(data.warnings) == 2
    assert [v.name for v in data.test] == ["Test001", "Test002"]
    assert [np.flatnonzero(y).tolist() for y in data.labels] == [[1, 2, 3, 8], [2, 3, 4, 8]]
    assert (data.mask(1) == masks[2]).all()
    by_mask = open_dataset(root, truth="masks", partial=True)
    assert by_mask.truth == "masks" and [np.flatnonzero(y).tolist() for y in by_mask.labels] == [[1, 2, 3], [2, 3, 4]]

def test_ucsd_partial_takes_the_right_line(tmp_path):
    ucsd(tmp_path / "UCSDped2", numbers=(2, 3))
    assert [np.flatnonzero(y).tolist() for y in open_dataset(tmp_path / "UCSDped2", partial=True).labels] == [[2, 3, 4, 8], [3, 4, 5, 8]]

def test_ucsd_parent_names_the_children(tmp_path):
    for n in ("UCSDped1", "UCSDped2"): ucsd(tmp_path / "UCSD_Anomaly_Dataset.v1p2" / n)
    problem(lambda: open_dataset(tmp_path / "UCSD_Anomaly_Dataset.v1p2"), "choose one of", "UCSDped1", "UCSDped2")

def test_ranges_outside_the_video(tmp_path):
    ucsd(tmp_path / "UCSDped2")
    (tmp_path / "UCSDped2/Test/UCSDped2.m").write_text("TestVideoFile{end+1}.gt_frame = [5:10];\nTestVideoFile{end+1}.gt_frame = [1:2];")
    data = open_dataset(tmp_path / "UCSDped2", partial=True)
    assert data.labels is None and any("5:10" in w and "Test001" in w for w in data.warnings)

def avenue(root, masks_at=None):
    for i in (1, 2): film(root / f"training_videos/{i:02d}.avi", 8, i)
    lengths = {20: 273, 21: 76}
    out = masks_at or root / "ground_truth_demo"
    (out / "testing_label_mask").mkdir(parents=True)
    for i, n in lengths.items():
        film(root / f"testing_videos/{i}.avi", n, 10 + i)
        cells = np.empty((1, n), object)
        for k in range(n):
            cells[0, k] = np.zeros((16, 24), np.uint8)
            if i <= k < 50: cells[0, k][3:6, 7:9] = 1
        scipy.io.savemat(out / f"testing_label_mask/{i}_label.mat", dict(volLabel=cells))
    labels = np.zeros((1, 15324), np.int8)
    labels[0, -76:-70] = 1
    labels[0, -76 - 273] = 1
    np.save(root / "frame_labels_avenue.npy", labels)

@pytest.mark.parametrize("inside", [True, False])
def test_avenue_layout(tmp_path, inside):
    root = tmp_path / "Avenue Dataset"
    avenue(root, None if inside else tmp_path / "ground_truth_demo")
    data = open_dataset(root, partial=True)
    assert data.name == "avenue_part" and data.truth == "frame_labels_avenue.npy" == open_dataset(root, "mnad", partial=True).truth
    assert [np.flatnonzero(y).tolist() for y in data.labels] == [[0], list(range(6))]
    data = open_dataset(root, truth="masks", partial=True)
    assert data.truth == "masks" and [np.flatnonzero(y).tolist() for y in data.labels] == [list(range(20, 50)), list(range(21, 50))]
    mask = data.mask(0)
    assert mask.shape == (273, 16, 24) and mask.dtype == bool and mask.sum() == 30 * 6
    (root / "frame_labels_avenue.npy").unlink()
    assert open_dataset(root, partial=True).truth == "masks"

def test_shanghaitech_layout(tmp_path):
    root = tmp_path / "shanghaitech"
    film(root / "training/videos/01_001.avi", 8)
    (root / "testing/test_frame_mask").mkdir(parents=True); (root / "testing/test_pixel_mask").mkdir()
    for i, name in enumerate(("01_0014", "01_0015")):
        folder(root / "testing/frames" / name, 7, 5 + i, ".jpg", name="{:03d}")
        y = np.zeros(7, np.int64); y[i:i + 2] = 1
        np.save(root / f"testing/test_frame_mask/{name}.npy", y)
        np.save(root / f"testing/test_pixel_mask/{name}.npy", np.broadcast_to(y[:, None, None], (7, 16, 24)).astype(np.uint8))
    problem(lambda: open_dataset(root), "1 of the 330")
    data = open_dataset(root, partial=True)
    assert data.name == "shanghaitech_part" and data.truth == "test_frame_mask"
    assert [np.flatnonzero(y).tolist() for y in data.labels] == [[0, 1], [1, 2]]
    assert (data.mask(1).any((1, 2)) == data.labels[1]).all()
    np.save(root / "testing/test_frame_mask/01_0015.npy", np.zeros(6, int))
    data = open_dataset(root, partial=True)
    assert [v.name for v in data.test] == ["01_0014"] and any("7 frames and 6 labels" in w for w in data.warnings)

def test_plain_folders(tmp_path):
    for i in (1, 2, 10): film(tmp_path / "films" / f"{i}.avi", 6, i, h=16 + 2 * i)
    data = open_dataset(tmp_path / "films")
    assert [v.name for v in data.test] == ["1", "2", "10"] and data.train == () and data.labels is None
    for i in (1, 2): folder(tmp_path / "folders" / f"{i}", 6, i)
    assert len(open_dataset(tmp_path / "folders").test) == 2
    assert open_dataset(tmp_path / "folders/1").test[0].frames == open_dataset(tmp_path / "films/1.avi").test[0].frames == 6

def test_packed_masks(tmp_path):
    root = seed_layout(tmp_path / "toy")
    blobs = np.random.default_rng(0).random((12, 16, 24)) < .01
    (root / "masks").mkdir()
    np.savez_compressed(root / "masks/02.npz", mask=np.packbits(blobs, axis=-1), shape=blobs.shape)
    data = open_dataset(root)
    assert data.mask(0) is None and (data.mask(1) == blobs).all()
    np.savez_compressed(root / "masks/02.npz", mask=np.packbits(blobs[:5], axis=-1), shape=blobs[:5].shape)
    problem(lambda: open_dataset(root).mask(1), "02.npz", "(5, 16, 24)")

@needs_ped2
def test_ped2():
    begin = time.process_time() # of this process alone: other programs do not count
    data = open_dataset(shared("data/ped2"))
    took = time.process_time() - begin
    assert took < 5, f"opening Ped2 took {took:.1f} s; 0.4 s is usual"
    assert len(data.train) == 16 and sum(v.frames for v in data.train) == 2550 and data.warnings == ()
    assert tuple(v.frames for v in data.test) == PUBLISHED["ped2"]["lengths"]
    assert sum(int(y.sum()) for y in data.labels) == 1648 and data.truth == "frame_labels_ped2.npy"
    for i in (0, 11): assert (data.mask(i).any((1, 2)) == data.labels[i]).mean() > .97

@needs_ped2
def test_ped2_partial(tmp_path):
    source, root = shared("data/ped2"), tmp_path / "ped2"
    (root / "training").mkdir(parents=True); (root / "testing").mkdir()
    for n in ("training/01.mp4", "testing/03.mp4", "testing/12.mp4"): shutil.copy(source / n, root / n)
    shutil.copy(source / "frame_labels_ped2.npy", root)
    problem(lambda: open_dataset(root), "1 of the 16", "partial=True")
    whole, part = open_dataset(source), open_dataset(root, partial=True)
    assert [y.tolist() for y in part.labels] == [whole.labels[2].tolist(), whole.labels[11].tolist()]
    assert (whole.name, part.name) == ("ped2", "ped2_part") # nothing published stands beside a part
    assert len(part.record()["warnings"]) == 2 and str(tmp_path) not in str(part.record())

@needs_avenue
def test_avenue_sample():
    root = shared("data/avenue_sample")
    problem(lambda: open_dataset(root), "1 of the 16", "partial=True")
    mnad, masks = (open_dataset(root, t, partial=True) for t in ("mnad", "masks"))
    assert mnad.test[0].frames == 76 and (mnad.labels[0] == masks.labels[0]).all() and mnad.labels[0].sum() == 53
    assert mnad.truth != masks.truth


# ---- what is wrong, and what partial=True makes of it

def test_wrong_folders(tmp_path):
    problem(lambda: open_dataset(tmp_path / "nowhere"), "nowhere", "does not exist")
    (tmp_path / "x").mkdir(); (tmp_path / "x/notes.txt").write_text("hello")
    problem(lambda: open_dataset(tmp_path / "x"), "training/")
    problem(lambda: open_dataset(tmp_path / "x/notes.txt"), "notes.txt", "not a video")
    (tmp_path / "y/training").mkdir(parents=True); (tmp_path / "y/testing").mkdir()
    problem(lambda: open_dataset(tmp_path / "y"), "no training videos")

def test_missing_testing_split(tmp_path):
    root = seed_layout(tmp_path / "toy")
    shutil.rmtree(root / "testing")
    problem(lambda: open_dataset(root), "no testing videos")
    assert len(open_dataset(root, partial=True).train) == 2

def halve(path):
    data = path.read_bytes()
    path.write_bytes(data[:len(data) // 2])

@pytest.mark.parametrize("damage, words, left", [
    (lambda d: [p.unlink() for p in d.iterdir()], ("02", "no frames"), False),
    (lambda d: (d / "4.png").write_bytes(b""), ("4.png", "0 bytes"), False),
    (lambda d: halve(d / "4.png"), ("4.png", "truncated"), False),
    (lambda d: (d / "4.png").write_bytes(b"hello IEND"), ("4.png", "as an image"), False),
    (lambda d: cv2.imwrite(str(d / "4.png"), np.zeros((16, 20, 3), np.uint8)), ("4.png", "20 x 16", "24 x 16"), False),
    (lambda d: (d / "4.png").unlink(), ("frame 4", "02"), True),
    (lambda d: [(d / f"{i}.png").unlink() for i in range(5, 10)], ("4 frames", "clip"), False),
    (lambda d: (shutil.rmtree(d), shutil.copytree(d.parent / "01", d)), ("01", "02", "same video"), True),
], ids=["empty", "zero-byte", "truncated", "no-image", "mixed-sizes", "gap", "short", "duplicate"])
def test_broken_training_video(tmp_path, damage, words, left):
    root = seed_layout(tmp_path / "toy")
    damage(root / "training/frames/02")
    problem(lambda: open_dataset(root), *words, "partial=True")
    data = open_dataset(root, partial=True)
    assert len(data.train) == 1 + left and len(data.warnings) == 1 and str(tmp_path) not in data.warnings[0]

def test_a_training_video_in_testing(tmp_path):
    root = seed_layout(tmp_path / "toy")
    shutil.rmtree(root / "training/frames/02")
    shutil.copytree(root / "testing/frames/02", root / "training/frames/07")
    problem(lambda: open_dataset(root), "07", "same video")

def test_two_sizes(tmp_path):
    root = seed_layout(tmp_path / "toy")
    folder(root / "training/frames/03", 6, 3, h=20)
    problem(lambda: open_dataset(root), "03", "24 x 20", "24 x 16")

def test_two_videos_of_one_name(tmp_path):
    root = seed_layout(tmp_path / "toy")
    film(root / "training/frames/01.avi", 6, 77)
    problem(lambda: open_dataset(root), "two videos called 01")

@pytest.mark.parametrize("code, suffix", [("FFV1", ".avi"), ("mp4v", ".mp4"), ("MJPG", ".mov"), ("FFV1", ".mkv"), ("MPG1", ".mpg")])
def test_video_files(tmp_path, code, suffix):
    path = film(tmp_path / f"01{suffix}", 30, code=code, h=48, w=64)
    video = open_video(path)
    assert video.frames == len(list(video.read())) == 30 and len(list(video.read(start=7, stop=12))) == 5
    whole = path.read_bytes()
    for data in (b"", b"junk" * 500):
        path.write_bytes(data)
        problem(lambda: open_video(path), path.name)
    path.write_bytes(whole[:len(whole) // 2])
    if suffix != ".mpg" and suffix != ".mkv": problem(lambda: open_video(path), path.name, "truncated") # the other two say no length

def test_a_truncated_stream_whose_header_came_first(tmp_path):
    "an .mp4 made for the web: the index is at its beginning and survives a broken download"
    ped2 = shared("data/ped2/testing/01.mp4")
    if ped2 is None: pytest.skip("UCSD Ped2 is not in the shared folder (VAD_SHARED)")
    data = ped2.read_bytes()
    at, boxes = 0, {}
    while at < len(data):
        n = int.from_bytes(data[at:at + 4], "big")
        boxes[data[at + 4:at + 8]] = data[at:at + n]
        at += n
    moov, moved = bytearray(boxes[b"moov"]), len(boxes[b"moov"])
    if data.find(b"moov") > data.find(b"mdat"): # move the index to the front, and every chunk offset with it
        k = moov.find(b"stco")
        for i in range(int.from_bytes(moov[k + 8:k + 12], "big")):
            o = k + 12 + 4 * i
            moov[o:o + 4] = (int.from_bytes(moov[o:o + 4], "big") + moved).to_bytes(4, "big")
    web = boxes[b"ftyp"] + bytes(moov) + b"".join(b for k, b in boxes.items() if k not in (b"ftyp", b"moov"))
    path = tmp_path / "01.mp4"
    path.write_bytes(web)
    assert open_video(path).frames == 180 == len(list(open_video(path).read()))
    path.write_bytes(web[:len(web) // 2])
    problem(lambda: open_video(path), "01.mp4", "180", "truncated")
    part = open_video(path, partial=True)
    assert 0 < part.frames < 180 and len(list(part.read())) == part.frames
    problem(lambda: list(Video("01", path, 180, (240, 360)).read()), "ends after", "of 180")

def test_a_video_that_changed_while_open(tmp_path):
    video = open_video(folder(tmp_path / "01", 6))
    (tmp_path / "01/6.png").unlink()
    problem(lambda: list(video.read()), "6 frames when it was opened")

def test_frames_of_another_size_inside_a_video(tmp_path):
    d = folder(tmp_path / "01", 6)
    problem(lambda: list(Video("01", d, 6, (16, 20)).read()), "20 x 16", "24 x 16")


# ---- labels

@pytest.mark.parametrize("bad, words", [
    (np.zeros(18, int), ("18 labels", "19 frames")), (np.zeros(20, int), ("20 labels",)),
    (np.r_[np.zeros(18, int), 2], ("holds 2",)), (np.full(19, .5), ("holds 0.5",)), (np.r_[np.zeros(18), np.nan], ("holds nan",)),
    (np.array(["0"] * 19), ("type",)), (np.zeros((2, 19), int), ("shape",)),
], ids=["short", "long", "class", "float", "nan", "text", "shape"])
def test_bad_labels(tmp_path, bad, words):
    root = seed_layout(tmp_path / "toy")
    np.save(root / "frame_labels_toy.npy", bad)
    problem(lambda: open_dataset(root), "frame_labels_toy.npy", *words)
    data = open_dataset(root, partial=True)
    assert data.labels is None and data.truth is None and "No labels are used" in data.warnings[0] and len(data.test) == 2

class Trap:
    def __reduce__(self): return eval, ("1 / 0",) # unpickling it raises ZeroDivisionError

def test_labels_are_never_unpickled(tmp_path):
    root = seed_layout(tmp_path / "toy")
    np.save(root / "frame_labels_toy.npy", np.array([Trap()], object), allow_pickle=True)
    problem(lambda: open_dataset(root), "never unpickled")
    (root / "frame_labels_toy.npy").write_bytes((root / "frame_labels_toy.npy").read_bytes()[:40])
    problem(lambda: open_dataset(root), "frame_labels_toy.npy")

def test_truths_by_name(tmp_path):
    root = seed_layout(tmp_path / "toy")
    problem(lambda: open_dataset(root, truth="masks"), "'masks'", "frame_labels_toy.npy")
    np.save(root / "frame_labels_a.npy", np.ones(19, int))
    assert open_dataset(root).truth == "frame_labels_toy.npy"                  # bears the folder's name
    assert open_dataset(root, truth="frame_labels_a.npy").labels[0].all()
    (root / "frame_labels_toy.npy").rename(root / "frame_labels_b.npy")
    problem(lambda: open_dataset(root), "several label files")

@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.data())
def test_cutting_a_row_inverts_joining_it(lengths, data):
    row = np.array(data.draw(st.lists(st.integers(0, 1), min_size=sum(lengths), max_size=sum(lengths))), np.uint8)
    videos = [Video(f"{i + 1:02d}", None, n, (8, 8)) for i, n in enumerate(lengths)]
    parts = cut_labels(row, videos, (), "x.npy")
    assert [len(p) for p in parts] == lengths and (np.concatenate(parts) == row).all()
    kept = data.draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1))
    some = cut_labels(row, [videos[i] for i in sorted(kept)], tuple(lengths), "x.npy")
    assert all((some[j] == parts[i]).all() for j, i in enumerate(sorted(kept)))

@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 9)), max_size=5))
def test_ranges_fill_what_they_name(ranges):
    ranges = [(a, a + n) for a, n in ranges]
    want = [int(any(a <= i + 1 <= b for a, b in ranges)) for i in range(60)]
    assert fill(ranges, 60).tolist() == want

def test_published_label_files():
    for name, shape, n in (("ped2/frame_labels_ped2.npy", 2010, 1648), ("avenue_sample/frame_labels_avenue.npy", 15324, 3867),
                           ("shanghaitech/frame_labels_shanghai.npy", 40791, 17326)):
        path = shared(f"data/{name}")
        if path is None: pytest.skip(f"{name} is not in the shared folder (VAD_SHARED)")
        labels = read_labels(path)
        assert labels.shape == (shape,) and labels.sum() == n

def test_names_of_datasets():
    for name, want in (("ped2", "ped2"), ("UCSD_Ped1", "ped1"), ("CUHK Avenue", "avenue"), ("shanghai", "shanghaitech"), ("ped2_small", "ped2_small")):
        assert known_name(name) == want
