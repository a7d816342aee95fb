"The `vad` command from end to end: what works, and one clear sentence for everything that cannot."
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import MISSING, fields
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import typer
from apart import Apart
from conftest import fill, litter, write_frames
from safetensors.torch import load_file, save_file

from vad import __version__
from vad.cli import app, fields_of, run_app
from vad.core.provenance import shared
from vad.core.records import read_json
from vad.data.cutting import Cutting
from vad.data.embedding import Recipe
from vad.training.checkpoints import SCORING
from vad.training import trainer
from vad.training.classifier import ClassifierSettings
from vad.training.trainer import Settings

ROOT = Path(__file__).resolve().parent.parent
SMALL = "--size 16 16 --channels 1 --width 2 --items 3 --batch 4 --epochs 2 --lr 1e-3 --schedule step --device cpu".split()


def vad(*args):
    "the command, as the console script calls it"
    from vad.cli import run_command
    sys.argv = ["vad", *map(str, args)]
    run_command()

def call(folder, *args, seconds=600): return Apart(folder / "said", vad, *args).end(seconds)

def sentence(said, *words, code=1):
    "what a failed command said: the last line of standard error, whatever progress bars wrote before it"
    rc, out, err = said
    assert rc == code, (rc, out, err)
    last = re.split("[\r\n]", err.strip("\r\n"))[-1]
    assert last.startswith("vad: ") and last.endswith("."), err
    assert "Traceback" not in err and err.count("vad: ") == 1, err
    for word in map(str, words): assert word in last, last
    return last

def saving(*args):
    "the command; every epoch is written down"
    trainer.EPOCH_SECONDS = 0
    vad(*args)

def nothing_left(*folders):
    for folder in folders:
        assert not litter(folder)
        assert not any(p.name in ("model.safetensors", "metrics.json") for p in Path(folder).rglob("*"))

@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    "a run made by the command"
    root = tmp_path_factory.mktemp("trained")
    rc, out, err = call(root, "train", tiny, "--out", root / "run", *SMALL, "--seed", 3)
    assert rc == 0, err
    assert "2 epochs" in out and "parameters moved" in out
    return root / "run"


# ---- what works

def test_train_and_evaluate(tiny, trained, tmp_path):
    settings = read_json(trained / "record.json")["settings"]
    assert settings | dict(size=[16, 16], width=2, seed=3, lr=1e-3, epochs=2, schedule="step") == settings
    rc, out, err = call(tmp_path, "evaluate", trained, tiny, "--device", "cpu", "--test-memory", "reset", "--into", "reset")
    assert rc == 0, err
    m = read_json(trained / "reset/metrics.json")
    assert f"AUC micro {100 * m['regularity']['auc_micro']:.2f} %" in out and "confusion" in out and "online" in out and "pixel AUC" in out
    assert "events caught" in out and "padded" in out and m["online"]["practice"]["events"] > 0
    for name in ("scores.csv", "controls.csv", "alarm_curve.png", "roc_curve.png", "confusion_matrix.png", "score_curves.png"):
        assert (trained / "reset" / name).stat().st_size > 100
    assert (trained / "reset/practice.csv").read_text().startswith("threshold,caught,delay,per_hour\n")
    assert m["key"]["settings"]["test_memory"] == "reset" and not (trained / "metrics.json").exists() and not litter(trained)

def test_frame_sheets_and_two_models_beside_each_other(tiny, trained, tmp_path):
    "two rows of pictures without gates, three with"
    shutil.copytree(trained, tmp_path / "run") # drawing evaluates what was not
    assert call(tmp_path, "train", tiny, "--out", tmp_path / "gated", *SMALL, "--attention", "gate")[0] == 0
    heights = []
    for run in (tmp_path / "run", tmp_path / "gated"):
        rc, out, err = call(tmp_path, "visualize", run, tiny, "--out", tmp_path / f"{run.name} sheets", "--num_videos", 2, "--frames_per_video", 3, "--device", "cpu")
        assert rc == 0 and "6 sheets" in out, err
        sheets = sorted((tmp_path / f"{run.name} sheets").glob("*.png"))
        assert len(sheets) == 6 and [p.stem for p in sheets[::3]] == ["01-0004", "02-0004"] and all(p.with_suffix(".csv").exists() for p in sheets)
        heights.append(cv2.imread(str(sheets[0])).shape[0])
    assert heights[1] > 1.3 * heights[0]
    few = ("--num_videos", 1, "--frames_per_video", 2, "--device", "cpu")
    rc, out, err = call(tmp_path, "compare", tmp_path / "run", tmp_path / "gated", tiny, "--out", tmp_path / "both.png", *few)
    assert rc == 0 and "2 frames" in out, err
    t = pd.read_csv(tmp_path / "both.csv")
    assert len(t) == 2 and {"regularity run", "regularity gated"} <= set(t) and (tmp_path / "both.png").stat().st_size > 5000
    sentence(call(tmp_path, "visualize", tmp_path / "none", tiny), "none")
    assert call(tmp_path, "train", tiny, "--out", tmp_path / "whole", *SMALL, "--task", "reconstruct")[0] == 0
    rc, out, err = call(tmp_path, "compare", tmp_path / "whole", tmp_path / "run", tiny, "--out", tmp_path / "kinds.png", *few)
    assert rc == 0 and pd.read_csv(tmp_path / "kinds.csv").frame.min() == 4, err # a reconstruction scores earlier frames too

def test_training_again_changes_nothing(tiny, trained, tmp_path):
    before = (trained / "model.safetensors").read_bytes()
    assert call(tmp_path, "train", tiny, "--out", trained, *SMALL, "--seed", 3)[0] == 0
    assert (trained / "model.safetensors").read_bytes() == before

def test_data_without_labels_is_scored(tiny, trained, tmp_path):
    shutil.copytree(tiny / "testing/frames", tmp_path / "films")
    rc, out, err = call(tmp_path, "evaluate", trained, tmp_path / "films", "--into", "films")
    assert rc == 0 and "no labels" in out, err
    t = pd.read_csv(trained / "films/scores.csv")
    assert len(t) == 48 and "label" not in t and "online" not in t

def test_original_weights_are_imported_and_evaluated(tiny, tmp_path):
    if shared("golden") is None: pytest.skip("the golden numbers are not in the shared folder (VAD_SHARED)")
    from test_memory import original
    torch.save(original("mnad_predict_none"), tmp_path / "model.pth")
    torch.save(torch.nn.functional.normalize(torch.rand(10, 512), dim=1), tmp_path / "keys.pt")
    rc, out, err = call(tmp_path, "import", tmp_path / "model.pth", tmp_path / "keys.pt", "--out", tmp_path / "run")
    assert rc == 0 and "vad evaluate" in out, err
    assert load_file(tmp_path / "run/model.safetensors")["items"].shape == (10, 512)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "object.pth")
    sentence(call(tmp_path, "import", tmp_path / "object.pth", tmp_path / "keys.pt", "--out", tmp_path / "other"), "object.pth", "state_dict")
    nothing_left(tmp_path / "said")
    assert not (tmp_path / "other").exists()

def not_weights(folder):
    "files that are no plain tensors, and a word of what is said of each"
    from test_memory import small_original
    state, _ = small_original()
    spoilt = {k: v.clone() for k, v in state.items()}
    spoilt["encoder.moduleConv1.0.weight"].view(-1)[0] = float("nan")
    torch.save(spoilt, folder / "spoilt.pt")
    torch.save(torch.nn.Linear(2, 2), folder / "object.pt")
    torch.save(torch.nn.Linear(2, 2), folder / "old_object.pt", _use_new_zipfile_serialization=False)
    torch.save(torch.zeros(10, 16), folder / "tensor.pt")
    torch.save({"conv.weight": torch.zeros(2)}, folder / "other.pt")
    torch.save(dict(epoch=3), folder / "nothing.pt")
    torch.save(state, folder / "good.pt")
    good = (folder / "good.pt").read_bytes()
    (folder / "cut.pt").write_bytes(good[:len(good) // 2])
    at = good.index(state["encoder.moduleConv4.0.weight"].numpy().tobytes()[:64])
    (folder / "flipped.pt").write_bytes(good[:at] + bytes([good[at] ^ 64]) + good[at + 1:])
    with zipfile.ZipFile(folder / "zip.pt", "w") as z: z.writestr("notes.txt", "no weights")
    for name, text in dict(page="\n<!DOCTYPE html>\n<html>", text="no weights\n" * 99, lfs="version https://git-lfs.github.com/spec/v1\n", empty="").items():
        (folder / f"{name}.pt").write_text(text)
    (folder / "picture.pt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99))
    (folder / "folder.pt").mkdir()
    os.mkfifo(folder / "pipe.pt")
    return dict(spoilt="nan", object="pickled object", old_object="pickled object", tensor="single tensor", other="lacks the kernels", nothing="no plain tensors",
                cut="cut short", flipped="damaged", zip="torch.save did not write", page="web page", text="but text", lfs="Git LFS", empty="empty file",
                picture="of another kind", folder="is a folder", gone="does not exist", pipe="is a named pipe")

def in_turn(*commands):
    "several commands in one process; their exit codes on standard output"
    for command in commands:
        try: vad(*command)
        except SystemExit as e: print(e.code)
        else: print(0)

def test_what_is_no_file_of_weights_is_said(tmp_path):
    torch.save(torch.nn.functional.normalize(torch.rand(10, 16), dim=1), tmp_path / "keys.pt")
    torch.save(torch.full((10, 16), float("nan")), tmp_path / "lost.pt")
    wrong = [(name, "keys", name, says) for name, says in not_weights(tmp_path).items()]
    wrong += [("good", items, items, says) for items, says in dict(lost="nan or infinite", other="no two or more memory items of width 16", page="web page").items()]
    commands = [("import", tmp_path / f"{state}.pt", tmp_path / f"{items}.pt", "--out", tmp_path / "run") for state, items, *_ in wrong]
    _, out, err = Apart(tmp_path / "said", in_turn, *commands).end(120)
    codes, said = out.split(), [line for line in err.splitlines() if line.startswith("vad: ")]
    assert codes == ["1"] * len(wrong) and len(said) == len(wrong) and "Traceback" not in err, (out, err)
    for (*_, name, says), line in zip(wrong, said): sentence((1, "", line), f"{name}.pt", says)
    assert not (tmp_path / "run").exists()

def test_what_scripts_save_around_their_weights_is_imported(tmp_path):
    from test_memory import small_original
    state, ours = small_original()
    torch.save(torch.nn.functional.normalize(torch.rand(10, 16), dim=1), tmp_path / "keys.pt")
    torch.save(dict(epoch=3, state_dict={f"module._orig_mod.{k}": v for k, v in state.items()}), tmp_path / "wrapped.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "safe.safetensors")
    torch.save({k: v + 1 for k, v in state.items()}, tmp_path / "next.pt")
    runs = [("wrapped.pt", "a"), ("old.pt", "b"), ("safe.safetensors", "c"), ("next.pt", "a")]
    _, out, err = Apart(tmp_path / "said", in_turn, *(("import", tmp_path / name, tmp_path / "keys.pt", "--out", tmp_path / run) for name, run in runs)).end(120)
    assert [line for line in out.splitlines() if line.isdigit()] == ["0", "0", "0", "1"], (out, err)
    sentence((1, "", err), tmp_path / "a", "holds a run already")
    for _, run in runs:
        found = load_file(tmp_path / run / "model.safetensors")
        assert all(torch.equal(found[f"model.{k}"], v) for k, v in ours.items())

def test_check_says_what_is_there(tiny, tmp_path):
    rc, out, err = call(tmp_path, "data", "check", tiny)
    assert rc == 0, err
    assert out.splitlines() == ["train: 2 videos, 40 frames", "test: 3 videos, 60 frames", "labels: frame_labels_tiny.npy, 18 anomalous frames", "masks: yes"]

COUNTERPARTS = dict( # options of the published scripts -> ours
    train=dict(gpus="--device", batch_size="--batch", epochs="--epochs", loss_compact="--compactness", loss_separate="--separateness", h="--size",
               w="--size", c="--channels", lr="--lr", method="--task", t_length="--clip", fdim="--width", mdim="--width", msize="--items", exp_dir="--out",
               attn_decoder="--attention"),
    evaluate=dict(gpus="--device", batch_size_test="--batch", th="--gate", alpha="--alpha"))

def commands(group, *above):
    "every command there is: its words, and how typer knows it"
    for name, command in group.commands.items():
        if hasattr(command, "commands"): yield from commands(command, *above, name)
        else: yield (*above, name), command

COMMANDS = {" ".join(words): command for words, command in commands(typer.main.get_command(app))}

def helped(monkeypatch, capsys, *words):
    "what the command says of itself, on a wide terminal"
    for name in ("COLUMNS", "TERMINAL_WIDTH"): monkeypatch.setenv(name, "200")
    monkeypatch.setattr(sys, "argv", ["vad", *words, "--help"])
    assert run_app() == (0, "")
    return capsys.readouterr().out

@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_every_option(monkeypatch, capsys, command):
    out = helped(monkeypatch, capsys, *command.split())
    options = [o for p in COMMANDS[command].params if p.param_type_name == "option" for o in p.opts]
    for option in (*options, *COUNTERPARTS.get(command, {}).values()): assert re.search(rf"{option}\b", out), (option, out)
    if command == "train":
        for name in Settings.__dataclass_fields__: assert f"--{'gate' if name == 'threshold' else name.replace('_', '-')}" in out
        flat = re.sub(r"[\s│]+", " ", out)
        for word in ("pixels", "frames a clip", "clips a step", "256 256", "0.0002", "60", "gate", "frozen"): assert word in flat, word

def test_help_of_groups(monkeypatch, capsys):
    out = helped(monkeypatch, capsys)
    for command in COMMANDS: assert re.search(rf"\b{command.split()[0]}\b", out), command
    assert "walkway" in helped(monkeypatch, capsys, "data")

@pytest.mark.parametrize("kind", [Settings, Recipe, Cutting, ClassifierSettings])
def test_settings_are_read_as_they_are(kind):
    "off their module's text, which no library need be imported for"
    found = fields_of(f"{kind.__module__}.{kind.__name__}")
    assert {n: (f.kind, f.default) for n, f in found.items()} == {f.name: (f.type, None if f.default is MISSING else f.default) for f in fields(kind)}
    assert all(f.help for f in found.values())

def test_what_may_change_after_training_are_options_of_evaluate():
    own = {"run", "data", "into", "device", "batch", "truth", "partial", "config", "as_json"}
    assert {p.name for p in COMMANDS["evaluate"].params} - own == {*SCORING, "smooth"} # the last of the speed detector

SLOW = ("torch", "torchvision", "cv2", "pandas", "sklearn", "scipy", "matplotlib", "numpy", "av", "PIL")

@pytest.mark.parametrize("line", [None, "--help", "train --help", "data check --help", "train x --epoch 3", "paint"])
def test_whoever_asks_for_help_waits_for_no_library(line):
    run = f"sys.argv = ['vad', *{line!r}.split()]; cli.run_app(); " if line else ""
    said = subprocess.run([sys.executable, "-c", f"import sys; from vad import cli; {run}print(*sys.modules)"], capture_output=True, text=True, check=True)
    assert not set(SLOW) & set(said.stdout.split("\n")[-2].split())

def test_the_console_script(tiny, tmp_path):
    "installed beside this Python: the same command, once for real"
    script = Path(sys.executable).with_name("vad")
    if not script.exists(): pytest.skip("the package is not installed with its console script")
    done = subprocess.run([script, "train", tmp_path / "nowhere", "--out", tmp_path / "run"], capture_output=True, text=True, timeout=600)
    sentence((done.returncode, done.stdout, done.stderr), "nowhere")
    assert done.stderr == f"vad: {tmp_path / 'nowhere'} does not exist: name the folder of a dataset.\n" and not (tmp_path / "run").exists()
    assert subprocess.run([script, "--version"], capture_output=True, text=True).stdout == f"vad {__version__}\n"


# ---- bad data

def copy(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "tiny")
    return tmp_path / "tiny"

def film(path, frames=12):
    "a video file of a moving square"
    path.parent.mkdir(parents=True, exist_ok=True)
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (32, 32))
    assert out.isOpened()
    rng = np.random.default_rng(len(path.name))
    for _ in range(frames): out.write(rng.integers(0, 256, (32, 32, 3), np.uint8))
    out.release()

def empty_folder(root): (root / "training/frames/03").mkdir()
def no_training(root): shutil.rmtree(root / "training")
def truncated_image(root):
    path = root / "training/frames/01/007.png"
    path.write_bytes(path.read_bytes()[:-40])
def zero_bytes(root): (root / "training/frames/02/004.png").write_bytes(b"")
def no_image(root): (root / "training/frames/02/009.png").write_bytes(b"GIF89a is no picture of ours" * 9 + b"IEND")
def broken_inside(root):
    path = root / "training/frames/02/010.png"
    data = bytearray(path.read_bytes())
    data[60:400] = bytes(340)
    path.write_bytes(bytes(data))
def another_size(root): cv2.imwrite(str(root / "training/frames/01/011.png"), np.zeros((16, 32), np.uint8))
def another_size_elsewhere(root):
    shutil.rmtree(root / "training/frames/02")
    (root / "training/frames/02").mkdir()
    for t in range(9): cv2.imwrite(str(root / f"training/frames/02/{t}.png"), np.full((40, 32), 20 * t, np.uint8))
def a_gap(root): (root / "training/frames/01/012.png").unlink()
def too_short(root):
    for t in range(4, 21): (root / f"training/frames/01/{t:03d}.png").unlink()
def labels_too_short(root): np.save(root / "frame_labels_tiny.npy", np.zeros((1, 59), np.uint8))
def labels_too_long(root): np.save(root / "frame_labels_tiny.npy", np.ones((1, 600), np.uint8))
def labels_of_another_class(root): np.save(root / "frame_labels_tiny.npy", np.tile([0, 1, 2, 3], 15)[None])
def labels_that_are_text(root): np.save(root / "frame_labels_tiny.npy", np.array([["normal"] * 60]))
def labels_pickled(root): np.save(root / "frame_labels_tiny.npy", np.array([None] * 60), allow_pickle=True)
def labels_garbage(root): (root / "frame_labels_tiny.npy").write_bytes(os.urandom(100))
def labels_empty(root): (root / "frame_labels_tiny.npy").write_bytes(b"")
def duplicate(root):
    shutil.rmtree(root / "training/frames/02")
    shutil.copytree(root / "training/frames/01", root / "training/frames/02")
def empty_film(root): (root / "training/frames/03.avi").write_bytes(b"")
def corrupt_film(root): (root / "training/frames/03.mp4").write_bytes(os.urandom(4000))
def truncated_film(root):
    film(root / "training/frames/03.avi")
    path = root / "training/frames/03.avi"
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])

LABELS = "frame_labels_tiny.npy"
BAD = [(empty_folder, "frames/03"), (no_training, "tiny", "train"), (truncated_image, "007.png", "truncated"), (zero_bytes, "004.png", "0 bytes"),
       (no_image, "009.png"), (broken_inside, "010.png"), (another_size, "011.png", "size"), (another_size_elsewhere, "32 x 40", "size"),
       (a_gap, "frames/01", "12"), (too_short, "frames/01", "clip"), (labels_too_short, LABELS, "59", "60"), (labels_too_long, LABELS, "600"),
       (labels_of_another_class, LABELS), (labels_that_are_text, LABELS), (labels_pickled, LABELS), (labels_garbage, LABELS), (labels_empty, LABELS),
       (duplicate, "frames/01", "frames/02"), (empty_film, "03.avi"), (corrupt_film, "03.mp4"), (truncated_film, "03.avi", "truncated")]

@pytest.mark.parametrize("break_it, words", [(b, w) for b, *w in BAD], ids=[b.__name__ for b, *_ in BAD])
def test_bad_data(tiny, tmp_path, monkeypatch, break_it, words):
    root = copy(tiny, tmp_path)
    break_it(root)
    monkeypatch.setenv("VAD_CACHE", str(tmp_path / "cache"))
    sentence(call(tmp_path, "train", root, "--out", tmp_path / "run", *SMALL), *words)
    nothing_left(tmp_path)
    assert not (tmp_path / "run").exists() and not [p for p in (tmp_path / "cache").glob("*") if not p.name.startswith(".")]

def test_bad_data_where_the_pictures_are_scored(tiny, trained, tmp_path):
    root = copy(tiny, tmp_path)
    zero = root / "testing/frames/02/013.png"
    zero.write_bytes(b"")
    before = {p.name for p in trained.iterdir()}
    said = sentence(call(tmp_path, "evaluate", trained, root), zero)
    assert "--partial" in said and {p.name for p in trained.iterdir()} == before

def test_partial_takes_what_can_be_used(tiny, tmp_path):
    root = copy(tiny, tmp_path)
    labels_too_short(root)
    (root / "training/frames/01/012.png").unlink()
    rc, _, err = call(tmp_path, "train", root, "--out", tmp_path / "run", *SMALL, "--partial")
    assert rc == 0, err
    warnings = read_json(tmp_path / "run/record.json")["data"]["warnings"]
    assert any("12" in w for w in warnings) and any("59" in w for w in warnings) and not any(str(tmp_path) in w for w in warnings)


# ---- how it speaks

def document(said):
    "the one JSON document of a command; its sentences are on standard error"
    rc, out, err = said
    assert rc == 0, err
    return json.loads(out), err

def test_json_is_one_document_on_standard_output(tiny, trained, tmp_path):
    found, err = document(call(tmp_path, "data", "check", tiny, "--json"))
    assert found["test"]["frames"] == 60 and found["masks"] and found["warnings"] == [] and "test: 3 videos" in err
    shutil.copytree(trained, run := tmp_path / "run")
    found, err = document(call(tmp_path, "evaluate", run, tiny, "--device", "cpu", "--into", "json", "--json"))
    m = read_json(run / "json/metrics.json")
    assert found["metrics"]["online"]["auc_micro"] == m["online"]["auc_micro"] and "AUC micro" in err
    found, err = document(call(tmp_path, "score", tiny / "testing/frames/01", "--model", trained, "--out", tmp_path / "scores", "--device", "cpu", "--fps", 10, "--no-video", "--json"))
    assert found["record"]["scorer"]["kind"] == "memory" and "latency" in found["record"]

def test_quiet_says_nothing_and_verbose_where(tiny, trained, tmp_path):
    for words in (("-q", "data", "check", tiny), ("data", "check", tiny, "--quiet")):
        assert call(tmp_path, *words) == (0, "", "")
    assert document(call(tmp_path, "-q", "data", "check", tiny, "--json"))[1] == ""
    rc, out, err = call(tmp_path, "data", "check", tmp_path / "none", "-v")
    assert rc == 1 and out == "" and "Traceback" in err and "root=" in err and err.splitlines()[-1].startswith("vad: ")
    sentence(call(tmp_path, "-q", "data", "check", tmp_path / "none"), "none")

def test_a_run_is_made_again_from_its_record(tiny, trained, tmp_path):
    rc, _, err = call(tmp_path, "train", tiny, "--out", tmp_path / "again", "--config", trained / "record.json", "--device", "cpu")
    assert rc == 0, err
    both = [read_json(p / "record.json")["settings"] for p in (trained, tmp_path / "again")]
    assert both[0] == both[1]
    assert all(torch.equal(v, load_file(tmp_path / "again/model.safetensors")[k]) for k, v in load_file(trained / "model.safetensors").items())

def test_settings_from_a_file(tiny, trained, tmp_path):
    "the command line goes before them"
    mine = tmp_path / "mine.yaml"
    mine.write_text("size: [16, 16]\nchannels: 1\nwidth: 2\nitems: 3\nbatch: 4\nepochs: 2\nlr: 1e-3\ndevice: cpu\nupdate-over: own\n")
    assert call(tmp_path, "train", tiny, "--out", tmp_path / "run", "--config", mine, "--epochs", 1)[0] == 0
    s = read_json(tmp_path / "run/record.json")["settings"]
    assert s | dict(size=[16, 16], width=2, lr=1e-3, epochs=1, update_over="own") == s
    rc, _, err = call(tmp_path, "evaluate", tmp_path / "run", tiny, "--into", "config", "--config", trained / "record.json")
    assert rc == 0, err
    for text, words in {"epoch: 3": ["epoch", "no option of vad train"], "[1, 2]": ["no names"], "size: {": ["neither YAML nor JSON"]}.items():
        mine.write_text(text)
        sentence(call(tmp_path, "train", tiny, "--out", tmp_path / "other", "--config", mine), mine, *words)
    mine.write_text("task: guess")
    sentence(call(tmp_path, "train", tiny, "--out", tmp_path / "other", "--config", mine), "guess", code=2)
    sentence(call(tmp_path, "train", tiny, "--out", tmp_path / "other", "--config", tmp_path / "gone.json"), "gone.json")
    assert not (tmp_path / "other").exists()

def test_a_file_says_options_as_the_command_line_does(tiny, trained, tmp_path):
    "by their own names, not by those of the code; a file in a file is none"
    mine = tmp_path / "mine.yaml"
    mine.write_text("gate: 0.25\njson: true\n")
    rc, out, err = call(tmp_path, "evaluate", trained, tiny, "--into", "gate", "--config", mine)
    assert rc == 0 and json.loads(out)["metrics"]["key"]["settings"]["threshold"] == .25, err
    for text in ("threshold: 0.25", "config: other.yaml"):
        mine.write_text(text)
        sentence(call(tmp_path, "evaluate", trained, tiny, "--into", "gate", "--config", mine), mine, text.split(":")[0], "no option of vad evaluate")

def test_numbers_behind_one_option():
    for words in ("reproduce --seeds 0 1 2 mnad", "reproduce --seeds=0 1 2 mnad"):
        assert COMMANDS["reproduce"].make_context("reproduce", words.split()[1:]).params["seeds"] == [0, 1, 2]
        assert COMMANDS["reproduce"].make_context("reproduce", words.split()[1:]).params["entries"] == ["mnad"]

@pytest.mark.parametrize("seed", [-3, 2**32, 2**64 - 1])
def test_seeds_that_are_none(tiny, tmp_path, seed):
    sentence(call(tmp_path, "train", tiny, "--out", tmp_path / "run", f"--seed={seed}", *SMALL), "--seed is a number")
    sentence(call(tmp_path, "reproduce", "mnad.runtime", "--data", tiny, "--out", tmp_path / "runs", f"--seeds={seed}"), "--seeds", code=2)
    assert not (tmp_path / "run").exists() and not (tmp_path / "runs").exists()

def test_home_behind_an_equals_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    p = COMMANDS["reproduce"].make_context("reproduce", ["mnad", "--out=~/runs", "--name=a=~b"]).params
    assert str(p["out"]) == "/home/me/runs" and p["name"] == "a=~b"

def test_a_report_is_of_a_reproduction(tmp_path):
    (tmp_path / "record.json").write_text('{"clips": 3, "settings": {}}')
    sentence(call(tmp_path, "report", tmp_path), "is no reproduction", "vad reproduce")

def test_pictures_are_of_the_last_evaluation(tiny, trained, tmp_path):
    "of other data, and of data without labels, none of the old ones stays"
    shutil.copytree(trained, tmp_path / "run")
    shutil.copytree(tiny, tmp_path / "twin")
    shutil.copytree(tiny, tmp_path / "bare", ignore=shutil.ignore_patterns("frame_labels*", "masks"))
    labels, = (tmp_path / "twin").glob("frame_labels*.npy")
    np.save(labels, 1 - np.load(labels))
    labels.rename(labels.with_name("frame_labels_twin.npy"))
    shutil.rmtree(tmp_path / "twin/masks", ignore_errors=True)
    assert call(tmp_path, "evaluate", tmp_path / "run", tiny)[0] == 0
    pictures = {p.name: p.read_bytes() for p in (tmp_path / "run").glob("*.png")}
    assert {"roc_curve.png", "confusion_matrix.png", "score_curves.png"} <= set(pictures)
    few = ("--out", tmp_path / "sheets", "--num_videos", 1, "--frames_per_video", 1, "--device", "cpu")
    rc, _, err = call(tmp_path, "visualize", tmp_path / "run", tmp_path / "twin", *few)
    assert rc == 0 and read_json(tmp_path / "run/metrics.json")["dataset"] == "twin", err
    assert all((tmp_path / "run" / n).read_bytes() != pictures[n] for n in ("roc_curve.png", "confusion_matrix.png", "score_curves.png"))
    assert call(tmp_path, "evaluate", tmp_path / "run", tmp_path / "bare")[0] == 0
    assert not list((tmp_path / "run").glob("*.png"))

def test_what_cannot_be_written_is_refused_first(tiny, trained, tmp_path):
    sentence(call(tmp_path, "compare", trained, trained, tiny, "--out", tmp_path / "both.jpg"), "both.jpg.png")
    sentence(call(tmp_path, "evaluate", trained, tiny, "--batch", 0), "--batch", code=2)
    (tmp_path / "figures").write_text("")
    sentence(call(tmp_path, "reproduce", "mnad.runtime", "--data", tiny, "--out", tmp_path / "runs", "--publish", tmp_path / "figures"), "figures is no folder")
    assert not (tmp_path / "runs").exists() and not (trained / "metrics.json").exists()

def test_quick_is_the_preset_everywhere():
    presets = {name: p.default for name, command in COMMANDS.items() for p in command.params if p.name == "preset"}
    assert presets == dict(train="quick", reproduce="quick") and trainer.settings() == trainer.settings("quick")

def test_results_go_where_out_says():
    "one word in all commands"
    written = {name for name, command in COMMANDS.items() for p in command.params if "--output" in p.opts}
    assert written == {"embed"} and "--out" in next(p.opts for p in COMMANDS["embed"].params if "--output" in p.opts)

def test_a_list_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = [call(tmp_path, "reproduce", *words) for words in (("list",), ("--list",))]
    assert said[0] == said[1] and said[0][0] == 0 and "mnad.table1" in said[0][1]

@pytest.mark.parametrize("shell, words", [("bash", ["complete ", "_VAD_COMPLETE=complete_bash"]), ("zsh", ["#compdef vad"]), ("fish", ["complete --command vad"])])
def test_completion(shell, words):
    "from an empty environment; then what a shell asks for with it"
    def asked(*args, **env):
        script = "import sys; sys.path.insert(0, sys.argv.pop(1)); from vad.cli import run_command; run_command()"
        return subprocess.run([sys.executable, "-c", script, str(ROOT), *args], env=env, capture_output=True, text=True, cwd="/")
    done = asked("--show-completion", shell)
    assert done.returncode == 0 and all(w in done.stdout for w in words), done
    done = asked(_VAD_COMPLETE="complete_bash", COMP_WORDS="vad train x --attent", COMP_CWORD="3")
    assert done.stdout.split() == ["--attention"], done
    done = asked(_VAD_COMPLETE="complete_bash", COMP_WORDS="vad train x --attention ", COMP_CWORD="4")
    assert done.stdout.split() == ["none", "gate", "residual"], done


# ---- bad folders, settings, files

def test_wrong_folders(tiny, trained, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    for folder in ("none", "empty", "file.txt"): sentence(call(tmp_path, "train", tmp_path / folder, "--out", tmp_path / "run", *SMALL), tmp_path / folder)
    sentence(call(tmp_path, "evaluate", tmp_path / "empty", tiny), tmp_path / "empty", "model.safetensors")
    sentence(call(tmp_path, "evaluate", trained, tmp_path / "empty"), tmp_path / "empty")
    sentence(call(tmp_path, "train", tiny, "--out", tmp_path / "file.txt/run", *SMALL), "file.txt")
    sentence(call(tmp_path, "data", "check", tmp_path / "none"), tmp_path / "none")
    sentence(call(tmp_path, "reproduce", "--data", tmp_path / "none", "--out", tmp_path / "runs"), tmp_path / "none")
    assert not (tmp_path / "run").exists() and not (tmp_path / "runs").exists()

@pytest.mark.parametrize("options, words", [
    ("--size 20 20", ["divisible by 8"]), ("--attention gate --no-memory", ["memory"]), ("--device abacus", ["abacus"]), ("--batch 4000", ["4000"]), ("--lr -1", ["lr"]), ("--lr nan", ["lr"]),
    ("--items 1", ["items"]), ("--clip 30", ["frames/01", "clip"]), ("--track pencil", ["pencil"]), ("--truth oracle", ["oracle"])])
def test_bad_settings(tiny, tmp_path, options, words):
    sentence(call(tmp_path, "train", tiny, "--out", tmp_path / "run", *SMALL, *options.split()), *words)
    nothing_left(tmp_path)

@pytest.mark.parametrize("line, words", [("train", ["data"]), ("train x", ["--out"]), ("train x --out y --width wide", ["--width", "integer"]),
                                         ("paint", ["paint"]), ("evaluate x y --epochs 3", ["--epochs"]),
                                         ("train x --out y --task guess", ["guess", "predict"]), ("train x --out y --preset huge", ["huge", "quick"]),
                                         ("classify x --out y --cell lstm", ["lstm", "mingru"])])
def test_a_command_line_that_is_wrong(tmp_path, line, words): sentence(call(tmp_path, *line.split()), *words, "--help", code=2)

def test_a_run_of_other_settings(tiny, trained, tmp_path):
    before = (trained / "model.safetensors").read_bytes()
    sentence(call(tmp_path, "train", tiny, "--out", trained, *SMALL, "--seed", 4), trained, "seed = 3")
    sentence(call(tmp_path, "train", tiny, "--out", trained, *SMALL, "--seed", 3, "--attention", "gate"), trained, "attention = none")
    assert (trained / "model.safetensors").read_bytes() == before

@pytest.mark.parametrize("break_it", [lambda p: p.write_bytes(p.read_bytes()[:1000]), lambda p: p.write_bytes(os.urandom(3000)), lambda p: p.write_bytes(b"")],
                         ids=["truncated", "garbage", "empty"])
def test_a_broken_model(tiny, trained, tmp_path, break_it):
    shutil.copytree(trained, tmp_path / "run")
    break_it(tmp_path / "run/model.safetensors")
    sentence(call(tmp_path, "evaluate", tmp_path / "run", tiny), tmp_path / "run/model.safetensors")

def test_a_loss_that_is_no_number(tiny, tmp_path):
    sentence(call(tmp_path, "train", tiny, "--out", tmp_path / "run", *SMALL, "--lr", "1e30"), "nan", "learning rate")
    nothing_left(tmp_path / "run")

def test_a_full_disk(tiny, trained, disk, tmp_path, monkeypatch):
    shutil.copytree(trained, disk / "trained")
    fill(disk, 8000)
    sentence(call(tmp_path, "train", tiny, "--out", disk / "run", *SMALL), "disk", disk / "run")
    sentence(call(tmp_path, "evaluate", disk / "trained", tiny), "disk", disk / "trained")
    nothing_left(disk / "run")
    assert not (disk / "trained/metrics.json").exists() and not litter(disk)
    (disk / "filler").unlink()
    fill(disk, 30_000) # enough for tables, not for pictures
    sentence(call(tmp_path, "evaluate", disk / "trained", tiny), "disk", disk / "trained")
    read_json(disk / "trained/metrics.json")
    assert not litter(disk) and not list((disk / "trained").glob("score_curves.png"))
    monkeypatch.setenv("VAD_CACHE", str(disk / "cache"))
    sentence(call(tmp_path, "train", tiny, "--out", tmp_path / "run", *SMALL), "ree some space", disk / "cache")
    nothing_left(tmp_path / "run")
    assert not list((disk / "cache").glob("[!.]*")) and not litter(disk)

def test_a_folder_that_may_not_be_written(tiny, tmp_path):
    if os.geteuid() == 0: pytest.skip("root may write everywhere")
    (tmp_path / "closed").mkdir(mode=0o500)
    sentence(call(tmp_path, "train", tiny, "--out", tmp_path / "closed/run", *SMALL), "closed")


# ---- stopped

@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_training(tiny, trained, tmp_path, sig):
    slow = [*SMALL, "--seed", 3, "--epochs", 100_000]
    run = Apart(tmp_path / "said", saving, "train", tiny, "--out", tmp_path / "run", *slow)
    sentence(run.wait_for(lambda: (tmp_path / "run/losses.csv").exists()).kill(sig).end(), tmp_path / "run", "--resume", code=130)
    nothing_left(tmp_path / "run")
    step = (tmp_path / "run/checkpoint.safetensors").read_bytes()
    sentence(call(tmp_path, "train", tiny, "--out", tmp_path / "run", *slow), "--resume")
    assert (tmp_path / "run/checkpoint.safetensors").read_bytes() == step
    run = Apart(tmp_path / "said", saving, "train", tiny, "--out", tmp_path / "run", *slow, "--resume")
    begun = len(pd.read_csv(tmp_path / "run/losses.csv"))
    sentence(run.wait_for(lambda: len(pd.read_csv(tmp_path / "run/losses.csv")) > begun).kill(sig).end(), "--resume", code=130)
    assert list(pd.read_csv(tmp_path / "run/losses.csv").epoch)[:begun + 1] == list(range(1, begun + 2))

def slow_decoding(*args):
    "the command, with pictures that take long to read: half a minute for the rest"
    decode, calls = cv2.imdecode, []
    def slow(*args):
        calls.append(1)
        if len(calls) > 50: time.sleep(.5)
        return decode(*args)
    cv2.imdecode = slow
    vad(*args)

@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_decoding(tmp_path, monkeypatch, sig):
    "nothing that a later run would trust is left"
    root, cache = tmp_path / "long", tmp_path / "cache"
    write_frames(root / "training/frames/01", 1, 400)
    write_frames(root / "testing/frames/01", 2, 9)
    monkeypatch.setenv("VAD_CACHE", str(cache))
    big = [*SMALL, "--size", 512, 512]
    run = Apart(tmp_path / "said", slow_decoding, "train", root, "--out", tmp_path / "run", *big)
    sentence(run.wait_for(lambda: any(cache.glob(".*.part/frames.npy"))).kill(sig).end(), "stopped", code=130)
    assert not list(cache.glob(".*.part*")) and not [p for p in cache.glob("*") if not p.name.startswith(".")] and not (tmp_path / "run").exists()
