"""How fast is it, how fast is the plain way, and how fast could it be? One table for a machine, with a GPU or without.

`python nbs/benchmarks/speed.py --out FOLDER` needs PyTorch and this checkout, nothing else. Three numbers of everything: what we take,
in half precision (where the device has units for it) and in single; what a peer takes; and the lower bound, the time below which no
version can go on this machine. Work is arithmetic and the moving of bytes: operations over the best rate at which the machine
multiplies matrices or convolves, in the precision at hand, is one time, bytes over the rate at which it copies another, and the larger
is the bound. The rates are measured here, not read off a datasheet. The ways are interleaved, so that a busy minute strikes them all;
who is first changes from round to round; ratios are taken within a round, and medians count.
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

os.environ.setdefault("KINETO_LOG_LEVEL", "99") # the profiler says when it begins and ends

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2])) # the checkout

from vad.core.devices import has_bf16_units, keep_memory, peak_memory, pick_device, seed_all
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

DTYPES = dict(bf16=torch.bfloat16, fp32=torch.float32)

def precisions(device) -> list[str]:
    "What ours runs in: the quickest first."
    return ["bf16", "fp32"] if has_bf16_units(torch.device(device).type) else ["fp32"]

@dataclass(frozen=True)
class Machine:
    "What a device can do at most."
    device: str
    flops: dict[str, float] # precision -> a second, of matrix products and convolutions
    bandwidth: float        # bytes a second read and written by a copy

    def bound(self, flops:float, size:float=0., precision:str="fp32") -> float: # size: bytes; -> seconds
        "The time below which no version of this work can go."
        return max(flops / self.flops[precision], size / self.bandwidth)

def rate(device, dtype, n:int) -> float: # n: rows of the largest matrices; -> operations a second
    "The best of what products of three sizes and a convolution reach."
    repeats, c, side, rates = 10 if torch.device(device).type == "cuda" else 1, 256, max(4, n // 32), []
    def drawn(*shape): return torch.randn(*shape, device=device, dtype=dtype) # zeros would run faster
    def best(call): return min(seconds(call, device, repeats) for _ in range(8))
    for k in (n // 4, n // 2, n):
        a, b = drawn(k, k), drawn(k, k)
        rates.append(2 * k**3 / best(lambda: a @ b))
    conv = nn.Conv2d(c, c, 3, padding=1).to(device, dtype, memory_format=torch.channels_last)
    x = drawn(4, c, side, side).contiguous(memory_format=torch.channels_last)
    return max(*rates, 2 * 9 * c * c * 4 * side**2 / best(lambda: conv(x)))

@cache
def measured_machine(device:str, n:int|None=None) -> Machine: # n: see `rate`; None: 8192 on a GPU, 2048 elsewhere
    "Measure a device in each precision, and how fast it copies."
    n = n or (8192 if torch.device(device).type == "cuda" else 2048)
    with torch.inference_mode():
        x = torch.randn(4 * n * n, device=device)
        y = torch.empty_like(x)
        copying = min(seconds(lambda: y.copy_(x), device) for _ in range(8))
        return Machine(device, {p: rate(device, DTYPES[p], n) for p in precisions(device)}, 2 * x.nbytes / copying)

def operations(call) -> int:
    "Floating-point operations of a call's products and convolutions, backward included; they are counted, not guessed."
    with FlopCounterMode(display=False) as counter: call()
    return counter.get_total_flops()

def interleaved(
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

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "mkldnn", "_scaled_dot_product") # PyTorch's names of them

def share_of_products(call) -> float: # %
    "How much of a call's time goes into products of matrices and convolutions, which half precision makes faster."
    with profile(activities=[ProfilerActivity.CPU]) as seen: call()
    spent = {e.key.removeprefix("aten::"): e.self_cpu_time_total for e in seen.key_averages()}
    return 100 * sum(t for name, t in spent.items() if name.startswith(PRODUCTS)) / sum(spent.values())

def shares_of_products(ways:dict[str, callable], device) -> dict[str, float]: # way, timed before and so warm -> %
    "The share of each way; none on a GPU, where the processor waits."
    return {} if torch.device(device).type == "cuda" else {way: share_of_products(call) for way, call in ways.items()}

def precision_of(way:str) -> str:
    "In what a way computes: said behind its name, single precision where nothing is said."
    return way.rpartition(", ")[2] if way.endswith(tuple(DTYPES)) else "fp32"

def lines(
    what:str, size:str,
    t:pd.DataFrame,    # from `interleaved`; the first column is ours
    items:int,         # that a call does
    unit:str,          # what one of them is
    bound,             # precision -> seconds of a call at least
    target:str="",     # in words
    products:dict={},  # from `shares_of_products`
) -> list[dict]:       # one for each way
    """Lines of the table: milliseconds, items a second, how many times as fast as each way ours is, how many times the bound it takes,
    and how much of it goes into products."""
    ours, found = t.columns[0], []
    for way in t:
        least, taken = bound(precision_of(way)), t[way].median()
        found.append(dict(
            what=what, size=size, way=way, ms=1e3 * taken, fastest=1e3 * t[way].min(), slowest=1e3 * t[way].max(),
            per_second=items / taken, unit=unit, ours_times_as_fast=(t[way] / t[ours]).median(),
            bound_ms=1e3 * least, times_the_bound=taken / least,
            products=products.get(way, float("nan")),
            target=target if way == ours else ""))
    return found

def learning(s, make, device:str) -> trainer.Learner: # make: settings -> a task
    "A learner of a task, before its first step."
    accelerator, where = trainer.accelerator_for(s, device, Path(), None)
    l = trainer.Learner(make(s), accelerator, where)
    l.model.train()
    return l

def stepping(s, make, device:str, clips) -> dict[str, callable]: # make: settings -> a task
    "A training step: ours in each precision, on a GPU also compiled, and as it is written down without thinking."
    memory, ways = isinstance(s, trainer.Settings), {}
    plain = learning(replace(s, precision="fp32", **dict(channels_last=False) if memory else {}), make, device)
    for precision in reversed(precisions(device)): # single first: accelerate keeps the last one's precision for all
        chosen = replace(s, precision=precision)
        ways[f"vad, {precision}"] = trainer.stepper(learning(chosen, make, device))
    if memory and torch.device(device).type == "cuda":
        try: ways[f"vad, compiled, {precision}"] = trainer.stepper(learning(replace(chosen, compile=True), make, device))
        except UserError as e: print(e)
    ways = {name: ways[name] for name in sorted(ways, key=lambda name: ("fp32" in name, "compiled" in name))}
    ours = {name: lambda take=take: take(clips) for name, take in ways.items()}
    return ours | {"plain PyTorch": lambda: trainer.train_step(plain, plain.task.batch(clips, device))}

def training(name:str, s, z, frames:Frames, clips, device:str, here:Machine, rounds:int) -> list[dict]:
    "A step at one batch size."
    ways = stepping(s, lambda s: trainer.Normality(s, Frames(frames.folder), clips), device, clips[:s.batch])
    t, products = interleaved(ways, rounds, device, z.repeats), shares_of_products(ways, device)
    l = learning(replace(s, precision="fp32"), lambda s: trainer.Normality(s, frames, clips), device)
    n = operations(lambda: trainer.train_update(l, l.task.batch(clips[:s.batch], device)))
    size = f"{s.size[0]} x {s.size[1]}, width {s.width}, batch {s.batch}"
    return lines(f"{name}, training step", size, t, s.batch, "clip", lambda p: here.bound(n, precision=p), z.targets.get("training", ""), products)

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
    def once(): return model(trainer.input_and_target(held.batch(clips[:1], s.length, device), s)[0], items)
    with torch.no_grad(): n = len(clips) * operations(once)
    for how in ("gated", "always"):
        s = replace(s, test_update=how)
        def ours(precision): return lambda: in_batches(quick, items, held, replace(s, precision=precision), device, clips, z.score_batch)
        ways = {f"vad, {p}": ours(p) for p in precisions(device)}
        ways["one frame at a time"] = lambda: one_by_one(model, items, frames, replace(s, precision="fp32"), device, clips)
        found += lines(f"{name}, scoring, memory {dict(gated='moved behind the gate', always='always moved')[how]}",
                       f"{s.size[0]} x {s.size[1]}, width {s.width}, batches of {z.score_batch}", interleaved(ways, rounds, device),
                       len(clips), "frame", lambda p: here.bound(n, precision=p), z.targets.get("scoring", ""))
    return found

def memory_model(z, device:str, here:Machine, rounds:int) -> list[dict]: # z: from SIZES
    "Training and scoring of the memory model, with and without gates, at each size."
    found = []
    with tempfile.TemporaryDirectory() as d:
        for (frame, width), attention in [(size, a) for size in z.models for a in ("none", "gate")]:
            s = trainer.settings("paper", size=frame, width=width, attention=attention)
            frames = noise(Path(d) / f"{width}{attention}", max(z.scored, *z.batches) + s.length, frame)
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
    "Forward and backward through two layers; on a GPU the peers run in half precision too."
    found, gpu = [], torch.device(device).type == "cuda"
    def step(network, x, precision):
        network.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"): h = network(x)[0]
        h.float().sum().backward()
    for length, batch, width in z.sequences:
        made, x = networks(width, z.projection, 2, device), torch.randn(length, batch, width, device=device)
        for ours, theirs in (("SRU", "sru.SRU"), ("SRU++", "sru.SRUpp")):
            def call(name, precision): return lambda: step(made[name], x, precision)
            ways = {f"{ours}, {p}": call(ours, p) for p in precisions(device)}
            if gpu: ways = {f"{ours}, replayed, {p}": Replay(call(ours, p)) for p in precisions(device)} | ways
            ways |= {f"{name}, {p}": call(name, p) for name in (theirs, "nn.LSTM") if name in made
                     for p in (precisions(device) if gpu else ["fp32"])}
            planes = 2 * 2 * (3 + 1 + 1) * x.numel() * 4 # two layers, both ways: three planes, the highway's input and the output
            n = operations(call(ours, "fp32"))
            found += lines(f"{ours}, forward and backward", f"{length} x {batch} x {width}", interleaved(ways, rounds, device, z.repeats),
                           batch, "sequence", lambda p: here.bound(n, planes, p), z.targets.get(ours, ""),
                           shares_of_products(ways, device))
    return found

def time_classifier(z, device:str, here:Machine, rounds:int) -> list[dict]:
    "A training step of the published classifier."
    found, rng = [], np.random.default_rng(0)
    for (n, length, width, batch), cell in [(size, c) for size in z.clips for c in ("sru", "srupp")]:
        names = np.arange(n).astype(str)
        data = Clips("noise", rng.standard_normal((n, length, width), np.float32), np.arange(n) % 2, np.full(n, length), names, names, ("normal", "anomalous"))
        s = classifier.ClassifierSettings(cell=cell, hidden=z.hidden, projection=z.projection, batch=batch)
        ways = stepping(s, lambda s: classifier.Classes(s, data), device, np.arange(batch))
        small = learning(replace(s, precision="fp32"), lambda s: classifier.Classes(s, data), device)
        work = operations(lambda: trainer.train_update(small, small.task.batch(np.arange(batch), device)))
        moved = STEP_PASSES * 4 * sum(p.numel() for p in small.plain.parameters())
        what, size = f"{dict(sru='SRU', srupp='SRU++')[cell]} classifier, training step", f"{length} x {batch} x {width}"
        found += lines(what, size, interleaved(ways, rounds, device, z.repeats), batch, "clip",
                       lambda p: here.bound(work, precision=p) + here.bound(0, moved), # the update comes after the gradient
                       z.targets.get("classifier", ""), shares_of_products(ways, device))
    return found

STEP_PASSES = 9 # over the weights: Adam reads weight, gradient and two means and writes three; their norm is read, its gradient written

def embedding(z, device:str, here:Machine, rounds:int) -> list[dict]:
    "Frames to vectors."
    ours = {p: make_backbone("resnet50", weights="none", precision=p).to(device) for p in precisions(device)}
    plain = timm_models().create_model("resnet50", num_classes=0).eval().to(device)
    x = torch.randint(0, 256, (z.images, 224, 224, 3), dtype=torch.uint8, device=device)
    def call(f):
        with torch.inference_mode(): return f()
    ways = {f"vad, {p}": lambda net=net: call(lambda: net(x)) for p, net in ours.items()}
    ways["timm"] = lambda: call(lambda: plain(x.permute(0, 3, 1, 2).float() / 255))
    n = operations(ways["vad, fp32"])
    return lines("ResNet50, frames in memory", f"224 x 224, batch {z.images}", interleaved(ways, rounds, device, z.repeats), z.images,
                 "frame", lambda p: here.bound(n, precision=p), z.targets.get("embedding", ""))

@dataclass(frozen=True)
class Sizes:
    "What is timed."
    models: tuple = (((96, 96), 24), ((256, 256), 64)) # frames and channels of MNAD's first block: the cpu preset's, the published
    batches: tuple = (4,)               # clips of a training step; 4 as published
    scored: int = 16                    # frames
    score_batch: int = 16               # of them at once; 16 as in `vad evaluate`
    sequences: tuple = ((100, 8, 1024),) # length, batch, width; as the published notebooks have them
    projection: int = 784               # of SRU++; 784 as published
    hidden: int = 1024                  # of the classifier; 1024 as published
    clips: tuple = ((16, 100, 2048, 8), (64, 8, 512, 64)) # number, frames, features, batch: published; UCF-Crime's
    images: int = 16                    # embedded at once
    repeats: int = 1                    # calls a turn
    targets: dict = field(default_factory=dict) # what we want to reach, in words

SIZES = dict(
    tiny=Sizes((((16, 16), 4),), (2,), 6, 4, ((6, 2, 16),), 8, 16, ((8, 6, 12, 8),), 1),
    cpu=Sizes(targets={
        "training": "1.6 times plain PyTorch at 96 x 96, 2 at 256 x 256", "scoring": "2 times one frame at a time",
        "SRU": "0.38 of sru.SRU's time, 0.15 of nn.LSTM's", "SRU++": "0.42 of sru.SRUpp's time, 0.25 of nn.LSTM's",
        "classifier": "2 times plain PyTorch; 1.3 times the bound", "embedding": "2 times timm"}),
    cuda=Sizes((((256, 256), 64),), (4, 32), 2048, 128, ((100, 8, 1024), (100, 64, 2048)), clips=((7320, 100, 2048, 8),), images=256, repeats=10,
               targets={"training": "2.2 times the bound", "scoring": "3000 frames a second", "SRU": "0.8 of sru's kernels, 0.15 of cuDNN's LSTM",
                        "SRU++": "0.8 of sru's kernels", "classifier": "an epoch of 7320 clips in 2 s: 3660 clips a second",
                        "embedding": "4000 frames a second"}))
PARTS = dict(memory=memory_model, recurrence=recurrence, classifier=time_classifier, embedding=embedding)

def measure(
    device:str="auto",   # auto | cpu | cuda | cuda:N
    sizes:str|None=None, # tiny | cpu | cuda; None: as the device
    rounds:int=5, threads:int|None=None,
    parts=tuple(PARTS),  # memory | recurrence | classifier | embedding
    changes=(),          # of the sizes, a dict
) -> pd.DataFrame:       # what, size, way, ms, fastest, slowest, per_second, unit, ours_times_as_fast, bound_ms, times_the_bound, target, and the machine
    "Ours, peers and lower bounds of everything, on one device."
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
                                      **{f"{p}_tflops": f / 1e12 for p, f in here.flops.items()}, copy_gb_s=here.bandwidth / 1e9, peak_memory_gb=round(peak_memory(), 2), torch=torch.__version__)

def rounded_speed(t:pd.DataFrame) -> pd.DataFrame:
    "Four digits of every number are enough."
    return t.map(lambda x: float(f"{x:.4g}") if isinstance(x, float) else x)

def main(argv=None):
    "Measure this machine and write speed.csv, or speed_cuda.csv."
    p = argparse.ArgumentParser(description="Ours, peers and lower bounds of training, scoring, recurrence and embedding on one device.")
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
    print(t[["what", "size", "way", "ms", "per_second", "ours_times_as_fast", "times_the_bound", "target"]].to_string(index=False))
    print(path)

if __name__ == "__main__": main()
