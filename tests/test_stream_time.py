"Scores live in time: windows, seconds and the scored copy follow the time stamps; films on a server end once; damage is counted in one pass."
import http.server
import subprocess
import threading
from fractions import Fraction

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings as fewer, strategies as st
from test_window import Mean, camera, run # noqa: F401 - fixtures

from vad.data.frame_cache import cache_frames
from vad.core.errors import UserError
from vad.core.provenance import shared
from vad.core.records import read_json
from vad.data.decoder import decoded, packet_stamps, pyav
from vad.use.inspect_frames import FrameInspector
from vad.use.sources import Source, StreamClock, open_source
from vad.use.streaming import BATCH, score_video
from vad.data.video import Reading, open_video
from vad.use.windows import WindowAggregator, Windows

CASES = [p for d in ("time", "trimmed", "counts", "containers", "codecs", "damaged") if (root := shared(f"cases/{d}")) for p in sorted(root.iterdir())]
needs_cases = pytest.mark.skipif(not CASES, reason="the small inputs are not here: VAD_SHARED names their folder")

def scores(out, name="x"): return pd.read_csv(out / f"{name}.scores.csv")

def write_film(path, times, grays=None, base=Fraction(1, 90000), **options):
    "a film of gray frames, each shown at its time in seconds"
    av = pyav()
    with av.open(str(path), "w") as out:
        s = out.add_stream("libx264", options=dict(crf="1", bf="0", g="5") | options)
        s.width, s.height, s.pix_fmt, s.codec_context.time_base, s.time_base = 64, 48, "yuv420p", base, base
        for t, v in zip(times, range(20, 20 + len(times)) if grays is None else grays):
            f = av.VideoFrame.from_ndarray(np.full((48, 64, 3), v, np.uint8), format="bgr24")
            f.pts, f.time_base = round(t / base), base
            out.mux(s.encode(f))
        out.mux(s.encode(None))
    return path


# ---- windows

def literal(places, ends, W, S, mode, judge):
    "scores of frames from all of the film at once: window k holds the frames whose place lies in [kS, kS + W)"
    def held(a, b): return [i for i, p in enumerate(places) if a <= p < b]
    end, spans = ends[-1], []                    # (k, where it ended, its frames, the frames it speaks for)
    for k in range(end // S + 1):
        if k * S + W <= end and held(k * S, k * S + W): spans.append((k * S + W, held(k * S, k * S + W)))
    said = {x: judge(f[0], f[-1] + 1) for x, f in spans}
    if mode == "online": return [next((said[x] for x, _ in reversed(spans) if x <= ends[i]), np.nan) for i in range(len(places))]
    votes = [[said[x] for x, f in spans if i in f] for i in range(len(places))]
    k = next(k for k in range(end // S + 2) if k * S + W > end)
    tail = held(k * S, end)                      # of these a window to come would have had the say
    if tail and (k == 0 or (k - 1) * S + W != end):
        moved = held(end - W, end) or [len(places) - 1]
        for i in tail: votes[i].append(judge(moved[0], moved[-1] + 1))
    return [np.mean(v) if v else np.nan for v in votes]

def one_by_one(places, ends, w, judge):
    joined, out = WindowAggregator(w, judge), []
    for p, e in zip(places, ends): out += joined.add(p, e)
    return out + joined.close()

noise = np.random.default_rng(0).normal(size=400)
def judge(a, b): return float(noise[a:b].max())

@given(st.lists(st.integers(1, 40), min_size=1, max_size=40), st.integers(1, 60), st.integers(1, 60), st.sampled_from(["overlap", "online"]))
@fewer(deadline=None)
def test_windows_in_time(steps, W, S, mode):
    "frames at any distance, gaps longer than windows among them: as the definition says, word for word"
    S, ends = min(S, W), np.cumsum(steps).tolist()
    places = [0, *ends[:-1]]
    w = Windows(W / 1000, S / 1000, mode, 1000 / steps[-1], "seconds") # of milliseconds; the last frame stays for 1 / fps
    got = one_by_one(*([w.ticks(t / 1000) for t in x] for x in (places, ends)), w, judge)
    np.testing.assert_allclose(got, literal(places, ends, W, S, mode, judge), atol=1e-9)

@given(st.integers(1, 60), st.integers(1, 25), st.integers(1, 25), st.sampled_from(["overlap", "online"]),
       st.sampled_from([25., 10., 30000 / 1001, 24000 / 1001, 12.5]))
@fewer(deadline=None)
def test_at_a_constant_rate_it_is_as_it_was(length, n, stride, mode, fps):
    "windows that count frames, and windows in time of frames that come evenly, whatever the slack: the same scores to the last bit"
    stride = min(stride, n)
    counted = one_by_one([None] * length, [None] * length, Windows(n, stride, mode, fps), judge)
    for slack in (0., .5 / fps):
        w = Windows(n / fps, stride / fps, mode, fps, "seconds", slack)
        places, ends = ([w.ticks(t / fps + slack) for t in range(a, length + a)] for a in (0, 1))
        np.testing.assert_array_equal(one_by_one(places, ends, w, judge), counted)
    np.testing.assert_allclose(counted, literal(list(range(length)), list(range(1, length + 1)), n, stride, mode, judge), atol=1e-9)

def test_a_lost_frame_leaves_a_hole():
    "of frames that come evenly some are missing: the windows stay where they are"
    places = [0, 1, 2, 5, 6, 7, 8, 9]
    ends = [p + 1 for p in places]
    np.testing.assert_allclose(one_by_one(places, ends, Windows(4, 2, "online"), judge), literal(places, ends, 4, 2, "online", judge))

def test_a_film_of_two_rates(tmp_path):
    "thirty frames in a second, then five a second: a window of a second is a second in both halves"
    times = np.r_[np.arange(30) / 30, 1 + np.arange(20) / 5]
    record = score_video(write_film(tmp_path / "film.mp4", times), Mean(), tmp_path / "out", name="x", window=1, stride=.5, mode="online")
    t = scores(tmp_path / "out")
    np.testing.assert_allclose(t.seconds, times, atol=.001)
    ends = np.r_[times[1:], times[-1] + 1 / record["source"]["fps"]]
    values = np.array([f.mean() for f in open_video(tmp_path / "film.mp4").read()])
    def us(x): return np.round(x * 1e6).astype(int).tolist()
    expected = literal(us(times), us(ends), 10**6, 5 * 10**5, "online", lambda a, b: values[a:b].mean())
    np.testing.assert_allclose(t.score, expected, atol=1e-6)
    assert t.score[:29].isna().all() and t.score.notna()[29:].all()
    assert record["source"]["variable"] and record["latency"]["first_after"] == 1 and record["windows"]["unit"] == "seconds"
    copy = open_video(tmp_path / "out/x.scored.mp4")
    np.testing.assert_allclose(copy.times(), times, atol=2e-5)
    left = score_video(tmp_path / "film.mp4", Mean(), tmp_path / "out", name="x", duration=2., video=False)
    assert 35 <= left["frames"] <= 36 + BATCH and scores(tmp_path / "out").seconds.iloc[-1] >= 2.

def test_a_rate_that_is_given(tmp_path):
    times = np.r_[np.arange(10) / 30, 1 + np.arange(10) / 5]
    record = score_video(write_film(tmp_path / "film.mp4", times), Mean(), tmp_path / "out", name="x", fps=10, video=False)
    np.testing.assert_allclose(scores(tmp_path / "out").seconds, np.arange(20) / 10)
    assert record["source"]["rate"] == "given" and not record["source"]["variable"]


# ---- one pass over what there is

@needs_cases
@pytest.mark.parametrize("path", CASES, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_all_commands_agree(path, tmp_path):
    video = open_video(path, partial=True)
    record = score_video(path, Mean(), tmp_path, name="x", video=path.parent.name in ("time", "damaged"))
    t = scores(tmp_path)
    assert len(t) == video.frames == record["frames"] and t.seconds.tolist() == [float(f"{s:.3f}") for s in video.times()]
    assert record["source"]["damaged"] == video.damaged and record["ended"] == list(video.notes) and record["source"]["fps"] == video.fps
    if path.is_file(): assert record["source"]["decoding"]["decoder"].startswith("pyav")
    if (tmp_path / "x.scored.mp4").exists(): np.testing.assert_allclose(open_video(tmp_path / "x.scored.mp4").times(), video.times(), atol=2e-5)

@needs_cases
def test_time_stamps_of_the_cases(tmp_path):
    for name, frame, seconds in (("vfr.mp4", -1, 6.8), ("vfr.mkv", -1, 6.8), ("gap.mp4", 30, 2.8)):
        score_video(shared(f"cases/time/{name}"), Mean(), tmp_path, name="x", video=False)
        assert scores(tmp_path).seconds.iloc[frame] == seconds

def test_damage_is_counted_in_one_pass(tmp_path, monkeypatch):
    path = write_film(tmp_path / "film.mkv", np.arange(40) / 10, grays=np.random.default_rng(0).integers(0, 255, 40), g="4")
    data = bytearray(path.read_bytes())
    data[len(data) // 2:len(data) // 2 + 60] = bytes(60)
    path.write_bytes(data)
    video = open_video(path, partial=True)
    assert 0 < video.damaged < 40
    passes = []
    def counted(*args):
        passes.append(0)
        for s in decoded(*args):
            passes[-1] += 1
            yield s
    monkeypatch.setattr("vad.data.decoder.decoded", counted)
    record = score_video(path, Mean(), tmp_path, name="x", video=False)
    assert passes == [video.frames]      # not even the first frame for its size: its packet was decoded on the way
    assert record["source"]["damaged"] == video.damaged and str(video.damaged) in record["ended"][0] and str(video.frames) in record["ended"][0]

@pytest.mark.parametrize("path", CASES, ids=lambda p: p.name)
def test_the_size_is_that_of_the_first_frame(path):
    "a film's packets tell the size of the first frame that is shown"
    try: first = next(Reading(path).__iter__()).image.shape[:2]
    except UserError: return # some cases hold no frame
    assert Reading(path).size == first
    assert path.is_dir() or packet_stamps(path).size in (None, first)

def test_damage_so_far(tmp_path):
    "who stops is told of what was read, and nothing of the rest"
    for i in range(30): cv2.imwrite(str(tmp_path / f"{i:03d}.jpg"), np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8))
    for i in (1, 28):
        data = (tmp_path / f"{i:03d}.jpg").read_bytes()
        (tmp_path / f"{i:03d}.jpg").write_bytes(data[:len(data) // 2] + data[-2:])
    record = score_video(tmp_path, Mean(.02), tmp_path / "out", name="x", duration=.2, video=False)
    assert record["frames"] < 30 and record["source"]["damaged"] == 1 and "1 of the" in record["ended"][0]
    assert score_video(tmp_path, Mean(), tmp_path / "out", name="x", video=False)["source"]["damaged"] == 2

def test_interlaced(tmp_path):
    try:
        subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25:duration=1", "-vf", "setfield=tff", "-c:v", "libx264",
                        "-flags", "+ildct+ilme", "-x264opts", "tff=1", "-pix_fmt", "yuv420p", tmp_path / "a.mp4"], check=True)
    except (FileNotFoundError, subprocess.CalledProcessError): pytest.skip("interlaced film is made by ffmpeg with libx264")
    record = score_video(tmp_path / "a.mp4", Mean(), tmp_path, name="x", video=False)
    assert record["frames"] == 25 == open_video(tmp_path / "a.mp4").frames and scores(tmp_path).score.min() > 50
    assert record["source"]["decoding"]["fields"] == "deinterlaced"

def test_frames_within_some_seconds(tmp_path):
    times = np.r_[np.arange(30) / 30, 1 + np.arange(20) / 5]
    reading = Reading(write_film(tmp_path / "film.mp4", times))
    for w in (.1, .5, 1., 3.): assert reading.most(w) >= max(((times >= a) & (times < a + w)).sum() for a in times)


# ---- streams

@pytest.fixture
def serve(tmp_path):
    "an HTTP server of a folder; ?cut breaks off after two thirds, ?bare announces no length"
    servers = []
    def start(folder):
        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args): super().__init__(*args, directory=folder)
            def log_message(self, *args): pass
            def do_GET(self):
                server.asked += 1
                path, _, how = self.path.partition("?")
                if not how: return super().do_GET()
                data = (folder / path[1:]).read_bytes()
                self.send_response(200)
                if how == "cut": self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[:len(data) * 2 // 3] if how == "cut" else data)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.asked = 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server, f"http://127.0.0.1:{server.server_port}"
    yield start
    for s in servers:
        s.shutdown()
        s.server_close()

@needs_cases
@pytest.mark.parametrize("name", ["x.ts", "x.mjpeg", "x.h264", "x.mpeg", "x.ogv", "x.m4v", "x.webm", "x.flv", "longaudiomkv_as.mp4", "vfr.mp4", "gap.mp4"])
def test_a_film_on_a_server_ends_once(serve, tmp_path, name):
    "and has the scores of the file, in windows too"
    path = next(p for p in CASES if p.name == name)
    server, address = serve(path.parent)
    for mode in ("overlap", "online"):
        common = dict(run=Mean(), out=tmp_path, window=.3, mode=mode, video=False)
        record = score_video(f"{address}/{name}", name="net", pause=.05, **common)
        file = score_video(path, name="file", **common)
        assert record["ended"] == [] and record["source"]["breaks"] == [] and record["frames"] == file["frames"]
        pd.testing.assert_frame_equal(scores(tmp_path, "net"), scores(tmp_path, "file"), check_exact=True)
    assert server.asked <= 4 # none for a second look

def test_a_film_that_breaks_off(serve, tmp_path):
    rng = np.random.default_rng(0)
    write_film(tmp_path / "film.ts", np.arange(60) / 25, rng.integers(0, 255, 60))
    _, address = serve(tmp_path)
    record = score_video(f"{address}/film.ts?cut", Mean(), tmp_path / "out", name="x", video=False, pause=.05)
    assert 10 < record["frames"] < 60 and len(record["ended"]) == 1 and f"broke off after {record['frames']} frames" in record["ended"][0]

def test_a_film_whose_length_nobody_says(serve, tmp_path):
    "it is opened once more, begins as it began, and that is its end"
    write_film(tmp_path / "film.ts", np.arange(40) / 25)
    server, address = serve(tmp_path)
    record = score_video(f"{address}/film.ts?bare", Mean(), tmp_path / "out", name="x", video=False, pause=.05)
    assert server.asked == 2 and record["frames"] + record["source"]["dropped"] == 40 and record["source"]["breaks"] == []

def test_a_playlist_opens_no_files(serve, tmp_path):
    film = write_film(tmp_path / "film.ts", np.arange(40) / 25)
    (tmp_path / "www").mkdir()
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n"
    (tmp_path / "www/local.m3u8").write_text(f"{head}#EXTINF:1.6,\nfile://{film}\n#EXT-X-ENDLIST\n")
    (tmp_path / "www/own.m3u8").write_text(f"{head}#EXTINF:1.6,\nfilm.ts\n#EXT-X-ENDLIST\n")
    (tmp_path / "www/film.ts").write_bytes(film.read_bytes())
    _, address = serve(tmp_path / "www")
    with pytest.raises(UserError, match="local.m3u8"): score_video(f"{address}/local.m3u8", Mean(), tmp_path / "out", attempts=1, pause=.05)
    record = score_video(f"{address}/own.m3u8", Mean(), tmp_path / "out", name="x", video=False)
    assert record["frames"] == 40 and record["ended"] == []

def test_a_live_stream_with_time_stamps(tmp_path):
    "each connection brings another stretch of film without a length: seconds go on, and a break is a new piece"
    stretches = [write_film(tmp_path / f"{i}.ts", 2 + np.arange(40) / 25, range(20 + 50 * i, 60 + 50 * i)).read_bytes() for i in range(2)]
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args): pass
        def do_GET(self):
            if not stretches: return self.send_error(503)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(stretches.pop(0))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = open_source(f"http://127.0.0.1:{server.server_port}/live.ts", attempts=1, pause=.05)
        got = list(source.read(threading.Event()))
        server.shutdown()
    seconds, pieces = (np.array([getattr(f, name) for f in got]) for name in ("seconds", "piece"))
    assert source.live and not source.even and pieces.tolist() == [0] * 40 + [1] * 40
    assert source.breaks[0]["after"] == 40 and "did not come back in 1 attempts" in source.notes[0]
    for part in (seconds[:40], seconds[40:]): np.testing.assert_allclose(np.diff(part), .04, atol=1e-9)
    assert seconds[0] == 0 and seconds[40] > seconds[39]
    assert all(a.until <= b.seconds + 1e-9 for a, b in zip(got, got[1:]) if a.piece == b.piece) # what was said to be over is over

def test_a_wrong_rate_of_a_camera(camera, tmp_path): # noqa: F811
    "a camera without time stamps gives more frames than windows count on: the record tells the right rate"
    c = camera([60])
    record = score_video(c.address, Mean(), tmp_path, name="x", fps=2, window=1, attempts=0, video=False)
    assert any("use --fps" in s for s in record["ended"]) and record["source"]["rate"] == "given"

def test_stamps_of_a_live_stream(tmp_path):
    "what trembles and comes in bursts is scored in windows of the right length"
    times = np.arange(100) / 25 + np.random.default_rng(0).uniform(-.01, .01, 100)
    clock = StreamClock(25, .02, lambda: 99.)
    seen = [clock(t) for t in times + 5.]
    np.testing.assert_allclose(seen, times - times[0], atol=1e-9)
    clock.restart()
    again = clock(0.)
    assert again == 99. and clock(.04) == pytest.approx(99.04) and clock(.04) == pytest.approx(99.06)
    assert clock(None) == pytest.approx(99.08) and clock(1000.) == pytest.approx(99.1)

def test_an_address_of_a_file(tmp_path):
    path = write_film(tmp_path / "a film.mp4", np.arange(12) / 25)
    source = open_source(path.as_uri())
    assert isinstance(source, Source) and (source.kind, source.frames) == ("file", 12)

def test_opencv_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("VAD_DECODER", "opencv")
    record = score_video(write_film(tmp_path / "film.mp4", np.arange(25) / 25), Mean(), tmp_path / "out", name="x")
    assert record["source"]["decoding"]["decoder"].startswith("opencv") and record["frames"] == 25
    assert int(cv2.VideoCapture(str(tmp_path / "out/x.scored.mp4")).get(cv2.CAP_PROP_FRAME_COUNT)) == 25
    assert read_json(tmp_path / "out/x.scores.json")["source"]["decoding"] == record["source"]["decoding"]


# ---- the explorers

@needs_cases
def test_what_a_model_saw_of_a_damaged_film(run, tmp_path): # noqa: F811
    "as many frames, with the numbers and scores of the command, and the damage noted"
    for name in ("flips.mp4", "zeros.mp4", "flips.mp4"): # once more, now that its frames are cached
        path = shared(f"cases/damaged/{name}")
        inspector = FrameInspector(run, path, "cpu")
        video, trace = open_video(path, partial=True), inspector.trace(0)
        assert int(inspector.frames.lengths[0]) == video.frames and trace.frames[-1] == video.frames - 1
        with pytest.raises(UserError, match="damaged"): cache_frames([open_video(path)], (16, 16), 1)
        assert any(f"{video.damaged} of its frames are wrong or lost" in w for w in inspector.data.warnings)
