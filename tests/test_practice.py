"Alarms, events and delays, held against a watchman who goes through the film frame by frame."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vad.core.errors import UserError
from vad.reproduce.figures import practice_in_words
from vad.scores.metrics import auc, metrics, padded_auc
from vad.scores.practice import normal_seconds, practice, practice_curve, watch


@st.composite
def films(draw):
    "Labels, scores with ties, and times that need not come evenly, of one to four videos."
    lengths = draw(st.lists(st.integers(2, 25), min_size=1, max_size=4))
    n = sum(lengths)
    labels = np.array(draw(st.lists(st.sampled_from([0, 1]), min_size=n, max_size=n)))
    scores = np.array(draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)), float)
    steps = draw(st.lists(st.sampled_from([.1, .5, 2.]), min_size=n, max_size=n))
    ends = np.cumsum(lengths)[:-1]
    times = [np.cumsum(part) for part in np.split(np.array(steps), ends)]
    return labels, scores, times, ends


def go_through(labels, scores, times, threshold, gap):
    "The same by a loop that carries its state from frame to frame."
    delays, false, begun, found, alarm, right, quiet = [], 0, None, False, False, False, None
    for i, (y, s, t) in enumerate(zip(labels, scores, times)):
        if alarm and s >= threshold and quiet is not None and t - quiet > gap + 1e-6:
            false, alarm, right = false + (not right), False, False
        if s >= threshold: alarm, quiet, right = True, None, right or bool(y)
        elif alarm and quiet is None: quiet = t # the first frame after those over the threshold
        if y and begun is None: begun, found = t, False
        if y and s >= threshold and not found: delays.append(t - begun); found = True
        over = i + 1 == len(labels) or not labels[i + 1]
        if y and over:
            if not found: delays.append(np.nan)
            begun = None
    return delays, false + (alarm and not right)


@given(films(), st.integers(0, 6), st.sampled_from([0, .5, 3.]))
def test_watching_is_what_a_watchman_does(film, threshold, gap):
    labels, scores, times, ends = film
    for y, s, t in zip(np.split(labels, ends), np.split(scores, ends), times):
        delays, false = watch(y, s, t, threshold, gap)
        want = go_through(y, s, t, threshold, gap)
        np.testing.assert_allclose(delays, want[0])
        assert false == want[1]


@given(films(), st.integers(0, 5))
def test_practice_adds_up(film, threshold):
    labels, scores, times, ends = film
    p = practice(labels, scores, times, threshold)
    seen = [watch(*v, threshold) for v in zip(np.split(labels, ends), np.split(scores, ends), times)]
    late = [d for delays, _ in seen for d in delays]
    assert p["events"] == len(late) and p["false_alarms"] == sum(n for _, n in seen)
    hours = sum(normal_seconds(y, t) for y, t in zip(np.split(labels, ends), times)) / 3600
    assert p["normal_hours"] == pytest.approx(hours)
    assert (p["caught"] is None) == (not late) and (p["per_hour"] is None) == (hours == 0)
    if late: assert p["caught"] == np.mean(np.isfinite(late)) and p["caught_interval"][0] <= p["caught_interval"][1]
    if hours: assert p["per_hour"] == pytest.approx(p["false_alarms"] / hours)
    if np.isfinite(late).any(): assert p["delay"] == pytest.approx(np.nanmedian(late))
    normal = hours * 3600
    called = sum(normal_seconds(np.where((y == 0) & (s >= threshold), 0, 1), t) for y, s, t in zip(np.split(labels, ends), np.split(scores, ends), times))
    assert (p["in_alarm"] is None) == (hours == 0)
    if hours: assert p["in_alarm"] == pytest.approx(called / normal)


@given(films())
@settings(max_examples=30)
def test_a_curve_falls_in_threshold_and_catches_no_less(film):
    labels, scores, times, _ = film
    t = practice_curve(labels, scores, times)
    assert (np.diff(t.threshold) < 0).all() and (np.diff(t.caught) >= 0).all()
    assert (t.per_hour.diff().dropna() >= 0).any() or len(t) == 1 # it ends where alarms are most
    assert t.per_hour.iloc[-1] == t.per_hour.max()


def test_perfect_and_silent_scores():
    labels, times = np.array([0, 0, 1, 1, 0, 1]), [np.arange(6) / 10]
    perfect = practice(labels, labels, times, 1)
    assert (perfect["caught"], perfect["delay"], perfect["false_alarms"]) == (1, 0, 0)
    silent = practice(labels, np.zeros(6), times, 1)
    assert (silent["caught"], silent["delay"], silent["false_alarms"]) == (0, None, 0)
    with pytest.raises(UserError, match="5 labels for 6 scores"): practice(labels[:5], np.zeros(6), times, 1)


@given(films())
def test_padding_is_two_frames_that_are_right(film):
    labels, scores, times, ends = film
    videos = list(zip(np.split(labels, ends), np.split(scores, ends)))
    want = [auc(np.r_[y, 0, 1], np.r_[s, -1, 6]) for y, s in videos]
    np.testing.assert_allclose([padded_auc(y, s) for y, s in videos], want)
    assert metrics(labels, scores, [len(t) for t in times])["auc_macro_padded"] == pytest.approx(np.mean(want))

def test_false_alarms_are_told_where_there_is_no_event():
    p = practice(np.zeros(100, int), np.r_[np.zeros(50), np.ones(50)], [np.arange(100) / 25], .5)
    said = practice_in_words(p)
    assert p["false_alarms"] == 1 and said.startswith("in practice: no event to catch; 1 false alarms in 0.1 min of normal film") and "50.00 % of it in alarm" in said
