"README's own lines, typed one after the other by someone who has nothing but the checkout and films of an own camera; what they see lies in the album."
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, NEEDED, chromium, explored
from test_own_film import walk

for package in ("playwright", "ipympl", "anywidget", "voila"): pytest.importorskip(package, reason=f"{package} is not installed: pip install {package}")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason=NEEDED)
ROOT, RATE = Path(__file__).resolve().parent.parent, 15 # frames a second


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    "the checkout without what was made in it, beside films named as README names them"
    folder = tmp_path_factory.mktemp("desk")
    for name in ("Makefile", "settings.ini", "setup.py", "README.md"): (folder / name).write_bytes((ROOT / name).read_bytes())
    walk(folder / "my.mp4", 1, 300, [("cyclist", .6)])
    walk(folder / "normal.mp4", 2, 300)
    walk(folder / "films/front door.mp4", 3, 240, [("cyclist", .5)])
    walk(folder / "films/yard.mp4", 4, 240)
    return folder

@pytest.fixture(scope="module")
def says(desk, album):
    "types one of README's lines, and keeps the answer"
    lines = [re.sub(r"\s+#.*", "", line) for line in re.findall(r"^(?:make|vad) .*$", (ROOT / "README.md").read_text(), re.M)]
    env = os.environ | dict(PYTHONPATH=os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))), COLUMNS="120")
    def type_in(line, *more):
        assert line in lines, lines
        words = shlex.split(line)
        command = [sys.executable, "-m", "vad", *words[1:]] if words[0] == "vad" else [*words, "-o", ".venv/.package", f"BIN={Path(sys.executable).parent}"]
        done = subprocess.run([*command, *more], cwd=desk, capture_output=True, text=True, env=env, timeout=900)
        (album / f"said_{len(list(album.glob('said_*')))}.txt").write_text(f"$ {line} {' '.join(more)}\n{done.stdout}{done.stderr}")
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
        return done.stdout
    return type_in


def open_page(browser, address):
    page = browser.new_page(viewport=dict(width=1250, height=1150))
    page.set_default_timeout(120_000)
    page.goto(address)
    return page

def test_run_then_explore(desk, says, album):
    said = says("make run", "ENTRIES=gates.frames")
    assert "vad explore runs/synthetic-quick" in said
    assert (desk / "runs/synthetic-quick/summary.html").is_file()
    with explored(desk, "runs/synthetic-quick") as (entrance, _), chromium() as browser:
        page = open_page(browser, entrance.as_uri())
        explorer = page.locator(".vad-explorer")
        explorer.locator("canvas").first.wait_for()
        explorer.get_by_text("AUC").first.wait_for()
        page.screenshot(path=album / "walk_explore_run.png")
        page.goto((desk / "runs/synthetic-quick/summary.html").as_uri())
        assert "where the gates look" in page.locator("body").inner_text().lower()
        page.screenshot(path=album / "walk_summary.png")

def test_score_an_own_film(says): assert "fitted to the first" in says("vad score speed my.mp4")

def test_calibrate_score_label_measure(desk, says, album):
    "label five seconds of one's own film, and what was labelled is what is measured"
    says("vad calibrate ped2-gates normal.mp4 --out mine")
    assert "The page of the worst moments: scores/index.html" in says("vad score mine films")
    with chromium() as browser:
        page = open_page(browser, (desk / "scores/index.html").as_uri())
        assert "front door" in page.locator("body").inner_text()
        page.screenshot(path=album / "walk_moments.png")
    with explored(desk, "mine", "films") as (entrance, _), chromium() as browser:
        page = open_page(browser, entrance.as_uri())
        label_five_seconds(page, page.locator(".vad-explorer"))
        page.screenshot(path=album / "walk_labelled.png")
    labels = np.load(desk / "films/labels/front door.npy")
    assert labels[110:110 + 5 * RATE].all() and labels.sum() == 5 * RATE
    measured = subprocess.run([sys.executable, "-m", "vad", "evaluate", "mine", "films"], cwd=desk, capture_output=True, text=True, timeout=600)
    (album / "said_evaluate.txt").write_text(measured.stdout + measured.stderr)
    assert measured.returncode == 0 and "AUC" in measured.stdout, measured.stderr

def label_five_seconds(page, explorer):
    "frames 110 to 184 of the first film; the other film is normal"
    def shows(text): explorer.get_by_text(text).first.wait_for()
    handle = explorer.get_by_role("slider", name="frame")
    explorer.locator("canvas").first.wait_for() # it is drawn last
    explorer.get_by_text("Label this video").click()
    handle.focus()
    page.keyboard.press("Home")
    for key, times in (("ArrowRight", 106), ("[", 1), ("ArrowRight", 5 * RATE - 1), ("]", 1)): # a clip of five: the first frame that has a score is 4
        handle.focus()
        for _ in range(times): page.keyboard.press(key)
    shows("anomalous: frames 110 to 184. Not saved.")
    explorer.get_by_role("combobox", name="video").select_option(label="yard")
    explorer.get_by_role("button", name="all normal").click()
    shows("anomalous: no frame. Not saved.")
    explorer.get_by_role("button", name="save labels").click()
    shows("Saved: 2 files")
    explorer.get_by_role("combobox", name="video").select_option(label="front door")
    shows("anomalous: frames 110 to 184")
    shows("Calibrated by 0.3 minutes of normal film")
    page.wait_for_timeout(3000) # the curve is drawn after the words: for the picture
