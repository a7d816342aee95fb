"Training that is killed, stopped, starved or fed nonsense; scoring that depends on nothing but the frames."
import inspect
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from apart import Apart, hold
from conftest import fill, litter
from films import write_film
from hypothesis import given, settings as fewer, strategies as st
from safetensors.torch import load_file, save_file

import vad
from vad.models import memory
from vad.scores import frame_scores, localization
from vad.training import classifier, evaluation, trainer
from vad.core.errors import UserError
from vad.core import devices
from vad.core.provenance import Run, modules_behind, shared
from vad.core.records import read_json
from vad.data import frame_cache
from vad.data.datasets import open_dataset
from vad.training.speed_detector import SpeedSettings, fit_speed
from vad.training.trainer import Settings, fit, load_model

TINY = Settings(size=(16, 16), channels=1, width=2, items=3, batch=4, epochs=2, lr=1e-3, schedule="step", precision="fp32") # 32 clips, 8 steps an epoch
KINDS = dict(plain=TINY, gated=replace(TINY, attention="gate", schedule="epoch"),
             half=replace(TINY, attention="gate", precision="bf16"),
             residual=replace(TINY, attention="residual", motion=.1))


@pytest.fixture(scope="module")
def data(tiny): return open_dataset(tiny)

@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    "an undisturbed run of each kind"
    root = tmp_path_factory.mktemp("whole")
    return {name: fit(s, data, root / name, "cpu") for name, s in KINDS.items()}

def losses(run): return pd.read_csv(run / "losses.csv").drop(columns="seconds")

def weights(run): return load_file(run / "model.safetensors")

def identical(a, b):
    "two runs have the same bits in their weights and their losses"
    ours, theirs = weights(a), weights(b)
    assert ours.keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in ours.items())
    pd.testing.assert_frame_equal(losses(a), losses(b), check_exact=True)

def message(call, *words):
    "the sentence of the UserError in which `call` ends"
    with pytest.raises(UserError) as e: call()
    text = str(e.value)
    assert "\n" not in text and text.endswith(".") and all(w in text for w in words), text
    return text


# ---- killed and resumed

def die_before(where, nth):
    "make this process kill itself just before the `nth` call of a function of the learner"
    function, calls = getattr(trainer, where), []
    def wrapped(*args, **kwargs):
        calls.append(1)
        if len(calls) == nth: os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    setattr(trainer, where, wrapped)

def train(root, s, folder, minutes=0, death=None, go=None):
    "a run that saves after every step; `go`: a file without which it does not end"
    trainer.SAVE_MINUTES = minutes
    if death: die_before(*death)
    if go: hold(trainer, "save_model", go=go)
    fit(s, open_dataset(root), folder, "cpu")

@pytest.mark.parametrize("kind, death", [
    ("plain", ("train_step", 5)),     # in the middle of the first epoch
    ("gated", ("train_step", 5)),
    ("gated", ("train_step", 12)),    # in the middle of the last
    ("plain", ("write_csv", 1)),      # an epoch is over, its losses are not yet written
    ("plain", ("write_csv", 2)),
    ("gated", ("save_checkpoint", 8)),           # its losses are written, its checkpoint is not
    ("gated", ("save_checkpoint", 16)),
    ("plain", ("audit", 1)),          # trained to the end, nothing yet made of it
    ("gated", ("save_model", 1)),
    ("half", ("train_step", 5)),
    ("half", ("save_checkpoint", 8)),
])
def test_a_killed_run_resumes_to_the_same_bits(tiny, data, whole, tmp_path, kind, death):
    code, _, err = Apart(tmp_path, train, tiny, KINDS[kind], tmp_path / "run", 0, death).end()
    assert code == -signal.SIGKILL, err
    assert (tmp_path / "run/checkpoint.safetensors").exists() and not (tmp_path / "run/model.safetensors").exists()
    identical(fit(KINDS[kind], data, tmp_path / "run", "cpu"), whole[kind])
    assert not (tmp_path / "run/checkpoint.safetensors").exists()

@pytest.mark.parametrize("kind, precision", [("gated", "fp32"), ("half", "bf16")])
def test_a_run_goes_on_in_the_precision_in_which_it_began(tiny, data, whole, tmp_path, kind, precision):
    "whatever this machine would choose: auto is decided when a run begins"
    Apart(tmp_path, train, tiny, KINDS[kind], tmp_path / "run", 0, ("train_step", 5)).end()
    run = fit(replace(KINDS[kind], precision="auto"), data, tmp_path / "run", "cpu")
    assert run.record["settings"]["precision"] == precision == fit(replace(KINDS[kind], precision="auto"), data, run.folder, "cpu").record["settings"]["precision"]
    identical(run, whole[kind])

def test_auto_is_what_the_processor_is_quick_at(data, tmp_path):
    run = fit(replace(TINY, precision="auto", epochs=1), data, tmp_path / "run", "cpu")
    chosen = "bf16" if devices.has_bf16_units("cpu") else "fp32"
    assert run.record["settings"]["precision"] == load_model(run.folder)[2].precision == chosen

@pytest.mark.parametrize("name, flags, expected", [
    ("intel", "flags\t\t: fpu avx512f avx512_bf16 amx_bf16", True), ("older", "flags\t\t: fpu avx2 avx512f", False),
    ("arm", "Features\t: fp asimd bf16 i8mm", True), ("unreadable", "", False)])
def test_units_for_half_precision_are_read_from_the_system(monkeypatch, name, flags, expected):
    monkeypatch.setattr(devices, "lines_of_file", lambda path: ["processor\t: 0", flags])
    assert devices.has_bf16_units.__wrapped__("cpu") == (expected and torch.backends.mkldnn.is_available())

def test_many_short_lives_make_one_run(tiny, data, whole, tmp_path):
    lives = 0
    while not (tmp_path / "run/model.safetensors").exists():
        code, _, err = Apart(tmp_path, train, tiny, KINDS["gated"], tmp_path / "run", 0, ("train_step", 5)).end()
        lives += 1
        assert code in (0, -signal.SIGKILL) and lives < 9, err
    assert lives > 3
    identical(fit(KINDS["gated"], data, tmp_path / "run", "cpu"), whole["gated"])

@pytest.mark.parametrize("kind", KINDS)
def test_killed_from_outside_at_any_moment(tiny, data, whole, tmp_path, kind):
    "the moment may be the middle of a write: whatever stands under its name is whole, and what was half-written is swept away"
    run = Apart(tmp_path, train, tiny, KINDS[kind], tmp_path / "run", 0, None, tmp_path / "never")
    code, _, _ = run.wait_for((tmp_path / "run/checkpoint.safetensors").exists).kill(signal.SIGKILL).end()
    assert code == -signal.SIGKILL
    (tmp_path / "run/.checkpoint.0123abcd.part.safetensors").write_bytes(b"half")
    identical(fit(KINDS[kind], data, tmp_path / "run", "cpu"), whole[kind])
    assert not litter(tmp_path / "run")

@pytest.mark.parametrize("word", [signal.SIGCONT, signal.SIGKILL])
def test_one_at_a_time_in_a_folder(tiny, whole, tmp_path, word):
    "who comes second waits: it takes what the first has made, or goes on where the first was killed"
    first = Apart(tmp_path / "first", train, tiny, TINY, tmp_path / "run", 0, None, tmp_path / "go")
    first.wait_for((tmp_path / "run/checkpoint.safetensors").exists).kill(signal.SIGSTOP)
    death = ("train_step", 1) if word == signal.SIGCONT else None # it would not survive a step of its own
    second = Apart(tmp_path / "second", train, tiny, TINY, tmp_path / "run", 0, death)
    second.wait_for(lambda: "waiting" in second.err.read_text() if second.err.exists() else False)
    (tmp_path / "go").touch()
    assert first.kill(word).end()[0] == (0 if word == signal.SIGCONT else -signal.SIGKILL)
    code, _, err = second.end()
    assert code == 0, err
    identical(Run(tmp_path / "run"), whole["plain"])

def test_killed_before_any_checkpoint(tiny, data, whole, tmp_path):
    assert Apart(tmp_path, train, tiny, TINY, tmp_path / "run", 5, ("train_step", 3)).end()[0] == -signal.SIGKILL
    identical(fit(TINY, data, tmp_path / "run", "cpu"), whole["plain"])

def test_a_finished_run_is_left_as_it_is(data, whole):
    before = {p.name: p.read_bytes() for p in whole["plain"].folder.iterdir()}
    assert fit(TINY, data, whole["plain"].folder, "cpu").record["audit"]["moved"] > 0
    assert {p.name: p.read_bytes() for p in whole["plain"].folder.iterdir()} == before


# ---- stopped

def slow_step(held):
    "time for a signal to arrive; held: the last step but one waits for it"
    step, flag = trainer.train_step, trainer.stop_flag
    @contextmanager
    def watched():
        with flag() as stop:
            def slow(l, *args):
                time.sleep(.1)
                step(l, *args)
                while held and l.step == 15 and not stop.is_set(): time.sleep(.01)
            trainer.train_step = slow
            yield stop
    trainer.stop_flag = watched

def train_slowly(root, s, folder, minutes, held=True):
    slow_step(held)
    trainer.EPOCH_SECONDS = 0 # every epoch is written down
    try: train(root, s, folder, minutes)
    except UserError as e: print(e); sys.exit(3)

@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("minutes", [0, 5])
def test_stopped_and_resumed(tiny, data, whole, tmp_path, sig, minutes):
    kind = "gated" if minutes else "plain"
    run = Apart(tmp_path, train_slowly, tiny, KINDS[kind], tmp_path / "run", minutes)
    seen = (tmp_path / "run/checkpoint.safetensors").exists if minutes == 0 else lambda: (tmp_path / "run/losses.csv").exists()
    code, out, err = run.wait_for(seen).kill(sig).end()
    assert code == 3 and len(out.strip().splitlines()) == 1 and "Stopped" in out and "Traceback" not in err, out + err
    assert (tmp_path / "run/checkpoint.safetensors").exists() and not (tmp_path / "run/model.safetensors").exists() and not litter(tmp_path / "run")
    message(lambda: fit(KINDS[kind], data, tmp_path / "run", "cpu", resume=False), "--resume")
    identical(fit(KINDS[kind], data, tmp_path / "run", "cpu"), whole[kind])

def stop_at_step(root, s, folder, step):
    "Ctrl-C that arrives within a given step"
    train_step = trainer.train_step
    def stopped(l, clips):
        train_step(l, clips)
        if l.step == step: os.kill(os.getpid(), signal.SIGINT)
    trainer.train_step = stopped
    train_slowly(root, s, folder, 5, held=False)

@pytest.mark.parametrize("step", [1, 8, 16]) # the first, the last of an epoch, the last of all
def test_stopped_at_an_edge(tiny, data, whole, tmp_path, step):
    code, out, _ = Apart(tmp_path, stop_at_step, tiny, TINY, tmp_path / "run", step).end()
    assert code == 3 and "Stopped" in out and (tmp_path / "run/checkpoint.safetensors").exists()
    identical(fit(TINY, data, tmp_path / "run", "cpu"), whole["plain"])


# ---- what moves

class Forgetful(trainer.Learner):
    "the published mistake: an optimiser that never saw the gates"
    def __init__(self, *args):
        super().__init__(*args)
        for group in self.optimiser.param_groups: group["params"] = [p for n, p in zip(self.names, group["params"]) if not n.startswith("gates")]

def test_a_loss_of_motion_needs_gates_to_teach():
    message(lambda: replace(TINY, motion=.1), "motion", "gate or residual")

def test_the_audit_names_gates_that_the_optimiser_forgot(data, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "Learner", Forgetful)
    message(lambda: fit(replace(KINDS["gated"], epochs=1), data, tmp_path / "run", "cpu"), "gates.gates.0", "never moved")
    assert not (tmp_path / "run/model.safetensors").exists()

def test_frozen_gates_keep_their_first_bits(data, tmp_path):
    s = replace(KINDS["gated"], gates="frozen", epochs=1)
    run, (first, _) = fit(s, data, tmp_path / "run", "cpu"), trainer.initial_model(s)
    trained, begun = load_model(run.folder)[0].state_dict(), first.state_dict()
    parameters = dict(first.named_parameters())
    for name in parameters: assert torch.equal(trained[name], begun[name]) == name.startswith("gates"), name
    assert run.record["audit"] == dict(moved=sum(not n.startswith("gates") for n in parameters), frozen=sum(n.startswith("gates") for n in parameters))

def test_trained_gates_move(whole):
    first, trained = trainer.initial_model(KINDS["gated"])[0].state_dict(), weights(whole["gated"])
    gates = [n for n, _ in trainer.initial_model(KINDS["gated"])[0].named_parameters() if n.startswith("gates")]
    assert gates and not any(torch.equal(first[n], trained[f"model.{n}"]) for n in gates)

def test_a_seed_is_a_run(data, whole, tmp_path):
    identical(fit(TINY, data, tmp_path / "same", "cpu"), whole["plain"])
    other = fit(replace(TINY, seed=1), data, tmp_path / "other", "cpu")
    assert not torch.equal(weights(other)["items"], weights(whole["plain"])["items"])
    assert all(not torch.equal(v, weights(whole["plain"])[k]) for k, v in weights(other).items() if k.endswith("0.weight"))


@pytest.mark.parametrize("task", [trainer.Normality, classifier.Classes])
def test_every_task_keeps_the_protocol(task):
    "what the trainer calls is there, takes as many arguments, and the first loss is the one that is lowered"
    methods = [n for n, f in vars(trainer.Task).items() if callable(f) and not n.startswith("_")]
    assert set(methods) == {"build", "keep", "batch", "loss"}
    for n in methods: assert len(inspect.signature(getattr(task, n)).parameters) == len(inspect.signature(getattr(trainer.Task, n)).parameters), n
    assert task.losses[0] == "loss" and {"vad.training.checkpoints", "vad.training.trainer"} <= set(modules_behind(task.__module__))


# ---- numbers that are none

@pytest.mark.parametrize("lr, epochs", [(1e30, 1), (1e30, 2)])
def test_a_loss_that_is_no_number(data, tmp_path, lr, epochs):
    message(lambda: fit(replace(TINY, lr=lr, epochs=epochs), data, tmp_path / "run", "cpu"), "epoch 1", "nan", "learning rate")
    assert not (tmp_path / "run/model.safetensors").exists() and not (tmp_path / "run/checkpoint.safetensors").exists()

def poison(at):
    "at a step, one weight becomes infinite after the update: the loss of that step is still finite"
    step = trainer.train_step
    def poisoned(l, clips):
        step(l, clips)
        if l.step == at: next(l.plain.parameters()).data[0] = float("inf")
    return poisoned

@pytest.mark.parametrize("at", [8, 11, 16])
def test_weights_that_are_no_numbers_are_never_kept(data, whole, tmp_path, monkeypatch, at):
    monkeypatch.setattr(trainer, "SAVE_MINUTES", 0)
    with monkeypatch.context() as m:
        m.setattr(trainer, "train_step", poison(at))
        message(lambda: fit(TINY, data, tmp_path / "run", "cpu"), f"epoch {(at + 7) // 8}")
    assert not (tmp_path / "run/model.safetensors").exists()
    kept = load_file(tmp_path / "run/checkpoint.safetensors")
    assert all(v.isfinite().all() for v in kept.values())
    identical(fit(TINY, data, tmp_path / "run", "cpu"), whole["plain"]) # from there, without the poison, all is well


# ---- a full disk

@pytest.mark.parametrize("leave", [0, 4096, 40960])
def test_a_full_disk_while_training(tiny, data, whole, disk, tmp_path, leave):
    assert Apart(tmp_path, train, tiny, TINY, disk / "run", 0, ("train_step", 11)).end()[0] == -signal.SIGKILL
    for p in (disk / "run").glob(".*"): p.unlink()
    before = {p.name: p.read_bytes() for p in (disk / "run").iterdir()}
    fill(disk, leave)
    message(lambda: fit(TINY, data, disk / "run", "cpu"), "disk", "run")
    assert not litter(disk)
    after = {p.name: p.read_bytes() for p in (disk / "run").iterdir() if p.name != ".lock"}
    assert after.keys() == before.keys() and after["checkpoint.safetensors"] == before["checkpoint.safetensors"]
    read_json(disk / "run/record.json")
    (disk / "filler").unlink()
    identical(fit(TINY, data, disk / "run", "cpu"), whole["plain"])

def test_a_full_disk_while_the_model_is_saved(data, disk, monkeypatch):
    save = trainer.save_model
    monkeypatch.setattr(trainer, "save_model", lambda path, *args: (fill(disk), save(path, *args)))
    message(lambda: fit(TINY, data, disk / "run", "cpu"), "disk", "model.safetensors")
    assert (disk / "run/checkpoint.safetensors").exists() and not (disk / "run/model.safetensors").exists() and not litter(disk)

def test_a_full_disk_while_evaluating(data, whole, disk):
    shutil.copytree(whole["plain"].folder, disk / "run")
    fill(disk)
    message(lambda: evaluation.evaluate(disk / "run", data, "cpu"), "disk", "scores.csv")
    assert not (disk / "run/metrics.json").exists() and not litter(disk)
    (disk / "filler").unlink()
    assert evaluation.evaluate(disk / "run", data, "cpu")["regularity"]["auc_micro"] > 0


# ---- files of another kind

def test_a_folder_of_other_settings(tiny, data, whole, tmp_path):
    for change in (dict(width=3), dict(seed=7), dict(attention="gate"), dict(lr=1e-4)):
        (name, value), = change.items()
        message(lambda: fit(replace(TINY, **change), data, whole["plain"].folder, "cpu"), name, str(value), str(getattr(TINY, name)))
    Apart(tmp_path, train, tiny, TINY, tmp_path / "run", 0, ("train_step", 5)).end()
    before = (tmp_path / "run/checkpoint.safetensors").read_bytes()
    message(lambda: fit(replace(TINY, items=4), data, tmp_path / "run", "cpu"), "items = 3", "4")
    assert (tmp_path / "run/checkpoint.safetensors").read_bytes() == before

def test_a_folder_of_other_data(tiny, data, whole, tmp_path):
    (tmp_path / "more").mkdir()
    shutil.copytree(tiny, tmp_path / "more/tiny")
    shutil.rmtree(tmp_path / "more/tiny/training/frames/02")
    other = open_dataset(tmp_path / "more/tiny")
    message(lambda: fit(TINY, other, whole["plain"].folder, "cpu"), "other data")
    Apart(tmp_path, train, tiny, TINY, tmp_path / "run", 0, ("train_step", 5)).end()
    message(lambda: fit(TINY, other, tmp_path / "run", "cpu"), "other data")

def test_a_folder_of_films_decoded_otherwise(tmp_path, monkeypatch):
    "a network, whole or half trained, and a speed detector are found again by who decodes as they did alone"
    for k, part in enumerate(("training", "testing")): write_film(tmp_path / f"films/{part}/videos/01.mp4", range(k, k + 20), interlaced="tff")
    films, speed, said = open_dataset(tmp_path / "films"), SpeedSettings(height=32), ("decoded otherwise", "pyav, deinterlaced", "--fields deinterlaced")
    fit(TINY, films, tmp_path / "whole", "cpu")
    Apart(tmp_path, train, films.root, TINY, tmp_path / "half", 0, ("train_step", 5)).end()
    fit_speed(speed, films, tmp_path / "speed")
    before = {p: p.read_bytes() for p in tmp_path.glob("*/*.safetensors")}
    assert len(before) == 3
    monkeypatch.setenv("VAD_FIELDS", "stored")
    films = open_dataset(tmp_path / "films")
    for name in ("whole", "half"): message(lambda: fit(TINY, films, tmp_path / name, "cpu"), *said, name)
    message(lambda: fit_speed(speed, films, tmp_path / "speed"), *said, "speed")
    monkeypatch.delenv("VAD_FIELDS")
    films = open_dataset(tmp_path / "films")
    assert fit(TINY, films, tmp_path / "whole", "cpu").record["train_seconds"] and fit_speed(speed, films, tmp_path / "speed").record["cells"]
    assert {p: p.read_bytes() for p in before} == before

def test_an_unstable_training_is_named_whenever_it_is_scored(data, tmp_path):
    "running averages that fit no weights: the training frames themselves are predicted worse than in training"
    s, folder = replace(TINY, lr=.02, schedule="constant"), tmp_path / "run"
    fit(s, data, folder, "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation.evaluate(folder, data, "cpu")
    model, items, _ = load_model(folder)
    for name, x in model.named_buffers():
        if name.endswith("running_var"): x /= 16
    trainer.save_model(folder / "model.safetensors", model, dict(items=items), s)
    said = r"run predicts its own training frames at \S+ dB, where its last epoch reached \S+ dB: .*--schedule step or a lower --lr"
    for _ in ("measured", "found"):
        with pytest.warns(UserWarning, match=said): evaluation.evaluate(folder, data, "cpu")
    with pytest.warns(UserWarning, match=said): evaluation.open_memory_detector(folder, "cpu").refer()
    Run(folder).note(data=data.record() | dict(fingerprint="0" * 16)) # whose statistics are of another camera
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation.open_memory_detector(folder, "cpu").refer()

def test_the_table_of_losses_has_the_rate_of_its_epoch(data, whole, tmp_path):
    half = (1 + np.cos(np.pi / 2)) / 2
    assert losses(whole["gated"]).lr.to_list() == pytest.approx([1e-3, half * 1e-3])     # stairs of an epoch
    last = [(1 + np.cos(np.pi * step / 16)) / 2 for step in (7, 15)]                     # of each epoch's last step
    assert losses(whole["plain"]).lr.to_list() == pytest.approx([x * 1e-3 for x in last])
    constant = fit(replace(TINY, schedule="constant"), data, tmp_path / "run", "cpu")
    assert losses(constant).lr.to_list() == [1e-3, 1e-3]

def truncate(path): path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
def garbage(path): path.write_bytes(os.urandom(5000))
def nothing(path): path.write_bytes(b"")
def foreign(path): save_file(dict(x=torch.zeros(3)), path)
def nameless(path): save_file({k: v for k, v in load_file(path).items()}, path) # without its facts
def half(path):
    from safetensors import safe_open
    with safe_open(path, "pt") as f: facts = f.metadata()
    tensors = load_file(path)
    save_file({k: tensors[k] for k in list(tensors)[::2] if k != "items"}, path, metadata=facts)
def pickled(path): torch.save(torch.nn.Linear(2, 2), path)

@pytest.mark.parametrize("break_it", [truncate, garbage, nothing, foreign, nameless, half, pickled])
def test_a_broken_model_or_checkpoint(tiny, data, whole, tmp_path, break_it):
    shutil.copytree(whole["gated"].folder, tmp_path / "model")
    break_it(tmp_path / "model/model.safetensors")
    message(lambda: evaluation.evaluate(tmp_path / "model", data, "cpu"), str(tmp_path / "model/model.safetensors"))
    (tmp_path / "begun").mkdir()
    accelerator, device = trainer.accelerator_for(s := KINDS["gated"], "cpu", tmp_path, None)
    trainer.save_checkpoint(trainer.Learner(trainer.Normality(s, *trainer.training_frames(s, data)), accelerator, device), tmp_path / "begun/checkpoint.safetensors")
    break_it(tmp_path / "begun/checkpoint.safetensors")
    message(lambda: fit(KINDS["gated"], data, tmp_path / "begun", "cpu"), str(tmp_path / "begun/checkpoint.safetensors"))

def test_a_run_that_is_not_there(data, tmp_path):
    message(lambda: evaluation.evaluate(tmp_path / "none", data, "cpu"), "none", "missing")
    assert not (tmp_path / "none").exists()

def test_a_record_that_is_broken(data, whole, tmp_path):
    for text in ("", "{", "[1, 2]", "{}"):
        shutil.copytree(whole["plain"].folder, tmp_path / "run", dirs_exist_ok=True)
        (tmp_path / "run/record.json").write_text(text)
        message(lambda: fit(TINY, data, tmp_path / "run", "cpu"), "record.json")

class Bomb:
    def __init__(self, path): self.path = path
    def __reduce__(self): return Path.touch, (Path(self.path),)

@pytest.mark.parametrize("write", [lambda x, path: torch.save(x, path), lambda x, path: path.write_bytes(pickle.dumps(x)),
                                   lambda x, path: torch.save(dict(a=x, b=torch.zeros(2)), path)])
def test_a_pickle_is_never_run(tmp_path, write):
    write(Bomb(str(tmp_path / "touched")), tmp_path / "model.pth")
    torch.save(torch.zeros(10, 512), tmp_path / "keys.pt")
    message(lambda: trainer.import_original(tmp_path / "model.pth", tmp_path / "keys.pt", tmp_path / "run"), "model.pth")
    message(lambda: trainer.import_original(tmp_path / "keys.pt", tmp_path / "model.pth", tmp_path / "run"))
    assert not (tmp_path / "touched").exists() and not (tmp_path / "run").exists()

def no_pickle(root, folder):
    "train, resume and evaluate where unpickling is impossible"
    import torch._dynamo # makes classes of its own of what is taken away here
    def refuse(*args, **kwargs): raise AssertionError("something was unpickled")
    pickle.load = pickle.loads = pickle.Unpickler = pickle._Unpickler = torch.load = refuse
    trainer.SAVE_MINUTES = 0
    data = open_dataset(root)
    try:
        trainer.audit, audit = None, trainer.audit
        fit(TINY, data, folder, "cpu")
    except TypeError: trainer.audit = audit # stopped at the very end, with a checkpoint
    fit(TINY, data, folder, "cpu")
    evaluation.evaluate(folder, data, "cpu")

def test_nothing_is_unpickled(tiny, tmp_path):
    code, _, err = Apart(tmp_path, no_pickle, tiny, tmp_path / "run").end()
    assert code == 0, err
    for p in (tmp_path / "run").iterdir(): assert p.suffix in (".safetensors", ".json", ".csv") or p.name == ".lock" and not p.stat().st_size, p

def test_original_weights_make_a_run(data, tmp_path):
    from test_memory import VARIANTS, original
    if shared("golden") is None: pytest.skip("the golden numbers are not in the shared folder (VAD_SHARED)")
    variant = "mnad_predict_gate"
    torch.save(original(variant), tmp_path / "model.pth")
    torch.save(torch.nn.functional.normalize(torch.rand(10, 512), dim=1), tmp_path / "keys.pt")
    run = trainer.import_original(tmp_path / "model.pth", tmp_path / "keys.pt", tmp_path / "run")
    model, items, s = load_model(run.folder)
    assert (s.task, s.attention, s.width, s.channels, s.clip, len(items)) == (VARIANTS[variant][0], "gate", 64, 3, 5, 10)
    message(lambda: fit(replace(s, epochs=1), data, run.folder, "cpu"), "run")
    for wrong in (torch.zeros(512), torch.zeros(1, 10, 512), torch.zeros(10, 8), torch.full((10, 512), float("nan")), torch.zeros(1, 512)):
        torch.save(wrong, tmp_path / "wrong.pt")
        message(lambda: trainer.import_original(tmp_path / "model.pth", tmp_path / "wrong.pt", tmp_path / "other"), "items")


# ---- scoring

def one_at_a_time(model, items, frames, s):
    "the scores of every clip, each alone, in order"
    rows, start = [], items
    for v, (a, b) in enumerate(zip(frames.starts[:-1], frames.starts[1:])):
        if s.test_memory == "reset": items = start
        for first in range(a, b - s.length + 1):
            x = frames.batch([first], s.length)
            inputs, target = (x[:, :-s.channels], x[:, -s.channels:]) if s.task == "predict" else (x, x)
            with torch.inference_mode(), evaluation.autocast(s, "cpu"): out = model(inputs, items)
            regular = frame_scores.irregularity(out.prediction, target)
            rows.append((v, float(frame_scores.psnr(out.prediction, target)), float(out.compactness) if s.memory else 0., float(regular)))
            if s.memory and (s.test_update == "always" or s.test_update == "gated" and regular < s.threshold):
                items = memory.update(items, memory.as_rows(out.queries), model.update_over)
    return np.array(rows)

def many(model, items, frames, s, batch):
    return np.concatenate([np.stack([np.full(len(a.psnr), v), a.psnr, torch.zeros(len(a.psnr)) if a.distance is None else a.distance, a.irregularity], 1)
                           for v, a in evaluation.answers(model, items, frames, s, "cpu", batch)])

@pytest.fixture(scope="module")
def scoring(data, whole, tmp_path_factory):
    "models of each kind, the frames, and regular scores between which thresholds lie"
    root, found = tmp_path_factory.mktemp("scoring"), {}
    kinds = KINDS | dict(own=replace(TINY, update_over="own", epochs=1), bare=replace(TINY, memory=False, epochs=1),
                         reconstruct=replace(TINY, task="reconstruct", epochs=1))
    for name, s in kinds.items():
        model, items, s = load_model(fit(s, data, root / name if name not in whole else whole[name].folder, "cpu").folder)
        frames = frame_cache.cache_frames(data.test, s.size, s.channels)
        found[name] = model, items, s, frames, np.sort(one_at_a_time(model, items, frames, replace(s, test_update="never"))[:, 3])
    return found

@fewer(deadline=None, max_examples=30)
@given(st.sampled_from([*KINDS, "own", "bare", "reconstruct"]), st.integers(1, 40), st.sampled_from(["carry", "reset"]),
       st.sampled_from(["gated", "gated", "gated", "always", "never"]), st.floats(0, 1))
def test_scores_do_not_depend_on_the_batch(scoring, kind, batch, test_memory, test_update, quantile):
    model, items, s, frames, regular = scoring[kind]
    k = int(quantile * (len(regular) - 2))
    s = replace(s, test_memory=test_memory, test_update=test_update, threshold=float(regular[k] + regular[k + 1]) / 2)
    np.testing.assert_allclose(many(model, items, frames, s, batch), one_at_a_time(model, items, frames, s), rtol=2e-4, atol=1e-6)

@pytest.mark.parametrize("kind", KINDS)
def test_the_batch_moves_results_by_float_rounding_alone(whole, data, tmp_path, kind):
    "the bound that the help states"
    run = shutil.copytree(whole[kind].folder, tmp_path / "run")
    found = {b: evaluation.evaluate(run, data, "cpu", b, f"batch{b}") for b in (1, 3, 16, 100)}
    tables = {b: frame_scores.read_table(run / f"batch{b}/scores.csv") for b in found}
    for b, t in tables.items():
        np.testing.assert_allclose(t.psnr, tables[16].psnr, rtol=1e-6)
        for name in ("distance", "irregularity", "regularity", "online"): np.testing.assert_allclose(t[name], tables[16][name], rtol=0, atol=1e-4, err_msg=name)
        for score_kind in ("regularity", "online"):
            m, want = found[b][score_kind], found[16][score_kind]
            assert abs(m["at_threshold"]["threshold"] - want["at_threshold"]["threshold"]) < 1e-4 and abs(m["auc_micro"] - want["auc_micro"]) < 1e-4


def test_the_threshold_matters(scoring):
    "the comparison above would say nothing if no gate ever opened"
    model, items, s, frames, regular = scoring["plain"]
    never, some, always = (many(model, items, frames, replace(s, **c), 7) for c in
                           (dict(test_update="never"), dict(threshold=float(np.median(regular))), dict(test_update="always")))
    assert np.abs(never - some).max() > 1e-4 and np.abs(some - always).max() > 1e-4
    reset = many(model, items, frames, replace(s, threshold=float(np.median(regular)), test_memory="reset"), 7)
    first = reset[:, 0] == 0
    np.testing.assert_array_equal(reset[first], some[first])
    assert np.abs(reset[~first] - some[~first]).max() > 1e-5

def test_scores_of_a_video_do_not_depend_on_others_when_reset(scoring, data):
    model, items, s, frames, regular = scoring["gated"]
    s = replace(s, test_memory="reset", threshold=float(np.median(regular)))
    alone = frame_cache.cache_frames(data.test[1:2], s.size, s.channels)
    rows = many(model, items, frames, s, 5)
    np.testing.assert_allclose(many(model, items, alone, s, 5)[:, 1:], rows[rows[:, 0] == 1, 1:], rtol=1e-6)

def test_an_evaluation_is_all_there(data, whole, tmp_path):
    shutil.copytree(whole["gated"].folder, tmp_path / "run")
    m = evaluation.evaluate(tmp_path / "run", data, "cpu", batch=3)
    t = frame_scores.read_table(tmp_path / "run/scores.csv")
    assert len(t) == 3 * 16 and list(t.frame[:16]) == list(range(4, 20)) and t.label.sum() == 18
    assert all(0 <= m[k] <= 1 for k in ("pixel_auc", "rbdc", "tbdc")) and set(m) >= {"regularity", "online", "frames_per_second", "parameters", "truth"}
    assert set(pd.read_csv(tmp_path / "run/controls.csv").columns) >= {"control", "auc_micro", "auc_macro"}
    record = read_json(tmp_path / "run/record.json")
    assert record["peak_memory_gb"] > 0 and record["evaluated"]["test"]["anomalous"] == 18
    assert record["score_precision"] == m["precision"] == "fp32" # in which frames were scored
    written = (tmp_path / "run/scores.csv").read_bytes()
    assert evaluation.evaluate(tmp_path / "run", data, "cpu", batch=11) == m # nothing to do again
    other = evaluation.evaluate(tmp_path / "run", data, "cpu", into="other", test_update="always")
    assert (tmp_path / "run/other/scores.csv").exists() and other["key"] != m["key"] and (tmp_path / "run/scores.csv").read_bytes() == written
    message(lambda: evaluation.evaluate(tmp_path / "run", data, "cpu", width=3), "width")

def test_regions_are_those_of_whole_videos(whole, data):
    "Batch by batch comes out what a video at a time does, and nothing where there are no masks."
    def detector(batch):
        d = evaluation.MemoryDetector(load_model(whole["gated"].folder)[2], whole["gated"].folder, "cpu", batch)
        d.load()
        return d
    counts, parts = localization.Regions(localization.LEVELS), [[] for _ in data.test]
    d = detector(16)
    for v, said in d.score(data.test): parts[v].append(evaluation.stretched(said.map, data.mask(v).shape[1:]))
    for v, maps in enumerate(parts): counts.add(localization.cells(np.concatenate(maps)), data.mask(v)[d.first:])
    assert counts.regions > 10 and 0 < counts.areas()["rbdc"]
    for batch in (1, 7):
        *_, located = evaluation.collect_scores(detector(batch), data)
        assert {k: located[k] for k in ("rbdc", "tbdc")} == pytest.approx(counts.areas())
    assert evaluation.collect_scores(d, replace(data, masks=None))[2] == dict(pixel_auc=None, rbdc=None, tbdc=None)


# ---- the record, precision, tracking, processes

def test_a_run_folder_says_what_was_done(data, whole):
    record = read_json(whole["gated"].folder / "record.json")
    assert set(record) >= {"settings", "versions", "commit", "machine", "data", "seed", "train_seconds", "audit", "peak_memory_gb", "started", "code"}
    assert record["peak_memory_gb"] > 0 and record["data"]["fingerprint"] == data.fingerprint() and record["settings"]["attention"] == "gate"
    assert str(data.root) not in json.dumps(record)
    table = pd.read_csv(whole["gated"].folder / "losses.csv")
    assert list(table.epoch) == [1, 2] and np.isfinite(table.to_numpy()).all() and table.loss[1] < table.loss[0]

def test_an_evaluation_says_in_which_precision_it_scored(data, whole, tmp_path, monkeypatch):
    "that of training where the device has units for it, single precision elsewhere"
    for units, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(devices, "has_bf16_units", lambda kind: units)
        shutil.copytree(whole["half"].folder, tmp_path / expected)
        found = evaluation.evaluate(tmp_path / expected, data, "cpu")
        assert found["precision"] == read_json(tmp_path / expected / "record.json")["score_precision"] == expected

@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_near_full(data, whole, tmp_path, precision):
    half = pd.read_csv(fit(replace(TINY, precision=precision), data, tmp_path / "run", "cpu") / "losses.csv")
    assert np.isfinite(half.to_numpy()).all()
    np.testing.assert_allclose(half.loss, losses(whole["plain"]).loss, rtol=.25)
    assert all(v.dtype == torch.float32 for k, v in weights(Run(tmp_path / "run")).items() if "batches" not in k)
    assert 0 <= evaluation.evaluate(tmp_path / "run", data, "cpu")["regularity"]["auc_micro"] <= 1

@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_a_compiled_network_learns_the_same(data, whole, tmp_path):
    run = fit(replace(TINY, compile=True), data, tmp_path / "run", "cpu")
    np.testing.assert_allclose(losses(run).loss, losses(whole["plain"]).loss, rtol=1e-2) # sums in another order, for sixteen steps
    assert weights(run).keys() == weights(whole["plain"]).keys()
    assert 0 <= evaluation.evaluate(run.folder, data, "cpu")["regularity"]["auc_micro"] <= 1

def test_no_compiler(data, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    message(lambda: fit(replace(TINY, compile=True), data, tmp_path / "run", "cpu"), "compiler", "install g++")

def test_losses_reach_tensorboard(data, tmp_path):
    pytest.importorskip("tensorboard")
    fit(TINY, data, tmp_path / "run", "cpu", track="tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = [p for p in (tmp_path / "run").rglob("events.out.tfevents*")]
    found = {}
    for p in events:
        e = EventAccumulator(str(p.parent))
        e.Reload()
        for tag in e.Tags()["scalars"]: found[tag] = [(x.step, x.value) for x in e.Scalars(tag)]
    table = pd.read_csv(tmp_path / "run/losses.csv")
    np.testing.assert_allclose(found["loss"], table[["epoch", "loss"]].to_numpy(), rtol=1e-6)

def test_a_tracker_that_is_not_there(data, tmp_path):
    message(lambda: fit(TINY, data, tmp_path / "run", "cpu", track="pencil"), "pencil", "tensorboard")
    assert not (tmp_path / "run/model.safetensors").exists()

TWO = """
import sys
from safetensors.torch import save_file
from vad.training import checkpoints, trainer
from vad.data.datasets import open_dataset
from vad.training.trainer import Settings

(root, folder), seen = sys.argv[1:], []
class Watched(trainer.Learner):
    def __init__(self, *args): super().__init__(*args); seen.append(self)
trainer.Learner = Watched
saved = trainer.save_tensors
def tell(word, *more):
    with open(f"{folder}.{rank()}.said", "a") as f: print(word, rank(), *more, file=f)
def save(path, *args, **facts): tell("WROTE"); saved(path, *args, **facts)
def rank(): return seen[0].accelerator.process_index
trainer.save_tensors = checkpoints.save_tensors = save

trainer.fit(Settings(size=(16, 16), channels=1, width=2, items=3, batch=4, epochs=1, lr=1e-3, attention="gate"), open_dataset(root), folder, "cpu")
l = seen[0]
save_file({k: v.contiguous() for k, v in l.plain.state_dict().items()} | l.state, f"{folder}.{rank()}.safetensors")
tell("DONE", l.accelerator.num_processes)
"""

def test_two_processes_train_one_model(tiny, tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", tmp_path / "two.py", tiny, tmp_path / "run"],
                          capture_output=True, text=True, timeout=600, env=os.environ | dict(PYTHONPATH=str(Path(vad.__file__).parents[1])))
    assert done.returncode == 0, done.stderr[-3000:]
    said = [(tmp_path / f"run.{rank}.said").read_text().splitlines() for rank in (0, 1)] # a file each: in one pipe their lines may run into each other
    assert set(said[0]) == {"WROTE 0", "DONE 0 2"} and said[1] == ["DONE 1 2"]
    a, b, kept = load_file(f"{tmp_path}/run.0.safetensors"), load_file(f"{tmp_path}/run.1.safetensors"), load_file(tmp_path / "run/model.safetensors")
    names = [k for k in a if "running" not in k and "batches" not in k]
    assert "items" in names and all(torch.equal(a[k], b[k]) for k in names)
    assert all(torch.equal(v, kept["items" if k == "items" else f"model.{k}"]) for k, v in a.items())
    assert read_json(tmp_path / "run/record.json")["processes"] == 2
