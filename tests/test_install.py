"The package as others get it: an archive of the source makes a wheel, and the wheel works where no checkout is."
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from vad.core.records import read_csv

ROOT = Path(__file__).resolve().parent.parent
OTHERS = {"VAD_SHARED", "PYTHONPATH"} # nothing beside the package is to be found


def run(folder, *command, **env):
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True,
                          env={k: v for k, v in os.environ.items() if k not in OTHERS} | env)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    "what git keeps, and nothing that lies about beside it"
    root = tmp_path_factory.mktemp("source") / "vad" # a checkout of that name
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode: pytest.skip("this is no git checkout")
    for name in listed.stdout.splitlines():
        if not (ROOT / name).is_file(): continue
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes((ROOT / name).read_bytes())
    return root


@pytest.fixture(scope="module")
def installed(source, tmp_path_factory):
    "the wheel made from the archive of the source, unpacked"
    pytest.importorskip("build", reason="the package `build` is not installed")
    out = tmp_path_factory.mktemp("dist")
    run(source, "-m", "build", "--no-isolation", "--outdir", out)
    wheel, = out.glob("*.whl")
    assert wheel.name.startswith("video_anomaly-"), "the index has another package of the name vad"
    zipfile.ZipFile(wheel).extractall(out / "site")
    return out / "site"


def test_an_entry_is_reproduced_in_an_empty_folder(installed, tmp_path, album):
    where = dict(PYTHONPATH=str(installed), VAD_CACHE=str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    script = f"import vad; assert vad.__file__.startswith({str(installed)!r}), vad.__file__"
    run(tmp_path / "empty", "-c", script, **where)
    said = run(tmp_path / "empty", "-m", "vad", "reproduce", "gates.frames", "--preset", "quick", "--device", "cpu", **where)
    (album / "said_by_the_wheel.txt").write_text(said)
    folder = tmp_path / "empty/runs/synthetic-quick"
    assert (folder / "gates.ipynb").exists() and (folder / "summary.html").exists()
    summary = read_csv(folder / "summary.csv", dict(entry=str, state=str))
    assert summary.set_index("entry").state["gates.frames"] == "measured"


def test_weights_and_pages_come_with_the_wheel(installed, tmp_path):
    script = "from vad.scores.detector import open_detector; d = open_detector('ped2-gates', 'cpu'); d.refer(); print(d.thresholds['online'])"
    assert float(run(tmp_path, "-c", script, PYTHONPATH=str(installed))) > 0
    assert {"page.html", "moments.html"} <= {p.name for p in (installed / "vad").iterdir()}


def test_benchmarks_come_with_the_wheel(installed, tmp_path):
    where = dict(PYTHONPATH=str(installed))
    said = subprocess.run([sys.executable, "-m", "vad", "bench", "nosuch"], cwd=tmp_path, capture_output=True, text=True,
                          env={k: v for k, v in os.environ.items() if k not in OTHERS} | where)
    assert said.returncode and "There is no benchmark 'nosuch': there are cache" in said.stderr + said.stdout


def test_an_editable_install_is_found_beside_a_folder_of_its_name(source, tmp_path):
    "a finder, which Python asks last, would lose to the folder `vad`, in which there is no code"
    run(source, "-c", f"from setuptools import build_meta; build_meta.build_editable({str(tmp_path)!r})")
    wheel, = tmp_path.glob("*.whl")
    pth, = (n for n in zipfile.ZipFile(wheel).namelist() if n.endswith(".pth"))
    (tmp_path / "site").mkdir()
    (tmp_path / "site/vad.pth").write_bytes(zipfile.ZipFile(wheel).read(pth))
    script = f"import site; site.addsitedir({str(tmp_path / 'site')!r}); import vad; print(vad.__version__)"
    assert run(source.parent, "-I", "-c", "import sys; sys.path.insert(0, ''); " + script).strip()

def test_the_commit_is_that_of_the_package(tmp_path):
    "an environment may lie in somebody's repository, whose commits say nothing of it"
    site = tmp_path / "thesis/.venv/site"
    shutil.copytree(ROOT / "vad", site / "vad", ignore=shutil.ignore_patterns("weights", "__pycache__"))
    git = ("git", "-C", tmp_path / "thesis", "-c", "user.name=me", "-c", "user.email=me@example.org")
    def said(): return run(site, "-c", "from vad.core.provenance import commit; print(commit())", PYTHONPATH=str(site)).strip()
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "chapter one"], check=True)
    assert said() == "None"
    subprocess.run([*git, "add", "-f", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "with the package"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert said() == head
