"""How fast is it, how fast is the plain way, and how fast could it be? One table for a machine, with a GPU or without.

`python nbs/benchmarks/speed.py --out FOLDER` needs PyTorch and this checkout, nothing else. Three numbers of everything: what we take,
what a peer takes, and the lower bound, the time below which no version can go on this machine. Work is arithmetic and the moving of
bytes: operations over the best rate at which the machine multiplies matrices or convolves is one time, bytes over the rate at which it
copies another, and the larger is the bound. Both rates are measured here, not read off a datasheet. The ways take turns, so that a busy
minute strikes them all; who is first changes from round to round; ratios are taken within a round, and medians count.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2])) # the checkout

from vad.core.devices import keep_memory, peak_memory, pick_device, seed_all
from vad.core.errors import UserError
from vad.core.provenance import machine
from vad.core.records import write_csv, write_json
from vad.data.frame_cache import Frames, hold
from vad.kernels.cuda_graph import Replay
from vad.models import memory
from vad.models.backbones import make_backbone, timm_models
from vad.models.mnad import MNAD, folded
from vad.models.sru import SRU
from vad.models.srupp import SRUpp
from vad.scores import frame_scores
from vad.training import classifier, evaluation, trainer
from vad.training.splits import Clips


def ready(device):
    "Wait for what the device was given to do."
    if torch.device(device).type == "cuda": torch.cuda.synchronize(device)

def seconds(call, device, n:int=1) -> float:
    "How long a call takes, the mean of `n`."
    ready(device)
    begin = time.perf_counter()
    for _ in range(n): call()
    ready(device)
    return (time.perf_counter() - begin) / n

@dataclass(frozen=True)
class Machine:
    "What a device can do at most."
    device: str
    flops: float     # a second, of matrix products in the precision that is used on it
    bandwidth: float # bytes a second read and written by a copy

    def floor(self, flops:float, size:float=0.) -> float: # size: bytes; -> seconds
        "The time below which no version of this work can go."
        return max(flops / self.flops, size / self.bandwidth)

@cache
def measured_machine(device:str, n:int|None=None) -> Machine: # n: rows of the largest matrices; None: 8192 on a GPU, 2048 elsewhere
    "Measure a device: the best of what products of three sizes, a convolution and a copy reach (bfloat16 on a GPU, float32 elsewhere)."
    gpu = torch.device(device).type == "cuda"
    n, dtype = n or (8192 if gpu else 2048), torch.bfloat16 if gpu else torch.float32
    def drawn(*shape): return torch.randn(*shape, device=device, dtype=dtype) # zeros would run faster
    def best(call): return min(seconds(call, device, 10 if gpu else 1) for _ in range(8))
    with torch.inference_mode():
        rates = []
        for k in (n // 4, n // 2, n):
            a, b = drawn(k, k), drawn(k, k)
            rates.append(2 * k**3 / best(lambda: a @ b))
        c, side = 256, max(4, n // 32)
        conv, x = nn.Conv2d(c, c, 3, padding=1).to(device, dtype, memory_format=torch.channels_last), drawn(4, c, side, side).contiguous(memory_format=torch.channels_last)
        rates.append(2 * 9 * c * c * 4 * side**2 / best(lambda: conv(x)))
        x = torch.randn(4 * n * n, device=device)
        y = torch.empty_like(x)
        return Machine(device, max(rates), 2 * x.nbytes / best(lambda: y.copy_(x)))

def operations(call) -> int:
    "Floating-point operations of a call's products and convolutions, backward included; they are counted, not guessed."
    with FlopCounterMode(display=False) as counter: call()
    return counter.get_total_flops()

def in_turns(
    ways:dict[str, callable], # name -> what to time
    rounds:int, device="cpu",
    n:int=1,                  # calls a turn
) -> pd.DataFrame:            # (rounds, ways) seconds a call
    "Time several ways of doing a thing."
    for call in ways.values():
        for _ in range(5 if torch.device(device).type == "cuda" else 1): call() # to warm up; the fourth call of a step on a GPU records it
    names, rows = list(ways), []
    for r in range(rounds):
        turn = names[r % len(names):] + names[:r % len(names)]
        rows.append({name: seconds(ways[name], device, n) for name in turn})
    return pd.DataFrame(rows)[names]

def lines(
    what:str, size:str,
    t:pd.DataFrame,    # from `in_turns`; the first column is ours
    items:int,         # that a call does
    unit:str,          # what one of them is
    floor:float,       # seconds of a call
    target:str="",     # in words
) -> list[dict]:       # one for each way
    "Lines of the table: milliseconds, items a second, how many times as fast as each way ours is, and the floor's share of the time."
    ours = t.columns[0]
    return [dict(what=what, size=size, way=name, ms=1e3 * t[name].median(), fastest=1e3 * t[name].min(), slowest=1e3 * t[name].max(),
                 per_second=items / t[name].median(), unit=unit, ours_times_as_fast=(t[name] / t[ours]).median(),
                 floor_ms=1e3 * floor, share_of_floor=floor / t[name].median(), target=target if name == ours else "") for name in t]

def learning(s, make, device:str) -> trainer.Learner: # make: settings -> a task
    "A learner of a task, before its first step."
    accelerator, where = trainer.accelerator_for(s, device, Path(), None)
    l = trainer.Learner(make(s), accelerator, where)
    l.model.train()
    return l

def stepping(s, make, device:str, clips) -> dict[str, callable]: # make: settings -> a task
    "A training step: ours, on a GPU also compiled, and as it is written down without thinking."
    memory = isinstance(s, trainer.Settings)
    plain = learning(replace(s, precision="fp32", **dict(channels_last=False) if memory else {}), make, device) # first: accelerate keeps the last one's precision for all
    ways = {"vad": trainer.stepper(learning(s, make, device))}
    if memory and torch.device(device).type == "cuda":
        try: ways["vad, compiled"] = trainer.stepper(learning(replace(s, compile=True), make, device))
        except UserError as e: print(e)
    return {name: lambda take=take: take(clips) for name, take in ways.items()} | {"plain PyTorch": lambda: trainer.train_step(plain, plain.task.batch(clips, device))}

def training(name:str, s, z, frames:Frames, clips, device:str, here:Machine, rounds:int) -> list[dict]:
    "A step at one batch size."
    t = in_turns(stepping(s, lambda s: trainer.Normality(s, Frames(frames.folder), clips), device, clips[:s.batch]), rounds, device, z.repeats)
    l = learning(replace(s, precision="fp32"), lambda s: trainer.Normality(s, frames, clips), device)
    floor = here.floor(operations(lambda: trainer.train_update(l, l.task.batch(clips[:s.batch], device))))
    size = f"{z.frame[0]} x {z.frame[1]}, width {z.width}, batch {s.batch}"
    return lines(f"{name}, training step", size, t, s.batch, "clip", floor, z.targets.get("training", ""))

def noise(folder, n:int, size:tuple[int, int], channels:int=3) -> Frames:
    "A cache of random frames: one video."
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "frames.npy", np.random.default_rng(0).integers(0, 256, (n, *size, 1), np.uint8))
    write_json(folder / "index.json", dict(names=["noise"], starts=[0, n]))
    return Frames(folder, channels)

def one_by_one(model:MNAD, items:Tensor, frames:Frames, s, device, clips) -> float: # mean PSNR
    "Score clips as the published code does: each alone, and the memory after it."
    total = 0.
    with torch.no_grad():
        for first in clips:
            inputs, target = trainer.input_and_target(frames.batch([first], s.length, device), s)
            out = model(inputs, items)
            regular = frame_scores.irregularity(out.prediction, target)
            total += frame_scores.psnr(out.prediction, target).item()
            if evaluation.update_gate(regular, s).item(): items = memory.update(items, memory.as_rows(out.queries), model.update_over)
    return total / len(clips)

def in_batches(model:MNAD, items:Tensor, frames:Frames, s, device, clips, batch:int) -> float: # mean PSNR
    "The same as `vad evaluate` does it."
    return torch.cat([a.psnr for _, a in evaluation.answers(model, items, frames, s, device, batch, clips)]).mean().item()

def scoring(name:str, s, z, frames:Frames, clips, device:str, here:Machine, rounds:int) -> list[dict]:
    "Scoring, with the gate of the paper and with an update after every frame."
    found, (model, items) = [], trainer.initial_model(s)
    model, items, held = model.to(device).eval(), items.to(device), hold(Frames(frames.folder), device)
    quick = folded(model.to(memory_format=torch.channels_last))
    model = model.to(memory_format=torch.contiguous_format)
    with torch.no_grad(): floor = here.floor(len(clips) * operations(lambda: model(trainer.input_and_target(held.batch(clips[:1], s.length, device), s)[0], items)))
    for how in ("gated", "always"):
        s = replace(s, test_update=how)
        t = in_turns({"vad": lambda: in_batches(quick, items, held, s, device, clips, z.score_batch),
                      "one frame at a time": lambda: one_by_one(model, items, frames, replace(s, precision="fp32"), device, clips)}, rounds, device)
        found += lines(f"{name}, scoring, memory {dict(gated='moved behind the gate', always='always moved')[how]}",
                       f"{z.frame[0]} x {z.frame[1]}, width {z.width}, batches of {z.score_batch}", t, len(clips), "frame", floor, z.targets.get("scoring", ""))
    return found

def memory_model(z, device:str, here:Machine, rounds:int) -> list[dict]: # z: from SIZES
    "Training and scoring of the memory model, with and without gates."
    found, gpu = [], torch.device(device).type == "cuda"
    with tempfile.TemporaryDirectory() as d:
        for attention in ("none", "gate"):
            s = trainer.settings("paper", size=z.frame, width=z.width, attention=attention, precision="bf16" if gpu else "fp32")
            frames = noise(Path(d) / attention, max(z.scored, *z.batches) + s.length, z.frame)
            clips, name = frames.clips(s.length), "MNAD" + (" with gates" if attention == "gate" else "")
            for batch in z.batches: found += training(name, replace(s, batch=batch), z, frames, clips, device, here, rounds)
            found += scoring(name, s, z, frames, clips[:z.scored], device, here, rounds)
    return found

def networks(width:int, projection:int, layers:int, device:str) -> dict[str, nn.Module]:
    "Ours, and peers of the same size."
    found = {"SRU": SRU(width, width, layers), "SRU++": SRUpp(width, width, projection, layers), "nn.LSTM": nn.LSTM(width, width, layers)}
    if find_spec("sru"):
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        with warnings.catch_warnings(): # it says at length that it found no compiler for CUDA
            warnings.simplefilter("ignore")
            import sru
        found |= {"sru.SRU": sru.SRU(width, width, layers), "sru.SRUpp": sru.SRUpp(width, width, projection, layers)}
    return {k: v.to(device) for k, v in found.items()}

def recurrence(z, device:str, here:Machine, rounds:int) -> list[dict]:
    "Forward and backward through two layers."
    found, gpu = [], torch.device(device).type == "cuda"
    for (length, batch, width), precision in [(size, p) for size in z.sequences for p in (("fp32", "bf16") if gpu else ("fp32",))]:
        made, x = networks(width, z.projection, 2, device), torch.randn(length, batch, width, device=device)
        def step(network):
            network.zero_grad()
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"): h = network(x)[0]
            h.float().sum().backward()
        for ours, theirs in (("SRU", "sru.SRU"), ("SRU++", "sru.SRUpp")):
            ways = {name: lambda network=made[name]: step(network) for name in (ours, theirs, "nn.LSTM") if name in made}
            planes = 2 * 2 * (3 + 1 + 1) * x.numel() * 4 # two layers, both ways: three planes, the highway's input and the output
            floor = here.floor(operations(ways[ours]), planes)
            if gpu: ways = {f"{ours}, replayed": Replay(ways[ours])} | ways
            t = in_turns(ways, rounds, device, z.repeats)
            found += lines(f"{ours}, forward and backward, {precision}", f"{length} x {batch} x {width}", t, batch, "sequence", floor, z.targets.get("recurrence", ""))
    return found

def time_classifier(z, device:str, here:Machine, rounds:int) -> list[dict]:
    "A training step of the published classifier; an epoch is 915 of them."
    found, rng = [], np.random.default_rng(0)
    n, length, width = z.clips
    names = np.arange(n).astype(str)
    data = Clips("noise", rng.standard_normal((n, length, width), np.float32), np.arange(n) % 2, np.full(n, length), names, names, ("normal", "anomalous"))
    for cell in ("sru", "srupp"):
        s = classifier.ClassifierSettings(cell=cell, hidden=z.hidden, projection=z.projection, precision="bf16" if torch.device(device).type == "cuda" else "fp32")
        t = in_turns(stepping(s, lambda s: classifier.Classes(s, data), device, np.arange(s.batch)), rounds, device, z.repeats)
        small = learning(replace(s, precision="fp32"), lambda s: classifier.Classes(s, data), device)
        floor = here.floor(operations(lambda: trainer.train_update(small, small.task.batch(np.arange(s.batch), device))))
        what, size = f"{dict(sru='SRU', srupp='SRU++')[cell]} classifier, training step", f"{length} x {s.batch} x {width}"
        found += lines(what, size, t, s.batch, "clip", floor, z.targets.get("classifier", ""))
    return found

def embedding(z, device:str, here:Machine, rounds:int) -> list[dict]:
    "Frames to vectors."
    gpu = torch.device(device).type == "cuda"
    ours = make_backbone("resnet50", weights="none", precision="bf16" if gpu else "fp32").to(device)
    plain = timm_models().create_model("resnet50", num_classes=0).eval().to(device)
    x = torch.randint(0, 256, (z.images, 224, 224, 3), dtype=torch.uint8, device=device)
    def call(f):
        with torch.inference_mode(): f()
    t = in_turns({"vad": lambda: call(lambda: ours(x)), "timm": lambda: call(lambda: plain(x.permute(0, 3, 1, 2).float() / 255))}, rounds, device, z.repeats)
    floor = here.floor(operations(lambda: call(lambda: ours(x))))
    return lines("ResNet50, frames in memory", f"224 x 224, batch {z.images}", t, z.images, "frame", floor, z.targets.get("embedding", ""))

@dataclass(frozen=True)
class Sizes:
    "What is timed."
    frame: tuple[int, int] = (256, 256) # height, width; 256 as published
    width: int = 64                     # channels of MNAD's first block; 64 as published
    batches: tuple = (4,)               # clips of a training step; 4 as published
    scored: int = 16                    # frames
    score_batch: int = 16               # of them at once; 16 as in `vad evaluate`
    sequences: tuple = ((100, 8, 1024),) # length, batch, width; as the published notebooks have them
    projection: int = 784               # of SRU++; 784 as published
    hidden: int = 1024                  # of the classifier; 1024 as published
    clips: tuple = (16, 100, 2048)      # number, frames, features
    images: int = 16                    # embedded at once
    repeats: int = 1                    # calls a turn
    targets: dict = field(default_factory=dict) # what we want to reach, in words

SIZES = dict(
    tiny=Sizes((16, 16), 4, (2,), 6, 4, ((6, 2, 16),), 8, 16, (8, 6, 12), 1),
    cpu=Sizes(targets=dict(recurrence="0.4 of sru.SRU, 0.6 of sru.SRUpp, 0.15 of nn.LSTM")),
    cuda=Sizes(batches=(4, 32), scored=2048, score_batch=128, sequences=((100, 8, 1024), (100, 64, 2048)), clips=(7320, 100, 2048), images=256, repeats=10, targets=dict(
        training="share of floor 0.45", scoring="3000 frames a second", recurrence="0.8 of sru's kernels, 0.15 of cuDNN's LSTM",
        classifier="an epoch of 7320 clips in 2 s: 3660 clips a second", embedding="4000 frames a second")))
PARTS = dict(memory=memory_model, recurrence=recurrence, classifier=time_classifier, embedding=embedding)

def measure(
    device:str="auto",   # auto | cpu | cuda | cuda:N
    sizes:str|None=None, # tiny | cpu | cuda; None: as the device
    rounds:int=5, threads:int|None=None,
    parts=tuple(PARTS),  # memory | recurrence | classifier | embedding
    changes=(),          # of the sizes, a dict
) -> pd.DataFrame:       # what, size, way, ms, fastest, slowest, per_second, unit, ours_times_as_fast, floor_ms, share_of_floor, target, and the machine
    "Ours, peers and floor of everything, on one device."
    if threads: torch.set_num_threads(threads)
    device = str(pick_device(device))
    keep_memory()
    seed_all(0)
    z = replace(SIZES[sizes or ("cuda" if device.startswith("cuda") else "cpu")], **dict(changes))
    here = measured_machine(device, 256 if sizes == "tiny" else None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Running SRU on CPU") # the reference package's
        found = [line for part in parts for line in PARTS[part](z, device, here, rounds)]
    m = machine()
    return pd.DataFrame(found).assign(rounds=rounds, device=m["accelerator"] if device != "cpu" else f"{torch.get_num_threads()} threads of {m['cpu']}",
                                      peak_tflops=here.flops / 1e12, copy_gb_s=here.bandwidth / 1e9, peak_memory_gb=round(peak_memory(), 2), torch=torch.__version__)

def rounded_speed(t:pd.DataFrame) -> pd.DataFrame:
    "Four digits of every number are enough."
    return t.map(lambda x: float(f"{x:.4g}") if isinstance(x, float) else x)

def main(argv=None):
    "Measure this machine and write speed.csv, or speed_cuda.csv."
    p = argparse.ArgumentParser(description="Ours, peers and floor of training, scoring, recurrence and embedding on one device.")
    p.add_argument("--device", default="auto", help="auto | cpu | cuda | cuda:N")
    p.add_argument("--sizes", choices=list(SIZES), help="tiny, cpu or cuda; as the device, where left out")
    p.add_argument("--rounds", type=int, default=5, help="in each, every way takes its turn")
    p.add_argument("--threads", type=int, help="of PyTorch")
    p.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    p.add_argument("--out", type=Path, default=Path("figures/benchmarks"), help="folder of the table")
    a = p.parse_args(argv)
    os.environ["TQDM_DISABLE"] = "1" # a bar costs time, and this is about time
    try: t = rounded_speed(measure(a.device, a.sizes, a.rounds, a.threads, tuple(a.parts)))
    except UserError as e: raise SystemExit(f"vad: {e}") from None
    path = a.out / f"speed{'_cuda' if str(pick_device(a.device)).startswith('cuda') else ''}.csv"
    write_csv(path, t)
    print(t[["what", "size", "way", "ms", "per_second", "ours_times_as_fast", "share_of_floor", "target"]].to_string(index=False))
    print(path)

if __name__ == "__main__": main()
