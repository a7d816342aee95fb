"""Every speed that is claimed anywhere, measured again by one command: `vad bench`.

A benchmark is a notebook in this folder. It runs ours and its peers in one process and in turns, so that a busy minute strikes both, and
leaves a table and a picture. Benchmarks never run side by side, and one that was run before is run again: a time is true for a machine
and a day.
"""

import json
import os
from pathlib import Path

from vad.core.errors import UserError
from vad.core.provenance import now
from vad.core.records import write_json
from vad.reproduce.runner import execute, short_machine

HERE = Path(__file__).resolve().parent

def benchmarks() -> dict[str, Path]: # name -> notebook, in the order of their numbers
    "What can be measured."
    return {p.stem.partition("_")[2]: p for p in sorted(HERE.glob("[0-9]*.ipynb"))}

def parameters_of(notebook:Path) -> dict[str, tuple[object, str]]: # name -> default, what it is
    "What a benchmark can be told."
    import papermill
    found = papermill.inspect_notebook(notebook)
    return {k: (p["default"], p["help"]) for k, p in found.items()}

def parsed(settings:list[str], names:list[str]) -> dict[str, dict]: # benchmark -> its parameters
    "Read `name=value` pairs. Raises `UserError` on one that no benchmark knows."
    known, given = {n: parameters_of(benchmarks()[n]) for n in names}, {n: {} for n in names}
    for pair in settings:
        key, _, text = pair.partition("=")
        takers = [n for n in names if key in known[n]]
        if not takers or not text: raise UserError(f"{pair!r} sets nothing: write name=value, with a name out of {', '.join(sorted(set().union(*known.values())))}.")
        try: value = json.loads(text)
        except ValueError: value = str(Path(text).absolute()) if Path(text).exists() else text # notebooks run elsewhere
        for n in takers: given[n][key] = value
    return given

def bench(
    names=(),                       # which; none: all
    out="figures/benchmarks",       # where tables and pictures go
    notebooks="runs/benchmarks",    # where the executed notebooks go
    settings=(),                    # name=value: parameters of the notebooks
) -> dict[str, str]:                # name -> why it failed; empty where it did not
    "Run benchmarks one after the other. Raises `UserError` on names or settings that do not exist, before anything is run."
    every = benchmarks()
    if odd := [n for n in names if n not in every]: raise UserError(f"There is no benchmark {odd[0]!r}: there are {', '.join(every)}.")
    given, said = parsed(list(settings), list(names or every)), {}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]) # for `import speed`
    for name, parameters in given.items():
        target = (Path(notebooks) / f"{name}.ipynb").resolve()
        said[name] = execute(every[name], target, dict(out=str(Path(out).resolve())) | parameters)
        write_json(target.with_suffix(".json"), dict(name=name, parameters=parameters, finished=now(), machine=short_machine(), failed=said[name]))
    return said
