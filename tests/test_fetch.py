"Fetching: from a server on this machine to a checked dataset, with connections that break and archives that bite."
import hashlib
import io
import json
import os
import signal
import stat
import tarfile
import threading
import warnings
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from typer.testing import CliRunner

from apart import Apart, hold
from conftest import fill
from films import HIDES, copy_film, flip, numbers_of, write_film
from vad.cli import app
from vad.core.errors import UserError
from vad.core.provenance import shared
from vad.data.datasets import PUBLISHED, open_dataset
from vad.data.download import OFFICIAL, download, extract_frames, fetch_dataset, members, origin_file, unpack
from vad.data.film_writer import write_film as write_scene_film
from vad.data.video import open_video

TOP = "UCSD_Anomaly_Dataset.v1p2"


class Server:
    "Serves `files` on loopback; `breaks` = how many answers break off half way, `length` = whether it says the length."
    def __init__(self, files, breaks=0, length=True):
        server = self
        self.asked, self.breaks = [], breaks
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args): pass
            def do_GET(self):
                data = files.get(self.path[1:])
                server.asked.append(self.path[1:])
                self.send_response(404 if data is None else 200)
                if data is not None and length: self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if data is None: return
                self.wfile.write(data[:len(data) // 2])
                if len(server.asked) > server.breaks: self.wfile.write(data[len(data) // 2:])
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def __enter__(self): return self
    def __exit__(self, *args): self.http.shutdown(); self.http.server_close()


def tar(files, mode="w:gz"):
    "an archive of (name, bytes) or (name, bytes, type, link)"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as t:
        for name, data, *rest in files:
            m = tarfile.TarInfo(name)
            m.size = len(data)
            if rest: m.type, m.linkname = rest
            t.addfile(m, io.BytesIO(data))
    return out.getvalue()

def zipped(files, links=()):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in files: z.writestr(name, data)
        for name, target in links:
            m = zipfile.ZipInfo(name)
            m.external_attr = (stat.S_IFLNK | 0o777) << 16
            z.writestr(m, target)
    return out.getvalue()

def tif(i): return cv2.imencode(".tif", np.random.default_rng(i).integers(0, 256, (8, 8), np.uint8))[1].tobytes()

@pytest.fixture(scope="module")
def ucsd():
    "Ped2 in the official layout and with the published counts, in frames of 8 x 8 pixels"
    lengths, files, k = dict(Train=[160] * 15 + [150], Test=PUBLISHED["ped2"]["lengths"]), [], 0
    for split, ns in lengths.items():
        for i, n in enumerate(ns, 1):
            for j in range(1, n + 1): files.append((f"{TOP}/UCSDped2/{split}/{split}{i:03d}/{j:03d}.tif", tif(k := k + 1)))
    for j in range(1, 181):
        files.append((f"{TOP}/UCSDped2/Test/Test001_gt/frame{j:03d}.bmp", cv2.imencode(".bmp", np.full((8, 8), 255 * (j > 60), np.uint8))[1].tobytes()))
    files.append((f"{TOP}/UCSDped2/Test/UCSDped2.m", ("TestVideoFile = {};\n" + "TestVideoFile{end+1}.gt_frame = [61:120];\n" * 12).encode()))
    files += [(f"{TOP}/._UCSDped2", b"x"), (f"{TOP}/UCSDped2/Test/._Test001", b"x"), (f"{TOP}/README", b"x"), (f"{TOP}/UCSDped1/Train/Train001/001.tif", tif(0))]
    return {"UCSD_Anomaly_Dataset.tar.gz": tar(files)}

def nothing_half(root): assert not [p for p in root.rglob("*") if p.name.endswith(".part") or p.name.startswith("tmp")]


# ---- the whole way

def test_ped2(tmp_path, ucsd, monkeypatch):
    with Server(ucsd) as server:
        monkeypatch.setenv("VAD_MIRROR", server.url)
        folder = fetch_dataset("ped2", tmp_path)
        data = open_dataset(folder)
        assert folder == tmp_path / "ped2" and data.name == "ped2" and data.warnings == () and data.truth == "UCSDped2.m"
        assert sum(v.frames for v in data.train) == 2550 and sum(v.frames for v in data.test) == 2010
        assert [y.sum() for y in data.labels] == [60] * 12 and data.mask(0)[60:].all() and not data.mask(0)[:60].any() and data.mask(1) is None
        assert not list(tmp_path.rglob("._*")) and not (folder / "README").exists()
        note = json.loads((tmp_path / "archives/UCSD_Anomaly_Dataset.tar.gz.json").read_text())
        assert note["sha256"] == hashlib.sha256(ucsd["UCSD_Anomaly_Dataset.tar.gz"]).hexdigest() and note["url"].startswith(server.url)
        assert fetch_dataset("ped2", tmp_path) == folder
        with pytest.raises(UserError, match="1 of the 34|no testing videos"): fetch_dataset("ped1", tmp_path)  # from the archive that is there already
        assert len(server.asked) == 1
        nothing_half(tmp_path)

def avenue(scratch):
    "one training and one testing video of Avenue in its two official archives"
    def made(seed, n):
        film(scratch / f"{seed}.avi", n, seed)
        return (scratch / f"{seed}.avi").read_bytes()
    cells = np.empty((1, 76), object)
    for k in range(76): cells[0, k] = np.full((16, 24), k >= 50, np.uint8)
    mat = io.BytesIO()
    scipy.io.savemat(mat, dict(volLabel=cells))
    videos = [("Avenue Dataset/training_videos/01.avi", made(1, 8)), ("Avenue Dataset/testing_videos/21.avi", made(2, 76)), ("Avenue Dataset/training_vol/vol01.mat", b"x")]
    return {"Avenue_Dataset.zip": zipped(videos), "ground_truth_demo.zip": zipped([
        ("ground_truth_demo/testing_label_mask/21_label.mat", mat.getvalue()), ("ground_truth_demo/demo.m", b"x")])}

def test_avenue(tmp_path):
    with Server(avenue(tmp_path / "scratch")) as server:
        folder = fetch_dataset("avenue", tmp_path, server.url + "/", partial=True)
    data = open_dataset(folder, partial=True)
    assert data.name == "avenue_part" and data.truth == "masks" and np.flatnonzero(data.labels[0]).tolist() == list(range(50, 76))
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
        "ground_truth_demo/testing_label_mask/21_label.mat", "testing_videos/21.avi", "training_videos/01.avi"]
    with pytest.raises(UserError, match="1 of the 16"): fetch_dataset("avenue", tmp_path)

def test_names(tmp_path):
    with pytest.raises(UserError, match="ped1, ped2, avenue"): fetch_dataset("shanghaitech", tmp_path)
    assert {a.url.rsplit("/", 1)[-1] for archives in OFFICIAL.values() for a in archives} == {"UCSD_Anomaly_Dataset.tar.gz", "Avenue_Dataset.zip", "ground_truth_demo.zip"}


# ---- connections

def test_a_download_that_broke_off_is_tried_again(tmp_path):
    data = os.urandom(300_000)
    with Server({"a.zip": data}, breaks=1) as server:
        assert download(f"{server.url}/a.zip", tmp_path, retries=1).read_bytes() == data
        assert len(server.asked) == 2
    nothing_half(tmp_path)

def test_a_download_that_always_breaks_off(tmp_path):
    with Server({"UCSD_Anomaly_Dataset.tar.gz": os.urandom(300_000)}, breaks=99) as server:
        with pytest.raises(UserError, match="cannot be downloaded.*VAD_MIRROR"): fetch_dataset("ped2", tmp_path, server.url, retries=0)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == []
    assert not (tmp_path / "ped2").exists()

def test_half_an_archive_is_no_dataset(tmp_path, ucsd):
    "where the server does not say how long the file is, the archive itself has to"
    with Server(ucsd, breaks=99, length=False) as server:
        for _ in range(2):
            with pytest.raises(UserError, match="damaged.*delete it"): fetch_dataset("ped2", tmp_path, server.url, retries=0)
    assert not (tmp_path / "ped2").exists()
    nothing_half(tmp_path)
    (tmp_path / "archives/UCSD_Anomaly_Dataset.tar.gz").unlink() # as the sentence says; the next one is whole
    with Server(ucsd) as server: assert fetch_dataset("ped2", tmp_path, server.url, retries=0) == tmp_path / "ped2"

@pytest.mark.parametrize("url, words", [("{}/missing.zip", "404"), ("http://127.0.0.1:9/a.zip", "ConnectionError")])
def test_no_such_file_no_such_server(tmp_path, url, words):
    with Server({}) as server:
        with pytest.raises(UserError, match=words): download(url.format(server.url), tmp_path, retries=0)

def test_an_archive_that_changed(tmp_path):
    with Server({"a.zip": zipped([("a", b"x")])}) as server:
        path = download(f"{server.url}/a.zip", tmp_path)
        path.write_bytes(zipped([("a", b"y")]))
        with pytest.raises(UserError, match="not the file that was downloaded"): download(f"{server.url}/a.zip", tmp_path)


# ---- archives

EVIL = [(b"x", tarfile.REGTYPE, "", n) for n in ("../evil", "a/../../evil", "/tmp/vad-evil", "..", "C:\\evil", "\\evil", "a\\..\\..\\evil")] + [
    (b"", tarfile.SYMTYPE, "/etc", "a/evil"), (b"", tarfile.SYMTYPE, "..", "a/evil"), (b"", tarfile.LNKTYPE, "../../etc/passwd", "evil"),
    (b"", tarfile.CHRTYPE, "", "evil"), (b"", tarfile.FIFOTYPE, "", "evil"), (b"", tarfile.BLKTYPE, "", "evil")]

@pytest.mark.parametrize("data, kind, link, name", EVIL, ids=[f"{n} {k.decode()}" for _, k, _, n in EVIL])
def test_evil_tar(tmp_path, data, kind, link, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "e.tar.gz").write_bytes(tar([("good", b"1"), (name, data, kind, link), ("a/evil/passwd", b"x")]))
    with pytest.raises(UserError, match="outside its folder|holds a (link|device)"): unpack(tmp_path / "e.tar.gz", tmp_path / "in")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["e.tar.gz", "good", "in"] and not Path("/tmp/vad-evil").exists()

@pytest.mark.parametrize("files, links", [([("../evil", b"x")], ()), ([("/tmp/vad-evil", b"x")], ()), ([("a/../../evil", b"x")], ()), ([], [("evil", "/etc")])])
def test_evil_zip(tmp_path, files, links):
    (tmp_path / "in").mkdir()
    (tmp_path / "e.zip").write_bytes(zipped([("good", b"1"), *files], links))
    with pytest.raises(UserError, match="outside its folder|holds a link"): unpack(tmp_path / "e.zip", tmp_path / "in")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["e.zip", "good", "in"] and not Path("/tmp/vad-evil").exists()

def test_an_evil_mirror_leaves_nothing(tmp_path):
    evil = tar([(f"{TOP}/UCSDped2/Train/Train001/001.tif", tif(1)), (f"{TOP}/UCSDped2/Train/../../../../evil", b"x")])
    with Server({"UCSD_Anomaly_Dataset.tar.gz": evil}) as server:
        with pytest.raises(UserError, match="outside its folder"): fetch_dataset("ped2", tmp_path / "data", server.url)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["UCSD_Anomaly_Dataset.tar.gz", "UCSD_Anomaly_Dataset.tar.gz.json"]
    assert not (tmp_path / "data/ped2").exists()

@pytest.mark.parametrize("make", [lambda b: tar([("zeros", b)]), lambda b: zipped([("zeros", b)])], ids=["tar", "zip"])
def test_a_bomb(tmp_path, make):
    (tmp_path / "in").mkdir()
    path = tmp_path / "bomb"
    path.write_bytes(make(bytes(20_000_000)))
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match="free space"): unpack(path, tmp_path / "in", room=1_000_000)
    assert (tmp_path / "in/zeros").stat().st_size <= 1_000_000

@pytest.mark.parametrize("make", [lambda: tar([(f"f{i}", os.urandom(5000)) for i in range(40)]),
                                  lambda: zipped([(f"f{i}", os.urandom(5000)) for i in range(40)])], ids=["tar", "zip"])
@pytest.mark.parametrize("damage", [lambda b: b[:len(b) // 2], lambda b: b[:5000] + bytes(4000) + b[9000:],
                                    lambda b: b"", lambda b: b"<html>moved</html>"], ids=["half", "zeros", "empty", "html"])
def test_damaged_archives(tmp_path, make, damage):
    (tmp_path / "in").mkdir()
    (tmp_path / "a").write_bytes(damage(make()))
    with pytest.raises(UserError, match="damaged"): unpack(tmp_path / "a", tmp_path / "in")

def test_a_file_where_a_folder_was(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "a.tar").write_bytes(tar([("a", b"1"), ("a/b", b"2")], "w"))
    with pytest.raises(UserError, match="damaged"): unpack(tmp_path / "a.tar", tmp_path / "in")

def test_an_honest_archive(tmp_path):
    files = [(f"a/{i}/x.bin", os.urandom(100 * i)) for i in range(30)]
    for name, data in (("a.tar.gz", tar(files)), ("a.tar", tar(files, "w")), ("a.zip", zipped(files))):
        (tmp_path / name).write_bytes(data)
        (tmp_path / f"in-{name}").mkdir()
        assert unpack(tmp_path / name, tmp_path / f"in-{name}") == 30
        assert all((tmp_path / f"in-{name}" / n).read_bytes() == b for n, b in files)
        assert [kind for _, kind, _ in members(tmp_path / name)] == ["file"] * 30


# ---- frames

def film(path, n, seed=0, h=16, w=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = np.random.default_rng(seed).integers(0, 256, (n, h, w, 3), np.uint8)
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 25, (w, h))
    for f in pictures: out.write(f)
    out.release()
    return pictures

def test_names_sort_as_text(tmp_path):
    pictures = film(tmp_path / "long.avi", 1203)
    folder, = extract_frames(tmp_path / "long.avi", tmp_path / "out", ".png")
    names = sorted(p.name for p in folder.iterdir())
    assert names == [f"{i:06d}.png" for i in range(1, 1204)]
    assert all((a == b).all() for a, b in zip(open_video(folder).read(), pictures, strict=True))

def test_a_dataset_keeps_its_layout_and_labels(tmp_path):
    for split in ("training", "testing"):
        for i in (1, 2): film(tmp_path / f"toy/{split}/{i:02d}.avi", 6 + i, len(split) * i)
    np.save(tmp_path / "toy/frame_labels_toy.npy", np.arange(15) % 2)
    folders = extract_frames(tmp_path / "toy", tmp_path / "out/toy", ".png")
    assert [f.relative_to(tmp_path / "out/toy").as_posix() for f in folders] == [f"{s}ing/frames/{i}" for s in ("train", "test") for i in ("01", "02")]
    a, b = open_dataset(tmp_path / "toy"), open_dataset(tmp_path / "out/toy")
    assert b.truth == a.truth and all((x == y).all() for x, y in zip(a.labels, b.labels))
    for v, w in zip(a.train + a.test, b.train + b.test): assert all((x == y).all() for x, y in zip(v.read(), w.read(), strict=True))
    extract_frames(tmp_path / "toy", tmp_path / "out/toy", ".png")
    np.save(tmp_path / "out/toy/frame_labels_toy.npy", 1 - np.arange(15) % 2) # somebody corrected them
    with pytest.raises(UserError, match="frame_labels_toy.npy holds other labels"): extract_frames(tmp_path / "toy", tmp_path / "out/toy", ".png")
    assert (np.concatenate(open_dataset(tmp_path / "out/toy").labels) == 1 - np.arange(15) % 2).all()

def test_jpegs_are_close(tmp_path):
    x = np.tile(np.linspace(0, 255, 96, dtype=np.uint8), (64, 1))
    (tmp_path / "in/01").mkdir(parents=True)
    for i in range(3): cv2.imwrite(str(tmp_path / f"in/01/{i}.png"), np.roll(x, 5 * i, 1))
    folder, = extract_frames([tmp_path / "in/01"], tmp_path / "out")
    assert [p.name for p in sorted(folder.iterdir())] == ["000001.jpg", "000002.jpg", "000003.jpg"]
    for f, g in zip(open_video(tmp_path / "in/01").read(gray=True), open_video(folder).read(gray=True)): assert np.abs(f.astype(int) - g).mean() < 1

def test_bad_requests(tmp_path):
    film(tmp_path / "a/1.avi", 6, 1); film(tmp_path / "b/1.avi", 6, 2)
    with pytest.raises(UserError, match="would both become"): extract_frames([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    with pytest.raises(UserError, match="'.gif'"): extract_frames(tmp_path / "a", tmp_path / "out", ".gif")
    extract_frames(tmp_path / "a", tmp_path / "out")
    (tmp_path / "out/1/000003.jpg").unlink()
    with pytest.raises(UserError, match="has other frames"): extract_frames(tmp_path / "a", tmp_path / "out")

def test_a_broken_video_leaves_no_folder(tmp_path):
    film(tmp_path / "in/1.avi", 20, 1); film(tmp_path / "in/2.avi", 20, 2)
    data = (tmp_path / "in/2.avi").read_bytes()
    (tmp_path / "in/2.avi").write_bytes(data[:len(data) // 2])
    with pytest.raises(UserError, match="2.avi"): extract_frames(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out/2").exists()

def extract_held(*folders):
    "extract, but never more than the first half of the second film"
    hold(cv2, "imencode", 76)
    extract_frames(*folders, ".png", workers=1)

def test_a_killed_extraction_goes_on(tmp_path):
    "kill -9 in the middle; what has a name is complete, and the next run finishes the rest"
    for i in range(4): film(tmp_path / f"in/{i}.avi", 50, i, 240, 320)
    begun = lambda: list((tmp_path / "out").glob(".1.*.part/000010.png")) # noqa: E731
    Apart(tmp_path / "said", extract_held, tmp_path / "in", tmp_path / "out").wait_for(begun).kill(signal.SIGKILL).end()
    done = sorted(q.name for q in (tmp_path / "out").iterdir() if not q.name.startswith("."))
    assert done and len(done) < 4 and all(open_video(tmp_path / "out" / n).frames == 50 for n in done)
    made = (tmp_path / "out/0/000001.png").stat().st_mtime_ns
    extract_frames(tmp_path / "in", tmp_path / "out", ".png")
    assert sorted(q.name for q in (tmp_path / "out").iterdir()) == [*(f".{i}.frames.json" for i in range(4)), "0", "1", "2", "3"] and (tmp_path / "out/0/000001.png").stat().st_mtime_ns == made
    for i in range(4): assert open_video(tmp_path / f"out/{i}").frames == 50
    nothing_half(tmp_path / "out")


# ---- film

def extracted(folder): return numbers_of(cv2.imread(str(p)) for p in sorted(folder.iterdir()))

@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".ts"])
def test_a_trimmed_film_gives_the_frames_that_it_shows(tmp_path, suffix):
    full = write_film(tmp_path / "full.mp4", range(40), options=dict(g="12"))
    for key in (True, False):
        film = copy_film(full, tmp_path / f"{key}{suffix}", .7, key)
        folder, = quietly(film, tmp_path / "out")
        assert extracted(folder) == list(range(24 if not key else 18 if suffix in HIDES else 12, 40)) == numbers_of(open_video(film).read())

def quietly(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return extract_frames(*args, **kwargs)

def test_cases_give_as_many_frames_as_everywhere(tmp_path):
    if not (cases := shared("cases")): pytest.skip("the cases are not here (set VAD_SHARED)")
    folder, = quietly(cases / "trimmed/cut_in.mp4", tmp_path)
    assert len(list(folder.iterdir())) == 47
    for name, frames in (("counts/drops.avi", 60), ("counts/xvid.avi", 58), ("time/gap.mp4", 60)):
        folder, = quietly(cases / name, tmp_path)
        assert len(list(folder.iterdir())) == frames

def test_what_a_folder_loses_is_said(tmp_path):
    write_film(tmp_path / "in/even.mp4", range(12))
    write_film(tmp_path / "in/vary.mp4", range(12), pts=[i / 30 if i < 6 else i / 5 for i in range(12)])
    with pytest.warns(UserWarning) as said: extract_frames(tmp_path / "in", tmp_path / "out")
    assert len(said) == 1 and "vary.mp4 has frames that do not come evenly" in str(said[0].message)

def test_a_damaged_film_is_extracted_as_far_as_it_goes(tmp_path):
    film = write_film(tmp_path / "in/a.mp4", range(40), options=dict(g="10"))
    write_film(tmp_path / "in/b.mp4", range(20, 50), options=dict(g="10"))
    flip(film)
    video = open_video(film, partial=True)
    assert 0 < video.damaged < 40
    with pytest.raises(UserError, match=f"a.mp4 .*{video.damaged} of its frames"): quietly(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out/a").exists()
    with pytest.warns(UserWarning, match=f"a.mp4 is damaged: {video.damaged} of its frames"): folders = extract_frames(tmp_path / "in", tmp_path / "out", partial=True)
    assert len(list(folders[0].iterdir())) == video.frames and extracted(folders[1]) == list(range(20, 50))
    assert extracted(folders[0])[:10] == numbers_of(video.read())[:10] == list(range(10))
    quietly(tmp_path / "in", tmp_path / "out", partial=True)                           # a second time finds all as it is
    done = CliRunner().invoke(app, ["data", "extract", str(tmp_path / "in"), "--out", str(tmp_path / "cli"), "--partial"])
    assert done.exit_code == 0 and len(list((tmp_path / "cli/a").iterdir())) == video.frames

def test_scenes_on_a_full_disk(disk):
    fill(disk, 2000)
    with pytest.raises(UserError, match="disk"): write_scene_film(disk / "a.mp4", np.random.default_rng(0).integers(0, 256, (40, 120, 180), np.uint8))


# ---- what is there already

def test_an_empty_folder_is_as_good_as_none(tmp_path, ucsd):
    (tmp_path / "ped2").mkdir()
    with Server(ucsd) as server: assert fetch_dataset("ped2", tmp_path, server.url) == tmp_path / "ped2"
    (tmp_path / "ped1").mkdir()
    (tmp_path / "ped1/mine.txt").write_text("notes")
    with pytest.raises(UserError, match="no videos in a layout"): fetch_dataset("ped1", tmp_path, server.url, retries=0)
    assert [p.name for p in (tmp_path / "ped1").iterdir()] == ["mine.txt"]

def replace_film(path): film(path, 12, 2)
def choose_png(path): return dict(suffix=".png")
def choose_fields(path): return dict(VAD_FIELDS="stored")
def choose_decoder(path): return dict(VAD_DECODER="opencv")

@pytest.mark.parametrize("change, words", [(replace_film, "from another film"), (choose_png, "with another suffix"),
                                           (choose_fields, "by another decoding"), (choose_decoder, "by another decoding")])
def test_frames_made_otherwise_are_not_taken_for_these(tmp_path, monkeypatch, change, words):
    path = tmp_path / "in/a.avi"
    film(path, 12, 1)
    folder, = quietly(tmp_path / "in", tmp_path / "out")
    first = (folder / "000001.jpg").read_bytes()
    quietly(tmp_path / "in", tmp_path / "out")
    how = change(path) or {}
    for name in [n for n in how if n.startswith("VAD_")]: monkeypatch.setenv(name, how.pop(name))
    with pytest.raises(UserError, match=f"{words}: to write .* anew, delete it, or name another folder.$") as e: quietly(tmp_path / "in", tmp_path / "out", **how)
    assert str(folder) in str(e.value) and "\n" not in str(e.value) and (folder / "000001.jpg").read_bytes() == first
    quietly(tmp_path / "in", tmp_path / "new", **how)
    origin_file(folder).unlink() # of an earlier version
    assert quietly(tmp_path / "in", tmp_path / "out", **how) == [folder]

def test_a_new_version_of_the_decoder_asks_for_no_new_frames(tmp_path, monkeypatch):
    import vad.data.download as module
    film(tmp_path / "a.avi", 12, 1)
    folder, = quietly(tmp_path / "a.avi", tmp_path / "out")
    real = module.decoding_of
    monkeypatch.setattr(module, "decoding_of", lambda paths: real(paths) | dict(decoder="pyav 99.0"))
    assert quietly(tmp_path / "a.avi", tmp_path / "out") == [folder]

@pytest.mark.parametrize("out", ["out", "frames", "one.two"])
def test_labels_that_somebody_made_come_along(tmp_path, out):
    rows = {}
    for i, name in enumerate(("a", "b.c")):
        film(tmp_path / f"mine/{name}.avi", 12, i)
        rows[name] = (np.arange(12) >= 4 + i).astype(np.uint8)
        (tmp_path / "mine/labels").mkdir(exist_ok=True)
        np.save(tmp_path / f"mine/labels/{name}.npy", rows[name])
    for _ in range(2): quietly(tmp_path / "mine", tmp_path / out)
    data = open_dataset(tmp_path / out)
    assert data.truth == "labels" and not list(tmp_path.rglob("frame_labels_*"))
    for v, y in zip(data.test, data.labels, strict=True): assert v.path.is_dir() and (y == rows[v.name]).all()
    np.save(path := next(p for p in tmp_path.rglob("labels/a.npy") if "mine" not in p.parts), 1 - rows["a"])
    with pytest.raises(UserError, match="other labels than"): quietly(tmp_path / "mine", tmp_path / out)
    assert (np.load(path) == 1 - rows["a"]).all()

def test_frames_are_not_written_among_the_films(tmp_path):
    film(tmp_path / "mine/a.avi", 12, 1)
    for out in ("mine", "mine/frames", "mine/x/../y"):
        with pytest.raises(UserError, match="name another folder"): quietly(tmp_path / "mine", tmp_path / out)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["a.avi"]
    folder, = quietly(tmp_path / "mine", tmp_path / "out")
    with pytest.raises(UserError, match="its own frames"): quietly([folder], tmp_path / "out")


# ---- a film from frames

def grays(n):
    for i in range(n): yield np.full((32, 48), 20 * i, np.uint8)

def broken():
    yield from grays(5)
    raise RuntimeError("the source failed")

@pytest.mark.parametrize("decoder", ["pyav", "opencv"])
def test_a_film_is_whole_or_not_there(tmp_path, monkeypatch, decoder):
    monkeypatch.setenv("VAD_DECODER", decoder)
    for frames, fps, error, words in ((broken(), 15, RuntimeError, "source failed"), (grays(3), 0, UserError, "rate above 0"), (grays(3), float("nan"), UserError, "rate above 0"),
                                      (grays(3), -5, UserError, "rate above 0"), (grays(3), float("inf"), UserError, "rate above 0"), ([], 15, UserError, "without a frame")):
        with pytest.raises(error, match=words): write_scene_film(tmp_path / "a.mp4", frames, fps)
        assert not list(tmp_path.iterdir())
    write_scene_film(tmp_path / "a.mp4", grays(9))
    with pytest.raises(RuntimeError): write_scene_film(tmp_path / "a.mp4", broken())
    assert open_video(tmp_path / "a.mp4").frames == 9 and [p.name for p in tmp_path.iterdir()] == ["a.mp4"]

def test_a_full_disk_names_the_folder_that_somebody_knows(disk):
    fill(disk, 2000)
    with pytest.raises(UserError) as e: write_scene_film(disk / "a.mp4", np.random.default_rng(0).integers(0, 256, (40, 120, 180), np.uint8))
    assert ".part" not in str(e.value)
