"Make README.md from nbs/index.ipynb: run it, keep text and results, drop code. The notebook keeps its results too."
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

root = Path(__file__).resolve().parent.parent


def main():
    source = root / "nbs" / "index.ipynb"
    book, kept = (nbformat.read(source, as_version=4) for _ in range(2))
    NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(root / "nbs")}}).execute()
    text, _ = MarkdownExporter(exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True).from_notebook_node(book)
    text = re.sub(r"\]\((?!\.\./|https?:|#)", "](nbs/", text)         # the notebook stands one folder deeper
    text = text.replace("](../", "](").replace('src="../', 'src="')
    text = "\n".join(line.rstrip() for line in text.splitlines())
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    (root / "README.md").write_text("<!-- made from nbs/index.ipynb by `make sync`; do not edit -->\n\n" + text, encoding="utf-8")
    for cell, done in zip(kept.cells, book.cells, strict=True):
        if cell.cell_type == "code": cell.outputs = done.outputs
    nbformat.write(kept, source) # not as nbdev_clean would, which comes next


if __name__ == "__main__":
    sys.exit(main())
