"What marks a frame, a pixel or a clip as anomalous, as people store it: masks of every depth and colour, lists from every editor, pairs of arrays."
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from conftest import write_tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from test_cli import call

from vad.data import labels
from vad.cli import run_app
from vad.training.splits import open_clips
from vad.data.clips import collect_ucf, read_ucf
from vad.core.errors import UserError
from vad.core.provenance import shared
from vad.data.datasets import open_dataset, own_labels_file
from vad.data.labels import plain_text, read_mask

BLOB = np.zeros((3, 16, 24), bool)
BLOB[1, 4:9, 5:12], BLOB[2, 2:5, 15:20] = True, True
IDS = BLOB * np.arange(1, 4, dtype=np.uint8)[:, None, None] # each frame's object has a number of its own

def folder(path, frames, suffix=".png", **kwargs):
    path.mkdir(parents=True)
    for i, f in enumerate(frames): f.save(path / f"{i + 1:03d}{suffix}", **kwargs)
    return path

def read(path): return read_mask(path, *BLOB.shape[:1], BLOB.shape[1:])


# ---- images

def palette(ids, *colours):
    image = Image.fromarray(ids)
    image.putpalette([v for c in colours for v in c])
    return image

VOC = (0, 0, 0), (1, 0, 0), (0, 128, 0), (128, 128, 0) # the first of them nearly black
COLOUR = np.array([[0, 0, 0], [200, 0, 0]], np.uint8)
MASKS = dict(
    palette=lambda ids: palette(ids, *VOC),
    bits=lambda ids: Image.fromarray(ids > 0),
    gray=lambda ids: Image.fromarray(ids),
    bits16=lambda ids: Image.fromarray(ids.astype(np.uint16)),
    bits16_high=lambda ids: Image.fromarray(ids.astype(np.uint16) << 12),
    red=lambda ids: Image.fromarray(COLOUR[(ids > 0).astype(int)]),
    blue_faint=lambda ids: Image.fromarray(np.stack([ids * 0, ids * 0, ids], -1)),
    gray_opaque=lambda ids: Image.fromarray(np.stack([ids, ids * 0 + 255], -1)),
    red_opaque=lambda ids: Image.fromarray(np.concatenate([COLOUR[(ids > 0).astype(int)], np.full((*ids.shape, 1), 255, np.uint8)], -1)),
    alpha_alone=lambda ids: Image.fromarray(np.concatenate([np.full((*ids.shape, 3), 255, np.uint8), ids[..., None] * 40], -1)),
)

@pytest.mark.parametrize("kind", MASKS)
def test_every_kind_of_image(tmp_path, kind):
    "the first frame has no anomaly at all, the others one in a few pixels"
    np.testing.assert_array_equal(read(folder(tmp_path / kind, map(MASKS[kind], IDS))), BLOB)

def test_deep_colours_and_other_files(tmp_path):
    deep = tmp_path / "deep"
    deep.mkdir()
    for i, ids in enumerate(IDS): assert cv2.imwrite(str(deep / f"{i}.png"), np.stack([ids * np.uint16(0)] * 2 + [ids.astype(np.uint16)], -1))
    np.testing.assert_array_equal(read(deep), BLOB) # the lowest of 16 bits
    for suffix, kind in ((".bmp", "palette"), (".bmp", "bits"), (".tif", "bits16"), (".tif", "bits"), (".tif", "red")):
        np.testing.assert_array_equal(read(folder(tmp_path / f"{kind}{suffix}", map(MASKS[kind], IDS), suffix)), BLOB)
    floats = folder(tmp_path / "floats", (Image.fromarray(i.astype(np.float32)) for i in IDS), ".tif")
    np.testing.assert_array_equal(read(floats), BLOB)

def test_a_palette_that_a_program_made(tmp_path):
    "quantising may give the index 0 to what is marked"
    swapped = folder(tmp_path / "swapped", (palette((ids == 0).astype(np.uint8), (200, 0, 0), (0, 0, 0)) for ids in IDS))
    np.testing.assert_array_equal(read(swapped), BLOB)

def test_opaque_pictures_of_nothing(tmp_path):
    nothing = folder(tmp_path / "nothing", [MASKS["red_opaque"](IDS[0] * 0)] * 3)
    assert not read(nothing).any()

@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 0, 0)])
def test_noise_of_a_jpeg_marks_nothing(tmp_path, quality, colour):
    big = np.roll(np.kron(BLOB, np.ones((1, 16, 16), bool)), (3, 3), (1, 2)) # not along the JPEG's blocks
    frames = [Image.fromarray(np.where(b[..., None], np.uint8(colour), np.uint8(0))) for b in big]
    jpegs = folder(tmp_path / "jpeg", frames, ".jpg", quality=quality, subsampling=0)
    assert (cv2.imread(str(jpegs / "002.jpg"))[~big[1]] > 0).any() # there is noise
    mask = read_mask(jpegs, *big.shape[:1], big.shape[1:])
    assert not mask[0].any() and (mask != big).mean() < .002

def test_turned_by_exif(tmp_path):
    "as OpenCV turns the frames"
    exif = Image.Exif()
    exif[0x0112] = 6
    big = np.kron(BLOB, np.ones((1, 8, 8), np.uint8))
    turned = folder(tmp_path / "turned", (Image.fromarray(b * np.uint8(255)) for b in big), ".jpg", exif=exif)
    frame = cv2.imread(str(turned / "002.jpg"), cv2.IMREAD_GRAYSCALE) > 127
    mask = read_mask(turned, 3, frame.shape)
    np.testing.assert_array_equal(mask[1], frame)
    assert frame.shape == big.shape[:0:-1]


# ---- arrays

@pytest.mark.parametrize("kind", [bool, np.uint8, np.int8, np.uint16, np.int64, np.float16, np.float32, np.float64, ">u2", ">f4"])
def test_arrays_of_every_type(tmp_path, kind):
    cells = np.empty((1, 3), object)
    cells[0, :] = [(BLOB[i] * 1).astype(kind) for i in range(3)]
    np.save(tmp_path / "a.npy", BLOB.astype(kind))
    np.savez(tmp_path / "a.npz", mask=BLOB.astype(kind))
    np.savez(tmp_path / "b.npz", BLOB.astype(kind))
    if np.dtype(kind) != np.float16: scipy.io.savemat(tmp_path / "a.mat", dict(volLabel=cells)) # MATLAB has no half
    for p in sorted(tmp_path.iterdir()): np.testing.assert_array_equal(read(p), BLOB)

def test_channels_behind(tmp_path):
    np.save(tmp_path / "a.npy", BLOB[..., None] * 7)
    np.save(tmp_path / "b.npy", BLOB[..., None] * np.array([0, 0, 3], np.uint8))
    np.save(tmp_path / "c.npy", np.concatenate([BLOB[..., None] * np.array([9, 0, 0], np.uint8), np.full((*BLOB.shape, 1), 255, np.uint8)], -1))
    for p in sorted(tmp_path.iterdir()): np.testing.assert_array_equal(read(p), BLOB)

@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_what_is_no_mask(tmp_path, value):
    odd = BLOB.astype(np.float32)
    odd[1, 0, 0] = value
    cells = np.empty((1, 3), object)
    cells[0, :] = list(odd)
    np.save(tmp_path / "a.npy", odd)
    np.savez(tmp_path / "a.npz", mask=odd)
    scipy.io.savemat(tmp_path / "a.mat", dict(volLabel=cells))
    for name in ("a.npy", "a.npz", "a.mat"):
        with pytest.raises(UserError, match=name): read(tmp_path / name)

def test_no_pickles(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", mask=np.array([{}], object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(UserError, match=name): read(tmp_path / name)

@settings(max_examples=30, deadline=None)
@given(arrays(np.uint8, (2, 3, 11), elements=st.integers(0, 1)))
def test_packed_bits_are_what_they_were(bits):
    import tempfile
    with tempfile.TemporaryDirectory() as d:
        path = Path(d) / "01.npz"
        np.savez(path, mask=np.packbits(bits, axis=-1), shape=bits.shape)
        np.testing.assert_array_equal(read_mask(path, 2, (3, 11)), bits > 0)


# ---- MATLAB

def mat(path, frames=40):
    cells = np.empty((1, frames), object)
    cells[0, :] = [np.random.default_rng(i).integers(0, 2, (24, 32), np.uint8) for i in range(frames)]
    scipy.io.savemat(path, dict(volLabel=cells), do_compression=True)
    return np.stack(list(cells[0]))

def test_damaged_mat_files_end_nothing(tmp_path):
    "whatever bytes are wrong, the answer is a mask or one sentence, and the next file is read"
    want = mat(tmp_path / "good.mat", 4)
    whole, rng = (tmp_path / "good.mat").read_bytes(), np.random.default_rng(0)
    for i in range(40):
        data = bytearray(whole)
        for at in rng.integers(124, len(data), 6): data[at] = rng.integers(256)
        (tmp_path / "bad.mat").write_bytes(data[:rng.integers(130, len(data))] if i % 4 == 0 else data)
        try: read_mask(tmp_path / "bad.mat", 4, (24, 32))
        except UserError as e: assert "bad.mat" in str(e) and str(e).endswith(".")
    np.testing.assert_array_equal(read_mask(tmp_path / "good.mat", 4, (24, 32)), want > 0)

class Dying(labels.MatReader):
    "its process is killed when it begins with a file, as by a native crash"
    def ask(self, path):
        self.process.kill()
        return super().ask(path)

def test_a_reader_that_dies(tmp_path):
    mat(tmp_path / "3_label.mat")
    with pytest.raises(UserError, match="3_label.mat is damaged, and the reader of .mat files died of it"): Dying().read(tmp_path / "3_label.mat")

def test_a_reader_that_takes_too_long(tmp_path, monkeypatch):
    mat(tmp_path / "4_label.mat")
    monkeypatch.setattr(labels, "MAT_SECONDS", 0)
    with pytest.raises(UserError, match="4_label.mat took more than 0 seconds"):
        reader = labels.MatReader()
        reader.start()
        monkeypatch.setattr(reader, "ask", lambda path: (reader.process.wait(), (_ for _ in ()).throw(EOFError))) # it answers nothing before it is killed
        reader.read(tmp_path / "4_label.mat")

def test_one_process_reads_many_files(tmp_path):
    for i in range(5): mat(tmp_path / f"{i}.mat", 2)
    read_mask(tmp_path / "0.mat", 2, (24, 32))
    process = labels._mat.process
    for i in range(5): read_mask(tmp_path / f"{i}.mat", 2, (24, 32))
    assert labels._mat.process is process and process.poll() is None

def test_mat_files_that_are_something_else(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", dict(x=np.zeros(3), y=np.zeros(3)))
    scipy.io.savemat(tmp_path / "b.mat", dict(volLabel=np.zeros((3, 4))))
    (tmp_path / "c.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(512))
    for name, why in (("a.mat", "volLabel"), ("b.mat", "cell"), ("c.mat", "c.mat")):
        with pytest.raises(UserError, match=why): read_mask(tmp_path / name, 3, (4, 4))


# ---- masks that mark nothing, or everything

def doubtful(root, fill):
    for p in (root / "masks").iterdir(): p.unlink()
    for i in (1, 2, 3): np.savez(root / f"masks/{i:02d}.npz", mask=np.full((20, 32, 32), fill(i)))
    return root

@pytest.mark.parametrize("fill, said", [(lambda i: False, "mark no frame as anomalous"), (lambda i: i == 2, "02.npz marks every pixel of every frame")])
@pytest.mark.parametrize("which", ["masks", "mnad"])
def test_doubtful_masks_are_said(tmp_path, fill, said, which):
    root = doubtful(write_tiny(tmp_path / "tiny"), fill)
    rc, out, err = call(tmp_path, "data", "check", root, "--truth", which)
    assert rc == 0 and said in out and out.count("warning: ") == 1, (out, err)
    if which == "masks": assert said in " ".join(open_dataset(root, "masks").record()["warnings"])


# ---- lists

def test_text_of_every_editor(tmp_path):
    for data in (b"a\nb\n", b"\xef\xbb\xbfa\r\nb\r\n", "a\nb\n".encode("utf-16"), b"a\rb\r"):
        (tmp_path / "x.txt").write_bytes(data)
        assert plain_text(tmp_path / "x.txt") == "a\nb\n"
    (tmp_path / "x.txt").write_bytes(b"\xff\x00\x81")
    with pytest.raises(UserError, match="x.txt is no text"): plain_text(tmp_path / "x.txt")

TRAIN = "Abuse/Abuse001_x264.mp4\nTraining_Normal_Videos_Anomaly/Normal_Videos001_x264.mp4\n"
TEST = "Abuse028_x264.mp4  Abuse  3  9  -1  -1  \nNormal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1  \n"

def lists(folder, train=TRAIN, test=TEST, **kwargs):
    folder.mkdir(exist_ok=True)
    for name, text in (("Anomaly_Train.txt", train), ("Temporal_Anomaly_Annotation.txt", test)): (folder / name).write_text(text, newline="", **kwargs)
    return folder

@pytest.mark.parametrize("change", [str.upper, str.lower, lambda s: s.replace("\n", "\r\n"), lambda s: s.replace("  ", "\t"), lambda s: s.replace("/", "\\"),
                                    lambda s: "\n" + s + "\n\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_ucf_lists_of_every_editor(tmp_path, change, encoding):
    t = read_ucf(lists(tmp_path / "lists", change(TRAIN), change(TEST), encoding=encoding))
    assert t.label.tolist() == ["Abuse", "normal", "Abuse", "normal"] and t.split.tolist() == ["train", "train", "test", "test"]
    assert t.ranges.tolist() == [None, [], [(3, 9)], []]
    films = tmp_path / "films"
    films.mkdir()
    for name in ("Abuse001_x264.mp4", "Abuse028_x264.mp4", "Normal_Videos_003_x264.mp4"): (films / name).touch()
    c = collect_ucf(films, tmp_path / "lists")
    assert c.classes == ("normal", "Abuse") and sorted(c.table.video) == sorted(p.name for p in films.iterdir())

@pytest.mark.parametrize("line, why", [
    ("A.mp4 Abuse 90 30 -1 -1", "ends before it begins"), ("A.mp4 Abuse 9 -1 -1 -1", "ends before it begins"), ("A.mp4 Abuse -5 9 -1 -1", "no range"),
    ("A.mp4 Abuse 1 2 8 5", "frames 8 to 5"), ("A.mp4 Abuse 1 2", "no line of UCF"), ("abuse028_X264.mp4 Abuse 1 2 -1 -1", "second time")])
def test_a_bad_annotation_is_named(tmp_path, line, why):
    with pytest.raises(UserError, match=why) as e: read_ucf(lists(tmp_path / "lists", test=TEST + line + "\n"))
    assert f"Temporal_Anomaly_Annotation.txt, line 3 ({line!r})" in str(e.value)

def test_an_annotation_behind_the_film(tmp_path, monkeypatch):
    from test_embed import write_film
    for name in ("Abuse028_x264.avi", "Normal_Videos_003_x264.avi"): write_film(tmp_path / "films" / name, 8)
    test = TEST.replace(".mp4", ".avi")
    assert collect_ucf(tmp_path / "films", lists(tmp_path / "lists", test=test)).table.ranges.tolist() == [[(3, 9)], []] # one frame too far, as official ends are
    with pytest.raises(UserError, match="line 1 .*Abuse028.*begins at frame 9.* has 8"):
        collect_ucf(tmp_path / "films", lists(tmp_path / "lists", test=test.replace("3  9", "9  12")))
    said = refused(monkeypatch, "segment", tmp_path / "films", "--annotations", tmp_path / "lists", "--out", tmp_path / "clips")
    assert "Temporal_Anomaly_Annotation.txt, line 1" in said and "Abuse028_x264.avi" in said


# ---- pairs of arrays

FAST = "--split clip --hidden 8 --layers 1 --cell sru --epochs 1 --batch 4 --device cpu".split()
PAIRS = dict( # what of a pair is said; None: it is read as `plain` is
    column=None, floatlabels=None, fortran=None, half=None, onehot=None, plain=None, uint8=None, gap=None, strings=None, nanpad=None, zeroclip=None,
    empty="empty_embeddings.npy holds no videos", inf="inf_embeddings.npy holds a number that is not finite (NaN or infinite) in video 3 (3), frame 2",
    minusone="--normal", onebased="--normal", oneclass="one class only", rare="Class 1 has 4 clips, too few for 5 parts (0: 36, 1: 4)",
    six="Class 0 has 3 clips", two="Class 1 has 2 clips", twod="(videos, frames, width)")

def refused(monkeypatch, *args):
    "the sentence of a command that fails, run in this process"
    monkeypatch.setattr("sys.argv", ["vad", *map(str, args)])
    code, said = run_app()
    assert code == 1 and said.endswith(".")
    return said

def pair(name):
    if not (found := shared(f"cases/pairs/{name}_embeddings.npy")): pytest.skip("the pairs are not here (set VAD_SHARED)")
    return found

@pytest.mark.parametrize("name", [n for n, said in PAIRS.items() if said is None])
def test_pairs_that_are_read(name):
    path = pair(name)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        c = open_clips(path)
    plain = open_clips(pair("plain"))
    kept = np.isin(plain.names, c.names)
    assert c.classes == dict(gap=("0", "3"), strings=("normal", "fight")).get(name, ("0", "1")) and c.has_normal
    assert c.labels.tolist() == plain.labels[kept].tolist() and c.record()["normal"] == c.classes[0]
    assert np.isfinite(np.asarray(c.features, np.float32)).all() and not np.asarray(c.features)[~c.mask()].any()
    assert (len(said) == 1) == (name == "zeroclip") and (name == "zeroclip") == (not kept.all())
    if name == "zeroclip": assert "hold only zeros" in str(said[0].message)
    if name == "nanpad": assert 0 < (~c.mask()).sum() == np.isnan(np.load(path)).all(-1).sum()

@pytest.mark.parametrize("name", [n for n, said in PAIRS.items() if said])
def test_pairs_that_are_refused(tmp_path, monkeypatch, name):
    assert PAIRS[name] in refused(monkeypatch, "classify", pair(name), "--out", tmp_path / "run", *FAST)
    assert not (tmp_path / "run").exists()

def save_pair(folder, x, y):
    folder.mkdir(exist_ok=True)
    np.save(folder / "a_embeddings.npy", x)
    np.save(folder / "a_labels.npy", y)
    return folder / "a_embeddings.npy"

def test_a_pair_through_the_command(tmp_path, monkeypatch):
    "and the person's word on which class is normal"
    rc, out, err = call(tmp_path, "classify", pair("minusone"), "--normal=-1", "--out", tmp_path / "run", *FAST)
    assert rc == 0 and "Normal: -1. Anomalous: 1." in out, err
    rc, out, err = call(tmp_path, "classify", pair("onebased"), "--kind", "multiclass", "--out", tmp_path / "two", *FAST)
    assert rc == 0 and "none of them is taken for normal" in out, err
    assert "one class only" in refused(monkeypatch, "classify", pair("oneclass"), "--out", tmp_path / "three", "--folds", 2, *FAST)

X = np.random.default_rng(0).normal(size=(8, 3, 4))

@pytest.mark.parametrize("change, said", [
    (lambda x, y: (x, y + .5), "holds 0.5 for video 0"), (lambda x, y: (x, np.where(y, np.nan, 0)), "holds nan for video 1"),
    (lambda x, y: (x, y[:-1]), "should be 8 labels"),
    (lambda x, y: (x, np.stack([y, y], 1)), "should be 8 labels"), (lambda x, y: (x.astype(complex), y), "complex128"), (lambda x, y: (x * 1e300, y), "not finite"),
    (lambda x, y: (np.where(np.arange(8)[:, None, None] == 5, np.nan, x), y), "video 5 (5), frame 0"), (lambda x, y: (x, np.array([""] * 8)), "empty words"),
    (lambda x, y: (np.where(np.arange(3)[:, None] == 1, np.nan, x), y), "video 0 (0), frame 1")])
def test_pairs_that_are_no_pairs(tmp_path, change, said):
    path = save_pair(tmp_path, *change(X, np.arange(8) % 2))
    with pytest.raises(UserError) as e: open_clips(path)
    assert said in str(e.value) and "a_" in str(e.value)

@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.float16, np.float64, ">f4"])
def test_pairs_of_any_number(tmp_path, kind):
    x = (X * 40 + 120).astype(kind)
    c = open_clips(save_pair(tmp_path, x, np.arange(8) % 2))
    np.testing.assert_array_equal(np.asarray(c.features), x)

def test_numbers_behind_the_mask(tmp_path):
    "of an embedding with a manifest, what stands in padding is not read, whatever it is"
    from test_embed import TINY, write_film

    from vad.core.records import read_json, write_json
    from vad.data.embedding import embed, open_embeddings
    for name, n in (("normal/a.avi", 3), ("anomalous/b.avi", 5)): write_film(tmp_path / "tree" / name, n)
    embed(tmp_path / "tree", tmp_path / "out", **TINY | dict(frames=5))
    record = read_json(tmp_path / "out/cnn_record.json") # as one from before files were sealed
    write_json(tmp_path / "out/cnn_record.json", {k: v for k, v in record.items() if k not in ("seals", "rows")})
    x = np.load(tmp_path / "out/cnn_embeddings.npy")
    x[0, 3:] = np.nan
    np.save(tmp_path / "out/cnn_embeddings.npy", x)
    e = open_embeddings(tmp_path / "out")
    assert not e.x[0, 3:].any() and np.isnan(np.load(tmp_path / "out/cnn_embeddings.npy")[0, 3:]).all() # the file stays as it is
    x[1, 2, 7] = np.inf
    np.save(tmp_path / "out/cnn_embeddings.npy", x)
    with pytest.raises(UserError, match=r"cnn_embeddings.npy .* video 1 \(anomalous/b.avi\), frame 2"): open_embeddings(tmp_path / "out")


# ---- labels of one's own

@pytest.mark.parametrize("train, test, frames", [("training", "testing", "frames"), ("training", "testing", ""), ("Train", "Test", ""), ("training_videos", "testing_videos", "")])
def test_own_labels_lie_beside_the_videos_of_any_layout(tmp_path, train, test, frames):
    "they are a truth of their own, last in the row, and no video; one that lacks is named"
    root = tmp_path / "camera"
    for split, names in ((train, ("01",)), (test, ("01", "02"))):
        for name in names:
            folder = root / split / frames / name
            folder.mkdir(parents=True)
            for i in range(6): cv2.imwrite(str(folder / f"{i:03d}.png"), np.random.default_rng([len(split), int(name), i]).integers(0, 256, (32, 32), np.uint8))
    video = root / test / frames / "01"
    assert own_labels_file(video) == root / test / "labels" / "01.npy"
    own_labels_file(video).parent.mkdir()
    np.save(own_labels_file(video), np.array([0, 0, 1, 1, 0, 0], np.uint8))
    partly = open_dataset(root, "labels", partial=True)
    assert [v.name for v in partly.test] == ["01"] and partly.labels[0].tolist() == [0, 0, 1, 1, 0, 0]
    assert any("02 has no labels" in w for w in partly.warnings)
    if test != "testing_videos": # Avenue lacks more than that
        with pytest.raises(UserError, match="02 has no labels"): open_dataset(root, "labels")
    np.save(root / test / "labels/02.npy", np.zeros(6, np.uint8))
    whole = open_dataset(root, "labels", partial=True)
    assert [v.name for v in whole.test] == ["01", "02"] and whole.truth == "labels" and sum(y.sum() for y in whole.labels) == 2
    assert open_dataset(root, "none", partial=True).labels is None
