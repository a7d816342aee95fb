"`vad explore`: a page for this machine alone, driven in Chromium: looked at, labelled, and what was labelled is measured by `vad evaluate`."
import shutil
import subprocess
import sys

import numpy as np
import pytest
from browser import CHROMIUM, NEEDED, chromium, explored

from vad.data.datasets import open_dataset
from vad.data.film_writer import write_film
from vad.data.synthetic import write_walkway
from vad.training.speed_detector import SpeedSettings, fit_speed

for package in ("playwright", "ipympl", "anywidget", "voila"): pytest.importorskip(package, reason=f"{package} is not installed: pip install {package}")
VAD = [sys.executable, "-m", "vad"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "a detector of the walkway, and two films that it has not seen"
    d = tmp_path_factory.mktemp("page")
    data = open_dataset(write_walkway(d / "walkway", train=3, test=2, train_frames=60, test_frames=60))
    fit_speed(SpeedSettings(), data, d / "run")
    (d / "films").mkdir()
    for v in data.test: write_film(d / "films" / f"{v.name}.mp4", np.stack(list(v.read(gray=True))), 15)
    return d

def run_vad(*words, cwd): return subprocess.run([*VAD, *map(str, words)], capture_output=True, text=True, cwd=cwd, timeout=300)

def test_what_cannot_be_opened_is_refused_before_a_page_is_served(folder):
    for words, said in (((folder / "nowhere",), "nowhere"), ((folder / "run", folder / "films" / "03.mp4"), "03.mp4"), ((folder / "films",), "films")):
        refused = run_vad("explore", *words, "--no-browser", cwd=folder)
        assert refused.returncode == 1 and said in refused.stderr and refused.stderr.count("\n") == 1, refused.stderr

@pytest.mark.skipif(not CHROMIUM, reason=NEEDED)
def test_a_person_looks_and_labels_in_a_browser(folder, album):
    with explored(folder, "run", "films", "--dark") as (entrance, address), chromium() as browser: drive(browser, entrance, album)
    labels = {name: np.load(folder / f"films/labels/{name}.npy") for name in ("01", "02")}
    assert labels["01"][20:31].all() and labels["01"].sum() == 11 and not labels["02"].any()
    measured = run_vad("evaluate", "run", "films", "--into", "own", cwd=folder)
    assert measured.returncode == 0 and "AUC" in measured.stdout, measured.stderr

def drive(browser, entrance, album):
    "look at a film, mark frames 20 to 30 with a key and a button, say that the other film is normal, save"
    page = browser.new_page(viewport=dict(width=1250, height=1150))
    page.set_default_timeout(120_000)
    loaded = []
    page.on("requestfinished", lambda r: loaded.append(r.url))
    page.goto(entrance.as_uri()) # leads on to the page
    explorer = page.locator(".vad-explorer")
    explorer.locator("canvas").first.wait_for()
    handle = explorer.get_by_role("slider", name="frame")
    def move(key, times=1):
        handle.focus()
        for _ in range(times): page.keyboard.press(key)
    def shows(text): explorer.get_by_text(text).first.wait_for()
    shows("No labels are known of this video")
    explorer.get_by_text("Label this video").click()
    move("Home")
    move("ArrowRight", 19)
    shows("frame 20:")
    page.keyboard.press("[")
    shows("One has begun at frame 20")
    move("ArrowRight", 10) # the kernel may still be painting when the button is pressed
    explorer.get_by_role("button", name="ends here ]").click()
    shows("anomalous: frames 20 to 30. Not saved.")
    shows("AUC")
    page.screenshot(path=album / "explore_page.png")
    explorer.get_by_role("combobox", name="video").select_option(label="02")
    shows("nothing is marked")
    explorer.get_by_role("button", name="all normal").click()
    shows("anomalous: no frame. Not saved.")
    explorer.get_by_role("button", name="save labels").click()
    shows("Saved: 2 files")
    assert all(url.startswith(("http://127.0.0.1", "file:", "data:", "blob:")) for url in loaded), loaded
    white = page.evaluate("getComputedStyle(document.querySelector('.vad-explorer canvas')).filter")
    assert "invert" in white # a dark page has no white boxes

@pytest.mark.skipif(not CHROMIUM, reason=NEEDED)
def test_a_run_is_named_alone(folder):
    "its data are found from where somebody stands, and no settings that lie there"
    mine, run = folder / "mine", folder / "a/b/c/d/e/run"
    mine.mkdir()
    shutil.copytree(folder / "run", run)
    (mine / "walkway").symlink_to(folder / "walkway")
    (mine / "voila.json").write_text('{"Voila": {"token": ""}}')
    with explored(mine, run) as (entrance, address), chromium() as browser: # a stranger is not let in
        page = browser.new_page(viewport=dict(width=1250, height=1150))
        page.set_default_timeout(120_000)
        page.goto(entrance.as_uri())
        page.locator(".vad-explorer canvas").first.wait_for()
        page.locator(".vad-explorer").get_by_text("AUC").first.wait_for() # by the walkway's labels
