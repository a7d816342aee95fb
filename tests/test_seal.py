"What lies on the disk is what was written: a flipped bit is found, a system that fails destroys nothing, broken text is named, what is lost is made again."
import json
import os
import resource
import shutil
import subprocess
import warnings
from contextlib import contextmanager

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings as fewer, strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from conftest import square, write_frames, write_tiny
from films import write_film
from vad.data import frame_cache
from vad.scores import frame_scores
from vad.training import evaluation, trainer
from vad.data.frame_cache import Frames, cache_frames
from vad.training.splits import open_clips
from vad.core.errors import TemporaryError, UserError
from vad.core.records import file_seals, line_of, lines_in, read_array, read_csv, read_json, schema_error, write_csv, write_json
from vad.data.datasets import open_dataset
from vad.data.embedding import embed, open_embeddings
from vad.training.trainer import Settings, fit, load_tensors, save_tensors
from vad.reproduce.ablation import run_folder
from vad.reproduce.runner import checked_plan
from vad.reproduce.results import Plan, plan_facts, read_plan, read_result
from vad.data.video import open_video

TINY = Settings(size=(16, 16), channels=1, width=2, items=3, batch=4, epochs=2, lr=1e-3, schedule="step", precision="fp32")
CNN = dict(method="cnn", frames=5, width=16, size=32, batch=4, device="cpu")


def flip(path, bit):
    "turn one bit of a file; returns the byte's place"
    data = bytearray(path.read_bytes())
    place = bit // 8 % len(data)
    data[place] ^= 1 << bit % 8
    path.write_bytes(data)
    return place

def damage(path): flip(path, 8 * (path.stat().st_size * 2 // 3))

@contextmanager
def no_handles():
    "inside, this process cannot open another file"
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    held = []
    try:
        while True: held.append(os.dup(0)) # handles below the limit that others have given back
    except OSError: pass
    try: yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for h in held: os.close(h)

def sentence(call, *words, kind=UserError):
    with pytest.raises(kind) as e: call()
    text = str(e.value)
    assert "\n" not in text and text.endswith(".") and all(str(w) in text for w in words), text
    return text


# ---- JSON, CSV, arrays

json_values = st.recursive(st.none() | st.booleans() | st.integers(-2**60, 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
                           lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=8)

@fewer(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(st.text(min_size=1, max_size=6).filter(lambda k: k != "seal"), json_values, min_size=1, max_size=5), bit=st.integers(0, 10**6))
def test_no_flipped_bit_changes_what_json_says(tmp_path, fields, bit):
    path = tmp_path / "x.json"
    write_json(path, fields)
    assert read_json(path) == fields
    flip(path, bit)
    try: found = read_json(path)
    except UserError as e: assert str(path) in str(e) and "\n" not in str(e)
    else: assert {k: v for k, v in found.items() if k in fields} == fields # the bit was one of layout, or of the seal's name

@fewer(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200) | json_values.map(lambda x: json.dumps(x).encode()))
def test_whatever_a_json_file_holds_gives_an_object_or_a_sentence(tmp_path, data):
    (tmp_path / "x.json").write_bytes(data)
    try: assert isinstance(read_json(tmp_path / "x.json"), dict)
    except UserError as e: assert "x.json" in str(e) and str(e).endswith(".")

@pytest.mark.parametrize("text", ["", "null", "3", "[1]", "{", "[" * 50_000,
                                  '{"a":' * 50_000, '{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', '{"a": ' + "9" * 6000 + "}", "\ud800"])
def test_texts_that_are_no_json_of_ours(tmp_path, text):
    (tmp_path / "x.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    sentence(lambda: read_json(tmp_path / "x.json"), "x.json")

def test_a_seal_can_be_taken_out_by_hand(tmp_path):
    write_json(tmp_path / "x.json", dict(a=1, b=2))
    edited = (tmp_path / "x.json").read_text().replace('"a": 1', '"a": 7')
    (tmp_path / "x.json").write_text(edited)
    sentence(lambda: read_json(tmp_path / "x.json"), 'take out its line "seal"')
    fields = json.loads(edited)
    del fields["seal"]
    (tmp_path / "x.json").write_text(json.dumps(fields))
    assert read_json(tmp_path / "x.json") == dict(a=7, b=2)

@pytest.mark.parametrize("value, kind, fits", [
    (1, int, True), (True, int, False), (1., int, False), (2**70, int, False), (1, float, True), (1e301, float, False), ("a", str, True), (None, str, False),
    ([1, 2], tuple[int, int], True), ([1, 2, 3], tuple[int, int], False), ([1, 2, 3], tuple[int, ...], True), ([], list[str], True), ([1], list[str], False),
    (dict(a=[1]), dict[str, list[int]], True), (dict(a=["1"]), dict[str, list[int]], False), (None, float|None, True), ("x", float|None, False), ("x", object, True)])
def test_types(value, kind, fits): assert (schema_error(dict(x=value), dict(x=kind)) == "") == fits

def test_journals_lose_only_the_lines_that_are_damaged():
    lines = [line_of(dict(index=i)) for i in range(3)]
    text = lines[0] + lines[1].replace("1", "7", 1) + "\x00\xff[[[\n" + '{"index": 9}\n' + lines[2] + lines[0][:7]
    assert lines_in(text, dict(index=int)) == [dict(index=0), dict(index=2)] and lines_in(text, dict(index=str)) == []

@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xff\xfe", b"video\n01\n", b"video,frame\n01,x\n", b"video,frame\n01,1e400\n", b"video,frame\n01\n",
                                  b"video,frame\n01," + b"9" * 400, b'video,frame\n"01,3\n', b"\x00" * 30, b"video,frame\n1,2\n1,2,3,4\n"])
def test_tables_that_are_none_of_ours(tmp_path, data):
    (tmp_path / "t.csv").write_bytes(data)
    sentence(lambda: read_csv(tmp_path / "t.csv", dict(video=str, frame=int)), "t.csv")

@fewer(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bit=st.integers(0, 10**6), cut=st.booleans())
def test_broken_arrays(tmp_path, bit, cut):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(6, dtype=np.float32))
    if cut: path.write_bytes(path.read_bytes()[:bit % 152])
    else: flip(path, bit % (8 * 128)) # in the header
    for mapped in (True, False):
        try: read_array(path, mapped=mapped)
        except UserError as e: assert "x.npy" in str(e)


# ---- weights

def some_tensors(): return dict(a=torch.randn(3, 4), b=torch.tensor(2), empty=torch.zeros(0, 2), half=torch.randn(5).bfloat16(), mask=torch.tensor([True, False]))

@fewer(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bit=st.integers(0, 10**6))
def test_no_flipped_bit_changes_weights(tmp_path, bit):
    path, tensors = tmp_path / "w.safetensors", some_tensors()
    save_tensors(path, tensors, settings=dict(width=3), step=7)
    flip(path, bit)
    try: found, facts = load_tensors(path)
    except UserError as e: assert str(path) in str(e) and "\n" not in str(e)
    else: assert facts == dict(settings=dict(width=3), step=7) and found.keys() == tensors.keys() and all(torch.equal(found[k], v) for k, v in tensors.items())

def test_weights_without_a_seal_are_older_ones(tmp_path):
    save_tensors(tmp_path / "w.safetensors", some_tensors(), step=7)
    with safe_open(tmp_path / "w.safetensors", "pt") as f: facts = f.metadata()["facts"]
    save_file(load_file(tmp_path / "w.safetensors"), tmp_path / "old.safetensors", metadata=dict(facts=facts))
    assert load_tensors(tmp_path / "old.safetensors")[1] == dict(step=7)

@pytest.mark.parametrize("facts", ['{"settings": [1]}', '{"settings": {"width": "wide"}}', '{"settings": {"width": 1e999}}', '{"settings": {"batch": -3}}',
                                   '{"settings": {"size": [16]}}', '{"settings": {"colour": 1}}', "[" * 9999, "3", '{"settings": {"width": 1000000000}}'])
def test_settings_in_weights_that_cannot_be(tmp_path, facts):
    save_file(dict(x=torch.zeros(2)), tmp_path / "model.safetensors", metadata=dict(facts=facts))
    sentence(lambda: trainer.load_model(tmp_path), tmp_path / "model.safetensors")

@pytest.fixture(scope="module")
def data(tmp_path_factory): return open_dataset(write_tiny(tmp_path_factory.mktemp("own") / "tiny"))

@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    "trained and evaluated"
    made = fit(TINY, data, tmp_path_factory.mktemp("run") / "run", "cpu")
    evaluation.evaluate(made.folder, data, "cpu")
    return made.folder

def halfway(data, folder):
    "a run that was stopped after its first epoch"
    class Dead(BaseException): pass
    save = trainer.save_checkpoint
    def last(*args):
        save(*args)
        raise Dead
    trainer.save_checkpoint, seconds = last, trainer.EPOCH_SECONDS
    trainer.EPOCH_SECONDS = 0
    try: fit(TINY, data, folder, "cpu")
    except Dead: return folder
    finally: trainer.save_checkpoint, trainer.EPOCH_SECONDS = save, seconds

@pytest.mark.parametrize("text", [None, b"", b"epoch\nx\n", b"\xff\xfe\x00", b"epoch,loss\n1,7\n2,7\n3,7\n"])
def test_a_damaged_table_of_losses_changes_no_run(data, run, tmp_path, text):
    folder = halfway(data, tmp_path / "run")
    (folder / "losses.csv").unlink() if text is None else (folder / "losses.csv").write_bytes(text)
    fit(TINY, data, folder, "cpu")
    pd.testing.assert_frame_equal(*(pd.read_csv(f / "losses.csv").drop(columns="seconds") for f in (folder, run)), check_exact=True)
    ours, theirs = (load_file(f / "model.safetensors") for f in (folder, run))
    assert all(torch.equal(v, theirs[k]) for k, v in ours.items())

def test_a_damaged_checkpoint_is_refused(data, tmp_path):
    folder = halfway(data, tmp_path / "run")
    damage(folder / "checkpoint.safetensors")
    sentence(lambda: fit(TINY, data, folder, "cpu"), folder / "checkpoint.safetensors")

@pytest.mark.parametrize("change", [dict(step=10**9), dict(step=-1), dict(step="4"), dict(begun=3), dict(begun={}), dict(seconds=None), dict(table=[1]), dict(schedule=[])])
def test_checkpoints_whose_facts_cannot_be(data, tmp_path, change):
    folder = halfway(data, tmp_path / "run")
    path = folder / "checkpoint.safetensors"
    tensors, facts = load_tensors(path)
    save_tensors(path, tensors, **facts | change)
    sentence(lambda: fit(TINY, data, folder, "cpu"), path)


# ---- records

@pytest.mark.parametrize("change", [dict(settings=3), dict(settings=dict(size="x")), dict(data=3), dict(data=dict(name=1)), dict(data=dict(name="a", fingerprint=None)),
                                    dict(train_seconds="x"), dict(audit=None)])
def test_records_that_do_not_fit(data, run, tmp_path, change):
    shutil.copytree(run, tmp_path / "run")
    write_json(tmp_path / "run/record.json", read_json(run / "record.json") | change)
    sentence(lambda: fit(TINY, data, tmp_path / "run", "cpu"), "record.json")

@pytest.mark.parametrize("change", [dict(psnr=3), dict(psnr=["a", 1]), dict(thresholds=[1]), dict(model=None), dict(distance="x"), dict(thresholds={"0.6": "x"})])
def test_statistics_that_do_not_fit(run, tmp_path, change):
    shutil.copytree(run, tmp_path / "run")
    write_json(tmp_path / "run/statistics.json", read_json(run / "statistics.json") | change)
    sentence(lambda: evaluation.read_statistics(tmp_path / "run", TINY), "statistics.json", "evaluate the run again")


# ---- evaluations

def numbers(m): return {k: v for k, v in m.items() if k not in ("frames_per_second", "seals")}

@pytest.mark.parametrize("name", ["metrics.json", "scores.csv", "controls.csv"])
def test_a_damaged_evaluation_is_measured_anew(data, run, tmp_path, capsys, name):
    shutil.copytree(run, tmp_path / "run")
    want = numbers(evaluation.evaluate(tmp_path / "run", data, "cpu"))
    assert "anew" not in capsys.readouterr().err
    damage(tmp_path / "run" / name)
    if name != "metrics.json": sentence(lambda: read_csv(tmp_path / "run" / name, {}, record=tmp_path / "run/metrics.json"), name, "damaged")
    assert numbers(evaluation.evaluate(tmp_path / "run", data, "cpu")) == want
    said = capsys.readouterr().err
    assert "measured anew" in said and name in said
    for f in ("scores.csv", "controls.csv"): assert (tmp_path / "run" / f).read_bytes() == (run / f).read_bytes()

def test_films_decoded_otherwise_have_results_of_their_own(data, run, tmp_path, monkeypatch, capsys):
    "interlaced film as it is stored has other scores; pictures have no decoder"
    shutil.copytree(run, tmp_path / "run")
    for k, part in enumerate(("training", "testing")): write_film(tmp_path / f"films/{part}/videos/01.mp4", range(k, k + 20), interlaced="tff", options=dict(crf="4"))
    np.save(tmp_path / "films/frame_labels_films.npy", np.isin(np.arange(20), range(8, 14)).astype(np.uint8)[None])
    films, small = open_dataset(tmp_path / "films"), dict(epochs=1)
    def planned(root): return checked_plan(Plan(tmp_path, frames=str(root), changes=small)).prints["frames"]
    def places(of): return run_folder(tmp_path, TINY, of), planned(of.root)
    before, still = places(films), places(data)
    def scores():
        evaluation.evaluate(tmp_path / "run", films, "cpu")
        return (tmp_path / "run/scores.csv").read_text()
    usual = scores()
    assert "data" in capsys.readouterr().err
    monkeypatch.setenv("VAD_FIELDS", "stored")
    assert scores() != usual and "decoding changed" in capsys.readouterr().err
    assert places(films)[0] != before[0] and places(films)[1] != before[1] and places(data) == still
    monkeypatch.delenv("VAD_FIELDS")
    assert scores() == usual and places(films) == before

def test_a_table_of_scores_that_is_damaged_is_not_drawn(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    damage(tmp_path / "run/scores.csv")
    sentence(lambda: frame_scores.read_table(tmp_path / "run/scores.csv"), "scores.csv", "evaluate the run again")

def test_masks_are_part_of_what_was_measured(tmp_path, run, capsys):
    root = write_tiny(tmp_path / "tiny")
    shutil.copytree(run, tmp_path / "run")
    before, data = evaluation.evaluate(tmp_path / "run", open_dataset(root), "cpu"), open_dataset(root).fingerprint()
    capsys.readouterr()
    mask = np.zeros((20, 32, 32), bool)
    mask[8:14, :4, :4] = True
    np.savez(root / "masks/01.npz", mask=np.packbits(mask, axis=-1), shape=mask.shape)
    after = evaluation.evaluate(tmp_path / "run", open_dataset(root), "cpu")
    assert "masks changed" in capsys.readouterr().err
    assert after["pixel_auc"] != before["pixel_auc"] and after["regularity"] == before["regularity"] and open_dataset(root).fingerprint() == data


# ---- caches

@pytest.fixture
def cached(tmp_path):
    "two films and their cache: a call that opens it, its folder, what it should hold"
    for i in (1, 2): write_frames(tmp_path / f"films/{i}", i, 6)
    videos = [open_video(tmp_path / f"films/{i}") for i in (1, 2)]
    def take(): return cache_frames(videos, (8, 8), 1, tmp_path / "cache")
    frames = take()
    return take, frames.folder, np.array(frames.array)

def test_a_flipped_bit_in_a_frame_is_found_when_it_is_read(cached):
    take, folder, want = cached
    data = bytearray((folder / "frames.npy").read_bytes())
    data[-70] ^= 4 # in the last frame but one
    (folder / "frames.npy").write_bytes(data)
    frames = take()
    assert np.array_equal(frames.cut(np.arange(10)).numpy(), want[:10])                      # the others are as they were
    sentence(lambda: frames.batch([6], 5), folder, "frame 4 of 2", "made anew")
    assert np.array_equal(take().cut(np.arange(12)).numpy(), want)

@fewer(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["frames.npy", "seals.npy", "index.json"]), bit=st.integers(0, 10**6))
def test_no_flipped_bit_changes_a_cached_frame(cached, name, bit):
    take, folder, want = cached
    flip(folder / name, bit)
    for _ in range(2): # the second call makes anew what the first has found
        try: found = take()
        except UserError: continue
        try: x = found.cut(np.arange(12)).numpy()
        except UserError: continue
        assert np.array_equal(x, want) and found.names == ["1", "2"] and found.starts.tolist() == [0, 6, 12]
        break
    else: pytest.fail("it was not made anew")

def test_a_system_that_fails_deletes_no_cache(cached):
    take, folder, want = cached
    made = (folder / "frames.npy").stat().st_mtime_ns
    with no_handles(): sentence(lambda: Frames(folder), "cannot be read now", kind=TemporaryError)
    with no_handles(), pytest.raises((TemporaryError, OSError)): take()
    assert np.array_equal(take().cut(np.arange(12)).numpy(), want) and (folder / "frames.npy").stat().st_mtime_ns == made

@pytest.mark.parametrize("change", [dict(names="12"), dict(starts=[0, 12]), dict(starts=[0, 7.5, 12]), dict(starts=[0, 20, 12]), dict(starts=[3, 6, 12]),
                                    dict(starts=[0, 6, 2**80]), dict(names=[1, 2]), dict(starts=None), dict(shape=[12, 8, 4, 2]), dict(seals=dict(other="1"))])
def test_an_index_that_does_not_fit_is_made_anew(cached, change, capsys):
    take, folder, want = cached
    write_json(folder / "index.json", read_json(folder / "index.json") | change)
    sentence(lambda: Frames(folder), folder)
    assert np.array_equal(take().cut(np.arange(12)).numpy(), want) and "made anew" in capsys.readouterr().err

def test_a_cache_without_seals_is_an_older_one(cached):
    take, folder, want = cached
    index = read_json(folder / "index.json")
    (folder / "index.json").write_text(json.dumps({k: index[k] for k in ("names", "starts", "interpolation")}))
    (folder / "seals.npy").unlink()
    assert np.array_equal(take().cut(np.arange(12)).numpy(), want)

@pytest.mark.parametrize("now", ["crc32", "xxh3_64"])
@pytest.mark.parametrize("then", [None, "crc32", "xxh3_64"])
def test_a_cache_is_compared_by_the_checksum_it_was_sealed_with(cached, monkeypatch, then, now):
    "an older cache does not say which: that is CRC-32. None is taken for damaged because another checksum is used now, and damage is found by each"
    if "xxh3_64" in (then, now): pytest.importorskip("xxhash")
    take, folder, want = cached
    one = lambda name: {n: f for n, f in frame_cache.CHECKSUMS.items() if n != name} | {name: frame_cache.CHECKSUMS[name]} # the last one is used
    monkeypatch.setattr(frame_cache, "CHECKSUMS", one(then or "crc32"))
    shutil.rmtree(folder)
    assert take().checksum == (then or "crc32") == read_json(folder / "index.json")["checksum"]
    if then is None:                                                     # as older versions wrote it
        np.save(folder / "seals.npy", np.load(folder / "seals.npy").astype(np.uint32))
        index = {k: v for k, v in read_json(folder / "index.json").items() if k != "checksum"}
        write_json(folder / "index.json", index | dict(seals=file_seals(folder, "seals.npy")))
    monkeypatch.setattr(frame_cache, "CHECKSUMS", one(now))
    made = (folder / "frames.npy").stat().st_mtime_ns
    assert np.array_equal(take().cut(np.arange(12)).numpy(), want) and (folder / "frames.npy").stat().st_mtime_ns == made
    flip(folder / "frames.npy", 8 * 128 + 77)                            # behind the header
    sentence(lambda: take().cut(np.arange(12)), folder, "made anew")
    assert np.array_equal(take().cut(np.arange(12)).numpy(), want)

def test_a_checksum_that_nobody_knows_here(cached, capsys):
    "its cache is not trusted: it is made anew"
    take, folder, want = cached
    write_json(folder / "index.json", read_json(folder / "index.json") | dict(checksum="xxh128"))
    sentence(lambda: Frames(folder), folder, "xxh128")
    assert np.array_equal(take().cut(np.arange(12)).numpy(), want) and "made anew" in capsys.readouterr().err


# ---- embeddings

def films(root):
    for i in range(6):
        path = root / ("normal" if i % 2 else "anomalous") / f"{i}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 10, (32, 32), False)
        for t in range(4 + i): out.write(square(t, i))
        out.release()
    return root

def quiet(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return embed(*args, **kwargs)

def content(folder):
    table = pd.read_csv(folder / "cnn_manifest.csv", keep_default_na=False).drop(columns="seconds")
    return [(folder / f"cnn_{n}.npy").read_bytes() for n in ("embeddings", "labels", "mask")], table.to_csv()

@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    root = tmp_path_factory.mktemp("embedded")
    quiet(films(root / "films"), root / "out", **CNN)
    return root / "films", root / "out"

FILES = ("embeddings.npy", "labels.npy", "mask.npy", "manifest.csv", "record.json")

@pytest.mark.parametrize("how", ["lost", "damaged", "empty"])
@pytest.mark.parametrize("name", FILES)
def test_embeddings_are_mended(embedded, tmp_path, capsys, name, how):
    root, made = embedded
    shutil.copytree(made, tmp_path / "out")
    path = tmp_path / f"out/cnn_{name}"
    {"lost": path.unlink, "damaged": lambda: damage(path), "empty": lambda: path.write_bytes(b"")}[how]()
    sentence(lambda: open_embeddings(tmp_path / "out", "cnn"), path, "again")
    again = quiet(root, tmp_path / "out", **CNN)
    assert content(tmp_path / "out") == content(made)
    kept = name in ("labels.npy", "mask.npy", "manifest.csv") or how == "damaged"
    assert again.record["embedded"] == (0 if name not in ("embeddings.npy", "record.json") else 1 if name == "embeddings.npy" and kept else again.record["embedded"])
    assert how == "lost" and name == "record.json" or "mended" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted([".cnn.lock", *(f"cnn_{n}" for n in FILES)])

def test_a_damaged_journal_costs_a_row(embedded, tmp_path):
    root, made = embedded
    shutil.copytree(made, tmp_path / "out")
    record = read_json(made / "cnn_record.json")
    lines = [line.replace('"frames": 5', '"frames": 4') if i == 2 else line for i, line in enumerate(record["rows"])]
    assert lines != record["rows"]
    write_json(tmp_path / "out/cnn_record.json", record | dict(rows=lines))
    (tmp_path / "out/cnn_mask.npy").unlink()
    assert quiet(root, tmp_path / "out", **CNN).record["embedded"] == 1 and content(tmp_path / "out") == content(made)

@pytest.mark.parametrize("change", [lambda t: t.assign(frames=99), lambda t: t.assign(frames=-1), lambda t: t.drop(columns="source"), lambda t: t.iloc[:3],
                                    lambda t: t.assign(frames="x")])
def test_manifests_that_do_not_fit(embedded, tmp_path, change):
    shutil.copytree(embedded[1], tmp_path / "out")
    write_csv(tmp_path / "out/cnn_manifest.csv", change(pd.read_csv(tmp_path / "out/cnn_manifest.csv")))
    record = {k: v for k, v in read_json(tmp_path / "out/cnn_record.json").items() if k != "seals"}
    write_json(tmp_path / "out/cnn_record.json", record)
    sentence(lambda: open_clips(tmp_path / "out"), "cnn_manifest.csv")

def test_what_could_not_be_read_is_tried_again(tmp_path):
    root = films(tmp_path / "films")
    (root / "normal/9.avi").symlink_to("/proc/self/mem") # opens, and gives an input/output error when it is read
    (root / "normal/8.avi").write_text("no video")
    for _ in range(2):
        made = quiet(root, tmp_path / "out", **CNN)
        status = made.manifest.set_index("video").status
        assert status["normal/9.avi"] == "unread" and status["normal/8.avi"] == "failed" and (status == "ok").sum() == 6
    assert made.record["unread"] == made.record["failed"] == 1
    assert made.record["embedded"] == 1                                                      # the second call tried that one alone

def test_finished_work_is_used_where_nothing_can_be_written(data, run, embedded, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a disk takes root's rights")
    try:
        shutil.copytree(run, disk / "run")
        shutil.copytree(embedded[1], disk / "out")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(OSError): (disk / "x").touch()
        assert fit(TINY, data, disk / "run", "cpu").record["audit"]["moved"] > 0
        assert evaluation.evaluate(disk / "run", data, "cpu") == evaluation.read_metrics(run)
        assert len(quiet(embedded[0], disk / "out", **CNN)) == 6 and len(open_clips(disk / "out")) == 6
    finally: subprocess.run(["umount", "-l", disk], check=True)


# ---- journals of cutting

def test_a_damaged_line_of_the_cutting_journal(embedded, tmp_path):
    pytest.importorskip("av")
    from vad.data.cutting import read_journal
    path = tmp_path / "out/.segments.jsonl"
    path.parent.mkdir()
    text = line_of(dict(key="k")) + "".join(line_of(dict(video=v, clips=[dict(video=v)])) for v in "ab")
    path.write_text(text.replace('"video": "a"}', '"video": "c"}', 1))
    assert read_journal(path, "k") == dict(b=[dict(video="b")])
    path.write_text(text)
    assert read_journal(path, "k").keys() == {"a", "b"}
    sentence(lambda: read_journal(path, "other"), "other settings")
    for broken in (text.replace('"k"', '"j"', 1), "[[[\n", "\x00"):
        path.write_text(broken)
        sentence(lambda: read_journal(path, "k"), path, "damaged")


# ---- plans, jobs and entries of a reproduction

@pytest.mark.parametrize("change", [dict(state=3), dict(pid="x"), dict(key=None), dict(seconds=[]), dict(why={}), dict(lines=[3]), dict(seed="0")])
def test_results_that_do_not_fit(tmp_path, change):
    path = tmp_path / "results/row-predict-full-seed0-12345678.json"
    write_json(path, dict(name="row-predict-full-seed0", key=path.stem, kind="row", arguments=["predict-full"], seed=0, state="finished", pid=7))
    assert read_result(path)["state"] == "finished"
    write_json(path, read_json(path) | change)
    sentence(lambda: read_result(path), path)

@pytest.mark.parametrize("plan, data", [(None, {}), ("x", {}), ({}, {}), (dict(seeds="0"), {}), (dict(seeds=["a"]), {}), (dict(classes="2"), {}),
                                        (dict(colour=1), {}), ({}, dict(name=3))])
def test_plans_that_do_not_fit(tmp_path, plan, data):
    good = plan_facts(Plan(tmp_path))
    write_json(tmp_path / "record.json", dict(plan=good, data=dict(name="tiny")))
    assert read_plan(tmp_path).seeds == (0,)
    broken = good | plan if plan and isinstance(plan, dict) else good if data else plan
    write_json(tmp_path / "record.json", dict(plan=broken, data=data or dict(name="tiny")))
    sentence(lambda: read_plan(tmp_path), tmp_path)
