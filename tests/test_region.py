"Region and track criteria: a literal implementation on random videos, properties on any input, faults."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vad.core.errors import UserError
from vad.scores.localization import LEVELS, Regions, area, cells, label, tracks

THRESHOLDS = (1, 2, 3, 4)
quick = settings(max_examples=60, deadline=None)


# the literal version: regions are sets of pixels, everything is looked at in pairs

def grouped(items, near):
    "Items in groups that hang together by pairs that are `near`."
    groups = []
    for x in items:
        mine = [g for g in groups if any(near(x, y) for y in g)]
        groups = [g for g in groups if g not in mine] + [[x, *(y for g in mine for y in g)]]
    return groups

def pieces(mask, apart):
    "Regions of a frame as sets of pixels, those that are at most `apart` from each other in one."
    return [frozenset(g) for g in grouped([tuple(p) for p in np.argwhere(mask).tolist()], lambda p, q: max(abs(p[0] - q[0]), abs(p[1] - q[1])) <= apart)]

def reaches(region, reach, size):
    return {(y, x) for i, j in region for y in range(i - reach, i + reach + 1) for x in range(j - reach, j + reach + 1) if 0 <= y < size[0] and 0 <= x < size[1]}

def found_by(true, detected): return 10 * len(true & detected) >= len(true | detected) # at least a tenth, in integers

def literal(videos, reach):
    "Rows of counts at THRESHOLDS: false positives, found regions, found tracks; and how many regions and tracks there are."
    counts, regions, objects = np.zeros((3, len(THRESHOLDS)), int), 0, 0
    for maps, masks in videos:
        size = masks.shape[1:]
        big = np.stack([np.kron(x, np.ones(np.array(size) // x.shape)) for x in maps])
        true = [(t, r) for t, m in enumerate(masks) for r in pieces(m, 2 * reach + 1)]
        wide = {r: reaches(r[1], reach, size) for r in true}
        tracks = grouped(true, lambda a, b: abs(a[0] - b[0]) == 1 and wide[a] & wide[b])
        regions, objects = regions + len(true), objects + len(tracks)
        for k, threshold in enumerate(THRESHOLDS):
            detected = [(t, r) for t, x in enumerate(big) for r in pieces(x >= threshold, 1)]
            hits = {a for a in true for b in detected if a[0] == b[0] and found_by(a[1], b[1])}
            counts[0, k] += sum(not any(a[0] == b[0] and found_by(a[1], b[1]) for a in true) for b in detected)
            counts[1, k] += len(hits)
            counts[2, k] += sum(10 * sum(r in hits for r in track) >= len(track) for track in tracks)
    return counts, regions, objects


@st.composite
def videos(draw, most=3):
    "One to three videos: maps of a few levels, masks of the same or a finer size."
    def video():
        t, h, w, y, x = (draw(st.integers(1, n)) for n in (4, 4, 5, 3, 3))
        masks = draw(arrays(bool, (t, h * y, w * x), elements=st.sampled_from([False] * 5 + [True])))
        return draw(arrays(np.int64, (t, h, w), elements=st.integers(0, 4))).astype(float), masks
    return [video() for _ in range(draw(st.integers(1, most)))]

def counted(videos, thresholds=THRESHOLDS, **kwargs):
    regions = Regions(thresholds, **kwargs)
    for maps, masks in videos: regions.add(maps, masks)
    return regions

@quick
@given(videos(), st.integers(0, 2))
def test_counts_are_those_of_the_literal_version(videos, reach):
    counts, regions, objects = literal(videos, reach)
    got = counted(videos, reach=reach)
    assert np.stack([got.false, got.found, got.tracked]).tolist() == counts.tolist()
    assert (got.frames, got.regions, got.tracks) == (sum(len(m) for m, _ in videos), regions, objects)
    curve = got.curve()
    assert curve.false.tolist() == pytest.approx((counts[0] / got.frames).tolist())
    for name, row, n in (("rbdr", counts[1], regions), ("tbdr", counts[2], objects)):
        assert curve[name].tolist() == pytest.approx((row / n).tolist()) if n else curve[name].isna().all()


# properties

@quick
@given(videos(), st.data())
def test_criteria_do_not_depend_on_order_or_mirrors(videos, data):
    want = counted(videos)
    turned = [(m[:, ::-1, ::-1], k[:, ::-1, ::-1]) for m, k in data.draw(st.permutations(videos))]
    backwards = [(m[::-1], k[::-1]) for m, k in videos]
    for other in (counted(turned), counted(backwards)): assert other.curve().equals(want.curve())

@quick
@given(videos())
def test_only_the_order_of_scores_matters(videos):
    want, got = counted(videos), counted([(np.exp(m), k) for m, k in videos], np.exp(THRESHOLDS))
    assert got.curve().drop(columns="threshold").equals(want.curve().drop(columns="threshold"))

@quick
@given(videos())
def test_areas_are_fractions_and_perfect_maps_reach_one(videos):
    values = counted(videos).areas()
    assert all(np.isnan(v) or 0 <= v <= 1 for v in values.values())
    perfect = counted([(k.astype(float), k) for _, k in videos], reach=0)
    want = 1 if perfect.regions else pytest.approx(np.nan, nan_ok=True)
    assert perfect.areas() == dict(rbdc=want, tbdc=want)
    assert counted([(m * 0, k) for m, k in videos]).curve().false.tolist() == [0] * 4 # under every threshold: nothing is detected

@quick
@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([2, 9, 10, 11]), st.integers(1, 3))
def test_a_constant_map_is_one_region_of_the_whole_frame(normal, anomalous, width, high):
    masks = np.zeros((normal + anomalous, 1, width), bool)
    masks[:anomalous, 0, 0] = True
    curve = counted([(np.full(masks.shape, high + .5), masks)]).curve()
    hit = width <= 10                                                  # one pixel in ten, or more
    false = normal / len(masks) if hit else 1
    assert curve.false.tolist() == pytest.approx([false] * high + [0] * (4 - high))
    assert curve.rbdr.tolist() == curve.tbdr.tolist() == [hit] * high + [0] * (4 - high)
    want = pytest.approx(false / 2 + 1 - false if hit else 0)
    assert counted([(np.full(masks.shape, 2.), masks)]).areas() == dict(rbdc=want, tbdc=want)

@pytest.mark.parametrize("inside, outside, found", [(9, 21, True), (3, 3, True), (3, 4, False), (2, 0, False)])
def test_a_tenth_is_enough_where_cells_are_filled_in_part(inside, outside, found):
    "A cell is 3 by 3 pixels, the detected region three cells: 3 of 27 + 3 pixels in common are a tenth, and of 27 + 4 they are not."
    maps, masks = np.zeros((1, 5, 6)), np.zeros((1, 15, 18), bool)
    maps[0, 2, :3] = 1
    masks[0, 6:9, 9 - inside // 3:9] = True
    if inside % 3: masks[0, 6:6 + inside, 8] = True
    masks[0, 6:9, 9:9 + outside // 3] = True
    if outside % 3: masks[0, 6:6 + outside % 3, 9 + outside // 3] = True
    assert masks.sum() == inside + outside
    row = counted([(maps, masks)]).curve().loc[0]
    assert (row.rbdr, row.false) == (found, not found)

@pytest.mark.parametrize("n, found", [(9, 1), (10, 1), (11, 0), (20, 0)])
def test_one_region_in_ten_finds_the_track(n, found):
    masks = np.zeros((n + 5, 3, 3), bool)
    masks[2:n + 2, 1, 1] = True
    maps = np.zeros(masks.shape)
    maps[4, 1, 1], maps[0, 0, 0], maps[n + 4, 2, 2] = 1, 1, 1
    row = counted([(maps, masks)]).curve().loc[0]
    assert (row.rbdr, row.tbdr, row.false) == (1 / n, found, 2 / (n + 5))

@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 1)), min_size=1, max_size=8), st.tuples(st.floats(0, 3), st.floats(0, 1)))
def test_the_area_is_under_the_best_of_all_points(points, other):
    x, y = np.transpose(points)
    a = area(x, y)
    assert 0 <= a <= 1
    assert a <= max(y) + 1e-12 and a >= max((r * (1 - f) for f, r in points if f <= 1), default=0) - 1e-12
    again = area(np.r_[x, other[0]], np.r_[y, max([r for f, r in points if f <= other[0]], default=0) + 1]) # better than all before it
    assert again >= a - 1e-12 and area(x[::-1], y[::-1]) == pytest.approx(a)


# maps, reach, faults

@quick
@given(arrays(np.float32, st.tuples(st.integers(1, 2), st.integers(1, 70), st.integers(1, 70)), elements=st.floats(0, 1, width=32)))
def test_cells_are_averages(maps):
    small = cells(maps)
    assert max(small.shape[1:]) <= 32 and len(small) == len(maps) and small.dtype == np.float32
    assert small.min() >= maps.min() - 1e-6 and small.max() <= maps.max() + 1e-6
    assert np.array_equal(small[:1], cells(maps[:1]))                  # a frame's map knows nothing of other frames
    np.testing.assert_allclose(cells(maps, blur=0).mean((1, 2)), maps.mean((1, 2)), atol=1e-5)

@pytest.mark.parametrize("gap, reach, regions", [(0, 0, 1), (1, 0, 2), (2, 1, 1), (3, 1, 2), (4, 2, 1), (5, 2, 2)])
def test_reach_joins_what_is_close(gap, reach, regions):
    row = np.zeros((1, 12), bool)
    row[0, [2, 3 + gap]] = True
    assert label(row, reach)[0] == regions
    assert len(tracks(np.stack([row, ~row & False, row]), reach)[0]) == 2 * regions
    assert len(set(tracks(np.stack([row, ~row & False, row]), reach)[1])) == 2 * regions # a frame between ends all tracks

@pytest.mark.parametrize("maps, masks, says", [
    (np.zeros((2, 3, 3)), np.zeros((3, 3, 3)), "do not fit masks"), (np.zeros((2, 4, 3)), np.zeros((2, 3, 3)), "not finer"),
    (np.zeros((3, 3)), np.zeros((3, 3)), "do not fit masks"), (np.array([[[0]], [[np.nan]]]), np.zeros((2, 1, 1)), "frame 1 is not finite")])
def test_bad_maps_are_refused(maps, masks, says):
    with pytest.raises(UserError, match=says): Regions(LEVELS).add(maps, masks)
