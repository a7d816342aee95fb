"The papers' notebooks: by plain papermill from any folder, with parameters as a person gives them; and what is committed of them."
import os
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import nbformat
import pandas as pd
import pytest

import vad
from vad.data.synthetic import write_scenes
from vad.reproduce.cards import write_cards
from vad.reproduce.report import published_report

ROOT = Path(vad.__file__).parents[1]
PAPERS = sorted(p.stem for p in (ROOT / "nbs/papers").glob("*.ipynb"))
SMALL = dict(frames="{size: [16, 16], width: 2, items: 3, epochs: 1}", clips="{epochs: 1, hidden: 8, projection: 8}")
FRAMES = ("01_mnad", "02_gates", "05_beyond")

def papermill(folder, name, *args):
    "The command, from a folder that is not the checkout; exit code and what it said."
    env = os.environ | dict(PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), OMP_NUM_THREADS="1")
    done = subprocess.run([sys.executable, "-m", "papermill", ROOT / f"nbs/papers/{name}.ipynb", "out.ipynb", "-k", "python3", "-p", "preset", "quick",
                           "-p", "device", "cpu", *args], cwd=folder, env=env, capture_output=True, text=True)
    return done.returncode, done.stderr

@pytest.fixture(scope="module")
def somewhere(tmp_path_factory): return tmp_path_factory.mktemp("somewhere")

@pytest.mark.parametrize("name, only, clips, left", [
    ("01_mnad", "table1", "", "mnad/walkway.table1.csv"), ("02_gates", "roc frames", "", "gates/walkway.table.csv"),
    ("03_embeddings", "map", "street", "embeddings/street.map.csv"), ("04_srupp", "leaks", "", "srupp/scenes.leaks.csv"),
    ("05_beyond", "headline fusion", "", "beyond/walkway.fusion.csv")])
def test_papermill_gives_the_table(somewhere, name, only, clips, left):
    "a word or several as a text; the run lies under the current folder, named after its data; clips: a folder of them, else data are rendered"
    if clips: write_scenes(somewhere / clips, cameras=4, frames=6, size=(48, 64))
    given = ("-p", "clips", clips) if clips else ()
    code, said = papermill(somewhere, name, "-p", "only", only, *given, "-y", f"changes: {SMALL['frames' if name in FRAMES else 'clips']}")
    assert code == 0, said[-3000:]
    run = f"runs/{clips or 'synthetic'}-quick"
    assert len(pd.read_csv(somewhere / run / "figures" / left)) > 1
    text = (somewhere / "out.ipynb").read_text()
    assert run in text and "verdict" not in text

@pytest.mark.slow
@pytest.mark.parametrize("name", PAPERS)
def test_papermill_gives_the_whole_paper(somewhere, name):
    code, said = papermill(somewhere, name)
    assert code == 0, said[-3000:]

@pytest.mark.parametrize("name, args, words", [("01_mnad", ("-p", "only", "tabel1"), "take some of table1, table2"), ("04_srupp", ("-p", "clips", "nowhere"), "nowhere")])
def test_what_cannot_be_is_refused(tmp_path, name, args, words):
    code, said = papermill(tmp_path, name, *args)
    assert code != 0 and words in said and not (tmp_path / "runs").exists()

def test_parameters_are_one_plain_cell():
    "tagged for papermill, a comment on every line, and no path of the checkout in it"
    for name in PAPERS:
        cell, = (c for c in nbformat.read(ROOT / f"nbs/papers/{name}.ipynb", 4).cells if "parameters" in c.metadata.get("tags", []))
        assert all(" # " in line and ": " in line.partition("#")[0] for line in cell.source.splitlines()), name
        assert "runs/synthetic" not in cell.source and 'out: str = ""' in cell.source

def test_every_paper_ends_in_what_held():
    for name in PAPERS: assert nbformat.read(ROOT / f"nbs/papers/{name}.ipynb", 4).cells[-1].source.startswith("## What held, what did not"), name

@pytest.mark.parametrize("name", PAPERS)
def test_no_output_is_older_than_its_code(tmp_path, name):
    "run again on the published results, every cell says what is committed"
    papers = run_path(str(ROOT / ".ci/papers.py"))
    source, book = papers["shown"](name, tmp_path)
    assert papers["text"](book) == papers["text"](nbformat.read(source, 4)), "run .ci/papers.py and commit"
    assert source.stat().st_size < 300_000


@pytest.mark.parametrize("data", ["ped2", "avenue_part", "ucf_crime"])
def test_published_cards_say_what_the_published_results_say(tmp_path, data):
    write_cards(published_report(ROOT / "figures", data), tmp_path)
    made = sorted((tmp_path / "cards").glob("*.md"))
    assert made and [p.name for p in made] == sorted(p.name for p in (ROOT / "figures/cards").glob(f"{data}.*.md"))
    for p in made: assert p.read_text() == (ROOT / "figures/cards" / p.name).read_text(), "publish again, or write_cards(published_report(...))"
