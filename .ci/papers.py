"Show the published figures in the papers' notebooks: run each with `shown`, keep its outputs. With --check: say which are older than their code."
import sys
import tempfile
from pathlib import Path

import nbformat
import papermill

root = Path(__file__).resolve().parent.parent
SHOWN = {"01_mnad": "ped2", "02_gates": "ped2", "03_embeddings": "fights hockey", "04_srupp": "fights ucf_crime", "05_beyond": "ped2"}


def shown(name, folder):
    "A paper's notebook as it shows published results, its own parameters in place."
    source = root / f"nbs/papers/{name}.ipynb"
    papermill.execute_notebook(source, Path(folder) / f"{name}.ipynb", dict(shown=SHOWN[name]), kernel_name="python3", progress_bar=False, cwd=str(root))
    book, made = nbformat.read(source, 4), nbformat.read(Path(folder) / f"{name}.ipynb", 4)
    made = [c for c in made.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    for cell, done in zip(book.cells, made, strict=True):
        if cell.cell_type == "code": cell.outputs = [o for o in done.outputs if o.get("name") != "stderr"]
    return source, book


def text(book):
    "What the outputs say, pictures aside; a stream may come in any number of pieces."
    def said(o): return o.get("text") or o.get("data", {}).get("text/plain", "") + "\n"
    return ["".join(said(o) for o in c.get("outputs", [])) for c in book.cells]


def main():
    old = []
    with tempfile.TemporaryDirectory() as d:
        for name in SHOWN:
            source, book = shown(name, d)
            if text(book) == text(nbformat.read(source, 4)): continue
            old.append(name)
            if "--check" not in sys.argv: nbformat.write(book, source)
    print("Older than the code that makes them: " + ", ".join(old) if old else "The papers' outputs are those of their code.")
    return bool(old) and "--check" in sys.argv


if __name__ == "__main__": sys.exit(main())
