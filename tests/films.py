"Films whose frames carry their number as black and white blocks, in any codec and container that PyAV can write."
import os
import shutil
import subprocess
from fractions import Fraction

import numpy as np
import pytest

os.environ.setdefault("SVT_LOG", "0") # an encoder that talks
av = pytest.importorskip("av", reason="PyAV is not installed")

ROWS, COLUMNS = 4, 4 # blocks: each bit of the number, lowest first, and beside it its inverse
HIDES = (".mp4", ".mov", ".m4v", ".3gp") # containers whose edit list hides frames in front of a cut
QUIET = {"libx264": {"mbtree": "0"}, # its code for AVX-512 gives other bytes from run to run
         "libx265": {"x265-params": "log-level=none:pools=none"}, "libsvtav1": {"preset": "8", "crf": "30"}, "libvpx": {"deadline": "realtime", "cpu-used": "8"},
         "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"}} # quick encoders that say nothing, and always the same


def picture(number, size=(96, 128), noise=0): # -> (H, W, 3) uint8 BGR; noise: how strong, which makes films large
    "a frame: the number above, and a strip of colours in which a white bar moves by two pixels a frame"
    bits = [number >> i // 2 & 1 ^ i % 2 for i in range(ROWS * COLUMNS)]
    h, w = size
    top = h * 2 // 3 // ROWS * ROWS
    frame = np.empty((h, w, 3), np.uint8)
    frame[:top] = np.kron(255 * np.array(bits, np.uint8).reshape(ROWS, COLUMNS), np.ones((top // ROWS, -(-w // COLUMNS)), np.uint8))[:, :w, None]
    frame[top:] = np.linspace((40, 200, 90), (220, 60, 150), w).astype(np.uint8)
    if noise: frame[top:] += np.random.default_rng(number).integers(0, noise, frame[top:].shape, np.uint8)
    frame[top:, np.arange(2 * number, 2 * number + 8) % w] = 255
    return frame

def woven(number, size, first): # first: tff | bff, the field that is seen first
    "an interlaced frame: its two fields are half a frame apart, the bar one pixel on"
    frame = picture(number, size)
    frame[1 if first == "tff" else 0::2] = np.roll(frame, 1, 1)[1 if first == "tff" else 0::2]
    top = size[0] * 2 // 3 // ROWS * ROWS
    frame[:top] = picture(number, size)[:top]
    return frame

def number_of(frame): # (H, W, 3) or (H, W) -> int, -1 where it shows no number
    "the number that a frame shows, whatever its size"
    gray = frame.mean(2) if frame.ndim == 3 else frame.astype(float)
    h, w = gray.shape[0] * 2 // 3 // ROWS, gray.shape[1] / COLUMNS
    cells = [gray[r * h + h // 4:(r + 1) * h - h // 4, int((c + .25) * w):int((c + .75) * w)].mean() for r in range(ROWS) for c in range(COLUMNS)]
    bits = [b > 128 for b in cells]
    clear = all(abs(b - 128) > 50 for b in cells) and all(a != b for a, b in zip(bits[::2], bits[1::2]))
    return sum(int(b) << i for i, b in enumerate(bits[::2])) if clear else -1

def numbers_of(frames): return [number_of(f) for f in frames]

def marked(frame, order):
    "a frame of PyAV that says that it is interlaced"
    graph = av.filter.Graph()
    nodes = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 25)),
             graph.add("setfield", order), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    graph.push(frame)
    return graph.pull()

def paletted(image):
    "a frame of PyAV with 256 grays for colours"
    grays = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, 1)
    grays[:, 0] = 255 # opaque
    return av.VideoFrame.from_ndarray((image[..., 1], grays), format="pal8")

def write_film(path, numbers, codec="libx264", fps=25, pts=None, size=(96, 128), options=None, interlaced=None, pix_fmt="yuv420p", rotation=0,
               colorspace=None, noise=0):
    "a film of numbered frames; pts: seconds of each; interlaced: tff | bff; rotation: degrees counter-clockwise that players turn it; colorspace: of H.273"
    path.parent.mkdir(parents=True, exist_ok=True)
    extra = dict(threads="1") | QUIET.get(codec, {}) | (dict(flags="+ildct+ilme") if interlaced else {}) | (options or {})
    base = Fraction(1, 60_000) if pts is not None else 1 / Fraction(fps).limit_denominator(1001)
    try: av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError: pytest.skip(f"this FFmpeg cannot write {codec}")
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=extra)
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        if pts is not None: stream.codec_context.time_base = base
        if interlaced and hasattr(stream.codec_context, "field_order"): stream.codec_context.field_order = dict(tff=2, bff=3)[interlaced]
        if colorspace: stream.codec_context.colorspace = colorspace
        if rotation: stream.set_display_rotation(rotation)
        for i, n in enumerate(numbers):
            frame = paletted(picture(n, size, noise)) if pix_fmt == "pal8" else \
                av.VideoFrame.from_ndarray(woven(n, size, interlaced) if interlaced else picture(n, size, noise), format="bgr24")
            frame.time_base, frame.pts = base, round(pts[i] / base) if pts is not None else i
            if interlaced: frame = marked(frame.reformat(format=pix_fmt, threads=1), interlaced)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path

def write_streams(path, *streams, fps=25, cover=(), sound=0):
    "a film of several streams of numbered frames (lists of numbers); cover: indices of those that are a picture of the film; sound: seconds of silence"
    with av.open(str(path), "w") as out:
        videos = [out.add_stream("mjpeg" if i in cover else "libx264", rate=fps, options={} if i in cover else QUIET["libx264"]) for i in range(len(streams))]
        audio = out.add_stream("aac", rate=8000, layout="mono") if sound else None
        for i, video in enumerate(videos):
            video.height, video.width, video.pix_fmt = 96, 128, "yuvj420p" if i in cover else "yuv420p"
            if i in cover: video.disposition = av.stream.Disposition.attached_pic
        for video, numbers in zip(videos, streams):
            for i, n in enumerate(numbers):
                frame = av.VideoFrame.from_ndarray(picture(n), format="bgr24")
                frame.pts = i
                out.mux(video.encode(frame))
        for k in range(int(sound * 8000 / 1024)):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, 1024 * k
            out.mux(audio.encode(frame))
        for stream in [*videos, audio] if audio else videos: out.mux(stream.encode())
    return path

def packets_of(film): # -> packets, (n,) seconds since the first frame
    stream = film.streams.video[0]
    packets = [p for p in film.demux(stream) if p.size]
    zero = min(p.pts for p in packets)
    return packets, np.array([float((p.pts - zero) * p.time_base) for p in packets])

def where_to_cut(packets, at, start, key):
    "the packet with which a copy begins"
    if key: return max(i for i, p in enumerate(packets) if p.is_keyframe and at[i] <= start + 1e-3)
    return next(i for i, t in enumerate(at) if t >= start - 1e-3)

def copy_film(source, path, start=0., key=True, **options): # options: of the container
    """a stream copy of a film from `start` seconds on. key: from the key frame before that, the frames in front of `start` at times below 0 (an edit list
    hides them, in containers that have one); else without a key frame in front"""
    with av.open(str(source)) as film:
        packets, at = packets_of(film)
        offset = min(p.pts for p in packets) + round(start / film.streams.video[0].time_base)
        with av.open(str(path), "w", options=dict(avoid_negative_ts="disabled" if key and path.suffix in HIDES else "make_zero") | options) as out:
            copy = out.add_stream_from_template(film.streams.video[0], opaque=True)
            for p in packets[where_to_cut(packets, at, start, key):]:
                p.pts -= offset
                if p.dts is not None: p.dts -= offset
                p.stream = copy
                out.mux(p)
    return path

def shown_by_copy(source, suffix, start, key): # -> indices of the frames of `source`
    "what a player shows of such a copy, by the packets of the film that it was made of"
    with av.open(str(source)) as film:
        packets, at = packets_of(film)
        begin = where_to_cut(packets, at, start, key)
        first = at[next(i for i in range(begin, len(packets)) if packets[i].is_keyframe)]
        if key and suffix in HIDES: first = start
        return [i for i, t in enumerate(sorted(at)) if t >= first - 1e-3]

def flip(path, places=(.4, .5, .6), n=60):
    "flip the bits of some bytes in the middle of the pictures; in three places, since a decoder need not miss each byte"
    data = bytearray(path.read_bytes())
    begin = data.find(b"mdat") + 8
    for at in places:
        for i in range(n): data[int(begin + at * (len(data) - begin)) + i] ^= 0xff
    path.write_bytes(data)

def ffmpeg(*args):
    "run the program ffmpeg, for what PyAV cannot write"
    if not shutil.which("ffmpeg"): pytest.skip("the program ffmpeg is not installed")
    done = subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, args)], capture_output=True, text=True)
    if "Unknown encoder" in done.stderr: pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
