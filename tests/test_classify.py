"""Clips to classes: padding, splits, a killed run, the commands from video files to scores."""

import json
import os
import signal
import sys
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file

from vad.training import classifier, trainer
from vad.training.classifier import ClassifierSettings
from vad.training.splits import Clips, LazyRows, SplitSettings, folds, join_duplicates, mirrored_split, near_duplicates
from vad.core.errors import UserError
from vad.core.records import read_csv
from vad.training.protocols import PROTOCOLS, leaks
from vad.data.synthetic import write_scenes

sys.path.insert(0, str(Path(__file__).parent))
from apart import Apart
from test_cli import vad as run_vad

TINY = ClassifierSettings(hidden=8, projection=8, heads=2, epochs=3, batch=4, lr=1e-2, precision="fp32")

def clips(n=24, frames=6, width=5, classes=2, seed=0):
    "random clips of which the first feature tells the class; four of each source, some padded"
    rng = np.random.default_rng(seed)
    labels, real = np.arange(n) // 4 % classes, rng.integers(2, frames + 1, n)
    x = rng.normal(size=(n, frames, width)).astype(np.float32)
    x[..., 0] += 3 * labels[:, None]
    x[np.arange(frames) >= real[:, None]] = 0
    return Clips("random", x, labels, real, np.array([f"v{i // 4}" for i in range(n)]), np.array([f"c{i}" for i in range(n)]), tuple("abcdefg"[:classes]))


# ---- padding

@settings(max_examples=40, deadline=None, derandomize=True)
@given(cell=st.sampled_from(classifier.CELLS), bidirectional=st.booleans(), pool=st.sampled_from(["last", "mean", "top"]), inputs=st.sampled_from(["features", "change"]),
       normalise=st.booleans(), more=st.integers(1, 5), junk=st.floats(-100, 100), seed=st.integers(0, 99))
def test_padding_changes_no_prediction(cell, bidirectional, pool, inputs, normalise, more, junk, seed):
    data, bidirectional = clips(6, seed=seed), bidirectional and cell in ("sru", "srupp")
    s = replace(TINY, cell=cell, bidirectional=bidirectional, pool=pool, inputs=inputs, normalise=normalise, seed=seed)
    model, _ = classifier.Classes(s, data).build()
    model.eval()
    longer = np.concatenate([data.features, np.full((6, more, 5), junk, np.float32)], 1)
    longer[np.arange(longer.shape[1]) >= data.frames[:, None]] = junk
    padded = replace(data, features=longer)
    for a, b in zip(classifier.predict(model, data), classifier.predict(model, padded)): np.testing.assert_allclose(a, b, atol=1e-5)
    alone = np.concatenate([classifier.predict(model, data.take(np.array([i])))[0] for i in range(6)]) # cut to its own length, no padding at all
    np.testing.assert_allclose(alone, classifier.predict(model, data)[0], atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 200), percent=st.integers(1, 100), more=st.integers(0, 9), seed=st.integers(0, 99))
def test_as_many_frames_are_most_anomalous_as_the_share_says(n, percent, more, seed):
    "rounded up, and no real share rounded further"
    scores = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, n + more, 2)))
    mask = torch.arange(n + more)[None] < n
    chosen = classifier.most_anomalous(scores, mask, percent / 100)
    assert int(chosen.sum()) == -(-n * percent // 100) and not (chosen & ~mask).any()
    margin = scores[..., 1] - scores[..., 0]
    assert not (mask & ~chosen).any() or margin[chosen].min() > margin[mask & ~chosen].max()

def test_one_frame_is_most_anomalous_at_least():
    scores, mask = torch.zeros(1, 8, 2), torch.ones(1, 8, dtype=torch.bool)
    assert int(classifier.most_anomalous(scores, mask, 1e-12).sum()) == 1

def test_features_are_hidden_in_training_only():
    "the same ones in all frames of a clip, other ones in another clip, and they read as the training mean"
    data = clips(8, width=40)
    model, _ = classifier.Classes(replace(TINY, hide=.5, dropout=0., normalise=True), data).build()
    x, mask = classifier.tensors(data, np.arange(8), "features", "cpu")
    seen = []
    model.inward.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.train()(x, mask)
    hidden = (seen[0] == 0).all(1) # (clips, features): standardised, the mean is zero
    assert .3 < hidden.float().mean() < .7 and not (hidden[0] == hidden[1]).all()
    model.eval()(x, mask)
    assert not (seen[1] == 0).all(1).any()
    shown = ~hidden[:, None].expand_as(seen[0])
    assert torch.equal(seen[0][shown], seen[1][shown])


# ---- splits

@settings(max_examples=60, deadline=None)
@given(videos=st.integers(10, 30), takes=st.integers(1, 5), k=st.integers(2, 5), seed=st.integers(0, 9), augment=st.sampled_from(["after", "before", "none"]))
def test_no_source_on_both_sides(videos, takes, k, seed, augment):
    labels, sources = np.repeat(np.arange(videos) % 2, takes), np.repeat([f"v{i}" for i in range(videos)], takes)
    tested = []
    for train, test in mirrored_split(labels, sources, SplitSettings("source", augment, k), seed):
        n = len(labels)
        assert not set(sources[train % n]) & set(sources[test % n])
        assert augment == "before" or (test < n).all() # a mirror image is tested only as published
        assert augment != "after" or set(train) == set(train % n) | set(train % n + n)
        tested.append(test)
    assert sorted(np.concatenate(tested)) == list(range(len(labels) * (1 + (augment == "before"))))

def test_too_few_sources_are_refused():
    with pytest.raises(UserError, match="source videos, too few for 5"): folds(np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array(list("aabbccdd")), "source", 5)
    with pytest.raises(UserError, match="no split"): folds(np.array([0, 1]), np.array(["a", "b"]), "film", 2)

@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 12), seed=st.integers(0, 99))
def test_near_duplicates_agree_with_a_loop(n, seed):
    rng = np.random.default_rng(seed)
    h = rng.integers(0, 2, (n, 2, 2, 8)).astype(bool)
    expected = {}
    for i in range(n):
        for j in range(i + 1, n):
            ways = {way: (h[i, 0] != h[j, int(way)]).mean() for way in (False, True)}
            if min(ways.values()) <= .3: expected[i, j] = min(ways.values())
    found = near_duplicates(h, .3)
    assert {(a, b): d for a, b, d in zip(found["first"], found["second"], found.differ)} == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(videos=st.integers(4, 12), takes=st.integers(1, 4), name=st.sampled_from(list(PROTOCOLS)), pairs=st.integers(0, 6), seed=st.integers(0, 9))
def test_leaks_agree_with_a_loop(videos, takes, name, pairs, seed):
    "what is known of every test clip, asked one by one"
    rng, n, split = np.random.default_rng(seed), videos * takes, replace(PROTOCOLS[name], k=2)
    labels, sources = np.repeat(np.arange(videos) % 2, takes), np.repeat([f"v{i}" for i in range(videos)], takes)
    alike = {tuple(sorted(rng.choice(n, 2, replace=False).tolist())) for _ in range(pairs)}
    found = []
    for train, test in mirrored_split(labels, sources, split, seed):
        for t in test.tolist():
            others = [a % n for a in train.tolist() if a % n != t % n]
            found.append(((t + n) % (2 * n) in train, any(sources[a] == sources[t % n] for a in others), any(tuple(sorted((a, t % n))) in alike for a in others)))
    table = pd.DataFrame(sorted(alike), columns=["first", "second"], dtype=int)
    got = leaks(labels, sources, table, split, seed)
    assert got == dict(zip(("mirror_image", "same_source", "near_duplicate"), map(pytest.approx, 100 * np.mean(found, 0))))
    assert name != "by_source" or got["same_source"] == got["mirror_image"] == 0

def test_the_weight_costs_no_training_clips(tmp_path):
    "the network that is tested was trained on all of the training part, with and without the choice of a weight"
    data = clips(40)
    train, test = folds(data.labels, data.sources)[0]
    plain = classifier.train_and_test(TINY, data, train, test, tmp_path / "plain", None, device="cpu")
    both = classifier.train_and_test(TINY, data, train, test, tmp_path / "both", device="cpu")
    assert plain["plain"] == both["plain"] and "weighted" not in plain
    clips_of = [json.loads((tmp_path / f / "record.json").read_text())["data"]["clips"] for f in ("both", "both/choice")]
    assert clips_of[0] == len(train) > clips_of[1]


@settings(max_examples=30, deadline=None)
@given(protocol=st.sampled_from(["as_published", "by_clip", "by_source"]), seed=st.integers(0, 99))
def test_the_weight_is_chosen_on_clips_that_the_network_does_not_know(protocol, seed):
    "neither they nor their mirror images were trained on"
    data = clips(40, seed=seed)
    both = classifier.joined(data, data)
    for train, test in mirrored_split(data.labels, data.sources, PROTOCOLS[protocol], seed):
        inner, valid = classifier.inner_split(part := both.take(train), PROTOCOLS[protocol].kind, replace(TINY, seed=seed))
        known, asked = ({n.removesuffix(classifier.MIRRORED) for n in part.names[rows]} for rows in (inner, valid))
        assert not known & asked and sorted([*inner, *valid]) == list(range(len(part)))

def test_too_few_clips_for_the_choice_are_refused_before_training(tmp_path):
    data = clips(40)
    train, test = folds(data.labels, data.sources)[0]
    with pytest.raises(UserError, match="beside the validation clips has .* training clips, fewer than a batch"):
        classifier.train_and_test(replace(TINY, batch=len(train) - 2), data, train, test, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()

def test_files_hold_the_ranks_that_were_measured(tmp_path):
    "also of probabilities that are nearly one or nearly zero"
    data = clips(40)
    data = replace(data, features=40 * data.features)
    train, test = folds(data.labels, data.sources)[0]
    classifier.train_and_test(replace(TINY, epochs=40, lr=.1), data, train, test, tmp_path / "run", None, device="cpu")
    model, *_ = classifier.load_classifier(tmp_path / "run")
    p, t = classifier.predict(model, data.take(test))[0], read_csv(tmp_path / "run/predictions.csv", {"plain a": float, "plain b": float})
    assert (np.minimum(p, 1 - p) < 5e-7).any()
    np.testing.assert_array_equal(t[["plain a", "plain b"]].to_numpy(), p)

@pytest.mark.parametrize("k", [1, 0, -1])
@pytest.mark.parametrize("kind", ["clip", "source"])
def test_one_fold_is_no_split(kind, k):
    with pytest.raises(UserError, match=f"{k} folds leave nothing"): folds(clips().labels, clips().sources, kind, k)


# ---- clips and mirror images that may not fit into memory

def mapped(data, path):
    "the same clips, features read from the disk"
    np.save(path, data.features)
    return replace(data, features=np.load(path, mmap_mode="r"))

@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 6), rows=st.lists(st.integers(0, 11), max_size=8), dtypes=st.sampled_from([("f4", "f4"), ("f2", "f4"), ("f8", "f8")]))
def test_lazy_rows_agree_with_an_array(n, rows, dtypes):
    a, b = (np.random.default_rng(i).normal(size=(n, 2, 3)).astype(d) for i, d in enumerate(dtypes))
    whole, rows = np.concatenate([a, b]), np.array(rows, int) % (2 * n)
    lazy = LazyRows.of(a).before(LazyRows.of(b))
    for made, expected in ((lazy, whole), (lazy.take(rows), whole[rows]), (lazy.take(rows).take(rows < n), whole[rows][rows < n])):
        assert made.shape == expected.shape and made.size == expected.size and len(made) == len(expected)
        for found in (np.asarray(made), made[:], np.array(list(made), made.dtype).reshape(expected.shape)):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(lazy[rows], whole[rows])

def test_joined_clips_train_to_the_same_bits_from_the_disk(tmp_path):
    a, b = clips(48), replace(clips(48, seed=1), frames=clips(48).frames)
    here = replace(classifier.joined(a, b), features=np.concatenate([a.features, b.features]))
    there = classifier.joined(mapped(a, tmp_path / "a.npy"), mapped(b, tmp_path / "b.npy"))
    assert there.fingerprint() == here.fingerprint() and there.record() == here.record()
    np.testing.assert_array_equal(classifier.pooled(there), classifier.pooled(here))
    train, test = mirrored_split(a.labels, a.sources, SplitSettings(k=2))[0]
    for name, data in dict(here=here, there=there).items(): classifier.train_and_test(TINY, data, train, test, tmp_path / name, device="cpu")
    for name in ("predictions.csv", "metrics.json"): assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    for name in ("model.safetensors", "choice/model.safetensors"):
        x, y = (load_file(tmp_path / side / name) for side in ("here", "there"))
        assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)

def test_joined_clips_are_never_all_in_memory(tmp_path):
    classifier.fit_classifier(replace(TINY, epochs=1), clips(), tmp_path / "first", "cpu") # imports what training takes
    data = clips(256, 60, 200)
    a, b = mapped(data, tmp_path / "a.npy"), mapped(data, tmp_path / "b.npy")
    tracemalloc.start()
    try:
        both = classifier.joined(a, b)
        train, test = mirrored_split(a.labels, a.sources, SplitSettings(k=2))[0]
        classifier.pooled(both)
        classifier.train_and_test(replace(TINY, epochs=1), both, train, test, tmp_path / "run", device="cpu")
        assert tracemalloc.get_traced_memory()[1] < data.features.nbytes / 2 # and with the mirror images they are twice that
    finally: tracemalloc.stop()


# ---- the one learner

def die_before_step(folder, nth):
    step, calls = trainer.train_step, []
    def wrapped(*args):
        calls.append(1)
        if len(calls) == nth: os.kill(os.getpid(), signal.SIGKILL)
        step(*args)
    trainer.train_step, trainer.SAVE_MINUTES = wrapped, 0
    classifier.fit_classifier(TINY, clips(), folder, "cpu")

@pytest.mark.parametrize("nth", [4, 14])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, nth):
    assert Apart(tmp_path, die_before_step, tmp_path / "run", nth).end()[0] == -signal.SIGKILL
    assert (tmp_path / "run/checkpoint.safetensors").exists()
    for name in ("run", "whole"): classifier.fit_classifier(TINY, clips(), tmp_path / name, "cpu")
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    assert a.keys() == b.keys() and "centres" in a and all(torch.equal(a[k], b[k]) for k in a)

def test_a_finished_run_takes_no_other_settings_or_data(tmp_path):
    classifier.fit_classifier(TINY, clips(), tmp_path, "cpu")
    with pytest.raises(UserError, match="hidden = 8"): classifier.fit_classifier(replace(TINY, hidden=16), clips(), tmp_path, "cpu")
    with pytest.raises(UserError, match="other data"): classifier.fit_classifier(TINY, clips(seed=1), tmp_path, "cpu")

def test_it_learns_what_can_be_learned(tmp_path):
    data = clips(80)
    train, test = folds(data.labels, data.sources)[0]
    m = classifier.train_and_test(replace(TINY, epochs=8), data, train, test, tmp_path, device="cpu")
    assert m["plain"]["accuracy"] > .9 and m["plain"]["auroc"] > .95 and m["weighted"]["w"] in classifier.WEIGHTS
    said = pd.read_csv(tmp_path / "predictions.csv")
    assert list(said.video) == list(data.names[test]) and ((said["plain b"] > .5) == (said.label == "b")).mean() == m["plain"]["accuracy"]

def test_centres_have_seen_training_clips_only(tmp_path):
    data = clips(40)
    run = classifier.fit_classifier(TINY, data, tmp_path, "cpu")
    _, centres, _ = classifier.load_classifier(run.folder)
    assert centres.shape == (2, 8) and np.isfinite(centres).all() and (centres != 0).any()

def test_shuffled_labels_teach_nothing():
    data = clips(400, seed=3)
    x = classifier.pooled(data)
    train, test = folds(data.labels, data.sources)[0]
    scores = {kind: (classifier.control_probabilities(kind, x, data.labels, train, test, 2).argmax(1) == data.labels[test]).mean() for kind in classifier.CONTROLS}
    assert scores["linear"] > .9 and abs(scores["shuffled"] - .5) < .25 and abs(scores["majority"] - .5) < .15


# ---- from files to scores, through the command line

def quiet(*args):
    warnings.simplefilter("ignore")
    os.environ["VAD_PROGRESS"] = os.devnull
    run_vad(*args)

def command(folder, *args): return Apart(folder / "said", quiet, *args).end()

@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    root = tmp_path_factory.mktemp("chain")
    write_scenes(root / "scenes", cameras=6, takes=1, frames=16, size=(48, 64))
    for flip in ((), ("--flip",)):
        code, _, err = command(root, "embed", root / "scenes", "--output", root / f"embedded{len(flip)}", "--method", "cnn", "--frames", 8, "--width", 16, "--size", 32, *flip)
        assert code == 0, err
    return root

SMALL = ("--hidden", 8, "--projection", 8, "--heads", 2, "--epochs", 2, "--batch", 4, "--device", "cpu")

def test_embed_and_classify(chain):
    code, out, err = command(chain, "classify", chain / "embedded0", "--mirrored", chain / "embedded1", "--out", chain / "run", "--inputs", "change", *SMALL)
    assert code == 0 and "accuracy" in out, err
    m = json.loads((chain / "run/metrics.json").read_text())
    assert np.sum(m["plain"]["confusion"]) == len(pd.read_csv(chain / "run/predictions.csv"))
    record = json.loads((chain / "run/record.json").read_text())
    assert record["data"]["recipe"]["method"] == "cnn" and record["data"]["classes"][0] == "normal" and record["audit"]["moved"] > 10

def test_classify_a_bare_pair_with_cross_validation(chain):
    for name in ("embeddings", "labels"): (chain / f"{name}.npy").write_bytes((chain / f"embedded0/cnn_{name}.npy").read_bytes())
    code, out, err = command(chain, "classify", chain / "embeddings.npy", "--labels", chain / "labels.npy", "--out", chain / "cv", "--split", "clip", "--folds", 2, *SMALL)
    assert code == 0 and "majority" in out, err
    assert len(pd.read_csv(chain / "cv/folds.csv")) == 2 * (4 + 2) # four controls, one pipeline with and without the centres

def test_json_of_a_classifier_is_what_its_files_hold(chain, tmp_path):
    code, out, err = command(chain, "classify", chain / "embedded0", "--out", tmp_path / "one", "--json", *SMALL)
    measured = json.loads((tmp_path / "one/metrics.json").read_text())
    assert code == 0 and "weighted: accuracy" in err, err
    assert json.loads(out)["measures"]["plain"]["accuracy"] == measured["plain"]["accuracy"]
    code, out, err = command(chain, "classify", chain / "embedded0", "--out", tmp_path / "two", "--json", "--folds", 2, *SMALL)
    assert code == 0, err
    folds, table = json.loads(out, parse_constant=pytest.fail)["folds"], pd.read_csv(tmp_path / "two/summary.csv")
    assert [row["pipeline"] for row in folds] == list(table.pipeline) and np.allclose([row["accuracy"] for row in folds], table.accuracy)

def test_score_a_film(chain):
    code, out, err = command(chain, "classify", chain / "embedded0", "--out", chain / "scorer", *SMALL)
    assert code == 0, err
    film = chain / "scenes/cart/cart_01_1.mp4"
    code, out, err = command(chain, "score", chain / "scorer", film, "--out", chain / "scores", "--window", .5, "--device", "cpu")
    assert code == 0, err
    table = pd.read_csv(chain / "scores/cart_01_1.scores.csv")
    assert len(table) == 16 and table.score.between(0, 1).all() and (chain / "scores/cart_01_1.scored.mp4").stat().st_size

@pytest.mark.parametrize("args, words", [
    (("classify", "none", "--out", "out"), "none"),
    (("classify", "EMBEDDED", "--out", "out", "--cell", "lstm"), "lstm"),
    (("classify", "EMBEDDED", "--out", "out", "--folds", "9"), "too few"),
    (("classify", "EMBEDDED", "--out", "out", "--split", "official", "--folds", "9"), "official split is one"),
    (("classify", "EMBEDDED", "--out", "out", "--labels", "labels.npy"), "leave labels out"),
    (("embed", "none", "--output", "out"), "no folder"),
    (("score", "none", "none.mp4"), "none"),
])
def test_mistakes_are_one_sentence(chain, tmp_path, args, words):
    code, _, err = command(tmp_path, *[str(chain / "embedded0") if a == "EMBEDDED" else a if i == 0 or a.startswith("-") or a in ("lstm", "9", "official") else tmp_path / a for i, a in enumerate(args)])
    assert code == 1 + (words == "lstm") and err.startswith("vad: ") and words in err and "Traceback" not in err, err


# ---- near-duplicates of unknown source

@given(st.lists(st.sampled_from(["", "", "x", "y"]), min_size=1, max_size=9), st.data())
def test_clips_of_unknown_source_join_what_shows_the_same(given_sources, data):
    "as a search from clip to clip does it"
    names = np.array([f"clip{i}" for i in range(len(given_sources))])
    sources = np.array([s or n for s, n in zip(given_sources, names)])
    rows = st.integers(0, len(names) - 1)
    pairs = data.draw(st.lists(st.tuples(rows, rows), max_size=8))
    found = join_duplicates(sources, names, pd.DataFrame(pairs, columns=["first", "second"], dtype=int))
    unknown = set(names[sources == names])
    edges = [{sources[a], sources[b]} for a, b in pairs if {names[a], names[b]} & unknown]
    for start, joined in zip(sources, found):
        reached = {start}
        while grown := [e for e in edges if e & reached and not e <= reached]: reached |= set().union(*grown)
        assert joined == min(reached)
