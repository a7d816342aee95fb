"Scores: parity with the original algorithms, properties on any input, faults."
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from vad.scores import controls, frame_scores, intervals, localization, metrics
from vad.core.errors import UserError
from vad.core.provenance import shared
from vad.core.records import read_json, write_csv, write_json

PED2 = (180, 180, 150, 180, 150, 180, 180, 180, 120, 150, 180, 180)
AVENUE = (1439, 1211, 923, 947, 1007, 1283, 605, 36, 1175, 841, 472, 1271, 549, 507, 1001, 740, 426, 294, 248, 273, 76)


def load(name):
    path = shared(name)
    if path is None: pytest.skip(f"{name} is not in the shared folder")
    return np.load(path, allow_pickle=False)


@st.composite
def scored(draw, levels=20, both=True):
    "Labels, scores with many ties, and lengths of one to six videos."
    lengths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=6))
    n = sum(lengths)
    labels = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    scores = np.array(draw(st.lists(st.integers(0, levels), min_size=n, max_size=n))) / levels
    assume(not both or 0 < labels.sum() < n)
    return labels, scores, lengths


quick = settings(max_examples=40, deadline=None)


# parity

def test_golden_regularity_and_auc():
    g = load("golden/score.npz")
    r = frame_scores.regularity(g["psnr"], g["feature_distance"], g["lengths"], float(g["alpha"]))
    np.testing.assert_allclose(r, g["regularity"], rtol=1e-5, atol=1e-12)
    assert metrics.metrics(g["labels"], 1 - r, g["lengths"])["auc_micro"] == pytest.approx(float(g["auc"]), rel=1e-9)


def test_golden_irregularity():
    g = load("golden/score.npz")
    p, t = torch.from_numpy(g["pred"]), torch.from_numpy(g["target"])
    assert frame_scores.irregularity(p, t).item() == pytest.approx(float(g["regular_weighted_mse"]), rel=1e-5)


@pytest.mark.parametrize("file, lengths, clock, eight_late", [
    ("data/ped2/frame_labels_ped2.npy", PED2, 74.9, 95.6),
    ("data/avenue_sample/frame_labels_avenue.npy", AVENUE, 61.2, 93.5)])
def test_controls_on_the_published_labels(file, lengths, clock, eight_late):
    "The facts hold for all frames of the label file, the clock scaled to 0..1 in every video."
    c = controls.controls(load(file).ravel(), lengths, n=20).set_index("control").auc_micro * 100
    assert round(c["frame index"], 1) == clock
    assert round(c["perfect, 8 frames late"], 1) == eight_late
    if lengths is PED2: assert 8 < c["noisy oracle"] - c["noisy oracle, min-max"] < 12


# frames

@quick
@given(st.integers(0, 999), st.integers(1, 4))
def test_frames_are_scored_one_by_one(seed, b):
    g = torch.Generator().manual_seed(seed)
    p, t = (torch.rand(b, 3, 6, 5, generator=g) * 2 - 1 for _ in range(2))
    for f in (frame_scores.psnr, frame_scores.irregularity):
        together, alone = f(p, t), torch.cat([f(p[i:i + 1], t[i:i + 1]) for i in range(b)])
        torch.testing.assert_close(together, alone, rtol=1e-6, atol=0)
    mse = ((p - t) / 2).square().flatten(1).mean(1)
    assert (frame_scores.irregularity(p, t) >= mse * (1 - 1e-5)).all()  # large errors weigh more


def test_half_precision_scores_are_computed_in_single():
    p, t = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    assert frame_scores.psnr(p.bfloat16(), t.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(frame_scores.psnr(p.half(), t.half()), frame_scores.psnr(p, t), rtol=1e-2, atol=0)


# normalisers

@quick
@given(scored(both=False), st.floats(.1, 10), st.floats(-5, 5))
def test_minmax_spans_each_video_and_forgets_scale(case, a, b):
    _, x, lengths = case
    squeezed = frame_scores.minmax(x, lengths)
    for v, w in zip(frame_scores.split(x, lengths), frame_scores.split(squeezed, lengths)):
        assert (w.min(), w.max()) == ((0, 1) if v.min() < v.max() else (0, 0))
    np.testing.assert_allclose(frame_scores.minmax(a * x + b, lengths), squeezed, atol=1e-9)


@quick
@given(scored(both=False), st.floats(0, 1), st.integers(0, 9))
def test_regularity_stays_in_bounds_and_falls_with_distance(case, alpha, seed):
    _, p, lengths = case
    d = np.random.default_rng(seed).random(len(p))
    r = frame_scores.regularity(p, d, lengths, alpha)
    assert (r >= -1e-12).all() and (r <= 1 + 1e-12).all()
    np.testing.assert_array_equal(frame_scores.regularity(p, d, lengths, 1.), frame_scores.regularity(p, None, lengths))
    np.testing.assert_allclose(frame_scores.regularity(p, d, lengths, 0.), 1 - frame_scores.minmax(d, lengths))


@quick
@given(st.integers(2, 60), st.integers(0, 59), st.booleans(), st.integers(0, 99))
def test_online_score_of_a_prefix_is_the_prefix_of_the_score(n, cut, memory, seed):
    rng = np.random.default_rng(seed)
    p, d = rng.normal(35, 3, n), rng.random(n) if memory else None
    ref = frame_scores.reference(rng.normal(38, 2, 50), rng.random(50) if memory else None)
    whole = frame_scores.online_score(p, d, ref)
    np.testing.assert_array_equal(frame_scores.online_score(p[:cut], None if d is None else d[:cut], ref), whole[:cut])
    one = [frame_scores.online_score(p[i], None if d is None else d[i], ref) for i in range(n)]
    np.testing.assert_array_equal(one, whole)
    assert (frame_scores.online_score(p - 1, d, ref) > whole).all()  # worse predicted, more anomalous
    if memory: assert (frame_scores.online_score(p, d + 1, ref) > whole).all()


def test_reference_survives_json(tmp_path):
    ref = frame_scores.reference(np.arange(9.), np.arange(9.) ** 2)
    write_json(tmp_path / "r.json", ref.__dict__)
    again = frame_scores.Reference(**read_json(tmp_path / "r.json"))
    assert frame_scores.online_score(30., 2., again) == frame_scores.online_score(30., 2., ref)


# metrics

@quick
@given(scored())
def test_metrics_agree_with_scikit_learn_and_do_not_care_for_scale(case):
    labels, scores, lengths = case
    m = metrics.metrics(labels, scores, lengths, threshold=.5, published=True)
    assert m["auc_micro"] == pytest.approx(roc_auc_score(labels, scores))
    assert m["ap"] == pytest.approx(average_precision_score(labels, scores))
    assert 0 <= m["eer"] <= 1
    (tn, fp), (fn, tp) = m["at_threshold"]["confusion"]
    assert (tn + fp, fn + tp) == ((labels == 0).sum(), labels.sum()) and tp + fp == (scores >= .5).sum()
    assert m["best_f1"]["f1"] == pytest.approx(max(f1_score(labels, scores >= t) for t in scores))
    other = metrics.metrics(labels, np.exp(3 * scores) - 7, lengths)
    for k in ("auc_micro", "auc_macro", "ap", "eer"): assert other[k] == pytest.approx(m[k], nan_ok=True)


@quick
@given(scored())
def test_macro_is_the_mean_over_videos_of_both_classes(case):
    labels, scores, lengths = case
    m = metrics.metrics(labels, scores, lengths)
    areas = [roc_auc_score(y, s) for y, s in zip(frame_scores.split(labels, lengths), frame_scores.split(scores, lengths)) if len(set(y)) == 2]
    assert m["videos_of_one_class"] == len(lengths) - len(areas)
    assert m["auc_macro"] == pytest.approx(np.mean(areas) if areas else np.nan, nan_ok=True)
    np.testing.assert_allclose(controls.Areas(lengths)(labels, scores), [m["auc_micro"], m["auc_macro"]])


@quick
@given(scored())
def test_published_confusion_is_the_honest_one_turned(case):
    labels, scores, lengths = case
    p = metrics.published_confusion(labels, scores)
    printed, meant = np.array(p["printed"]["confusion"]), np.array(p["meant"]["confusion"])
    np.testing.assert_array_equal(metrics.unswap(printed), meant)
    np.testing.assert_array_equal(printed.sum(1), [labels.sum(), (1 - labels).sum()])  # the row 'Normal' holds the anomalous
    assert p["printed"]["f1"] == pytest.approx(max(f1_score(1 - labels, scores <= t) for t in scores))
    assert p["printed"]["accuracy"] == p["meant"]["accuracy"]
    assert meant[1, 1] == ((scores > p["threshold"]) & (labels == 1)).sum()


@pytest.mark.parametrize("label, word", [(0, "normal"), (1, "anomalous")])
def test_one_class_gives_nan_and_a_note(label, word):
    labels, scores = np.full(9, label), np.arange(9.)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m = metrics.metrics(labels, scores, [4, 5], threshold=3., published=True)
        assert np.isnan([m["auc_micro"], m["auc_macro"], m["ap"], m["eer"]]).all() and f"All frames are {word}" in m["note"]
        assert np.isnan(intervals.bootstrap(labels, scores, [4, 5])).all()
        c = controls.controls(labels, [4, 5], scores=scores, n=3)
    assert c.auc_micro.isna().all()


def test_metrics_go_to_json_and_back(tmp_path):
    m = metrics.metrics([0, 1, 1, 1], [0., 1, 2, 3], [2, 2], threshold=1.)
    write_json(tmp_path / "m.json", m)
    again = read_json(tmp_path / "m.json")
    assert again["auc_video"] == [1., None] and again["at_threshold"] == m["at_threshold"]


# pixels

@quick
@given(st.integers(0, 999), st.integers(1, 5), st.sampled_from([1e-30, 1e-3, 1., 1e6]))
def test_pixel_auc_agrees_with_scikit_learn_at_any_scale(seed, n, scale):
    rng = np.random.default_rng(seed)
    maps = (rng.random((n, 7, 9)) ** 3 * scale).astype(np.float32)
    masks = rng.random(maps.shape) < .3
    assume(masks.any() and not masks.all())
    want = roc_auc_score(masks.ravel(), maps.ravel())
    assert localization.pixel_auc(iter(maps), iter(masks)) == pytest.approx(want, abs=2e-3)
    ties = (maps / np.float32(scale)).astype(np.float16).astype(np.float32)  # eleven digits: exact
    assert localization.pixel_auc(ties, masks) == pytest.approx(roc_auc_score(masks.ravel(), ties.ravel()), abs=1e-12)
    assert localization.pixel_auc([ties], [masks]) == localization.pixel_auc(ties, masks)  # by frame or by video


@pytest.mark.parametrize("error, mask, says", [
    (np.full((2, 2), np.nan), np.ones((2, 2)), "not finite"), (-np.ones((2, 2)), np.ones((2, 2)), "negative"),
    (np.ones((2, 3)), np.ones((2, 2)), "resize")])
def test_pixel_auc_refuses_bad_maps(error, mask, says):
    with pytest.raises(UserError, match=says): localization.pixel_auc([error], [mask])


# intervals

@quick
@given(scored(), st.integers(0, 99))
def test_resamples_equal_datasets_put_together(case, seed):
    labels, scores, lengths = case
    _, a, n = intervals.pairwise_wins(labels, scores, lengths)
    counts = intervals.draws(lambda c: (c @ a > 0) & (c @ n > 0), len(lengths), 5, seed)
    ys, ss = frame_scores.split(labels, lengths), frame_scores.split(scores, lengths)
    together = [[np.concatenate([x[i] for i in np.repeat(np.arange(len(c)), c)]) for x in (ys, ss)] for c in counts]
    for name, metric in (("auc_micro", roc_auc_score), ("ap", average_precision_score), ("eer", metrics.eer)):
        fast = intervals.resampled(labels, scores, lengths, name, n=5, seed=seed)
        np.testing.assert_allclose(fast, [metric(*t) for t in together], atol=1e-12)


@quick
@given(scored(), st.integers(0, 99))
def test_macro_resamples_average_the_drawn_videos(case, seed):
    labels, scores, lengths = case
    area = np.array(metrics.metrics(labels, scores, lengths)["auc_video"])
    fast = intervals.resampled(labels, scores, lengths, "auc_macro", n=5, seed=seed)
    if np.isnan(area).all():
        assert np.isnan(fast).all()
        return
    counts = intervals.draws(lambda c: c @ np.isfinite(area) > 0, len(lengths), 5, seed)
    np.testing.assert_allclose(fast, [np.nanmean(np.repeat(area, c)) for c in counts])


def test_bootstrap_is_seeded_and_holds_the_estimate():
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(n) >= n // 2 for n in PED2]).astype(int)
    scores = labels + rng.normal(0, 1, len(labels)) + np.repeat(rng.normal(0, .5, len(PED2)), PED2)
    low, high = intervals.bootstrap(labels, scores, PED2)
    assert low < roc_auc_score(labels, scores) < high
    assert (low, high) == intervals.bootstrap(labels, scores, PED2) != intervals.bootstrap(labels, scores, PED2, seed=1)
    narrow = intervals.bootstrap(labels, scores, PED2, level=.5)
    assert low < narrow[0] < narrow[1] < high


def test_intervals_over_videos_hold_the_truth_where_intervals_over_frames_do_not():
    "Forty datasets whose true AUC is known by their making: videos differ in level, frames of one video hardly."
    rng, lengths, held = np.random.default_rng(0), [40] * 15, np.zeros(2)
    labels = np.tile(np.arange(40) >= 20, 15).astype(int)
    def dataset(): return labels + np.repeat(rng.normal(0, 1, 15), 40) + rng.normal(0, .3, len(labels))
    truth = np.mean([roc_auc_score(labels, dataset()) for _ in range(200)])
    for _ in range(40):
        s = dataset()
        for i, of in enumerate((lengths, [1] * len(labels))):
            low, high = intervals.bootstrap(labels, s, of, n=200)
            held[i] += low <= truth <= high
    assert held[0] >= 32 > held[1] + 4


@quick
@given(scored(), st.integers(1, 4), st.integers(0, 99), st.sampled_from(["auc_micro", "auc_macro", "ap", "eer"]))
def test_seeds_are_resampled_with_the_videos(case, seeds, seed, metric):
    "each resample is the mean, over seeds drawn with replacement, of the metric on the videos drawn"
    labels, scores, lengths = case
    runs = np.random.default_rng(seed).permuted(np.tile(scores, (seeds, 1)), axis=1)
    alone = np.stack([intervals.resampled(labels, x, lengths, metric, 6, seed) for x in runs]) # the same videos for each
    taken = np.random.default_rng([seed, 1]).multinomial(seeds, [1 / seeds] * seeds, size=6)
    want = [np.mean(np.repeat(alone[:, i], k)) for i, k in enumerate(taken)]
    np.testing.assert_allclose(intervals.resampled(labels, runs, lengths, metric, 6, seed), want, rtol=1e-12)
    np.testing.assert_array_equal(intervals.resampled(labels, runs[:1], lengths, metric, 6, seed), alone[0])

def test_intervals_over_videos_and_seeds_hold_the_truth_where_videos_alone_do_not():
    "Sixty trainings of three seeds each, whose true mean AUC is known by their making: seeds differ a lot, videos hardly."
    rng, lengths, held = np.random.default_rng(0), [20] * 12, np.zeros(2)
    labels = np.tile(np.arange(20) >= 10, 12).astype(int)
    def training(): return labels * rng.normal(1, .5) + rng.normal(0, 1, 240)
    truth = np.mean([roc_auc_score(labels, training()) for _ in range(400)])
    for _ in range(60):
        runs = np.stack([training() for _ in range(3)])
        ends = intervals.bootstrap(labels, runs, lengths, n=200), intervals.bootstrap(labels, runs[0], lengths, n=200)
        held += [low <= truth <= high for low, high in ends]
    assert held[0] >= 42 > held[1] + 5, held

def test_two_models_are_compared_on_the_same_videos_and_seeds():
    rng, lengths = np.random.default_rng(0), [20] * 12
    labels = np.tile(np.arange(20) >= 10, 12).astype(int)
    ours = labels + np.repeat(rng.normal(0, 1, (3, 12)), 20, 1) + rng.normal(0, 1, (3, 240))
    better = ours + .2 * labels # seed by seed, video by video
    low, high = intervals.paired_bootstrap(labels, better, ours, lengths)
    alone = np.ptp(intervals.bootstrap(labels, ours, lengths))
    assert 0 < low < high and high - low < alone / 2
    assert intervals.paired_bootstrap(labels, ours, ours, lengths) == (0, 0)


# controls

def plain_micro_macro(labels, scores, lengths):
    "both AUCs by ranks, word for word"
    def area(y, s):
        a = y.sum()
        return (stats.rankdata(s)[y == 1].sum() - a * (a + 1) / 2) / (a * (len(y) - a)) if 0 < a < len(y) else np.nan
    video = [area(*v) for v in zip(frame_scores.split(labels, lengths), frame_scores.split(scores, lengths))]
    return np.array([area(labels, scores), np.nanmean(video) if np.isfinite(video).any() else np.nan])

numbers = st.one_of(st.integers(-3, 3).map(float), st.floats(-1, 1), st.floats(allow_nan=False, allow_infinity=False),
                    st.sampled_from([0., -0., 5e-324, -5e-324, 1.7e308, -1.7e308]))

@settings(max_examples=300, deadline=None)
@given(st.data(), st.lists(st.integers(0, 6), min_size=1, max_size=8))
def test_fast_areas_are_the_plain_ones_to_the_bit(data, lengths):
    "scores of any size with many ties, videos of one class, of one frame, of none"
    n = sum(lengths)
    y, s = (np.array(data.draw(st.lists(x, min_size=n, max_size=n)), t) for x, t in ((st.integers(0, 1), int), (numbers, float)))
    want = plain_micro_macro(y, s, lengths)
    np.testing.assert_array_equal(controls.Areas(lengths)(y, s), want)
    np.testing.assert_array_equal(controls.Areas(lengths).of(s)(y), want)

def test_fast_controls_are_the_plain_ones_to_the_bit(monkeypatch):
    "the same draws from the same seed"
    rng = np.random.default_rng(0)
    for lengths in ([40, 3, 1, 0, 40, 25], [60]):
        n = sum(lengths)
        y, s, d = rng.integers(0, 2, n), rng.integers(-5, 5, n) / 7, rng.normal(0, 20, n)
        fast = controls.controls(y, lengths, s, d, n=5)
        with monkeypatch.context() as m:
            m.setattr(controls.Areas, "__call__", lambda self, y, s: plain_micro_macro(y, s, self.lengths))
            m.setattr(controls.Areas, "of", lambda self, s: lambda y: self(y, s))
            pd.testing.assert_frame_equal(controls.controls(y, lengths, s, d, n=5), fast, check_exact=True)

def test_controls_draw_as_they_always_did():
    "rotated labels are each video's labels, rolled by numbers drawn one after the other; each row goes on where the last one stopped"
    lengths = [7, 1, 12, 5]
    rng = np.random.default_rng(4)
    y, s = np.random.default_rng(1).integers(0, 2, 25), np.random.default_rng(2).random(25)
    def rotated(): return np.concatenate([np.roll(v, rng.integers(len(v))) for v in frame_scores.split(y, lengths)])
    want = dict()
    want["random"] = np.mean([plain_micro_macro(y, rng.random(25), lengths) for _ in range(3)], 0)
    want["shuffled labels"] = np.mean([plain_micro_macro(rng.permutation(y), s, lengths) for _ in range(3)], 0)
    want["rotated labels"] = np.mean([plain_micro_macro(rotated(), s, lengths) for _ in range(3)], 0)
    want["noisy oracle"] = np.mean([plain_micro_macro(y, y + rng.normal(0, controls.ORACLE, 25), lengths) for _ in range(3)], 0)
    c = controls.controls(y, lengths, s, seed=4, n=3).set_index("control")
    for k, v in want.items(): np.testing.assert_array_equal(c.loc[k, ["auc_micro", "auc_macro"]].astype(float), v, k)

@quick
@given(scored(), st.integers(0, 99))
def test_no_squeezed_score_beats_the_cap(case, seed):
    labels, scores, lengths = case
    assume(min(lengths) > 1)
    cap = roc_auc_score(labels, controls.best_after_minmax(labels, lengths))
    rng = np.random.default_rng(seed)
    for s in (rng.random(len(labels)), labels + rng.normal(0, .1, len(labels)), labels + rng.normal(0, 1e-3, len(labels))):
        assert roc_auc_score(labels, frame_scores.minmax(s, lengths)) <= cap + 1e-12


@quick
@given(scored(), st.integers(0, 15))
def test_late_labels_are_the_labels_of_earlier_frames(case, k):
    labels, _, lengths = case
    y, s, left = controls.delayed_oracle(labels, lengths, k)
    assert len(y) == len(s) == sum(left) and left == [max(n - k, 0) for n in lengths]
    for v, a, b in zip(frame_scores.split(labels, lengths), frame_scores.split(y, left), frame_scores.split(s, left)):
        for t in range(len(a)): assert (a[t], b[t]) == (v[t + k], v[t])


def test_shuffled_and_rotated_labels_find_a_score_that_knows_only_the_video():
    lengths = np.full(10, 50)
    labels = np.concatenate([np.roll(np.arange(50) < 5 * (i + 1) - 2, 7) for i in range(10)]).astype(int)
    knows = np.repeat(np.arange(10.), 50)  # how much is wrong in the video, not when
    c = controls.controls(labels, lengths, scores=knows, n=20).set_index("control")
    assert abs(c.auc_micro["shuffled labels"] - .5) < .03
    assert c.auc_micro["rotated labels"] == pytest.approx(roc_auc_score(labels, knows))  # all of it
    assert c.auc_macro["rotated labels"] == pytest.approx(.5)


# tables and faults

def test_table_of_frames(tmp_path):
    t = frame_scores.table(["01", "b"], [2, 1], first=4, psnr=[30., 31.5, 1 / 3], distance=None, label=[0, 1, 1])
    assert list(t) == ["video", "frame", "psnr", "label"] and t.frame.tolist() == [4, 5, 4] and t.video.tolist() == ["01", "01", "b"]
    write_csv(tmp_path / "t.csv", t)
    again = frame_scores.read_table(tmp_path / "t.csv")
    pd.testing.assert_frame_equal(again, t)
    assert frame_scores.table_lengths(again).tolist() == [2, 1]
    with pytest.raises(UserError, match="psnr of video b, scored frame 0"): frame_scores.table(["01", "b"], [1, 1], psnr=[1., np.nan])


@pytest.mark.parametrize("content", [None, b"", b"a,b\n1,2\n", b"\xff\xfe\x00", b'video,frame\n"01'])
def test_a_bad_table_is_a_problem_that_names_the_file(tmp_path, content):
    path = tmp_path / "frames.csv"
    if content is not None: path.write_bytes(content)
    with pytest.raises(UserError, match="frames.csv"): frame_scores.read_table(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("use", [
    lambda x: frame_scores.minmax(x, [2, 3]), lambda x: frame_scores.regularity(x, None, [2, 3]), lambda x: frame_scores.regularity(np.arange(5.), x, [2, 3]),
    lambda x: metrics.metrics([0, 1, 0, 1, 1], x, [2, 3]), lambda x: intervals.bootstrap([0, 1, 0, 1, 1], x, [2, 3]),
    lambda x: controls.controls([0, 1, 0, 1, 1], [2, 3], scores=x)])
def test_a_number_that_is_not_finite_is_named(bad, use):
    x = np.arange(5.)
    x[3] = bad
    with pytest.raises(UserError, match="video 2, scored frame 1 .*(nan|inf)"): use(x)


@pytest.mark.parametrize("call, says", [
    (lambda: metrics.metrics([0, 1], [0., 1, 2], [3]), "2 labels for 3 scores"), (lambda: metrics.metrics([0, 255], [0., 1], [2]), "must be 0"),
    (lambda: frame_scores.minmax([1., 2], [3]), "2 frames were given"), (lambda: frame_scores.reference([3., 3]), "is the same"),
    (lambda: frame_scores.reference([3., np.nan]), "training PSNR"), (lambda: intervals.bootstrap([0, 1], [0, 1], [2], "auc"), "no metric 'auc'"),
    (lambda: intervals.paired_bootstrap([0, 1], [0, 1], [[0, 1]] * 2, [2]), "as many seeds"), (lambda: metrics.threshold_from([1., np.inf]), "training score")])
def test_faults_say_what_is_wrong(call, says):
    with pytest.raises(UserError, match=says): call()


def test_a_video_too_short_to_score_changes_nothing():
    y, s = np.array([0, 1, 0, 1, 1]), np.array([.1, .9, .8, .3, .7])
    m, n = metrics.metrics(y, s, [2, 3]), metrics.metrics(y, s, [2, 0, 3])
    assert (m["auc_micro"], m["auc_macro"]) == (n["auc_micro"], n["auc_macro"]) and n["videos_of_one_class"] == 1
    np.testing.assert_array_equal(frame_scores.minmax(s, [2, 3]), frame_scores.minmax(s, [2, 0, 3]))
    assert len(controls.controls(y, [2, 0, 3], scores=s, difference=s, n=2)) == 16
