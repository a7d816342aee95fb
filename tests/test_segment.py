"Films cut into clips: each clip shows exactly the frames that its line says, at their times, whoever cut the film before; what cannot be cut is said."
import os
import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given, strategies as st
from typer.testing import CliRunner

from conftest import fill
from films import HIDES, copy_film, flip, numbers_of, picture, write_film
from vad.cli import app
from vad.data.clips import Collection, collect, films
from vad.core.errors import UserError
from vad.core.provenance import shared
from vad.data.embedding import embed
from vad.data.film_writer import write_film as write_copy
from vad.data.cutting import clip_label, marks, read_film, segment, snap
from vad.data.video import open_video

TINY = dict(method="cnn", frames=5, width=16, size=32, batch=4, device="cpu")


@given(st.integers(1, 500), st.integers(1, 100), st.integers(0, 100))
def test_cuts_tile_the_film(frames, length, shortest):
    at = marks(np.arange(frames + 1), length, shortest)
    sizes = np.diff(at)
    assert all(s == length for s in sizes[:-1]) and (not at or at[0] == 0 and 0 < sizes[-1] <= length and frames - at[-1] < max(shortest, 1))

@given(st.lists(st.integers(1, 4000), min_size=1, max_size=60), st.integers(1, 10_000), st.integers(0, 10_000))
def test_cuts_follow_the_time_stamps(gaps, length, shortest):
    ticks = np.cumsum([0, *gaps])
    at = marks(ticks, length, shortest)
    if not at: assert ticks[-1] < length and ticks[-1] < max(shortest, 1); return
    for a, b in zip(at, at[1:]):
        near = np.abs(ticks[a + 1:] - ticks[a] - length)
        assert a < b and (near[b - a - 1] == near.min() or b == len(gaps) and shortest <= ticks[b] - ticks[a] < length)
    assert at[0] == 0 and ticks[-1] - ticks[at[-1]] < min(length, max(shortest, 1)) # what is left out is too short

@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(5, 40), st.integers(0, 20))
def test_snapped_cuts_are_near_key_frames(gaps, length, tolerance):
    keys, ticks = tuple(np.cumsum([0, *gaps])[:-1].tolist()), np.arange(sum(gaps) + 1)
    at = marks(ticks, length, 1)
    if (near := snap(at, keys, ticks, tolerance)) is None: return
    assert near[0] == 0 and (np.diff(near) > 0).all() and all(abs(a - b) <= tolerance for a, b in zip(at, near))
    assert all(n in keys or n == sum(gaps) for n in near)

@given(st.integers(0, 40), st.integers(0, 30), st.integers(0, 20), st.integers(1, 20), st.floats(.05, 1))
def test_a_clip_has_the_class_of_enough_frames(a, n, first, length, share):
    ranges = [(a + 1, a + n)] if n else []
    inside = sum(a <= i < a + n for i in range(first, first + length))
    assert clip_label("x", ranges, first, first + length, share) == ("x" if inside / length >= share else "normal", "frames")
    assert clip_label("x", None, first, first + length, share) == ("x", "film")

def write_h264(path, frames, **options):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10, options=dict(threads="1", mbtree="0") | options)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for f in frames: out.mux(stream.encode(av.VideoFrame.from_ndarray(f, format="bgr24")))
        out.mux(stream.encode())
    return path

@pytest.fixture(scope="module")
def blocks():
    return [np.kron(np.random.default_rng(i).integers(0, 256, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8)) for i in range(47)]

@pytest.mark.parametrize("name, options", [
    ("b.mp4", dict(g="10", bf="2")), ("b.mkv", dict(g="10")), ("open.mp4", {"g": "10", "bf": "3", "x264-params": "open-gop=1"}), ("one.mp4", dict(g="250"))])
@pytest.mark.parametrize("cut", ["auto", "encode"])
def test_no_frame_is_lost_between_clips(tmp_path, blocks, name, options, cut):
    film = write_h264(tmp_path / "films/Arson" / name, blocks, sc_threshold="0", **options)
    table = segment(tmp_path / "films", tmp_path / "clips", seconds=1, shortest=.1, tolerance=.5, cut=cut, workers=1)
    want = list(open_video(film).read())
    have = [list(open_video(tmp_path / "clips" / v).read()) for v in table.video]
    assert [len(h) for h in have] == (table.stop - table["first"]).tolist() and sum(map(len, have)) == 47
    copied = (table.cut == "copied").all()
    known = read_film(film)
    assert copied == (cut == "auto" and snap(marks(known.ticks, 10, 1), known.keys, known.ticks, 5) is not None)
    if name.startswith("b."): assert copied == (cut == "auto")
    error = np.abs(np.stack(sum(have, [])).astype(int) - np.stack(want)).mean((1, 2, 3))
    assert (error == 0).all() if copied else error.max() < 12
    assert set(collect(tmp_path / "clips").table.source) == {f"Arson/{name}"}

def test_cutting_goes_on_and_says_what_failed(tmp_path, blocks, monkeypatch):
    for name in ("normal/a.mp4", "Arson/b.mp4", "Arson/sub/b.mp4"): write_h264(tmp_path / "films" / name, blocks, g="10", sc_threshold="0")
    (tmp_path / "films/Arson/c.mp4").write_text("none")
    write_h264(tmp_path / "films/Arson/short.mp4", blocks[:3])
    import vad.data.cutting as module
    real, calls = module.cut_film, []
    def cut_film(path, *args):
        calls.append(path)
        if len(calls) == 3: raise KeyboardInterrupt
        return real(path, *args)
    monkeypatch.setattr(module, "cut_film", cut_film)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(KeyboardInterrupt): segment(tmp_path / "films", tmp_path / "clips", seconds=2, shortest=1, workers=1)
        with open(tmp_path / "clips/.segments.jsonl", "a") as f: f.write('["half a li')
        table = segment(tmp_path / "films", tmp_path / "clips", seconds=2, shortest=1, workers=1)
    assert calls.count(calls[0]) == calls.count(calls[1]) == 1                      # what was done stays done
    ok, failed = table[table.status == "ok"], table[table.status == "failed"]
    assert sorted(failed.film) == ["Arson/c.mp4", "Arson/short.mp4"] and failed.reason.str.len().min() > 10
    assert ok.video.is_unique and all((tmp_path / "clips" / v).is_file() for v in ok.video) and len(ok) == len(list(films(tmp_path / "clips")))
    assert ok.groupby("film").size().to_dict() == {"normal/a.mp4": 2, "Arson/b.mp4": 2, "Arson/sub/b.mp4": 2}

def test_annotated_clips_embed(tmp_path, blocks):
    write_h264(tmp_path / "films/Arson/a.mp4", blocks, g="10", sc_threshold="0")
    c = collect(tmp_path / "films")
    c = Collection(c.root, c.classes, c.table.assign(ranges=[[(1, 12)]]))
    table = segment(c, tmp_path / "clips", seconds=1, shortest=.5, share=.5)
    assert table.label.tolist() == ["Arson", "normal", "normal", "normal", "normal"] and set(table.truth) == {"frames"}
    e = embed(tmp_path / "clips", tmp_path / "out", **TINY)
    assert e.classes == ("normal", "Arson") and set(e.manifest.source) == {"Arson/a.mp4"} and (e.manifest.status == "ok").all()


# ---- what clips show

def assert_clips(table, clips, film, numbers):
    "every clip shows the numbers and the times that its line says; together they are the film's, without a gap"
    assert (table.status == "ok").all(), table.reason.tolist()
    times, at = open_video(film, partial=True).times(), 0
    for line in table.itertuples():
        clip = open_video(clips / line.video)
        assert line.first == at and numbers_of(clip.read()) == numbers[line.first:line.stop], line
        assert np.abs(clip.times() - (times[line.first:line.stop] - times[line.first])).max() <= .002
        assert abs(line.begins - times[line.first]) < .001 and abs(line.ends - line.begins - (clip.times()[-1] + 1 / line.fps)) < .01 + 1 / line.fps
        at = line.stop
    assert at == len(numbers)

def vary(n=50): return [i / 30 if i < 30 else 1 + (i - 30) / 5 for i in range(n)] # seconds: 30 frames a second, then 5

FILMS = { # name: settings of `write_film`, whether it can be cut by copying; None: either way
    "constant.mp4": (dict(), True), "b.mkv": (dict(options=dict(bf="2")), True), "b.mov": (dict(options=dict(bf="2")), True), "cam.ts": (dict(), True),
    "b.avi": (dict(options=dict(bf="2")), None), "divx.avi": (dict(codec="mpeg4"), True), "m.avi": (dict(codec="mjpeg", pix_fmt="yuvj420p"), True),
    "dvd.mpg": (dict(codec="mpeg2video", options=dict(bf="2")), None), "v.webm": (dict(codec="libvpx"), True), "a.flv": (dict(codec="flv"), True),
    "w.wmv": (dict(codec="wmv2"), None), "raw.h264": (dict(), None), "open.mp4": (dict(options={"bf": "3", "x264-params": "open-gop=1"}), None),
    "refresh.ts": (dict(options={"intra-refresh": "1"}), None), "refresh.mp4": (dict(options={"intra-refresh": "1"}), False),
    "vary.mp4": (dict(pts=vary()), True), "vary.mkv": (dict(pts=vary()), True), "vary.webm": (dict(codec="libvpx", pts=vary()), True),
    "turned.mp4": (dict(rotation=90), True), "over.mov": (dict(rotation=180), True),
    "fields.mp4": (dict(interlaced="tff"), True), "fields.mkv": (dict(interlaced="bff"), True), "fields.mpg": (dict(codec="mpeg2video", interlaced="bff"), None)}

@pytest.mark.parametrize("cut", ["auto", "encode"])
@pytest.mark.parametrize("name", FILMS)
def test_clips_show_what_their_lines_say(tmp_path, name, cut):
    settings, copied = FILMS[name]
    options = dict(g="5") | (dict(sc_threshold="0") if settings.get("codec") != "libvpx" else {}) | settings.get("options", {})
    film = write_film(tmp_path / "films/Arson" / name, range(50), **settings | dict(options=options))
    turns = settings.get("rotation", 0) // 90
    if turns: assert numbers_of(np.rot90(f, -turns) for f in open_video(film).read()) == list(range(50))
    table = segment(tmp_path / "films", tmp_path / "clips", seconds=1, shortest=.01, tolerance=.5, cut=cut, workers=1)
    if cut == "encode": assert (table.cut == "encoded").all()
    elif copied is not None: assert (table.cut == "copied").all() == copied, table.cut.tolist()
    if not turns: assert_clips(table, tmp_path / "clips", film, list(range(50)))
    else:
        shown = sum((list(open_video(tmp_path / "clips" / v).read()) for v in table.video), [])
        assert numbers_of(np.rot90(f, -turns) for f in shown) == list(range(50))

def cut_one(tmp_path, **how): return segment(tmp_path / "films", tmp_path / "clips", workers=1, **dict(seconds=1, shortest=.01, tolerance=.5) | how)

@pytest.fixture(scope="module")
def long(tmp_path_factory): # 60 frames, a key frame every 12
    return write_film(tmp_path_factory.mktemp("long") / "long.mp4", range(60), options=dict(g="12", sc_threshold="0", bf="2"))

@pytest.mark.parametrize("cut", ["auto", "encode"])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".ts"])
@pytest.mark.parametrize("key", [True, False])
def test_what_a_trimmed_film_hides_shifts_no_clip(tmp_path, long, suffix, key, cut):
    (tmp_path / "films/Arson").mkdir(parents=True)
    film = copy_film(long, tmp_path / f"films/Arson/cut{suffix}", .7, key)
    numbers = list(range(18 if suffix in HIDES else 12, 60)) if key else list(range(24, 60)) # 18 = 0.7 s; without a key frame the next one, 24, is the first
    assert numbers_of(open_video(film).read()) == numbers
    assert_clips(cut_one(tmp_path, cut=cut), tmp_path / "clips", film, numbers)

CASES = {"trimmed/cut_in.mp4": range(13, 60), "time/vfr.mp4": None, "time/vfr.mkv": None, "time/gap.mp4": None, "counts/xvid.avi": None, "counts/drops.avi": None,
         "counts/drops4.avi": None, "counts/bf.avi": None, "trimmed/nokey.mp4": None, "trimmed/cut_end.mp4": None, "trimmed/cut_out.mkv": None,
         "containers/mpeg_as.avi": None, "containers/longaudiomkv_as.mp4": None, "containers/x.ogv": None, "containers/x.h264": None, "codecs/av1.mp4": None,
         "codecs/h422.mov": None, "codecs/hevc.mp4": None}

@pytest.mark.parametrize("cut", ["auto", "encode"])
@pytest.mark.parametrize("name", CASES)
def test_small_films_on_which_cutting_was_wrong(tmp_path, name, cut):
    if not (case := shared(f"cases/{name}")): pytest.skip("the cases are not here (set VAD_SHARED)")
    (tmp_path / "films/Arson").mkdir(parents=True)
    (tmp_path / "films/Arson" / case.name).write_bytes(case.read_bytes())
    want = np.stack(list(open_video(case).read())).astype(int)
    table = cut_one(tmp_path, cut=cut, seconds=.8)
    assert (table.status == "ok").all() and table.stop.iloc[-1] == len(want) and (table["first"].iloc[1:].values == table.stop.iloc[:-1].values).all()
    if CASES[name]: assert len(want) == len(CASES[name])
    times = open_video(case).times()
    for line in table.itertuples():
        clip = open_video(tmp_path / "clips" / line.video)
        have = np.stack(list(clip.read())).astype(int)
        assert have.shape == (line.stop - line.first, *want.shape[1:])
        assert (have == want[line.first:line.stop]).all() if line.cut == "copied" else np.abs(have - want[line.first:line.stop]).mean() < 6
        assert np.abs(clip.times() - (times[line.first:line.stop] - times[line.first])).max() <= .002

def test_seconds_are_those_of_the_time_stamps(tmp_path):
    write_film(tmp_path / "films/Arson/a.mp4", range(50), pts=vary(), options=dict(g="5", sc_threshold="0"))
    table = cut_one(tmp_path, seconds=2, shortest=.5, tolerance=.3)
    assert table.cut.eq("copied").all() and table["first"].tolist() == [0, 35, 45] and table.stop.tolist() == [35, 45, 50]
    assert table.begins.tolist() == [0, 2, 4] and abs(table.ends.iloc[-1] - 5) < .2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        short = segment(tmp_path / "films", tmp_path / "short", seconds=9, shortest=6)
    assert short.status.tolist() == ["failed"] and "shorter than 6 seconds" in short.reason[0] # 50 frames of 30 a second would be shorter still

def test_the_same_film_gives_the_same_bytes(tmp_path):
    write_film(tmp_path / "films/a/a.mp4", range(60), size=(240, 320), noise=30)
    tables = [segment(tmp_path / "films", tmp_path / name, seconds=1, cut="encode") for name in "xyz"]
    made = [{(tmp_path / name / v).read_bytes() for v in t.video} for name, t in zip("xyz", tables)]
    assert made[0] == made[1] == made[2] and len(made[0]) > 1
    for name in "pqr": write_copy(tmp_path / f"{name}.mp4", open_video(tmp_path / "films/a/a.mp4").read(), fps=25)
    assert len({(tmp_path / f"{name}.mp4").read_bytes() for name in "pqr"}) == 1

def test_annotations_count_the_frames_that_are_shown(tmp_path, long):
    (tmp_path / "films/Arson").mkdir(parents=True)
    copy_film(long, tmp_path / "films/Arson/a.mp4", .7)          # shows 18 to 59; 6 more are hidden in front
    c = collect(tmp_path / "films")
    c = Collection(c.root, c.classes, c.table.assign(ranges=[[(21, 30)]]))
    table = segment(c, tmp_path / "clips", seconds=.4, shortest=.01, share=1., cut="encode")
    assert table.label.tolist() == ["normal", "normal", "Arson", "normal", "normal"]
    assert numbers_of(open_video(tmp_path / "clips" / table.video[2]).read()) == list(range(38, 48))

def test_what_begins_as_interlaced_is_cut_as_it_is_shown(tmp_path, monkeypatch):
    film = write_film(tmp_path / "films/Arson/a.mp4", range(20), interlaced="tff", options=dict(g="5", crf="4"))
    def combs(frames): return np.mean([np.abs(2. * f[1:-1] - f[:-2] - f[2:])[64:].mean() for f in frames])
    smooth = combs(open_video(film).read())
    a, b = (segment(tmp_path / "films", tmp_path / f"{cut}", seconds=.4, shortest=.01, tolerance=.2, cut=cut) for cut in ("copy", "encode"))
    for cut, table in (("copy", a), ("encode", b)):
        frames = [f for v in table.video for f in open_video(tmp_path / cut / v).read()]
        assert numbers_of(frames) == list(range(20)) and combs(frames) < 1.5 * smooth
    monkeypatch.setenv("VAD_FIELDS", "stored")
    assert combs(open_video(film).read()) > 2 * smooth
    table = segment(tmp_path / "films", tmp_path / "stored", seconds=.4, shortest=.01, cut="encode")
    frames = [f for v in table.video for f in open_video(tmp_path / "stored" / v).read()]
    assert numbers_of(frames) == list(range(20)) and combs(frames) > 2 * smooth


# ---- what is damaged

def caught(call):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        return call(), [str(w.message) for w in said]

@pytest.mark.parametrize("cut", ["auto", "copy", "encode"])
def test_a_damaged_film_is_named_and_the_others_are_cut(tmp_path, long, cut):
    for name in ("normal/a.mp4", "Arson/b.mp4"):
        (tmp_path / "films" / name).parent.mkdir(parents=True)
        (tmp_path / "films" / name).write_bytes(long.read_bytes())
    flip(tmp_path / "films/Arson/b.mp4")
    damaged = open_video(tmp_path / "films/Arson/b.mp4", partial=True).damaged
    assert damaged
    table, said = caught(lambda: cut_one(tmp_path, cut=cut, seconds=.48, tolerance=.1))
    bad = table[table.status == "failed"]
    assert bad.film.tolist() == ["Arson/b.mp4"] and f"{damaged} of its frames" in bad.reason.item() and str(tmp_path) not in bad.reason.item() and len(said) == 1
    assert (table.film[table.status == "ok"] == "normal/a.mp4").all() and len(table) == 6
    assert sorted(p.relative_to(tmp_path / "clips").as_posix() for p in films(tmp_path / "clips")) == sorted(table.video[table.status == "ok"]) # nothing of the other

@pytest.mark.parametrize("how", ["flip", "truncate"])
def test_partial_uses_a_damaged_film_as_far_as_it_goes(tmp_path, long, how):
    film = tmp_path / "films/Arson/b.mp4"
    film.parent.mkdir(parents=True)
    copy_film(long, film, movflags="faststart")                  # the index stands in front and outlives the end
    if how == "flip": flip(film)
    else: film.write_bytes(film.read_bytes()[:-film.stat().st_size // 3])
    table, _ = caught(lambda: cut_one(tmp_path))
    assert table.status.tolist() == ["failed"] and ("damaged" if how == "flip" else "truncated") in table.reason[0]
    (tmp_path / "clips/segments.csv").unlink()
    table, video = cut_one(tmp_path, partial=True), open_video(film, partial=True)
    assert (table.cut == "encoded").all() and table.stop.iloc[-1] == video.frames and (table.damaged == video.damaged).all()
    assert (how != "flip" or (table.damaged > 0).all()) and all("is used as far as it goes" in r or "wrong or lost" in r for r in table.reason)
    for line in table.itertuples(): assert open_video(tmp_path / "clips" / line.video).frames == line.stop - line.first
    other, _ = caught(lambda: segment(tmp_path / "films", tmp_path / "copied", partial=True, cut="copy", seconds=1, shortest=.01))
    assert other.status.tolist() == ["failed"] and "cut='encode'" in other.reason[0]

def test_a_full_disk_is_no_fault_of_a_film(tmp_path, long, disk):
    (tmp_path / "films/Arson").mkdir(parents=True)
    for i in range(2): (tmp_path / f"films/Arson/{i}.mp4").write_bytes(long.read_bytes())
    (disk / "clips").mkdir()
    fill(disk, 12_000)
    for cut in ("auto", "encode"):
        with pytest.raises(UserError, match="disk is full"): segment(tmp_path / "films", disk / "clips", workers=1, seconds=1, tolerance=.5, shortest=.01, cut=cut)
        assert not (disk / "clips/segments.csv").exists() and not list(films(disk / "clips"))
        (disk / "clips/.segments.jsonl").unlink()

def test_who_reads_film_otherwise_begins_anew(tmp_path, long, monkeypatch):
    (tmp_path / "films/Arson").mkdir(parents=True)
    (tmp_path / "films/Arson/a.mp4").write_bytes(long.read_bytes())
    import vad.data.cutting as module
    def stop(*args): raise KeyboardInterrupt
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(module, "cut_film", stop)
        cut_one(tmp_path)
    monkeypatch.setenv("VAD_FIELDS", "stored")
    with pytest.raises(UserError, match="other settings"): cut_one(tmp_path)
    monkeypatch.delenv("VAD_FIELDS")
    assert len(cut_one(tmp_path)) == 3

def test_frames_without_times_are_no_film(tmp_path):
    (tmp_path / "films/Arson/a").mkdir(parents=True)
    for i in range(3): cv2.imwrite(str(tmp_path / f"films/Arson/a/{i}.png"), picture(i))
    table, _ = caught(lambda: cut_one(tmp_path))
    assert table.status.tolist() == ["failed"] and "does not say how many frames it has a second" in table.reason[0]

def test_opencv_cuts_the_same_frames(tmp_path, long, monkeypatch):
    monkeypatch.setenv("VAD_DECODER", "opencv")
    (tmp_path / "films/Arson").mkdir(parents=True)
    film = copy_film(long, tmp_path / "films/Arson/a.mp4", .7)
    assert_clips(cut_one(tmp_path), tmp_path / "clips", film, list(range(18, 60)))

def test_partial_from_the_command_line(tmp_path, long):
    (tmp_path / "films/Arson").mkdir(parents=True)
    (tmp_path / "films/Arson/a.mp4").write_bytes(long.read_bytes())
    flip(tmp_path / "films/Arson/a.mp4")
    done = CliRunner().invoke(app, ["segment", str(tmp_path / "films"), "--out", str(tmp_path / "clips"), "--seconds", "1", "--shortest", ".01", "--partial"])
    clips = -(-open_video(tmp_path / "films/Arson/a.mp4", partial=True).frames // 25)
    assert done.exit_code == 0 and "films left out" in done.output and f": {clips} clips, 0 films" in done.output, done.output
    assert len(collect(tmp_path / "clips")) == clips > 1

def test_two_films_never_make_one_clip(tmp_path, blocks):
    "a/b.mp4 and a_b.mp4, and a film whose name ends as the longer name does"
    for name in ("a/b.mp4", "a_b.mp4", "a_b.mkv"): write_h264(tmp_path / "films/normal" / name, blocks[:20])
    table = segment(tmp_path / "films", tmp_path / "clips", seconds=1, shortest=.1, workers=1, kind="multiclass")
    assert table.video.is_unique and len(table) == 6 and all((tmp_path / "clips" / v).exists() for v in table.video)

def test_what_failed_is_tried_again_and_another_film_is_refused(tmp_path, blocks, monkeypatch):
    "a run that is stopped before its last film; then one film is mended, or one that was cut is replaced"
    from vad.data import cutting
    good = write_h264(tmp_path / "films/normal/a.mp4", blocks[:20])
    bad = write_h264(tmp_path / "films/normal/b.mp4", blocks[:20])
    whole, other = bad.read_bytes(), write_h264(tmp_path / "other.mp4", blocks[:40]).read_bytes()
    bad.write_bytes(whole[:len(whole) // 2])
    write_h264(tmp_path / "films/normal/c.mp4", blocks[:20])
    how, try_film = dict(seconds=1, shortest=.1, workers=1, kind="multiclass"), cutting.try_film
    def stopped(path, *rest):
        if path.name == "c.mp4": raise KeyboardInterrupt
        return try_film(path, *rest)
    monkeypatch.setattr(cutting, "try_film", stopped)
    with warnings.catch_warnings(), pytest.raises(KeyboardInterrupt):
        warnings.simplefilter("ignore")
        segment(tmp_path / "films", tmp_path / "clips", **how)
    monkeypatch.undo()
    bad.write_bytes(whole)
    kept, times = good.read_bytes(), good.stat()
    good.write_bytes(other)
    with pytest.raises(UserError, match="another film"): segment(tmp_path / "films", tmp_path / "clips", **how)
    good.write_bytes(kept)
    os.utime(good, ns=(times.st_atime_ns, times.st_mtime_ns))
    table = segment(tmp_path / "films", tmp_path / "clips", **how)
    assert (table.status == "ok").all() and sorted(set(table.film)) == ["normal/a.mp4", "normal/b.mp4", "normal/c.mp4"]

@pytest.mark.parametrize("how", [dict(seconds=float("nan")), dict(seconds=float("inf")), dict(tolerance=float("nan")), dict(shortest=float("inf"))])
def test_lengths_without_end_are_refused(tmp_path, how):
    with pytest.raises(UserError, match="seconds is more than 0"): segment(tmp_path, tmp_path / "clips", **how)

def tree_of(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

@pytest.mark.parametrize("out", ["films", "films/normal", "films/new", ".", "link", "films/../films/x"])
def test_clips_are_not_written_among_films(tmp_path, blocks, out):
    for name in ("normal/a.mp4", "normal/a_0001.mp4", "Arson/b.mp4"): write_h264(tmp_path / "films" / name, blocks[:20])
    (tmp_path / "films/sources.csv").write_text("video,source\nnormal/a.mp4,1\nnormal/a_0001.mp4,1\nArson/b.mp4,2\n")
    (tmp_path / "link").symlink_to("films")
    before = tree_of(tmp_path)
    with pytest.raises(UserError, match="name another folder.$"): segment(tmp_path / "films", tmp_path / out, seconds=1, shortest=.1, cut="encode", workers=1)
    assert tree_of(tmp_path) == before

def test_somebodys_folder_is_left_alone(tmp_path, blocks):
    for name in ("normal/a.mp4", "Arson/b.mp4"): write_h264(tmp_path / "films" / name, blocks[:20])
    write_h264(tmp_path / "mine/normal/a_0001.mp4", blocks[20:])
    before = tree_of(tmp_path / "mine")
    with pytest.raises(UserError, match=r"mine holds files \(normal/a_0001.mp4\) already: name a new folder.$"): segment(tmp_path / "films", tmp_path / "mine", seconds=1, shortest=.1)
    assert {k: v for k, v in tree_of(tmp_path / "mine").items() if not k.startswith(".")} == before
    (tmp_path / "empty/normal").mkdir(parents=True)
    assert len(segment(tmp_path / "films", tmp_path / "empty", seconds=1, shortest=.1)) == 4 # empty folders are as good as none

@pytest.mark.parametrize("hours", [1, .5, 1 / 6, 1 / 3])
def test_a_frame_an_hour_keeps_its_times(tmp_path, hours):
    write_film(tmp_path / "films/Arson/a.mkv", range(12), pts=[3600 * hours * i for i in range(12)])
    assert open_video(tmp_path / "films/Arson/a.mkv").even
    table = segment(tmp_path / "films", tmp_path / "clips", kind="multiclass", seconds=4 * 3600 * hours, shortest=1, cut="encode", workers=1)
    assert len(table) == 3 and (table.status == "ok").all(), table.reason.tolist()
    for i, line in enumerate(table.itertuples()):
        clip = open_video(tmp_path / "clips" / line.video)
        np.testing.assert_allclose(clip.times(), np.arange(4) * 3600 * hours, atol=.01)
        assert abs(clip.fps / line.fps - 1) < 1e-3 and numbers_of(clip.read()) == list(range(4 * i, 4 * i + 4))

@pytest.mark.parametrize("size", [(1, 64), (64, 1)])
def test_a_film_that_is_a_line_is_left_out(tmp_path, blocks, size):
    write_h264(tmp_path / "films/Arson/b.mp4", blocks[:20])
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(tmp_path / "films/Arson/thin.avi"), "w") as out:
        stream = out.add_stream("rawvideo", rate=10)
        (stream.height, stream.width), stream.pix_fmt = size, "bgr24"
        for i in range(20): out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((*size, 3), 10 * i, np.uint8), format="bgr24")))
        out.mux(stream.encode())
    table, _ = caught(lambda: segment(tmp_path / "films", tmp_path / "clips", kind="multiclass", seconds=1, shortest=.1, cut="encode", workers=1))
    thin = table[table.film == "Arson/thin.avi"]
    assert thin.status.tolist() == ["failed"] and f"{size[1]} x {size[0]} pixels" in thin.reason.item() and (table.status == "ok").sum() == 2
