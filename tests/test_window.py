"Scores of films and streams: the same as cut clips and whole evaluations give, whatever the source does; streams that break, hang and are stopped."
import http.server
import json
import os
import shutil
import signal
import threading
import time
import weakref
from collections import deque
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import litter, square
from hypothesis import given, settings as fewer, strategies as st

from vad.training import classifier, trainer
from vad.training.splits import open_clips
from vad.data.clips import collect
from vad.core.errors import UserError
from vad.core.records import read_json, write_json
from vad.data.datasets import open_dataset
from vad.data.embedding import Recipe, embed
from vad.training.evaluation import evaluate
from vad.use.scorers import open_scorer
from vad.use.sources import LIVE_QUEUE, QUEUE, FrameReader, Source, open_source
from vad.use.streaming import score_frames, score_video
from vad.data.video import open_video
from vad.use.windows import WindowAggregator, Windows

TINY = trainer.Settings(size=(16, 16), channels=1, width=2, items=3, batch=4, epochs=2, lr=1e-3, schedule="step", threshold=.002, precision="fp32")


class Mean:
    "the mean gray of a window's frames: a scorer whose answers can be told beforehand"
    bounds, threshold, lead = (0., 255.), None, 0
    def __init__(self, seconds=0.): self.seconds = seconds
    def start(self, keep, heat): self.keep = keep
    def begin(self): self.values, self.seen = deque(maxlen=self.keep), 0
    def see(self, images):
        time.sleep(self.seconds)
        self.values.extend(float(f.mean()) for f in images)
        self.seen += len(images)
    def score(self, a, b): return float(np.mean([self.values[t - self.seen] for t in range(a, b)]))
    def error(self, t): return None
    def facts(self): return dict(kind="mean gray")

def gray(values, size=(48, 64)):
    for v in values: yield np.full((*size, 3), v, np.uint8)

def table(out, name): return pd.read_csv(out / f"{name}.scores.csv")

def write_film(path, frames, code="FFV1", fps=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    film = None
    for f in frames:
        film = film or cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), fps, f.shape[1::-1])
        film.write(f)
    film.release()
    return path

def blocks(n, seed):
    "frames of random blocks"
    rng = np.random.default_rng(seed)
    for _ in range(n): yield cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (64, 48), interpolation=cv2.INTER_NEAREST)

def naive(values, n, stride, mode):
    "scores of frames from all of the film at once; a window's score is the mean of its values"
    length = len(values)
    spans = [(a, a + n) for a in range(0, length - n + 1, stride)]
    if mode == "online": return np.array([next((np.mean(values[a:b]) for a, b in reversed(spans) if b - 1 <= t), np.nan) for t in range(length)])
    places = [a for a, _ in spans]
    if not spans or spans[-1][1] < length: # a last window, moved back into the film, speaks for the frames it would have held
        places.append(len(spans) * stride)
        spans.append((max(0, length - n), length))
    return np.array([np.mean([np.mean(values[a:b]) for at, (a, b) in zip(places, spans) if at <= t < b]) for t in range(length)])


# ---- windows

films = st.tuples(st.integers(1, 60), st.integers(1, 25), st.integers(1, 25), st.sampled_from(["overlap", "online"])).filter(lambda x: x[2] <= x[1])

def join_all(values, n, stride, mode):
    w = Windows(n, stride, mode)
    joined, out = WindowAggregator(w, lambda a, b: float(np.mean(values[a:b]))), []
    for t in range(len(values)):
        out += joined.add()
        assert len(joined.sums) <= n        # what waits has a bound
        assert len(out) >= t + 1 - w.wait   # and the stated delay is kept
    return out + joined.close()

@given(films)
@fewer(deadline=None)
def test_fused_as_they_come(film):
    length, n, stride, mode = film
    values = np.random.default_rng(length).normal(size=length)
    np.testing.assert_allclose(join_all(values, n, stride, mode), naive(values, n, stride, mode), atol=1e-9)

@given(films, st.integers(1, 59))
@fewer(deadline=None)
def test_the_past_stays(film, cut):
    "what has been said is not taken back when more frames come"
    length, n, stride, mode = film
    values = np.random.default_rng(length).normal(size=length)
    joined, said = WindowAggregator(Windows(n, stride, mode), lambda a, b: float(np.mean(values[a:b]))), []
    for _ in range(min(cut, length)): said += joined.add()
    np.testing.assert_allclose(said, naive(values, n, stride, mode)[:len(said)], atol=1e-9)

def test_settings_that_cannot_be(tmp_path):
    frames = list(gray([1, 2, 3]))
    for changes, word in ((dict(window=1, stride=2), "leaves frames out"), (dict(window=-1), "over 0"), (dict(mode="sideways"), "overlap or online"),
                          (dict(fps=0), "over 0"), (dict(duration=0), "over 0")):
        with pytest.raises(UserError, match=word): score_video(iter(frames), Mean(), tmp_path, **changes)
    with pytest.raises(UserError, match="gave no frame"): score_video(iter([]), Mean(), tmp_path)
    assert not list(tmp_path.iterdir())


# ---- the memory models

@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    "a trained and evaluated memory model"
    data = open_dataset(tiny)
    run = trainer.fit(TINY, data, tmp_path_factory.mktemp("runs") / "memory", "cpu")
    evaluate(run.folder, data, "cpu")
    return run

@pytest.fixture(scope="module")
def truth(run):
    "what the evaluation says of its first video"
    t = pd.read_csv(run / "scores.csv", dtype=dict(video=str))
    return t[t.video == "01"].online.to_numpy()

def walk(tiny): return [cv2.imread(str(p)) for p in sorted((tiny / "testing/frames/01").iterdir())]

@pytest.mark.parametrize("kind", ["folder", "iterator"])
def test_as_the_evaluation_says(run, truth, tiny, tmp_path, kind):
    source = tiny / "testing/frames/01" if kind == "folder" else iter(walk(tiny))
    record = score_video(source, run.folder, tmp_path, name="x", device="cpu")
    t = table(tmp_path, "x")
    assert t.frame.tolist() == list(range(20)) and t.score[:4].isna().all()
    np.testing.assert_allclose(t.score[4:], truth, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(t.seconds, np.arange(20) / 25)
    assert record["latency"]["frames"] == 0 and record["latency"]["first_after"] == .2
    assert record["scored"] == 16 and record["ended"] == [] and record["threshold"] is not None
    film = open_video(tmp_path / "x.scored.mp4")
    assert (film.frames, film.size) == (20, (32, 32)) and sorted(p.name for p in tmp_path.iterdir()) == [f"x.score{e}" for e in ("d.mp4", "s.csv", "s.json", "s.png")]

def test_windows_average_it(run, truth, tiny, tmp_path):
    score_video(tiny / "testing/frames/01", run.folder, tmp_path, window=.2, stride=.08, device="cpu", video=False) # 5 and 2 frames
    values = np.r_[[np.nan] * 4, truth]
    spans = [(a, a, a + 5) for a in range(0, 16, 2)] + [(16, 15, 20)] # the last one moved back by a frame
    mean = [np.mean([np.nanmean(values[a:b]) for place, a, b in spans if place <= t < b]) for t in range(20)]
    np.testing.assert_allclose(table(tmp_path, "01").score, mean, rtol=1e-4, atol=1e-4)

def test_statistics(run, tiny, tmp_path):
    "left by an evaluation, or computed from training videos: the same scores"
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("model.safetensors", "record.json"): shutil.copy(run / name, bare)
    with pytest.raises(UserError, match="training="): open_scorer(bare, "cpu")
    computed = open_scorer(bare, "cpu", training=tiny)
    again, recovered = open_scorer(bare, "cpu"), open_scorer(run.folder, "cpu")
    assert again.detector.reference == computed.detector.reference and again.threshold == computed.threshold == pytest.approx(recovered.threshold)
    scores = [[s.score for s in score_frames(FrameReader(open_source(iter(walk(tiny)))), scorer, Windows(1, 1))] for scorer in (computed, recovered)]
    np.testing.assert_allclose(*scores, rtol=1e-5, atol=1e-5)
    assert open_scorer(bare, "cpu", alpha=1.).threshold is None     # statistics serve any weight, a threshold its own
    evaluate(bare, open_dataset(tiny), "cpu", into="psnr", alpha=1.)
    both = open_scorer(bare, "cpu", alpha=1.), open_scorer(bare, "cpu")
    assert both[0].threshold is not None and both[0].threshold != both[1].threshold == pytest.approx(again.threshold)
    with pytest.raises(UserError, match="fixed by training"): open_scorer(run.folder, "cpu", width=3)
    with pytest.raises(UserError, match="watch is for classifiers"): open_scorer(run.folder, "cpu", watch="fight")

def test_no_clip_spans_a_break(run, tiny):
    "frames after a break begin anew, but the memory stays"
    frames = walk(tiny)
    def read(stop):
        for t, f in enumerate(frames): yield int(t >= 9), f
    source = Source("x", "frames", "a test", 10., "given", read)
    got = [s.score for s in score_frames(FrameReader(source), open_scorer(run.folder, "cpu"), Windows(1, 1))]
    assert np.flatnonzero(np.isnan(got)).tolist() == [0, 1, 2, 3, 9, 10, 11, 12]

def test_heat_is_where_the_error_is(run, tiny, tmp_path):
    scorer = open_scorer(run.folder, "cpu")
    frames = walk(tiny)
    frames[12][20:28, 4:12] = 255 # nobody could foresee this
    found = list(score_frames(FrameReader(open_source(iter(frames))), scorer, Windows(1, 1), images=True))
    error = found[12].error.astype(float)
    y, x = np.unravel_index(error.argmax(), error.shape)
    assert 10 <= y < 14 and 2 <= x < 6 and found[12].score == max(s.score for s in found[4:])


# ---- the classifier

SMALL = dict(method="cnn", frames=5, width=16, size=32, batch=4, device="cpu")

@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    for i in range(3): write_film(root / f"films/normal/n{i}.avi", blocks(8, i))
    for i in range(3): write_film(root / f"films/anomalous/a{i}.avi", (255 - f // 3 for f in blocks(8, 9 + i)))
    embed(root / "films", root / "out", **SMALL)
    return root

@pytest.fixture(scope="module")
def classifiers(tree):
    "a run that reads features, and one that reads their changes"
    s = classifier.ClassifierSettings(hidden=8, layers=1, cell="sru", epochs=2, batch=2, lr=1e-2)
    return {kind: classifier.fit_classifier(replace(s, inputs=kind), open_clips(tree / "out"), tree / kind, "cpu").folder for kind in ("features", "change")}

@pytest.mark.parametrize("kind", ["features", "change"])
def test_a_window_is_a_clip(classifiers, tree, tmp_path, kind):
    "the score of a window is what the clip gets that somebody cuts out there and embeds"
    frames, n, stride = list(blocks(27, 5)), 10, 4
    film = write_film(tmp_path / "film.avi", frames)
    spans = [(a, a + n) for a in range(0, 18, stride)] + [(17, 27)]
    for a, b in spans: write_film(tmp_path / f"cut/normal/{a:02d}.avi", frames[a:b])
    write_film(tmp_path / "cut/anomalous/x.avi", frames[:3])
    embed(collect(tmp_path / "cut"), tmp_path / "cut_out", **SMALL)
    model, _, _ = classifier.load_classifier(classifiers[kind])
    clips = open_clips(tmp_path / "cut_out")
    p = dict(zip(clips.names, 1 - classifier.predict(model, clips)[0][:, 0]))
    values = [next(v for k, v in p.items() if f"{a:02d}.avi" in k) for a, _ in spans]
    common = dict(window=1, stride=.4, recipe=tree / "out", device="cpu", video=False)
    record = score_video(film, classifiers[kind], tmp_path, **common)
    places = [a for a, _ in spans[:-1]] + [20]
    mean = [np.mean([v for v, place, (a, b) in zip(values, places, spans) if place <= t < b]) for t in range(27)]
    np.testing.assert_allclose(table(tmp_path, "film").score, mean, atol=1e-5)
    assert record["latency"]["frames"] == 9 and record["source"]["rate"] == "stated"
    score_video(film, classifiers[kind], tmp_path, mode="online", watch="anomalous", **common)
    held = [next((v for v, (a, b) in reversed(list(zip(values[:-1], spans[:-1]))) if b - 1 <= t), np.nan) for t in range(27)]
    np.testing.assert_allclose(table(tmp_path, "film").score, held, atol=1e-5)

def test_the_recipe(classifiers, tree, tmp_path):
    folder = shutil.copytree(classifiers["features"], tmp_path / "run")
    record, made = read_json(folder / "record.json"), read_json(tree / "out/cnn_record.json")
    record["data"].pop("recipe", None)
    write_json(folder / "record.json", record)
    with pytest.raises(UserError, match="recipe="): open_scorer(folder, "cpu")
    record["data"]["recipe"] = made["recipe"]
    write_json(folder / "record.json", record)
    assert open_scorer(folder, "cpu").recipe == Recipe(**made["recipe"])
    with pytest.raises(UserError, match="no class 'arson'"): open_scorer(folder, "cpu", watch="arson")
    with pytest.raises(UserError, match="vectors of 24 numbers"): open_scorer(folder, "cpu", recipe=Recipe("cnn", width=24, size=32))
    with pytest.raises(UserError, match="memory models"): open_scorer(folder, "cpu", alpha=1.)
    (tree / "other_record.json").write_text(json.dumps(made | dict(network=made["network"] | dict(weights="others 123"))))
    with pytest.raises(UserError, match="others 123"): open_scorer(folder, "cpu", recipe=tree / "other_record.json")


# ---- streams

class Camera:
    "an HTTP server of JPEG frames whose gray is their number; a connection breaks after some frames"
    def __init__(self, connections, size=(48, 64)): # frames of each connection, None: endless; after the last one it does not answer
        self.left, self.size, self.sent, self.asked = list(connections), size, 0, 0
        camera = self
        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args): pass
            def do_GET(self): camera.serve(self)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://user:secret@127.0.0.1:{self.server.server_port}/live.mjpeg?key=hidden"

    def serve(self, h):
        self.asked += 1
        if not self.left: return h.send_error(503)
        n = self.left.pop(0)
        h.send_response(200)
        h.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        h.end_headers()
        try:
            while n is None or n > 0:
                jpeg = cv2.imencode(".jpg", np.full((*self.size, 3), self.sent % 250, np.uint8))[1].tobytes()
                h.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg) + jpeg + b"\r\n")
                self.sent, n = self.sent + 1, None if n is None else n - 1
                time.sleep(.01)
        except OSError: pass # nobody listens any more

    def close(self):
        self.server.shutdown()
        self.server.server_close()

@pytest.fixture
def camera():
    made = []
    def make(*args):
        made.append(Camera(*args))
        return made[-1]
    yield make
    for c in made: c.close()

def test_a_stream_that_breaks(camera, tmp_path):
    "it comes back twice, then not any more: all three pieces are scored, and the record tells"
    c = camera([40, 30, 30])
    record = score_video(c.address, Mean(), tmp_path, window=.4, stride=.2, attempts=2, pause=.05)
    name = f"127_0_0_1_{c.server.server_port}_live_mjpeg"
    t, lost = table(tmp_path, name), record["source"]["dropped"]
    breaks = [b["after"] for b in record["source"]["breaks"]]
    assert breaks == [40, 70] and len(t) + lost == 100 and record["frames"] == len(t)
    assert t.frame.tolist() == list(range(len(t))) and t.seconds.is_monotonic_increasing
    assert sum("did not come back in 2 attempts" in s for s in record["ended"]) == 1 and any("came back 2 times" in s for s in record["ended"])
    text = "".join((tmp_path / f).read_text() for f in (f"{name}.scores.json", f"{name}.scores.csv"))
    assert "secret" not in text and "hidden" not in text
    assert c.asked >= 5 and open_video(tmp_path / f"{name}.scored.mp4").frames == len(t)
    if lost: return # a machine too slow for a hundred frames a second
    gap = np.r_[0:9, 40:49, 70:79] # in each piece the first window has to end
    assert t.score.isna().to_numpy().nonzero()[0].tolist() == gap.tolist()
    values = np.concatenate([naive(np.arange(a, b), 10, 5, "online") for a, b in ((0, 40), (40, 70), (70, 100))])
    np.testing.assert_allclose(t.score.dropna(), values[~np.isnan(values)], atol=2.) # JPEG

def test_a_film_on_a_server(tmp_path):
    "it has an end, waits for us, and is not taken for a stream that broke off"
    write_film(tmp_path / "www/film.avi", gray(range(40)))
    def handler(*args): return Quiet(*args, directory=tmp_path / "www")
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        record = score_video(f"http://127.0.0.1:{server.server_port}/film.avi", Mean(.01), tmp_path / "out", name="x")
        server.shutdown()
    assert record["ended"] == [] and record["source"]["dropped"] == 0
    np.testing.assert_allclose(table(tmp_path / "out", "x").score, np.arange(40), atol=1)

def test_nobody_there(camera, tmp_path):
    c = camera([])
    with pytest.raises(UserError, match="cannot be opened") as e: score_video(c.address, Mean(), tmp_path)
    assert "secret" not in str(e.value) and not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="camera 97 cannot be opened"): score_video(97, Mean(), tmp_path)

@pytest.mark.parametrize("how", ["interrupt", "event", "duration"])
def test_stopping_keeps_what_was_scored(camera, tmp_path, how):
    c, event, some = camera([None]), threading.Event(), threading.Event()
    class Seen(Mean):
        def see(self, images):
            super().see(images)
            if self.seen >= 10: some.set()
    def stop():
        some.wait() # until there is something to keep
        event.set() if how == "event" else os.kill(os.getpid(), signal.SIGINT)
    if how != "duration": threading.Thread(target=stop, daemon=True).start()
    record = score_video(c.address, Seen(), tmp_path, name="live", stop=event, duration=.3 if how == "duration" else None)
    t = table(tmp_path, "live")
    assert len(t) == record["frames"] > 0 and record["latency"]["seconds"] == 0
    assert record["ended"][-1].startswith("Left after 0.3 seconds" if how == "duration" else "Stopped after")
    assert open_video(tmp_path / "live.scored.mp4").frames == len(t)

def test_a_hanging_source_hears_ctrl_c(tmp_path):
    hang = threading.Event()
    def frames():
        yield from gray(range(12))
        os.kill(os.getpid(), signal.SIGINT)
        hang.wait(30)
    record = score_video(frames(), Mean(), tmp_path, name="x")
    hang.set()
    assert record["frames"] <= 12 and "Stopped" in record["ended"][-1]

def test_too_slow_for_a_camera():
    "the oldest frames go, so what is scored is never older than the queue"
    taken, due = [], threading.Semaphore(5)
    def read(stop):
        for v in range(200):
            due.acquire()
            taken.append(v)
            yield 0, np.full((4, 4, 3), v, np.uint8)
    class Slow(Mean):
        "five frames come while one is scored"
        def see(self, images):
            super().see(images)
            until = min(len(taken) + 5, 200)
            due.release(5)
            while len(taken) < until: time.sleep(.001)
    reader = FrameReader(Source("x", "camera", "a test", 25., "given", read, live=True))
    lag = [len(taken) - 1 - round(s.score) for s in score_frames(reader, Slow(), Windows(1, 1, "online"))]
    assert reader.dropped > 100 and len(lag) + reader.dropped == 200 and LIVE_QUEUE <= max(lag) <= LIVE_QUEUE + 12 # while one was scored, some more came


# ---- files and iterators

def test_a_truncated_file(tmp_path):
    path = write_film(tmp_path / "film.avi", blocks(60, 0), "MJPG")
    data = path.read_bytes()
    path.write_bytes(data[:len(data) * 2 // 3])
    record = score_video(path, Mean(), tmp_path / "out")
    assert 20 < record["frames"] < 60 and len(table(tmp_path / "out", "film")) == record["frames"]
    assert len(record["ended"]) == 1 and "truncated" in record["ended"][0] and str(record["frames"]) in record["ended"][0]
    path.write_bytes(b"")
    with pytest.raises(UserError, match="empty"): score_video(path, Mean(), tmp_path / "out")

@pytest.mark.parametrize("size, fps", [((48, 64), 29.97), ((47, 65), 12.5), ((120, 90), 23.976023976)])
def test_the_copy(tmp_path, size, fps):
    frames = list(gray(np.linspace(40, 200, 30).astype(np.uint8), size))
    score_video(iter(frames), Mean(), tmp_path, fps=fps, window=.5, name="x", mode="overlap")
    film = open_video(tmp_path / "x.scored.mp4")
    assert film.frames == 30 and film.size == tuple(n // 2 * 2 for n in size)
    assert abs(cv2.VideoCapture(str(film.path)).get(cv2.CAP_PROP_FPS) - fps) < .01
    shown = [f[size[0] // 2, size[1] // 2].mean() for f in film.read()] # below the text, above the curve
    np.testing.assert_allclose(shown, [f[0, 0, 0] for f in frames], atol=8)

def test_too_short(tmp_path):
    for mode, there in (("online", 0), ("overlap", 5)):
        record = score_video(iter(list(gray(range(5)))), Mean(), tmp_path, window=2, mode=mode, name=mode)
        assert table(tmp_path, mode).score.notna().sum() == there == record["scored"] and ("too few" in str(record["ended"])) == (there == 0)

@pytest.mark.parametrize("mode", ["overlap", "online"])
def test_frames_are_let_go(tmp_path, mode):
    "a long iterator: no more frames alive than the window needs, whatever is drawn"
    alive, most = set(), []
    def frames():
        for i in range(400):
            x = np.full((24, 32, 3), i % 250, np.uint8)
            alive.add(i)
            weakref.finalize(x, alive.discard, i)
            most.append(len(alive))
            yield x
            del x
    record = score_video(frames(), Mean(), tmp_path, window=1, stride=.2, fps=20, mode=mode, name="x")
    assert record["frames"] == 400 and max(most) <= 20 + QUEUE + 4
    np.testing.assert_allclose(table(tmp_path, "x").score, naive(np.arange(400) % 250, 20, 4, mode), atol=1e-6)

def test_iterators_that_fail(tmp_path):
    def frames(error):
        yield from gray(range(7))
        raise error
    record = score_video(frames(ConnectionError("the cable is out")), Mean(), tmp_path / "a", name="x")
    assert record["frames"] == 7 and "the cable is out" in record["ended"][0]
    with pytest.raises(ZeroDivisionError): score_video(frames(ZeroDivisionError()), Mean(), tmp_path / "b") # a fault in the caller's code
    assert not litter(tmp_path) and not list((tmp_path / "b").glob("*"))
    with pytest.raises(UserError, match="float64"): score_video(iter([np.zeros((4, 4))]), Mean(), tmp_path / "b")
    assert not litter(tmp_path)

def test_a_full_disk(disk):
    rng = np.random.default_rng(0)
    frames = (rng.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(60))
    with pytest.raises(UserError, match="free some space|Free some space"): score_video(frames, Mean(), disk / "out", name="x")
    assert not litter(disk) and not list((disk / "out").glob("x*"))

def test_an_old_result_stays_when_a_new_one_fails(tmp_path):
    score_video(gray(range(9)), Mean(), tmp_path, name="x")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    def frames():
        yield from gray(range(5))
        raise KeyError("a fault")
    with pytest.raises(KeyError): score_video(frames(), Mean(), tmp_path, name="x")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before

def test_a_moving_square_in_gray(run, tmp_path):
    "frames may come without colours"
    record = score_video((square(t, 3) for t in range(12)), run.folder, tmp_path, name="x", device="cpu", video=False)
    assert record["scored"] == 8
