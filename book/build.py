"""Make the book: the repository's pages as a reader wants them, then Sphinx. Nothing is executed.

The pages lie beside the book, in `pages`, as their sources do in the repository: links between them hold."""
import argparse
import ast
import re
import shutil
import sys
from pathlib import Path

import nbformat
from sphinx.cmd.build import main as sphinx

ROOT = Path(__file__).resolve().parent.parent
PARTS = {
    "1_models": ("Models", "Memory, gates, MNAD, recurrences, backbones: what the two papers are made of."),
    "2_scores": ("Scores", "From errors to a number for each frame, and what that number is worth."),
    "3_data": ("Data", "Films, labels, datasets, clips and their embeddings."),
    "4_training": ("Training", "From settings and a dataset to a run folder that can be repeated."),
    "5_use": ("Use", "To look into a model, to score a film or a camera, to train on films of one's own."),
    "6_engineering": ("Engineering", "What serves speed or machinery: nobody has to read it."),
    "papers": ("Papers", "The published tables, measured again; each ends in what held and what did not."),
    "benchmarks": ("Benchmarks", "How fast, beside its peers and the lower bound."),
}
RESULTS = {"ped2": "UCSD Ped2", "avenue_part": "CUHK Avenue, in part", "ucf_crime": "UCF-Crime",
           "fights": "Surveillance Camera Fight", "hockey": "Hockey Fights"}
PACKAGE = ("core", "kernels", "models", "data", "scores", "training", "use", "reproduce", "cli")


def notebooks(folder):
    return sorted((ROOT / "nbs" / folder).glob("*.ipynb"))

def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.strip() + "\n", encoding="utf-8")

def paragraphs(*texts):
    return "\n\n".join(texts)

def contents(*names):
    "What Sphinx orders pages by: the left column, previous and next."
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])

def title_and_promise(path):
    "The first line of a chapter, and the sentence under it."
    text = next(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown")
    return re.search("^# (.+)", text, re.M)[1], " ".join(re.findall("^> (.+)", text, re.M))


# ---- chapters

def shown(output):
    "An output without what needs a running kernel. None: it is not shown."
    if output.get("name") == "stderr": return None
    data = output.get("data", {})
    if data.pop("application/vnd.jupyter.widget-view+json", None):
        if "run this cell" not in data["text/plain"]: data["text/plain"] = "A widget: run this cell to use it"
    return output

def clean(cell):
    "A cell without nbdev's directives, with tags for its look. None: it is not shown."
    directives = {line.split()[0] for line in re.findall(r"^#\| *(.+)", cell.source, re.M)}
    if directives & {"hide", "default_exp"}: return None
    if cell.cell_type != "code": return cell
    cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M).strip("\n")
    cell.outputs = [o for o in map(shown, cell.outputs) if o]
    tags = cell.metadata.setdefault("tags", [])
    if "export" in directives: tags.append("exported")
    if "hide_input" in directives: tags.append("remove-input")
    elif cell.metadata.get("jupyter", {}).get("source_hidden"): tags.append("hide-input")
    return cell

def write_chapter(path, pages):
    book = nbformat.read(path, 4)
    book.cells = [c for c in map(clean, book.cells) if c]
    book.metadata.language_info = dict(name="python", pygments_lexer="ipython3")
    target = pages / path.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, target)

def write_part(folder, pages):
    "The chapters of a part, and a page that lists them."
    title, sentence = PARTS[folder]
    lines = []
    for path in notebooks(folder):
        write_chapter(path, pages)
        name, promise = title_and_promise(path)
        lines.append(f"- [{name}]({path.name}): {promise}")
    order = contents(*(p.stem for p in notebooks(folder)))
    write(pages / "nbs" / folder / "index.md", paragraphs(f"# {title}", sentence, "\n".join(lines), order))


# ---- reference

def sentence_of(node):
    return (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")

def signature(node, lines):
    "The lines of a definition as they stand, with the comments that say shapes."
    text = "\n".join(lines[node.lineno - 1:node.body[0].lineno - 1])
    if node.lineno == node.body[0].lineno: text = lines[node.lineno - 1][:node.body[0].col_offset]
    return text.rstrip()

def is_public(node, kinds=(ast.FunctionDef, ast.ClassDef)):
    return isinstance(node, kinds) and not node.name.startswith("_")

def members(node, lines):
    "Of a class: the lines of its settings and methods, and a sentence for each method."
    if not isinstance(node, ast.ClassDef): return [], []
    methods = [n for n in node.body if is_public(n, ast.FunctionDef)]
    settings = [lines[n.lineno - 1] for n in node.body if isinstance(n, ast.AnnAssign)]
    said = [f"- `{m.name}`: {sentence_of(m)}" for m in methods if sentence_of(m)]
    return settings + [signature(m, lines) for m in methods], said

def describe(node, lines):
    "Name, sentence and signature of a function, or of a class and its methods."
    inside, said = members(node, lines)
    code = "\n".join(["```python", signature(node, lines), *inside, "```"])
    return paragraphs(f"### {node.name}", sentence_of(node), code, "\n".join(said))

def describe_module(path):
    text = path.read_text(encoding="utf-8")
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    chapter = re.search("File to edit: .*?(nbs/.+ipynb)", text)[1]
    title, promise = title_and_promise(ROOT / chapter)
    found = (describe(node, text.split("\n")) for node in ast.parse(text).body if is_public(node))
    return paragraphs(f"## {name}", f"{promise} Chapter: [{title}](../{chapter}).", *found)

def modules(part):
    "The files of a part of the package; the command is one file."
    folder = ROOT / "vad" / part
    if not folder.is_dir(): return [folder.with_suffix(".py")]
    return sorted(p for p in folder.glob("*.py") if p.name != "__init__.py")

def write_reference(pages):
    "A page for each part of the package, read off its files without importing them."
    for part in PACKAGE:
        said = map(describe_module, modules(part))
        write(pages / f"reference/{part}.md", paragraphs(f"# vad.{part}", *said))
    says = "Every public function and class, with the shapes that its arguments have."
    links = "\n".join(f"- [vad.{part}]({part}.md)" for part in PACKAGE)
    write(pages / "reference/index.md", paragraphs("# Reference", says, links, contents(*PACKAGE)))


# ---- all of it

def copy(path, pages):
    target = pages / path.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)

def write_results(pages):
    "The pages that reproductions wrote stay as they are; a list leads to them, and the cards are pages."
    cards = sorted(ROOT.glob("figures/cards/*.md"))
    for path in (*ROOT.glob("figures/**/*.png"), *cards): copy(path, pages)
    links = [f"- [{words}](page:{name}.html)" for name, words in RESULTS.items()]
    titles = [p.read_text(encoding="utf-8").split("\n")[0].removeprefix("# ") for p in cards]
    write(pages / "figures/index.md", paragraphs(
        "# Results", "Every table and figure that was measured, with its record; each page is one file.",
        "\n".join(links),
        "A card for each detector says what it is for, what it is not for, and what it reached:",
        "\n".join(f"- [{title}](cards/{p.name})" for title, p in zip(titles, cards)),
        contents(*(f"cards/{p.name.removesuffix('.md')}" for p in cards))))

def write_first(pages):
    "README, and behind it the order of everything."
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub("^<!--.*?-->\n", "", text)
    text = re.sub(r"\]\((figures/\w+\.html)", r"](page:\1", text) # conf.py leaves these links alone
    order = [f"nbs/{folder}/index" for folder in PARTS]
    order = ["nbs/00_tour", *order, "figures/index", "CONTRIBUTING", "CHANGELOG", "reference/index"]
    write(pages / "index.md", paragraphs(text, contents(*order)))

def write_pages(pages):
    shutil.rmtree(pages, ignore_errors=True)
    write_chapter(ROOT / "nbs/00_tour.ipynb", pages)
    for folder in PARTS: write_part(folder, pages)
    write_results(pages)
    write_reference(pages)
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"): copy(ROOT / name, pages)
    write_first(pages)

def main():
    p = argparse.ArgumentParser(description="Make the book.")
    p.add_argument("out", nargs="?", type=Path, default=ROOT / "build/book")
    out = p.parse_args().out
    pages, trees = out.with_name("pages"), out.with_name("doctrees")
    write_pages(pages)
    shutil.rmtree(out, ignore_errors=True) # else pages that are no more would stay
    strict = ("-q", "-W", "--keep-going", "-j", "auto")
    failed = sphinx([*strict, "-c", str(ROOT / "book"), "-d", str(trees), str(pages), str(out)])
    if failed: return failed
    for name in RESULTS: shutil.copyfile(ROOT / f"figures/{name}.html", out / f"figures/{name}.html")
    print(f"Open {out / 'index.html'}")


if __name__ == "__main__": sys.exit(main())
