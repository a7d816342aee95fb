"One film, one answer: whoever reads a film, by whatever command, gets the same frames with the same numbers at the same times."
import subprocess
import sys
import warnings
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from conftest import real_time_threads
from films import av, copy_film, ffmpeg, flip, marked, number_of, numbers_of, picture, shown_by_copy, write_film, write_streams
from vad.data.frame_cache import cache_frames
from vad.data.clips import collect
from vad.core.errors import UserError
from vad.core.provenance import shared
from vad.data.datasets import open_dataset
from vad.data.decoder import Damage, ShownFrame, deinterlaced, film_frames, open_film, pyav, said_end
from vad.data.embedding import decode_into, embed
from vad.data.download import extract_frames
from vad.data.cutting import read_film, segment
from vad.data.video import contents, open_video


# ---- all who read

def embedded(path, partial=False):
    "the numbers of the frames that the network is given"
    belt, recipe = [], SimpleNamespace(partial=partial, frames=10_000, skip=None, interpolation="area", flip=False)
    _, n, outcome = decode_into(recipe, (48, 64), 0, path, belt.append)
    assert not outcome.reason, outcome.reason
    assert [place for _, place, _ in belt] == list(range(n))
    return numbers_of(frame for _, _, frame in belt)

def cut_up(path, folder, **how):
    "the numbers and times of all clips, one after another"
    tree = folder / "tree/Arson"
    tree.mkdir(parents=True)
    (tree / path.name).symlink_to(path)
    table = segment(folder / "tree", folder / "clips", **dict(seconds=.4, shortest=.001, tolerance=.2, workers=1) | how)
    assert (table.status == "ok").all(), table.reason.tolist()
    numbers, times = [], []
    for line in table.itertuples():
        clip = open_video(folder / "clips" / line.video)
        assert clip.frames == line.stop - line.first and line.first == len(numbers)
        numbers += numbers_of(clip.read())
        times += (clip.times() + line.begins).tolist()
    return numbers, times

def assert_one_answer(path, numbers, folder, times=None, partial=False):
    "every reader of the film shows these numbers, at these times since the first"
    n, video = len(numbers), open_video(path, partial)
    assert video.frames == n == len(video.times()) and numbers_of(video.read()) == numbers
    if times is not None: assert np.abs(video.times() - (np.array(times) - times[0])).max() < .0021
    assert numbers_of(video.read(gray=True)) == numbers and numbers_of(video.read(start=n // 3, stop=n - 1)) == numbers[n // 3:n - 1]
    some = np.unique(np.linspace(0, n - 1, 5).astype(int))
    assert numbers_of(video.select(some)) == [numbers[i] for i in some]
    assert numbers_of(cache_frames([video], (48, 64), folder=folder / "cache", interpolation="area").array) == numbers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pictures, = extract_frames(path, folder / "out", ".png", partial=partial)
    assert numbers_of(cv2.imread(str(p)) for p in sorted(pictures.iterdir())) == numbers == numbers_of(open_video(pictures).read())
    assert embedded(path, partial) == numbers
    for cut in ("encode", "auto"):
        got, at = cut_up(path, folder / cut, cut=cut, partial=partial)
        assert got == numbers and np.abs(np.array(at) - video.times()).max() < .004


# ---- container x codec x rate x cut

MADE = [(".mp4", "libx264"), (".mov", "libx264"), (".mkv", "libx264"), (".ts", "libx264"), (".mts", "libx264"), (".m4v", "libx264"),
        (".flv", "libx264"), (".avi", "libx264"), (".h264", "libx264"), (".mp4", "mpeg4"), (".avi", "mpeg4"), (".3gp", "mpeg4"), (".mov", "mjpeg"),
        (".avi", "mjpeg"), (".mjpeg", "mjpeg"), (".mpg", "mpeg2video"), (".ts", "mpeg2video"), (".mkv", "mpeg2video"), (".mpg", "mpeg1video"),
        (".webm", "libvpx"), (".webm", "libvpx-vp9"), (".mp4", "libvpx-vp9"), (".mkv", "ffv1"), (".avi", "ffv1"), (".mp4", "libx265"),
        (".mkv", "libx265"), (".mp4", "libsvtav1"), (".mkv", "libsvtav1"), (".flv", "flv"), (".wmv", "wmv2"), (".asf", "msmpeg4"),
        (".mov", "prores_ks"), (".avi", "huffyuv"), (".mkv", "rawvideo"), (".m2v", "mpeg2video"), (".m2ts", "libx264"), (".mxf", "mpeg2video"),
        (".hevc", "libx265"), (".264", "libx264"), (".vob", "mpeg2video"), (".3g2", "libx264"), (".mov", "libx265")]
FORMATS = dict(mjpeg="yuvj420p", prores_ks="yuv422p10le", huffyuv="yuv422p")
BASED_ON_TIMES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".ts", ".flv") # containers in which frames come when they like
CUT = {".mp4", ".mov", ".m4v", ".mkv", ".ts", ".webm"}                    # and that are copied from the middle on
B_FRAMES = ("libx264", "mpeg4", "mpeg2video")

@st.composite
def made(draw):
    suffix, codec = draw(st.sampled_from(MADE))
    slow = (25, 30, 30000 / 1001) if codec in ("mpeg2video", "mpeg1video") else (25, 30, 30000 / 1001, 10, 12.5, 15)
    rate = draw(st.sampled_from((*slow, "vary") if suffix in BASED_ON_TIMES and codec != "mpeg2video" else slow))
    cut = draw(st.sampled_from(("none", "key", "no key") if suffix in CUT and codec != "rawvideo" else ("none",)))
    return SimpleNamespace(suffix=suffix, codec=codec, rate=rate, cut=cut, frames=draw(st.integers(8, 26)), group=draw(st.sampled_from((4, 7, 250))),
                           b=draw(st.integers(0, 2)), at=draw(st.floats(.15, .6)), gaps=draw(st.lists(st.sampled_from((33, 40, 100, 200)), min_size=26, max_size=26)))

@settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(made())
def test_every_reader_shows_the_same(tmp_path_factory, film):
    folder = tmp_path_factory.mktemp("film")
    times = np.cumsum([0, *film.gaps])[:film.frames] / 1000 if film.rate == "vary" else np.arange(film.frames) / film.rate
    options = {} if film.codec in ("rawvideo", "huffyuv", "prores_ks", "mjpeg") else dict(g=str(film.group))
    if film.codec in B_FRAMES and not (film.suffix == ".avi" and film.codec == "mpeg4"): options["bf"] = str(film.b)
    path = write_film(folder / f"full{film.suffix}", range(film.frames), codec=film.codec, fps=25 if film.rate == "vary" else film.rate,
                      pts=times if film.rate == "vary" else None, pix_fmt=FORMATS.get(film.codec, "yuv420p"), options=options)
    shown = list(range(film.frames))
    if film.cut != "none":
        start = float(times[int(film.at * film.frames)])
        try: shown = shown_by_copy(path, film.suffix, start, film.cut == "key")
        except StopIteration: return                                       # no key frame behind the cut: nothing can be shown
        try: path = copy_film(path, folder / f"cut{film.suffix}", start, film.cut == "key")
        except av.error.ArgumentError: assume(False)                       # a muxer that does not take such packets
    if film.suffix == ".mjpeg": assert_no_rate(path, shown)
    else: assert_one_answer(path, shown, folder, times[shown])

def assert_no_rate(path, numbers):
    "pictures one after another, of which nobody says how many a second: they can be read, and are not cut by seconds"
    video = open_video(path)
    assert numbers_of(video.read()) == numbers and (video.rate, video.fps) == ("assumed", 25)
    with pytest.raises(UserError, match="does not say how many frames it has a second"): read_film(path)


# ---- what cameras and programs write

FIELDS = [(".mp4", "libx264"), (".mkv", "libx264"), (".mts", "libx264"), (".mpg", "mpeg2video"), (".ts", "mpeg2video"), (".avi", "mpeg4"),
          (".mp4", "mpeg4"), (".dv", "dvvideo"), (".mov", "dvvideo")]

@pytest.mark.parametrize("first", ["tff", "bff"])
@pytest.mark.parametrize("suffix, codec", FIELDS)
def test_interlaced_film_is_deinterlaced_or_as_it_is_stored(tmp_path, monkeypatch, suffix, codec, first):
    size = (576, 720) if codec == "dvvideo" else (96, 128)
    film = write_film(tmp_path / f"film{suffix}", range(9), codec=codec, size=size, interlaced=first, options=dict(b="4M") if codec != "dvvideo" else {})
    def combs(frames): return np.mean([np.abs(2. * f[1:-1] - f[:-2] - f[2:])[size[0] * 2 // 3:].mean() for f in frames])
    frames = list(open_video(film).read())
    assert numbers_of(frames) == list(range(9)) and min(f.mean() for f in frames) > 50
    assert_one_answer(film, list(range(9)), tmp_path)
    monkeypatch.setenv("VAD_FIELDS", "stored")
    stored = list(open_video(film).read())
    assert numbers_of(stored) == list(range(9)) and min(f.mean() for f in stored) > 50
    assert combs(frames) < .6 * combs(stored)

def by_opencv(path):
    film, frames = cv2.VideoCapture(str(path)), []
    while (got := film.read())[0]: frames.append(got[1])
    return frames

TAGGED = {"turned a quarter": dict(rotation=90), "turned half": dict(rotation=180), "turned three quarters": dict(rotation=270),
          "full range": dict(pix_fmt="yuvj420p"), "BT.601": dict(colorspace=6), "BT.709": dict(colorspace=1), "BT.709, full range": dict(colorspace=1, pix_fmt="yuvj420p"),
          "4:2:2": dict(pix_fmt="yuv422p"), "4:4:4": dict(pix_fmt="yuv444p"), "MJPEG": dict(codec="mjpeg", pix_fmt="yuvj422p"), "HEVC": dict(codec="libx265")}

@pytest.mark.parametrize("what", TAGGED)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_turned_and_tagged_film_is_as_opencv_shows_it(tmp_path, suffix, what):
    how = dict(TAGGED[what])
    film = write_film(tmp_path / f"film{suffix}", range(5), **how)
    ours, theirs = list(open_video(film).read()), by_opencv(film)
    assert len(ours) == len(theirs) == 5 and ours[0].shape == theirs[0].shape
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(ours, theirs)) <= 2
    turns = how.get("rotation", 0) // 90
    assert numbers_of(np.rot90(f, -turns) for f in ours) == list(range(5))
    assert ours[0].shape[:2] == ((96, 128) if turns % 2 == 0 else (128, 96))

ODD = [(".mp4", "libx264", "yuv420p10le"), (".mp4", "libx265", "yuv420p10le"), (".mkv", "libsvtav1", "yuv420p10le"),
       (".mov", "prores_ks", "yuv422p10le"), (".mov", "prores_ks", "yuva444p10le"), (".mkv", "ffv1", "yuv420p10le"), (".mp4", "libx264", "yuv422p"),
       (".mov", "qtrle", "argb"), (".webm", "libvpx-vp9", "yuva420p"), (".mov", "png", "rgba"), (".mov", "png", "rgb48be"),
       (".mkv", "ffv1", "gray"), (".mkv", "ffv1", "gray16le"), (".mp4", "libx264", "gray"), (".mov", "png", "ya8"), (".mov", "png", "pal8"),
       (".avi", "rawvideo", "bgr24"), (".avi", "rawvideo", "yuyv422"), (".mov", "gif", "rgb8"), (".mp4", "libx265", "gbrp")]

@pytest.mark.parametrize("suffix, codec, pix_fmt", ODD)
def test_every_kind_of_pixels_is_read(tmp_path, suffix, codec, pix_fmt):
    film = write_film(tmp_path / f"film{suffix}", range(6), codec=codec, pix_fmt=pix_fmt)
    frames = list(open_video(film).read())
    assert numbers_of(frames) == list(range(6)) == numbers_of(open_video(film).read(gray=True))
    top, low = (np.mean([f[:60].max() for f in frames]), np.mean([f[:60].min() for f in frames]))
    assert top > 240 and low < 15                                          # the whole range, whatever the depth
    assert_one_answer(film, list(range(6)), tmp_path)

def test_several_streams(tmp_path):
    cover = write_streams(tmp_path / "cover.mp4", [99], range(20), cover=(0,))
    assert_one_answer(cover, list(range(20)), tmp_path / "1")
    two = write_streams(tmp_path / "two.mkv", range(20), range(50, 70), sound=.8)
    assert_one_answer(two, list(range(20)), tmp_path / "2")
    sound = write_streams(tmp_path / "sound.mp4", sound=1)
    with pytest.raises(UserError, match="sound.mp4 holds sound only"): open_video(sound)
    album = write_streams(tmp_path / "album.mp4", [3], cover=(0,), sound=1)
    with pytest.raises(UserError, match="album.mp4 holds sound only"): open_video(album)
    (tmp_path / "tree/Arson").mkdir(parents=True)
    for p in (sound, album): (tmp_path / "tree/Arson" / p.name).symlink_to(p)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = segment(tmp_path / "tree", tmp_path / "clips")
        made = embed(tmp_path / "tree", tmp_path / "out", "cnn", 5, "cpu", 4, width=16, size=32)
    assert table.reason.str.contains("holds sound only").all() and made.manifest.reason.str.contains("holds sound only").all()

def test_a_codec_that_nobody_knows_is_named(tmp_path):
    film = write_film(tmp_path / "film.avi", range(6), codec="mjpeg", pix_fmt="yuvj420p")
    film.write_bytes(film.read_bytes().replace(b"MJPG", b"Zq9x"))
    with pytest.raises(UserError, match="film.avi is in a codec"): open_video(film)


# ---- damage

@pytest.fixture(scope="module")
def large(tmp_path_factory): # with more than 20,000 bytes of pictures
    return write_film(tmp_path_factory.mktemp("large") / "large.mp4", range(60), size=(240, 320), options=dict(g="12"), noise=30)

def zero(path, n=20_000):
    data = bytearray(path.read_bytes())
    begin = data.find(b"mdat") + 8
    middle = (begin + len(data)) // 2
    data[middle - n // 2:middle + n // 2] = bytes(n)
    path.write_bytes(data)

@pytest.mark.parametrize("harm", [flip, zero])
def test_damage_is_counted_and_the_rest_is_used(tmp_path, large, harm):
    film = tmp_path / "film.mp4"
    film.write_bytes(large.read_bytes())
    assert film.stat().st_size > 30_000
    harm(film)
    with pytest.raises(UserError, match=r"film.mp4 is damaged: \d+ of its frames are wrong or lost"): list(open_video(film).read())
    part = open_video(film, partial=True)
    shown = numbers_of(part.read())
    assert 0 < part.damaged < 60 and len(shown) == part.frames and shown[:12] == list(range(12)) and shown[-3:] == [57, 58, 59]
    sound = [number_of(frame) for frame, s in film_frames(film) if not s.damaged]
    assert sound == sorted(set(sound)) and sound[0] == 0 and len(sound) + part.damaged >= 60 # whatever is not right has been counted
    assert_one_answer(film, shown, tmp_path, partial=True)

class Heard(Damage):
    "of which packets the decoder complained"
    def __init__(self):
        super().__init__()
        self.complaints = set()

    def packet(self, pts, key, complained, hidden=False):
        if complained: self.complaints.add(pts)
        super().packet(pts, key, complained, hidden)

@pytest.mark.parametrize("fields", [None, "tff"])
def test_damage_spreads_to_frames_that_are_shown_before(tmp_path, large, fields):
    "a picture that looks ahead is shown before the damaged one on which it builds, and a deinterlaced one has rows of its neighbours: they are marked as well"
    if fields: large = write_film(tmp_path / "woven.mp4", range(60), size=(240, 320), options=dict(g="12", bf="0"), noise=30, interlaced=fields)
    clean = dict((s.pts, frame) for frame, s in film_frames(large))
    with open_film(large) as (container, stream):
        packets = [(p.pts, p.is_keyframe, p.pos, p.size) for p in container.demux(stream) if p.size]
    ahead = [i for i, (pts, key, _, _) in enumerate(packets) if not key and (fields or any(p < pts for p, _, _, _ in packets[i + 1:]))]
    data, found, earlier = large.read_bytes(), 0, 0
    for i in ahead[:20]:
        pts, _, at, size = packets[i]
        film, damaged = tmp_path / f"{i}.mp4", bytearray(data)
        for k in range(at + size // 4, at + size * 3 // 4): damaged[k] ^= 0xff
        film.write_bytes(damaged)
        heard = Heard()
        shown = [(s.pts, s.damaged, not np.array_equal(frame, clean[s.pts])) for frame, s in film_frames(film, damage=heard)]
        if pts not in heard.complaints: continue # nothing that the decoder could notice
        found, earlier = found + 1, earlier + any(wrong for p, _, wrong in shown if p < pts)
        assert all(marked for _, marked, wrong in shown if wrong) and contents(film, thorough=True).damaged == sum(m for _, m, _ in shown) + heard.lost
    assert found > 3 and earlier > 3

def test_a_film_without_its_end(tmp_path, large):
    film = copy_film(large, tmp_path / "film.mp4", movflags="faststart")
    film.write_bytes(film.read_bytes()[:film.stat().st_size * 2 // 3])
    with pytest.raises(UserError, match="film.mp4 ends after .* truncated"): open_video(film)
    shown = numbers_of(open_video(film, partial=True).read())
    assert 12 < len(shown) < 60 and shown[:-1] == list(range(len(shown) - 1))
    assert_one_answer(film, shown, tmp_path, partial=True)


@pytest.mark.parametrize("suffix, codec", [(".avi", "mpeg4"), (".avi", "mjpeg"), (".mkv", "libx264"), (".webm", "libvpx"), (".ts", "libx264"), (".mpg", "mpeg2video"),
                                           (".flv", "flv"), (".h264", "libx264"), (".wmv", "wmv2")])
def test_a_film_that_broke_off(tmp_path, suffix, codec):
    film = write_film(tmp_path / f"film{suffix}", range(40), codec=codec, size=(240, 320), noise=40, pix_fmt=FORMATS.get(codec, "yuv420p"),
                      options=dict(g="10", b="2M"))
    film.write_bytes(film.read_bytes()[:film.stat().st_size * 2 // 3])
    part = open_video(film, partial=True)
    shown = numbers_of(part.read())
    assert 12 < len(shown) < 40 and shown[:-4] == list(range(len(shown) - 4)) # the last may be half there, and frames before it missing
    assert_one_answer(film, shown, tmp_path, partial=True)
    try: whole = numbers_of(open_video(film).read())                          # a stream may end anywhere
    except UserError as e: assert film.name in str(e) and ("truncated" in str(e) or "damaged" in str(e))
    else: assert whole == shown == sorted(set(shown)) and shown[0] == 0


# ---- what other programs write

@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_leading_frames_that_cannot_be_decoded_are_no_damage(tmp_path, suffix):
    "HEVC's key frames, as x265 sets them, are followed by frames that are shown before them and need others that were cut off"
    film = write_film(tmp_path / f"full{suffix}", range(16), codec="libx265", options=dict(g="7"))
    assert_one_answer(copy_film(film, tmp_path / f"cut{suffix}", .32, key=False), [14, 15], tmp_path)

@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("place", ["in", "out"])
def test_ffmpeg_trims_without_encoding(tmp_path, suffix, place):
    film = write_film(tmp_path / "full.mp4", range(60), options=dict(g="12", sc_threshold="0"))
    cut = tmp_path / f"cut{suffix}"
    ffmpeg(*(("-ss", "0.7", "-i", film) if place == "in" else ("-i", film, "-ss", "0.7")), "-c", "copy", cut)
    shown = numbers_of(by_opencv(cut))                # what a player shows
    assert -1 not in shown and shown == list(range(shown[0], 60)) and shown[0] in (12, 18, 24)
    assert_one_answer(cut, shown, tmp_path)

def test_theora(tmp_path):
    film = write_film(tmp_path / "full.mkv", range(20), codec="ffv1")
    ffmpeg("-i", film, "-c:v", "libtheora", "-q:v", "9", tmp_path / "film.ogv")
    assert_one_answer(tmp_path / "film.ogv", list(range(20)), tmp_path)


# ---- one count everywhere

def test_labels_and_vectors_are_as_many_as_frames(tmp_path, large):
    (tmp_path / "data/testing").mkdir(parents=True)
    film = copy_film(large, tmp_path / "data/testing/01.mp4", .7)         # 18 to 59 are shown
    (tmp_path / "data/training").mkdir()
    write_film(tmp_path / "data/training/01.mp4", range(20), size=(240, 320))
    np.save(tmp_path / "data/frame_labels_data.npy", np.arange(42) % 2)
    data = open_dataset(tmp_path / "data")
    assert len(data.labels[0]) == 42 == data.test[0].frames == contents(film).frames
    np.save(tmp_path / "data/frame_labels_data.npy", np.arange(60) % 2)
    with pytest.raises(UserError, match="60 labels and the test videos have 42 frames"): open_dataset(tmp_path / "data")
    made = embed(tmp_path / "data", tmp_path / "out", "cnn", 100, "cpu", 4, kind="multiclass", width=16, size=32)
    assert sorted(made.mask.sum(1).tolist()) == [20, 42]

COUNTS = {"trimmed/full.mp4": range(60), "trimmed/cut_in.mp4": range(13, 60), "trimmed/cut_end.mp4": None, "trimmed/cut_out.mkv": None, "trimmed/nokey.mp4": None,
          "counts/drops.avi": None, "counts/xvid.avi": None, "counts/bf.avi": None, "containers/mpeg_as.avi": None, "containers/x.webm": None, "codecs/av1.mp4": None}

@pytest.mark.parametrize("name", COUNTS)
def test_the_cases_have_one_count(tmp_path, name):
    if not (case := shared(f"cases/{name}")): pytest.skip("the cases are not here (set VAD_SHARED)")
    n = open_video(case).frames
    if COUNTS[name]: assert n == len(COUNTS[name])
    assert n == sum(1 for _ in open_video(case).read()) == len(cache_frames([open_video(case)], (48, 64), folder=tmp_path / "cache"))
    (tmp_path / "tree/Arson").mkdir(parents=True)
    (tmp_path / "tree/Arson" / case.name).symlink_to(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder, = extract_frames(case, tmp_path / "out")
        table = segment(tmp_path / "tree", tmp_path / "clips", seconds=.4, shortest=.001)
        made = embed(collect(tmp_path / "tree"), tmp_path / "vectors", "cnn", 200, "cpu", 4, width=16, size=32)
    assert len(list(folder.iterdir())) == n == table.stop.iloc[-1] == made.mask.sum()


# ---- a machine without PyAV

WITHOUT = """
import sys
sys.modules["av"] = None # as where it is not installed
import numpy as np
from vad.data.frame_cache import cache_frames
from vad.core.errors import UserError
from vad.data.decoder import decoding
from vad.data.video import open_video
film, folder, picture = sys.argv[1:]
try: open_video(film)
except UserError as e: print(e)
print(open_video(folder).frames, open_video(picture).frames)
import os
os.environ["VAD_DECODER"] = "opencv"
video = open_video(film)
print(video.frames, len(list(video.read())), len(cache_frames([video], (24, 32))), decoding().record()["decoder"].split()[0])
"""

def test_a_machine_without_pyav_reads_folders_and_by_choice_films(tmp_path):
    film = write_film(tmp_path / "film.mp4", range(9))
    for i in range(6):
        (tmp_path / "folder").mkdir(exist_ok=True)
        assert cv2.imwrite(str(tmp_path / f"folder/{i}.png"), picture(i))
    (tmp_path / "flat").mkdir()
    assert cv2.imwrite(str(tmp_path / "flat/1.jpg"), np.zeros((640, 640, 3), np.uint8)) # whose code is one long run
    said = subprocess.run([sys.executable, "-c", WITHOUT, film, tmp_path / "folder", tmp_path / "flat"], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    missing, folders, films = said.stdout.splitlines()
    assert "pip install av" in missing and "VAD_DECODER=opencv" in missing
    assert (folders, films) == ("6 1", "9 9 9 opencv")

def test_frames_too_small_to_deinterlace_stay_as_they_are():
    frames = [ShownFrame(marked(av.VideoFrame.from_ndarray(np.full((rows, 16, 3), 90, np.uint8), format="bgr24").reformat(format="yuv420p"), "tff"), t, False, 0)
              for t, rows in enumerate((2, 2, 48, 48, 2))]
    for t, s in enumerate(frames): s.frame.pts = t
    assert [(s.pts, s.frame.height) for s in deinterlaced(frames)] == [(0, 2), (1, 2), (2, 48), (3, 48), (4, 2)]


# ---- files that were cut between two packets

def cut_between_packets(path, into):
    "about two thirds of a film, up to where a packet begins"
    with pyav().open(str(path)) as film: places = sorted(p.pos for p in film.demux(video=0) if p.size and p.pos)
    into.write_bytes(path.read_bytes()[:places[len(places) * 2 // 3]])
    return into

@pytest.mark.parametrize("name", ["x.ogv", "x.wmv", "x.flv", "x.webm"])
def test_a_film_that_ends_between_two_packets(tmp_path, name):
    "its container says where it should end; whole, it is read, whatever stands behind it"
    path = shared(f"cases/containers/{name}")
    if not path: pytest.skip("the small inputs are not here: VAD_SHARED names their folder")
    whole = open_video(path)
    part = cut_between_packets(path, tmp_path / name)
    with pytest.raises(UserError, match=f"{name} ends after .* truncated: restore"): open_video(part)
    assert 0 < open_video(part, partial=True).frames < whole.frames and "truncated" in open_video(part, partial=True).notes[0]
    (tmp_path / f"behind {name}").write_bytes(path.read_bytes() + bytes(300))
    if name != "x.webm": assert open_video(tmp_path / f"behind {name}").frames == whole.frames # which FFmpeg takes for damage

@settings(deadline=None)
@given(st.binary(max_size=400), st.sampled_from([b"OggS", b"0&\xb2u" + bytes.fromhex("8e66cf11a6d900aa0062ce6c"), b"FLV\x01"]), st.integers(0, 60))
def test_where_a_film_ends_is_found_in_any_bytes(tmp_path_factory, data, begins, gap):
    path = tmp_path_factory.mktemp("end") / "x"
    marks = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365") + b"\0\x08filesize\0" + b"OggS"
    path.write_bytes(begins + data[:gap] + marks + data[gap:])
    assert said_end(path) >= 0


# ---- what an encoder leaves behind

def test_an_encoder_that_makes_its_caller_real_time(tmp_path):
    write_film(tmp_path / "a.mkv", range(4), "libsvtav1")

def test_whoever_comes_after_it_is_ordinary(): assert real_time_threads() == []
