"Features from elsewhere: both layouts, what is wrong with files, the leak that a protocol hides, frames found without labels of frames."
import io
import json
import re
import shutil
import warnings
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from test_learner import message

from vad.core.provenance import shared
from vad.data import feature_archives
from vad.data.embedding import Embeddings
from vad.data.feature_archives import bare_name, frame_truth, is_archive, kind_of_features, open_archive, write_archive, write_synthetic_archive
from vad.models.mingru import mingru_loop, mingru_scan
from vad.reproduce import runner
from vad.reproduce.archive_tables import interval_of, measure_segments
from vad.reproduce.feature_groups import feature_groups, groups_in_words
from vad.reproduce.report import report_of
from vad.training import classifier
from vad.training.classifier import ClassifierSettings
from vad.training.protocols import ARCHIVE_PROTOCOLS, as_the_paper_chose, resampled_measures
from vad.training.splits import Clips, SplitSettings, clips_of_archive, official_split, open_clips, split_clips


def quiet(path, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return open_archive(path, *args)


# ---- files

FACTS = pd.DataFrame(dict(label=["Normal", "Arson", "Arson"], name=["a", "b", "c"], split=["train", "train", "test"]))
SEQUENCES = [np.arange(12, dtype=np.float16).reshape(3, 4), [], np.ones((2, 4), np.float16)]

def altered(path, **changes):
    write_archive(path, SEQUENCES, FACTS)
    with np.load(path) as z: arrays = {k: v for k, v in (dict(z) | changes).items() if v is not None}
    np.savez(path, **arrays)
    return path

def test_a_file_gives_back_what_was_written(tmp_path):
    write_archive(tmp_path / "x.npz", SEQUENCES, FACTS)
    with pytest.warns(UserWarning, match="1 of 3 videos in x are missing: b"): a = open_archive(tmp_path / "x.npz")
    assert (len(a), a.missing, a.classes, a.sequence(0).dtype) == (2, ("b",), ("Normal", "Arson"), np.float16)
    np.testing.assert_array_equal(a.sequence(0), SEQUENCES[0])
    np.testing.assert_array_equal(a.sequence(1), SEQUENCES[2])

@pytest.mark.parametrize("changes, words", [
    (dict(features=None), "has no array 'features'"), (dict(lengths=None), "has no array 'lengths'"), (dict(label=None), "has no array 'label'"),
    (dict(lengths=np.array([3, 0, 3])), "has 5 segments, and its lengths add up to 6"), (dict(lengths=np.array([6, -3, 2])), "no whole numbers from 0 on"),
    (dict(lengths=np.array([2.5, 0, 2.5])), "no whole numbers"), (dict(features=np.ones(5)), "shape (5,)"), (dict(features=np.full((5, 4), "x")), "not numbers"),
    (dict(label=np.array(["a", "b"])), "not 3 words"), (dict(split=np.array(["train"])), "not 3 words"), (dict(label=np.array(["Arson", None, 1], object)), "Python objects"),
    (dict(lengths=np.zeros(3, int), features=np.ones((0, 4))), "not numbers"),
])
def test_arrays_that_do_not_fit(tmp_path, changes, words): message(lambda: quiet(altered(tmp_path / "x.npz", **changes)), words)

@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none(tmp_path, value):
    x = np.concatenate([SEQUENCES[0], SEQUENCES[2]])
    x[4, 2] = value
    a = quiet(altered(tmp_path / "x.npz", features=x))
    message(lambda: a.sequence(1), "not finite in c, segment 1")
    message(lambda: clips_of_archive(a), "not finite in c, segment 1")

def test_files_that_are_no_archives(tmp_path, monkeypatch):
    (tmp_path / "text.npz").write_text("features")
    message(lambda: open_archive(tmp_path / "text.npz"), "text.npz is not a readable .npz")
    message(lambda: open_archive(tmp_path / "none.npz"), "none.npz is missing")
    whole = altered(tmp_path / "x.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[:len(whole) // 2])
    message(lambda: open_archive(tmp_path / "half.npz"), "half.npz is not a readable .npz")
    monkeypatch.setattr(feature_archives, "MOST_BYTES", 100)
    message(lambda: open_archive(tmp_path / "x.npz"), "save one .npy a video in a folder")

def test_a_header_that_claims_terabytes(tmp_path):
    "refused before a byte is reserved for it"
    altered(tmp_path / "x.npz")
    claim = io.BytesIO()
    np.lib.format.write_array_header_1_0(claim, dict(descr="<f4", fortran_order=False, shape=(10**12, 4)))
    with zipfile.ZipFile(tmp_path / "x.npz") as old, zipfile.ZipFile(tmp_path / "bomb.npz", "w") as z:
        for n in old.namelist(): z.writestr(n, claim.getvalue() if n == "features.npy" else old.read(n))
    message(lambda: open_archive(tmp_path / "bomb.npz"), "is of another size")


# ---- folders

def folder_of(path, files, lists):
    path.mkdir()
    for name, x in files.items():
        (path / name).parent.mkdir(exist_ok=True, parents=True)
        np.save(path / name, x)
    for name, text in lists.items(): (path / name).write_text(text)
    return path

def test_rtfm_lists_and_ten_crops(tmp_path):
    "paths of other people's machines, labels by name, T x 10 x D"
    rng = np.random.default_rng(0)
    files = {f"{n}_x264_i3d.npy": rng.normal(size=(t, 10, 6)).astype(np.float32) for n, t in (("Abuse001", 5), ("Normal_Videos_003", 12), ("Arson007", 10))}
    lists = {"ucf-i3d.list": "/home/yu/ucf/all_rgbs/Abuse001_x264_i3d.npy\n/home/yu/Normal_Videos_003_x264_i3d.npy\n", "ucf-i3d-test.list": "/x/Arson007_x264_i3d.npy\n/x/Arson008_x264_i3d.npy\n"}
    a = quiet(folder_of(tmp_path / "i3d", files, lists))
    t = a.table.set_index("video")
    assert t.label.to_dict() == {"Arson007_x264_i3d": "Arson", "Abuse001_x264_i3d": "Abuse", "Normal_Videos_003_x264_i3d": "Normal"}
    assert t.split.to_dict() == {"Arson007_x264_i3d": "test", "Abuse001_x264_i3d": "train", "Normal_Videos_003_x264_i3d": "train"}
    assert t.length.to_dict() == {"Arson007_x264_i3d": 10, "Abuse001_x264_i3d": 5, "Normal_Videos_003_x264_i3d": 12} and a.missing == ("Arson008_x264_i3d",)
    for i, video in enumerate(a.table.video): np.testing.assert_allclose(a.sequence(i), files[f"{video}.npy"].mean(1), rtol=1e-5)
    assert is_archive(tmp_path / "i3d") and kind_of_features(tmp_path / "i3d") == "plain" and bare_name("Arson007_x264_i3d") == "Arson007_x264"

def test_vadclip_lists_and_files_of_crops(tmp_path):
    "path,label with a header; ten files a video, the same name in no two folders"
    x = np.arange(10 * 3 * 2, dtype=np.float16).reshape(10, 3, 2)
    files = {f"Arson/Arson011_x264__{i}.npy": x[i] for i in range(10)} | {"Normal/Normal_Videos001_x264__0.npy": x[0]}
    lines = "".join(f"/home/me/{n},{n.split('/')[0]}\n" for n in files)
    a = quiet(folder_of(tmp_path / "clip", files, {"train.csv": "path,label\n" + lines}))
    assert dict(zip(a.table.video, a.table.label)) == {"Arson011_x264": "Arson", "Normal_Videos001_x264": "Normal"} and set(a.table.split) == {""}
    np.testing.assert_allclose(a.sequence(a.table.video.tolist().index("Arson011_x264")), x.astype(float).mean(0), rtol=1e-3)
    np.save(tmp_path / "clip/Arson011_x264__0.npy", x[0])
    message(lambda: quiet(tmp_path / "clip"), "two files called Arson011_x264__0.npy")

def test_xd_violence_says_its_classes_in_names(tmp_path):
    files = {f"{n}.npy": np.ones((4, 3)) for n in ("v=a__#1_label_A", "v=b__#00-02_label_B2-0-0", "v=c__#1_label_G-B2-B6")}
    a = quiet(folder_of(tmp_path / "xd", files, {"all.list": "".join(f"{n}\n" for n in files)}))
    assert sorted(a.table.label) == ["Explosion", "Normal", "Shooting"]

@pytest.mark.parametrize("files, text, words", [
    ({"Arson1.npy": np.ones((3, 4)), "Normal1.npy": np.ones((3, 5))}, "Arson1.npy\nNormal1.npy\n", "keep one kind in a folder"),
    ({"Arson1.npy": np.ones((3, 4, 4))}, "Arson1.npy\n", "(3, 4, 4), which should be numbers (segments, width)"),
    ({"Arson1.npy": np.ones(3)}, "Arson1.npy\n", "(3,)"), ({"1.npy": np.ones((3, 4))}, "1.npy\n", "Nothing says the class"),
    ({"Arson1.npy": np.ones((3, 4))}, "Arson1.npy\nArson2\n", "a line without a .npy (['Arson2'])"),
    ({}, "Arson1.npy\nNormal1.npy\n", "no video that is there"),
    ({"Arson1.npy": np.ones((10, 5, 4)), "Normal1.npy": np.ones((10, 5, 4))}, "Arson1.npy\nNormal1.npy\n", "crops in both"),
    ({"Arson1.npy": np.ones((3, 4))}, "path,label\nFight/1.npy,Fight\nNormal/1.npy,Normal\n", "list.txt names two files called 1.npy"),
    ({"1.npy": np.ones((3, 4))}, "video,label\n1.npy,Fight\n", "its columns are video, label"),
    ({"Arson1.npy": np.array([None, 1], object), "Normal1.npy": np.ones((3, 4))}, "Arson1.npy\nNormal1.npy\n", "Arson1.npy"),
])
def test_folders_that_do_not_fit(tmp_path, files, text, words):
    for n, x in files.items(): np.save(tmp_path / n, x, allow_pickle=True)
    (tmp_path / "list.txt").write_text(text)
    message(lambda: quiet(tmp_path), words)

@pytest.mark.parametrize("lists, words", [
    ({"train.list": "Arson1.npy\nNormal1.npy\n", "test.list": "Arson1.npy\n"}, "split test and train"), ({"a.csv": "path,label\nArson1.npy,Arson\n", "b.csv": "path,label\nArson1.npy,Fire\nNormal1.npy,Normal\n"}, "label Arson and Fire"),
])
def test_lists_that_contradict_each_other(tmp_path, lists, words):
    folder_of(tmp_path / "x", {f"{n}1.npy": np.ones((3, 4)) for n in ("Arson", "Normal")}, lists)
    message(lambda: quiet(tmp_path / "x"), "say two things of Arson1.npy", words)

@pytest.mark.parametrize("text, words", [
    ("path,label\ncam__1.npy,Arson\ncam__2.npy,Normal\n", "two labels of them (Arson, Normal)"), ("path,label,split\ncam__1.npy,Arson,train\ncam__2.npy,Arson,test\n", "two splits of them (train, test)"),
    ("path,label,split,source\ncam__1.npy,Arson,train,a\ncam__2.npy,Arson,train,b\n", "two sources of them (a, b)"),
])
def test_numbered_cameras_are_no_crops(tmp_path, text, words):
    message(lambda: quiet(folder_of(tmp_path / "x", {f"cam__{i}.npy": np.ones((3, 4)) for i in (1, 2)}, {"all.csv": text})), "cam__N.npy", words)

def test_codes_are_xd_violences_where_all_are(tmp_path):
    files = {f"{i}.npy": np.ones((3, 4)) for i in range(3)}
    def labels(name, words): return quiet(folder_of(tmp_path / name, files, {"all.csv": "path,label\n" + "".join(f"{i}.npy,{w}\n" for i, w in enumerate(words))}), "multiclass").table.label.tolist()
    assert labels("xd", ("A", "B1-0-0", "G-B2-0")) == ["Normal", "Fighting", "Explosion"]
    assert labels("own", ("A", "B", "G")) == ["A", "B", "G"]

def test_lists_by_their_names(tmp_path):
    "the latest list is no test; what a Mac leaves beside a list is none; blanks are no commas"
    files = {f"{n}1.npy": np.ones((3, 4)) for n in ("Arson", "Normal")}
    folder = folder_of(tmp_path / "x", files, {"latest.csv": "Arson1.npy,Arson\nNormal1.npy,Normal\n"})
    (folder / "._latest.list").write_bytes(b"\0\5\x16\7\xff\xfe")
    assert set(quiet(folder).table.split) == {""}
    message(lambda: quiet(folder_of(tmp_path / "y", files, {"all.list": "Arson1.npy 1\nNormal1.npy 0\n"})), "all.list", "Arson1.npy 1", "with commas between")

def test_lists_in_other_letters(tmp_path):
    "a list that cannot be read is not passed over; what only mentions a file is no list, and neither are notes beside our embeddings"
    files = {f"{n}1.npy": np.ones((3, 4)) for n in ("Arson", "Normal")}
    folder = folder_of(tmp_path / "x", files, {"a.txt": "Arson1.npy\nNormal1.npy\n", "README.txt": "Made by numpy: see Arson1.npy for one.\n"})
    assert len(quiet(folder)) == 2
    (folder / "b.list").write_bytes("Stra\u00dfe1.npy\n".encode("latin-1"))
    message(lambda: quiet(folder), "b.list")
    (folder / "b.list").unlink()
    (folder / "c.csv").write_text('path,label\nArson1.npy,"' + "x" * 200_000 + '"\n')
    message(lambda: quiet(folder), "c.csv is not a list")
    (folder / "c.csv").unlink()
    np.save(folder / "cnn_embeddings.npy", np.ones((2, 3, 4), np.float32))
    assert not is_archive(folder) and kind_of_features(folder) == "plain"

@pytest.mark.parametrize("name, says", [("Abnormal001", "Abnormal"), ("NonNormal1", ""), ("A_History__#1_label_B2-0-0", "Shooting"), ("Normal_Videos_003_x264", "Normal"), ("normal7", "Normal"), ("B1_Street", "Fighting"), ("no_fight_1", "Normal"), ("Non-Violence_3", "Normal"), ("fight_no_weapon_2", "fight")])
def test_the_class_that_a_name_says(name, says):
    assert feature_archives.labels_in([name]) == [says or "NonNormal"]

@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=2, max_size=4, unique=True), crops=st.sampled_from([5, 10]), first=st.booleans())
def test_crops_are_found_whatever_the_lengths(tmp_path_factory, lengths, crops, first):
    "crops are as many in every file, segments are not"
    names = [f"{'Normal' if i else 'Arson'}{i}" for i in range(len(lengths))]
    xs = [np.random.default_rng(n).normal(size=(n, crops, 3)) for n in lengths]
    folder = folder_of(tmp_path_factory.mktemp("crops") / "x", {f"{n}.npy": x.swapaxes(0, 1) if first else x for n, x in zip(names, xs)}, {"all.list": "".join(f"{n}.npy\n" for n in names)})
    a = quiet(folder)
    for i, video in enumerate(a.table.video): np.testing.assert_allclose(a.sequence(i), xs[names.index(video)].mean(1), rtol=1e-5, atol=1e-6)

def test_whole_numbers_keep_their_fraction(tmp_path):
    x = np.arange(3 * 5 * 2).reshape(3, 5, 2) % 7
    a = quiet(folder_of(tmp_path / "x", {"Arson1.npy": x, "Normal1.npy": x[:2]}, {"all.list": "Arson1.npy\nNormal1.npy\n"}))
    np.testing.assert_allclose(a.sequence(a.table.video.tolist().index("Arson1")), x.mean(1), rtol=1e-6)

    files = {"Arson1__0.npy": np.array([[0, 3]]), "Arson1__1.npy": np.array([[1, 3]]), "Normal1.npy": np.array([[2, 2]])}
    a = quiet(folder_of(tmp_path / "y", files, {"all.list": "".join(f"{n}\n" for n in files)}))
    assert a.sequence(a.table.video.tolist().index("Arson1")).tolist() == [[.5, 3]]

@settings(max_examples=30, deadline=None)
@given(kinds=st.lists(st.sampled_from(["i8", "i4", "u1", "f2", "f4", "f8"]), min_size=2, max_size=4), seed=st.integers(0, 99))
def test_clips_hold_the_numbers_of_every_video(tmp_path_factory, kinds, seed):
    "whatever type the first one has"
    rng = np.random.default_rng(seed)
    xs = [rng.uniform(0, 200, (3, 2)).astype(k) for k in kinds]
    names = [f"{'Normal' if i else 'Arson'}{i}" for i in range(len(kinds))]
    a = quiet(folder_of(tmp_path_factory.mktemp("kinds") / "x", {f"{n}.npy": x for n, x in zip(names, xs)}, {"all.list": "".join(f"{n}.npy\n" for n in names)}))
    c = clips_of_archive(a, 0)
    for name, x in zip(names, xs): np.testing.assert_array_equal(np.float32(c.features[c.names.tolist().index(name)]), np.float32(x))
    assert {"f2"} != set(kinds) or c.features.dtype == np.float16

def test_numbers_beyond_single_precision(tmp_path):
    x = np.ones((5, 4))
    x[4, 2] = 1e39
    message(lambda: quiet(altered(tmp_path / "x.npz", features=x)).sequence(1), "not finite in c, segment 1")

def test_words_that_are_not_given_are_empty(tmp_path):
    "no word nan, which would be one source for all; an archive without a segment is refused"
    facts = FACTS.assign(source=["film", None, np.nan], name=["", None, "c"])
    write_archive(tmp_path / "x.npz", [SEQUENCES[0]] * 3, facts)
    assert quiet(tmp_path / "x.npz").table[["video", "source"]].to_numpy().tolist() == [["0", "film"], ["1", "1"], ["c", "c"]]
    write_archive(tmp_path / "y.npz", SEQUENCES, FACTS.assign(label=["Normal", "Arson", None]))
    message(lambda: quiet(tmp_path / "y.npz"), "says no class of 1 of its videos")
    message(lambda: write_archive(tmp_path / "z.npz", [[], [], []], FACTS), "z.npz would hold no segment")
    assert not (tmp_path / "z.npz").exists()

def test_what_changes_an_archive_changes_its_mark(tmp_path, made):
    "features of the same size, annotations and counts beside either layout"
    folder = folder_of(tmp_path / "x", {f"{n}1.npy": np.ones((3, 4)) for n in ("Arson", "Normal")}, {"all.list": "Arson1.npy\nNormal1.npy\n"})
    file = tmp_path / "made" / made.name
    shutil.copytree(made.parent, file.parent)
    def marks(): return quiet(folder).mark, quiet(file).mark
    before, spoil = marks(), {folder / "Arson1.npy": lambda p: np.save(p, np.zeros((3, 4)))}
    assert marks() == before
    spoil |= {file.parent / n: lambda p: p.write_text(p.read_text() + "\n") for n in (feature_archives.ANNOTATIONS, feature_archives.COUNTS)}
    seen = {before}
    for path, change in spoil.items():
        change(path)
        assert marks() not in seen
        seen.add(marks())

def test_words_of_an_archive(tmp_path):
    message(lambda: quiet(altered(tmp_path / "x.npz", label=np.array([b"Normal", b"Stra\xdfe", b"Arson"]))), "UTF-8")
    message(lambda: quiet(altered(tmp_path / "x.npz", label=np.array(["Normal", "", "Arson"]))), "no class of 1 of its videos")
    message(lambda: quiet(altered(tmp_path / "x.npz", split=np.array(["train", "val", "test"]))), "a split 'val'")
    assert set(quiet(altered(tmp_path / "x.npz", split=np.array(["Train", "TEST", "Test"]))).table.split) == {"train", "test"}

def test_our_own_embeddings_are_one_too(tmp_path):
    x = np.ones((3, 4, 2), np.float32)
    x[1, 2:] = 0
    np.save(tmp_path / "cnn_embeddings.npy", x)
    np.save(tmp_path / "cnn_labels.npy", np.array(["Normal", "Arson", "Arson"]))
    a = open_archive(tmp_path)
    assert (a.table.length.tolist(), a.width, a.sequence(1).shape, kind_of_features(tmp_path)) == ([4, 2, 4], 2, (2, 2), "plain") and not is_archive(tmp_path)

def test_classes_and_sources_are_part_of_embeddings_mark(tmp_path):
    x, y = np.ones((4, 3, 2), np.float32), np.array([0, 0, 1, 1])
    def mark(classes, sources):
        table = pd.DataFrame(dict(video=list("abcd"), label=np.array(classes)[y], source=sources, frames=3))
        return feature_archives.archive_of(Embeddings(x, y, np.ones((4, 3), bool), classes, table, {}), "x", "multiclass", classes[0], tmp_path).mark
    assert len({mark(("n", "a"), list("abcd")), mark(("n", "a"), list("aabb")), mark(("a", "n"), list("abcd"))}) == 3

def test_options_that_say_nothing_here_are_refused(tmp_path, made):
    np.save(tmp_path / "cnn_embeddings.npy", np.ones((3, 4, 2), np.float32))
    np.save(tmp_path / "cnn_labels.npy", np.array(["Normal", "Arson", "Arson"]))
    message(lambda: open_clips(made, None, tmp_path / "none.npy"), "has labels of its own: leave labels out")
    message(lambda: open_clips(tmp_path, segments=3), "no archive of features: leave segments out")
    message(lambda: ClassifierSettings(top=5.), "top = 5.0 is no share")
    message(lambda: open_archive(tmp_path / "none.npz"), "none.npz is missing: name an archive of features")

def test_videos_are_no_archive(tmp_path):
    (tmp_path / "normal").mkdir()
    (tmp_path / "sources.csv").write_text("clip,source\na.mp4,x\n")
    assert not is_archive(tmp_path) and kind_of_features(tmp_path) == kind_of_features("") == kind_of_features(None) == ""


# ---- clips

@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6), n=st.integers(0, 8))
def test_cut_apart_no_segment_is_lost(tmp_path_factory, lengths, n):
    path = tmp_path_factory.mktemp("cut") / "x.npz"
    found = [np.arange(t, dtype=np.float32)[:, None] + 100 * i for i, t in enumerate(lengths)]
    write_archive(path, found, pd.DataFrame(dict(label=["Normal"] * len(lengths))))
    c = clips_of_archive(open_archive(path), n)
    np.testing.assert_array_equal(np.concatenate([x[:k] for x, k in zip(c.features, c.frames)]), np.concatenate(found))
    for source in set(c.sources): assert np.ptp(c.frames[c.sources == source]) <= 1
    assert n == 0 or c.frames.max() <= 2 * n

@pytest.fixture(scope="module")
def made(tmp_path_factory): return write_synthetic_archive(tmp_path_factory.mktemp("made"), videos=60, signature=3.)

def test_an_official_split_is_kept(made):
    c = open_clips(made, segments=4)
    (train, test), = split_clips(c, SplitSettings("official", "none"))
    assert not set(c.sources[train]) & set(c.sources[test]) and sorted([*train, *test]) == list(range(len(c))) and set(c.parts[test]) == {"test"}
    message(lambda: next(split_clips(replace(c, parts=None), SplitSettings("official", "none"))), "use another split")
    table = open_archive(made).table
    assert set(c.sources[test]) == set(table.video[table.split == "test"])

def test_as_many_normal_videos_and_two_classes_less(tmp_path):
    c = clips_of_archive(open_archive(write_synthetic_archive(tmp_path, videos=80, classes=("Normal", "Arson", "Arrest", "Shoplifting"))))
    assert as_the_paper_chose(c).classes == c.classes # another archive's classes are its own
    paper = as_the_paper_chose(replace(c, name="ucf_crime"))
    assert paper.classes == ("Normal", "Arson")
    for part in ("train", "test"):
        videos = pd.DataFrame(dict(s=paper.sources, y=paper.labels))[paper.parts == part].drop_duplicates("s")
        assert (videos.y == 0).sum() == (videos.y == 1).sum() > 0

def test_films_of_several_classes_are_counted_by_class():
    "ten films with an anomalous and a normal video each, twenty normal ones"
    sources = np.repeat([f"f{i}" for i in range(30)], [2] * 10 + [1] * 20)
    labels = np.r_[[1, 0] * 10, [0] * 20]
    c = Clips("x", np.zeros((40, 1, 1), np.float32), labels, np.ones(40, int), sources, np.array([f"v{i}" for i in range(40)]), ("Normal", "Arson"))
    assert np.bincount(as_the_paper_chose(c).labels).tolist() == [10, 10]

def test_official_splits_that_are_none(made):
    c = open_clips(made, segments=4)
    some = np.where(np.arange(len(c)) < 3, "", c.parts)
    message(lambda: official_split(replace(c, parts=some)), f"3 of {len(c)} clips ({c.names[0]})", "use another split")
    message(lambda: official_split(c, "before"), "use augment after")
    message(lambda: official_split(c, "nonsense"), "no augmentation 'nonsense'")
    with pytest.warns(UserWarning, match="1 source videos .one film. on both sides"):
        official_split(replace(c, sources=np.where(np.isin(np.arange(len(c)), [np.flatnonzero(c.parts == p)[0] for p in ("train", "test")]), "one film", c.sources)))

def test_what_random_clips_hide(made):
    "the nearest clip knows the video again; by video it guesses"
    c, found = open_clips(made, segments=4), {}
    x = classifier.pooled(c)
    for name, split in ARCHIVE_PROTOCOLS.items():
        p = np.full((len(c), 3), np.nan)
        for train, test in split_clips(c, split): p[test] = classifier.control_probabilities("nearest", x, c.labels, train, test, 3)
        rows = ~np.isnan(p[:, 0])
        found[name] = (p.argmax(1) == c.labels)[rows].mean()
    assert found["as_published"] > .8 and max(found["by_source"], found["official"]) < .65, found

@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), classes=st.integers(2, 4))
def test_resampled_measures_are_those_of_resampled_clips(seed, classes):
    "one draw by hand: every clip of a video as often as the video was drawn"
    rng = np.random.default_rng(seed)
    videos, labels = rng.integers(0, 12, 80), rng.integers(0, classes, 80)
    p = rng.dirichlet(np.ones(classes), 80).round(1) + 1e-3
    found, v = resampled_measures(labels, p, videos, n=5, seed=seed), len(set(videos))
    counts = np.random.default_rng(seed).multinomial(v, np.full(v, 1 / v), size=5)
    for k, taken in enumerate([np.ones(v, int), *counts]):
        rows = np.repeat(np.arange(80), taken[np.unique(videos, return_inverse=True)[1]])
        m = classifier.classification_measures(labels[rows], p[rows])
        if len(set(labels[rows])) > 1 + (classes > 2):
            assert {n: x[k] for n, x in found.items()} == pytest.approx({n: m[n] for n in found})


# ---- peers and frames

@settings(max_examples=30, deadline=None)
@given(steps=st.integers(1, 60), scale=st.floats(.1, 20), seed=st.integers(0, 99))
def test_the_scan_agrees_with_the_loop(steps, scale, seed):
    torch.manual_seed(seed)
    gate, candidate = scale * torch.randn(2, steps, 2, 3, dtype=torch.double)
    torch.testing.assert_close(mingru_scan(gate, candidate), mingru_loop(gate, candidate), rtol=1e-8, atol=1e-10)

def test_the_scan_keeps_its_digits_in_single_precision():
    torch.manual_seed(0)
    gate, candidate = 20 * torch.randn(2, 3000, 2, 3)
    scan = mingru_scan(gate, candidate)
    assert scan.dtype == torch.float32
    torch.testing.assert_close(scan.double(), mingru_loop(gate.double(), candidate.double()), rtol=1e-5, atol=1e-6)

def test_top_segments_find_the_event(tmp_path):
    "told only that a video holds an event, the network says when"
    rng, n, length = np.random.default_rng(0), 200, 16
    labels, first, x = np.arange(n) % 2, rng.integers(2, 11, n), rng.normal(size=(n, length, 6)).astype(np.float32)
    for i in np.flatnonzero(labels): x[i, first[i]:first[i] + 3, :2] += 3
    names = np.arange(n).astype(str)
    data = Clips("events", x, labels, np.full(n, length), names, names, ("normal", "event"))
    s = ClassifierSettings(cell="mingru", hidden=16, layers=1, pool="top", top=.15, epochs=15, batch=20, lr=1e-2, dropout=0., schedule="step", precision="fp32")
    model, *_ = classifier.load_classifier(classifier.fit_classifier(s, data.take(np.arange(150)), tmp_path, "cpu").folder)
    answers = classifier.frame_answers(model, data.take(np.arange(150, n)))
    inside = [abs(a.argmax() - (first[i] + 1)) <= 3 for i, a in zip(range(150, n), answers) if labels[i]]
    assert [len(a) for a in answers] == [length] * 50 and np.mean(inside) > .8

def test_frames_are_labelled_by_the_annotations(made):
    truth, t = frame_truth(open_archive(made)), open_archive(made).table
    assert set(truth) == set(t.video[t.split == "test"])
    for name, y in truth.items(): assert y.any() == ("Normal" not in name) and len(y) == 8 * t.set_index("video").length[name]


@pytest.mark.parametrize("name, old, new, words", [
    (feature_archives.COUNTS, r",\d+\n", ",-3\n", "-3 frames: correct it"), (feature_archives.ANNOTATIONS, r"  (\d\d+)  (\d+)  -1  -1", r"  \2  \1  -1  -1", "ends before it begins"),
    (feature_archives.ANNOTATIONS, r"  (\d\d+)  (\d+)  -1  -1", "  90000  90001  -1  -1", "begins at frame 90000 of"), (feature_archives.ANNOTATIONS, r"^.*$", "what", "is no annotation"),
])
def test_annotations_that_cannot_be(tmp_path, made, name, old, new, words):
    shutil.copytree(made.parent, tmp_path / "x")
    text = (tmp_path / "x" / name).read_text()
    changed = re.sub(old, new, text, count=0 if name == feature_archives.COUNTS else 1, flags=re.M)
    assert changed != text
    (tmp_path / "x" / name).write_text(changed)
    message(lambda: frame_truth(open_archive(tmp_path / "x" / made.name)), words)


# ---- from an archive to tables

def test_test_videos_without_annotation_are_counted(tmp_path, made):
    shutil.copytree(made.parent, tmp_path / "x")
    a, path = quiet(tmp_path / "x" / made.name), tmp_path / "x" / feature_archives.ANNOTATIONS
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[2:]))
    with pytest.warns(UserWarning, match=f"2 of {len(lines)} test videos in synthetic lack .* {lines[0].split('.')[0]}"): assert len(frame_truth(a)) == len(lines) - 2
    path.write_text("\n".join([*lines, lines[0]]))
    message(lambda: frame_truth(a), f"line {len(lines) + 1}", "a second time")

def test_videos_whose_names_hold_dots(tmp_path):
    facts = pd.DataFrame(dict(label=["Arson", "Arson", "Normal"], name=["cam.01", "cam.02", "cam.03"], split="test"))
    write_archive(tmp_path / "x.npz", [SEQUENCES[0]] * 3, facts)
    (tmp_path / feature_archives.COUNTS).write_text("video,frames\ncam.01.mp4,10\ncam.02,20\ncam.03.AVI,30\n")
    (tmp_path / feature_archives.ANNOTATIONS).write_text("cam.01.mp4 Arson 1 2 -1 -1\ncam.02.mp4 Arson 1 10 -1 -1\ncam.03.mp4 Normal -1 -1 -1 -1\n")
    assert {n: (len(y), int(y.sum())) for n, y in frame_truth(quiet(tmp_path / "x.npz")).items()} == {"cam.01": (10, 2), "cam.02": (20, 10), "cam.03": (30, 0)}
    (tmp_path / feature_archives.COUNTS).write_text("video,frames\ncam.01.mp4,10\ncam.01,20\n")
    message(lambda: frame_truth(quiet(tmp_path / "x.npz")), "cam.01 twice")

def test_what_cannot_be_measured_on_frames(tmp_path):
    "no anomalous frame among the test videos; one normal video to learn from"
    def measured(where):
        plan = runner.make_plan(None, where, preset="quick", out=tmp_path / "runs", device="cpu")
        message(lambda: measure_segments(plan, tmp_path / "into", 0, "middle"), "should mark some frames" if where.parent.name == "still" else "two normal and two anomalous")
    still = write_synthetic_archive(tmp_path / "still")
    table = [line for line in (still.parent / feature_archives.ANNOTATIONS).read_text().splitlines() if "Normal" in line]
    (still.parent / feature_archives.ANNOTATIONS).write_text("\n".join(table) + "\n")
    measured(still)
    few = write_synthetic_archive(tmp_path / "few")
    with np.load(few) as z: arrays = dict(z)
    normal = np.flatnonzero((arrays["label"] == "Normal") & (arrays["split"] == "train"))
    arrays["split"][normal[1:]] = ""
    arrays["split"] = np.where(arrays["split"] == "", "test", arrays["split"])
    np.savez(few, **arrays)
    measured(few)

def test_resamples_that_lack_a_class_say_nothing():
    lines = pd.DataFrame([dict(auroc=90., auroc_draws=[80., None, 100., 90.]), dict(auroc=80., auroc_draws=[70., None, 90., 80.])])
    found = interval_of(lines, "auroc")
    assert found["value"] == 85 and 70 <= found["low"] <= found["high"] <= 100
    none = interval_of(lines.assign(auroc=None, auroc_draws=[[None] * 4] * 2), "auroc")
    assert all(np.isnan(x) for x in none.values())

def test_an_archive_without_a_normal_class(tmp_path):
    "nobody guesses which class is the normal one"
    path = write_synthetic_archive(tmp_path / "x", classes=("Walk", "Fight"))
    message(lambda: runner.make_plan(None, path, out=tmp_path, device="cpu"), "no name says which is normal")
    assert runner.make_plan(None, path, out=tmp_path, device="cpu", normal=("Walk",)).normal == ("Walk",)

@pytest.fixture(scope="module")
def plan(made, tmp_path_factory):
    return runner.reproduce(("srupp.archive_binary", "srupp.archive_multiclass", "srupp.archive_frames", "srupp.archive_practice", "srupp.archive_groups"), clips=made, jobs=2, name="run", out=tmp_path_factory.mktemp("run"), device="cpu",
                            publish=tmp_path_factory.mktemp("published"), classifier=dict(epochs=1, hidden=16, projection=16))

def test_the_tables_show_the_leak(plan):
    r = report_of(plan)
    for name in ("archive_binary", "archive_multiclass"):
        assert r.states[f"srupp.{name}"] == dict(state="measured")
        t = r.tables[f"srupp.{name}"][name].set_index("row")
        near = t.loc["1-nearest neighbour"]
        assert near.as_published - near.by_source > 15 and near.as_published_low <= near.as_published <= near.as_published_high
        assert {"SRU++ + cluster weighting", "GRU", "minGRU", "largest class", "the same, labels shuffled"} <= set(t.index) and t.published["SRU++"] in (95.41, 92.75)
        assert t[["official_auroc", "by_source_balanced"]].notna().all(axis=None)
    t = r.tables["srupp.archive_frames"]["archive_frames"].set_index("row")
    assert t.inside["true label of the video"] == 50 and t["all"]["true label of the video"] > 70 and t[["all_ap", "inside_low"]].notna().all(axis=None)

def moved_part(folder, classes, **options):
    "an archive whose videos of some classes went through something else: all of their segments are moved alike"
    path = write_synthetic_archive(folder, videos=60, signature=1., width=64, **options)
    with np.load(path) as z: arrays = dict(z)
    x, part = np.float32(arrays["features"]), np.repeat(np.isin(arrays["label"], classes), arrays["lengths"])
    np.savez(path, **arrays | dict(features=np.float16(x + part[:, None] * np.random.default_rng(0).normal(0, x.std(), x.shape[1]))))
    return path

def test_groups_of_features_are_found_without_labels(tmp_path):
    "a part of the videos was made otherwise: the group alone tells it, and inside the other group nothing is left of that"
    path = moved_part(tmp_path / "moved", ["Arson"])
    plan = runner.reproduce(("srupp.archive_groups", "srupp.archive_group_frames"), clips=path, jobs=2, name="run", out=tmp_path, device="cpu", classifier=dict(epochs=1, hidden=16, projection=16))
    r = report_of(plan)
    assert r.states["srupp.archive_groups"] == dict(state="measured")
    tables = r.tables["srupp.archive_groups"]
    assert tables["archive_group_classes"].set_index("class").second_group.to_dict() == dict(Normal=0, Arson=100, Fighting=0)
    t, alone = tables["archive_groups"].set_index("row"), "the group alone, found without labels"
    assert set(t.index) == {alone, "one feature, one threshold", "1-nearest neighbour", "logistic regression", "SRU", "SRU++"} and t.notna().all(axis=None)
    # half of the anomalous videos lie in the group, and no normal one
    assert t.by_source_balanced[alone] == pytest.approx(75) and t.inside_balanced[alone] == t.inside_auroc[alone] == 50
    assert (t.by_source_balanced_low <= t.by_source_balanced).all() and t.inside_auroc["logistic regression"] < t.by_source_auroc["logistic regression"]
    assert r.states["srupp.archive_group_frames"] == dict(state="measured")
    t = r.tables["srupp.archive_group_frames"]["archive_group_frames"].set_index("row")
    assert 50 < t["all"][alone] < t["all"]["true label of the video"] and t.normal_group[alone] == 50 and t.notna().all(axis=None)
    assert set(t.index) == {alone, "true label of the video", "SRU++ on changes, top segments", "SRU on changes, top segments"}

def test_nothing_is_inside_where_the_group_is_the_class(tmp_path):
    path = moved_part(tmp_path / "moved", ["Arson", "Fighting"])
    plan = runner.reproduce(("srupp.archive_groups",), clips=path, name="run", out=tmp_path, device="cpu", classifier=dict(epochs=1, hidden=16, projection=16))
    t = report_of(plan).tables["srupp.archive_groups"]["archive_groups"].set_index("row")
    assert t.official_balanced["the group alone, found without labels"] == 100 and t[["inside_balanced", "inside_auroc"]].isna().all(axis=None)
    page = re.sub('base64,[^"]*', "", (plan.folder / "summary.html").read_text())
    assert "nan" not in page.split("<h1>")[1].split("<pre")[0]

def test_groups_do_not_depend_on_order_and_labels(tmp_path):
    c = clips_of_archive(open_archive(moved_part(tmp_path / "moved", ["Arson"])), 4)
    rows = np.random.default_rng(0).permutation(len(c))
    np.testing.assert_array_equal(feature_groups(c)[rows], feature_groups(replace(c.take(rows), labels=np.zeros(len(c), int))))
    assert feature_groups(c.take(np.flatnonzero(c.sources == c.sources[0]))).tolist() == [0] * 4

def test_classes_that_follow_groups_are_told_of_before_training(tmp_path):
    from test_classify import command
    path = moved_part(tmp_path / "moved", ["Arson"])
    code, out, err = command(tmp_path, "classify", path, "--out", tmp_path / "run", "--segments", 4, "--cell", "gru", "--hidden", 8, "--epochs", 1, "--device", "cpu")
    assert code == 0 and "warning: The features fall into two groups" in out + err and "(in one lie Normal 0 %, Arson 100 %, Fighting 0 %)" in out + err, out + err
    c = clips_of_archive(open_archive(path), 4)
    assert "srupp.archive_groups" in groups_in_words(c) and "srupp.archive_groups" not in groups_in_words(replace(c, made={}))
    few = c.take(np.flatnonzero(np.isin(c.sources, np.unique(c.sources)[:15])))
    alike = replace(c, features=np.zeros((len(c), 4, 8), np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore") # k-means says that there is one group
        assert groups_in_words(few) == groups_in_words(alike) == ""
    shuffled = replace(c, labels=np.random.default_rng(0).permutation(len(np.unique(c.sources)))[np.unique(c.sources, return_inverse=True)[1]] % 3)
    assert groups_in_words(shuffled) == ""

def test_practice_on_an_archive(plan):
    "events are the annotated ones, thresholds came from training, and the curve ends where alarms are most"
    r = report_of(plan)
    assert r.states["srupp.archive_practice"] == dict(state="measured")
    t = r.tables["srupp.archive_practice"]["archive_practice"].set_index("row")
    assert len(t) == 10 and "true label of the video" not in t.index # it has no moment to be called at
    truth = frame_truth(open_archive(plan.clips))
    assert set(t.events) == {sum(y.any() for y in truth.values())} and t[["caught", "in_alarm"]].stack().between(0, 100).all()
    np.testing.assert_allclose(t.minutes, sum((y == 0).sum() for y in truth.values()) / 30 / 60)
    np.testing.assert_allclose(t.per_hour, 60 * t.alarms / t.minutes)
    curve = pd.read_csv(plan.folder / f"figures/srupp/{open_archive(plan.clips).name}.archive_practice_curve.csv")
    assert len(curve.run.unique()) == 3 and curve.groupby("run").caught.apply(lambda c: c.is_monotonic_increasing).all()

def test_an_archive_has_its_own_entries(plan, made, tmp_path):
    states = report_of(plan).states
    assert states["srupp.table2_binary"]["why"] == states["embeddings.map"]["why"] == "needs a folder of clips (--clips)"
    message(lambda: runner.reproduce(("srupp.leaks",), clips=made, out=tmp_path, device="cpu"), "srupp.leaks needs a folder of clips")
    bare = tmp_path / "alone.npz"
    bare.write_bytes(made.read_bytes())
    message(lambda: runner.reproduce(("srupp.archive_frames",), clips=bare, out=tmp_path, device="cpu"), "beside the archive")
    page = re.sub('base64,[^"]*', "", (plan.folder / "summary.html").read_text())
    assert "nan" not in page.split("<h1>")[1].split("<pre")[0] and "60 clips" in page

def test_classify_an_archive(made, tmp_path):
    from test_classify import command
    code, out, err = command(tmp_path, "classify", made, "--out", tmp_path / "run", "--split", "official", "--segments", 4, "--cell", "gru", "--hidden", 8, "--epochs", 2, "--device", "cpu")
    assert code == 0 and "balanced accuracy" in out, err
    assert "fall into two groups" not in out + err
    assert json.loads((tmp_path / "run/record.json").read_text())["data"]["segments"] == 4
    from vad.use.inspect_clips import ClipInspector
    inspector = ClipInspector(tmp_path / "run", made)
    assert len(inspector) == len(open_clips(made, segments=4)) and inspector.explain(0).predicted in ("Normal", "Arson", "Fighting") and inspector.frames(0) == []

@pytest.mark.skipif(not shared("data/ucf_crime/r3d34_features.npz"), reason="the features of UCF-Crime are not in the shared folder (VAD_SHARED)")
def test_ucf_crime_is_known():
    a = quiet(shared("data/ucf_crime/r3d34_features.npz"))
    assert (a.name, len(a), len(a.missing), len(a.classes), a.width) == ("ucf_crime", 1768, 132, 14, 512)
    assert a.table.split.value_counts().to_dict() == dict(train=1504, test=264)
    truth = frame_truth(a)
    assert (len(truth), sum(map(len, truth.values()))) == (264, 1102125) and sum(y.any() for y in truth.values()) == (a.table[a.table.split == "test"].label != "Normal").sum()
