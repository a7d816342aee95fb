"Explorers in a real browser: JupyterLab on this machine alone, Chromium driven by Playwright, a notebook over tiny runs; what moves is compared pixel by pixel."
import io
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pytest
from browser import CHROMIUM, NEEDED, chromium, kill_family
from PIL import Image

from vad.training import classifier, trainer
from vad.training.splits import open_clips
from vad.data.datasets import open_dataset
from vad.data.embedding import embed
from vad.training.evaluation import evaluate
from vad.data.synthetic import write_scenes
from vad.data.synthetic import write_walkway

for package in ("playwright", "ipympl"): pytest.importorskip(package, reason=f"{package} is not installed: pip install {package}")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason=NEEDED)

CELLS = ['from vad.use.explorer import explore, explore_pair, explore_clips\nexplore("gated", "walkway", "cpu")', 'explore_pair("gated", "plain", "walkway", "cpu")',
         'explore_clips("srupp", "embedded", weight=2., device="cpu")', 'explore("gated", "walkway/testing/frames/02", "cpu")']
FRAMES, TWO, CLIPS, OWN = range(4) # explorers, in the order of the cells


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "a folder, and the addresses of a JupyterLab in it that this test alone knows"
    work = tmp_path_factory.mktemp("work")
    for name, text in {"notebook-extension/tracker": '{"windowingMode": "none"}', # what is out of sight stays in the page
                       "apputils-extension/notification": '{"fetchNews": "false"}'}.items():
        path = work / f".settings/@jupyterlab/{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    token, root = secrets.token_hex(16), str(Path(__file__).parents[1])
    env = os.environ | {f"JUPYTER_{n}_DIR": str(work / f".{n.lower()}") for n in ("CONFIG", "DATA", "RUNTIME")}
    env |= dict(JUPYTERLAB_SETTINGS_DIR=str(work / ".settings"), PYTHONPATH=os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))), OMP_NUM_THREADS="1")
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}",
               f"--ServerApp.root_dir={work}", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.extension_manager=readonly"]
    with open(work / "lab.log", "w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], env=env, stdout=log, stderr=log, cwd=work, start_new_session=True)
        try:
            yield work, lambda page: f"http://127.0.0.1:{port}/{page}?token={token}"
        finally:
            server.terminate() # it ends its kernels
            try: server.wait(60)
            except subprocess.TimeoutExpired: kill_family(server)

@pytest.fixture(scope="module")
def work(lab):
    "the address of a notebook of explorers, with runs and data beside it; they are made while JupyterLab starts"
    d, address = lab
    data = open_dataset(write_walkway(d / "walkway", train=2, test=2, train_frames=40, test_frames=60))
    s = dict(size=(48, 72), width=6, clip=3, lr=3e-3)
    for name, attention, epochs in (("gated", "gate", 6), ("plain", "none", 2)):
        evaluate(trainer.fit(trainer.settings("quick", attention=attention, epochs=epochs, **s), data, d / name, "cpu").folder, data, "cpu")
    write_scenes(d / "scenes", cameras=2, normal=1, size=(60, 88), frames=16)
    embed(d / "scenes", d / "embedded", method="cnn", frames=12, width=16, size=32, device="cpu", kind="multiclass")
    clips = open_clips(d / "embedded")
    classifier.fit_classifier(classifier.ClassifierSettings(inputs="change", hidden=16, projection=16, heads=2, epochs=6, batch=4, lr=1e-2, normalise=True), clips, d / "srupp", "cpu")
    kernel = dict(name="python3", display_name="python3", language="python")
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS], metadata=dict(kernelspec=kernel)), d / "explorers.ipynb")
    for _ in range(1200):
        try: urllib.request.urlopen(address("api/status"), timeout=2).close(); break
        except (urllib.error.URLError, ConnectionError, TimeoutError): time.sleep(.5)
    return address("doc/tree/explorers.ipynb")

@pytest.fixture(scope="module")
def work_folder(lab): return lab[0]

@pytest.fixture(scope="module")
def page(work, album):
    "the notebook, all cells run"
    with chromium() as browser:
        page = browser.new_page(viewport=dict(width=1250, height=1250))
        page.set_default_timeout(300_000)
        page.goto(work)
        try:
            run(page)
            yield page
        finally:
            page.screenshot(path=album / "page_last.png", timeout=30_000)

def idle(page): page.get_by_text(re.compile(r"\| Idle$")).wait_for(timeout=600_000)

def run(page, restart=False):
    "run all cells, after a restart of the kernel if wanted"
    idle(page)
    page.get_by_role("menuitem", name="Kernel" if restart else "Run", exact=True).click()
    page.get_by_text(re.compile("Restart Kernel and Run All" if restart else "^Run All Cells$")).first.click()
    if restart:
        page.locator(".jp-Dialog button.jp-mod-accept").click()
        page.locator(".vad-explorer").first.wait_for(state="detached", timeout=600_000)
    for i in range(len(CELLS)): page.locator(".vad-explorer").nth(i).locator("canvas").first.wait_for(timeout=600_000)
    idle(page)


class Desk:
    "One of the explorers in the open notebook."
    def __init__(self, page, which, album):
        self.page, self.which, self.album, self.root = page, which, album, page.locator(".vad-explorer").nth(which)
        self.root.evaluate("e => e.scrollIntoView(true)")
        self.settle()

    def settle(self):
        "wait until the kernel has nothing to do and the page stands still"
        before = None
        for _ in range(600):
            time.sleep(.2)
            idle(self.page)
            now = self.page.screenshot()
            if now == before: return
            before = now
        raise AssertionError("the explorer does not come to rest")

    def keep(self, name): self.root.screenshot(path=self.album / f"{name}.png")

    def look(self) -> dict:
        "every picture of the explorer by its name"
        page = np.array(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB"))
        boxes = self.root.evaluate("""e => [...e.querySelectorAll("img, .jupyter-matplotlib-canvas-div")].map(
            e => [e.alt || "curve", e.getBoundingClientRect()]).filter(([, r]) => r.width).map(([n, r]) => [n, ...[r.left, r.top, r.right, r.bottom].map(Math.round)])""")
        return {name: page[top:bottom, left:right] for name, left, top, right, bottom in boxes}

    @contextmanager
    def changes(self, *least) -> set:
        "which pictures changed through the block; `least` are waited for"
        before, found = self.look(), set()
        def differ():
            after = self.look()
            return {n for n in after if n not in before or not np.array_equal(after[n], before[n])}
        yield found
        for _ in range(1000):
            if differ() >= set(least): break
            time.sleep(.1)
        self.settle()
        found |= differ()

    def slider(self, label): return self.root.locator(".widget-slider").filter(has_text=re.compile(f"^{label}"))

    def press(self, label, key, times=1):
        "move a slider with the keyboard"
        self.slider(label).locator(".noUi-handle").focus()
        for _ in range(times): self.page.keyboard.press(key)

    def other_end(self, label) -> str:
        "the key that moves a slider farthest from where it stands: explorers open at the frame that scores highest"
        handle = self.slider(label).locator(".noUi-handle")
        low, now, high = (float(handle.get_attribute(f"aria-value{n}")) for n in ("min", "now", "max"))
        return "Home" if now - low > high - now else "End"

    def value(self, label) -> float: return float(self.slider(label).locator(".widget-readout").inner_text())

    def text(self) -> str: return self.root.inner_text()

@pytest.fixture
def desk(page, album, request): return Desk(page, request.param, album)

GATED = {"frame", "prediction", "squared error", "item read most", "weight of the item", "gate 1 (coarse)", "gate 2", "gate 3 (fine)", "memory map"}
MAPS = GATED - {"frame", "prediction"}
CONFUSION, GALLERY = "confusion matrix of this video", "the places that read it most"


@pytest.mark.parametrize("desk", [FRAMES], indirect=True)
def test_every_control_of_the_frame_explorer(desk):
    desk.keep("explore")
    assert GATED | {CONFUSION, GALLERY, "curve"} == set(desk.look())
    assert (desk.look()["curve"][-10:, -10:] == 255).all() # no handle to resize it by

    with desk.changes("frame", "curve") as changed: desk.press("frame", "Home")
    assert changed == GATED | {"curve"} and desk.value("frame") == 2 # clips of three frames: the first two have no score
    with desk.changes("frame", "curve") as changed: desk.press("frame", "ArrowRight", 12)
    assert changed >= MAPS - {"memory map"} | {"frame", "curve"} and desk.value("frame") == 14
    with desk.changes(*MAPS) as changed: desk.press("opacity", "ArrowRight", 6)
    assert changed == MAPS
    with desk.changes(GALLERY) as changed: desk.press("memory item", "ArrowRight", 3)
    assert changed == {"weight of the item", GALLERY} and "item 3 is read most" in desk.text()

    recall = lambda: [float(x) for x in re.findall(r"([\d.]+)%", desk.text().split("this video")[1])][1]
    with desk.changes(CONFUSION, "curve") as changed: desk.press("threshold", "Home")
    assert changed == {CONFUSION, "curve"} and recall() == 100 and "predicted anomalous" in desk.text()
    with desk.changes(CONFUSION, "curve") as changed: desk.press("threshold", "End")
    assert changed == {CONFUSION, "curve"} and recall() == 0 and "predicted normal" in desk.text()
    desk.keep("explore_moved")

    canvas = desk.root.locator(".jupyter-matplotlib-canvas-div").first
    box, at = canvas.bounding_box(), []
    for share in (.3, .8):
        with desk.changes("frame", "curve") as changed: canvas.click(position=dict(x=share * box["width"], y=.4 * box["height"]))
        at.append(desk.value("frame"))
        assert changed >= {"frame", "squared error", "curve"} and CONFUSION not in changed
    assert 10 < at[0] < 25 and 40 < at[1] < 55 # where the click was, on an axis from 2 to 59

    start = desk.value("frame")
    with desk.changes("frame", "curve") as changed:
        desk.root.locator(".jupyter-widgets button").first.click()
        for _ in range(1000):
            if desk.value("frame") >= start + 4: break
            time.sleep(.1)
        desk.root.locator(".jupyter-widgets button").first.click()
    assert desk.value("frame") >= start + 4 and changed >= {"frame", "squared error", "curve"}

    with desk.changes("frame", GALLERY, CONFUSION) as changed: desk.root.locator("select").first.select_option("02")
    assert changed >= {"frame", "curve", CONFUSION, GALLERY} and "video 02" in desk.text()
    desk.press("threshold", "Home")
    desk.settle()
    with desk.changes("curve", CONFUSION) as changed: desk.root.locator("select").nth(1).select_option(index=1)
    assert changed >= {"curve", CONFUSION} and not changed & GATED

def names_in_the_accessibility_tree(page) -> list[tuple[str, str]]:
    "role and name of everything that a person can move, as a screen reader gets them"
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    value = lambda node, key: node.get(key, {}).get("value", "")
    return [(value(n, "role"), value(n, "name").strip()) for n in nodes if not n.get("ignored")]

def test_every_control_has_a_name(page):
    found = names_in_the_accessibility_tree(page)
    sliders = [name for role, name in found if role == "slider"]
    assert len(sliders) >= 4 + 2 + 2 + 4 and set(sliders) == {"frame", "threshold", "opacity", "memory item", "step", "layer"}
    boxes = [name for role, name in found if role == "combobox"]
    assert {"video", "clip", "score"} <= set(boxes)
    players = [name for role, name in found if role == "button" and name.startswith(("play the", "stop, and"))]
    assert len(players) == 2 * len(CELLS)
    pictures = [name for role, name in found if role in ("image", "img")]
    assert GATED | {CONFUSION, GALLERY, "who attends to whom"} <= set(pictures)
    assert any(n.startswith("score over time") for n in pictures) and any(n.startswith("attention over time") for n in pictures)
    assert page.locator(".vad-explorer img:not([alt])").count() == 0

@pytest.mark.parametrize("desk", [OWN], indirect=True)
def test_a_film_of_ones_own(desk):
    desk.keep("own")
    assert set(desk.look()) == GATED | {GALLERY, "curve"} and "No labels are known" in desk.text()
    assert abs(desk.value("threshold") - float(re.search(r"set the threshold at ([\d.-]+)\.", desk.text())[1])) < 2e-3
    with desk.changes("frame", "curve") as changed: desk.press("frame", desk.other_end("frame"))
    assert changed >= {"frame", "squared error", "curve"}

@pytest.mark.parametrize("desk", [OWN], indirect=True)
def test_labels_for_a_film_of_ones_own(desk, work_folder):
    box = desk.root.get_by_text("Label this video")
    box.click()
    desk.settle()
    canvas = desk.root.locator(".jupyter-matplotlib-canvas-div").first
    canvas.scroll_into_view_if_needed()
    desk.settle()
    b = canvas.bounding_box()
    def drag(start, end):
        desk.page.mouse.move(b["x"] + start * b["width"], b["y"] + .5 * b["height"])
        desk.page.mouse.down()
        desk.page.mouse.move(b["x"] + (start + end) / 2 * b["width"], b["y"] + .5 * b["height"])
        desk.page.mouse.move(b["x"] + end * b["width"], b["y"] + .5 * b["height"])
        desk.page.mouse.up()
        desk.settle()
    drag(.5, .8)
    assert "anomalous: frames" in desk.text() and "Not saved" in desk.text() and "AUC" in desk.text()
    first, last = map(int, re.search(r"anomalous: frames (\d+) to (\d+)", desk.text()).groups())
    assert 20 < first < 35 < 40 < last < 55 # where the drag was, on an axis from 2 to 59
    desk.press("frame", "Home")
    desk.page.keyboard.press("[")
    desk.press("frame", "ArrowRight", 7)
    desk.settle()
    desk.page.keyboard.press("]") # the film's first frames, which have no score, go with the first that has one
    desk.settle()
    assert f"anomalous: frames 0 to 9, {first} to {last}" in desk.text()
    desk.keep("labelled")
    desk.root.get_by_role("button", name="save labels").click()
    desk.settle()
    saved = np.load(work_folder / "walkway/testing/labels/02.npy")
    assert len(saved) == 60 and saved.sum() == 10 + last - first + 1 and saved[[0, 9, first, last]].all()
    desk.root.get_by_role("button", name="undo").click()
    desk.settle()
    assert f"anomalous: frames {first} to {last}." in desk.text() and "Not saved" in desk.text()
    box.click() # closed: a drag is a click again
    desk.settle()
    (work_folder / "walkway/testing/labels/02.npy").unlink()

@pytest.mark.parametrize("desk", [TWO], indirect=True)
def test_two_models_move_together(desk):
    desk.keep("compare")
    errors = desk.root.locator('img[alt="squared error"]')
    assert errors.count() == 2
    before = [e.screenshot() for e in errors.all()]
    with desk.changes("frame", "curve") as changed: desk.press("frame", desk.other_end("frame"))
    assert "curve" in changed and all(e.screenshot() != b for e, b in zip(errors.all(), before))

@pytest.mark.parametrize("desk", [CLIPS], indirect=True)
def test_every_control_of_the_clip_explorer(desk):
    desk.keep("clips")
    frame, square, classes = "the frame that was embedded", "who attends to whom", "probabilities and class centres"
    assert set(desk.look()) == {frame, square, classes, "curve"}
    with desk.changes("curve") as changed: desk.press("step", "ArrowRight", 6)
    assert changed == {frame, "curve"}
    with desk.changes(square, "curve") as changed: desk.press("layer", "ArrowRight")
    assert changed >= {square, "curve"} and not changed & {frame, classes}
    with desk.changes(frame, classes, square) as changed: desk.root.locator("select").first.select_option(index=5)
    assert changed >= {frame, classes, square}

def test_an_explorer_says_that_its_kernel_has_ended(page, album):
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_text(re.compile("^Restart Kernel.$")).first.click(timeout=30_000)
    page.locator(".jp-Dialog button.jp-mod-accept").click(timeout=30_000)
    explorer = page.locator(".vad-explorer").first
    explorer.and_(page.locator(".jupyter-widgets-disconnected")).wait_for(timeout=60_000)
    page.screenshot(path=album / "ended.png")
    assert explorer.evaluate("e => getComputedStyle(e, '::before').content") == '"The kernel of this explorer has ended: run this cell again."'
    inside = explorer.evaluate("e => [...e.querySelectorAll('.jupyter-widgets-disconnected')].map(x => getComputedStyle(x, '::before').display)")
    assert inside and set(inside) == {"none"} # no broken chain

def test_a_saved_run_outlives_its_kernel(page, album):
    run(page, restart=True)
    desk = Desk(page, FRAMES, album)
    with desk.changes("frame", "curve") as changed: desk.press("frame", "End")
    assert changed >= {"frame", "squared error", "curve"} and desk.value("frame") == 59
