"The plan of the house: parts import only what stands before them, names mean one thing, chapters keep their rhythm."
import ast
import json
import re
from collections import defaultdict
from configparser import ConfigParser
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, NOTEBOOKS = ROOT / "vad", ROOT / "nbs"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "_modidx.py")
CHAPTERS = sorted(p for p in NOTEBOOKS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def part_of(path):
    "core, models, ... of a module's file; its own name for one that stands at the top."
    inside = path.relative_to(PACKAGE).parts
    return inside[0] if len(inside) > 1 else path.stem


def imported(path):
    "The parts that a module imports from."
    here = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("vad."))
        if not isinstance(node, ast.ImportFrom): continue
        base = here[:len(here) - node.level] if node.level else ()
        full = (*base, *(node.module or "").split(".")) if node.module else base
        if full[:1] != ("vad",): continue
        yield from [full[1]] if len(full) > 1 else [name.name for name in node.names]


def the_map():
    "What the first page says: part -> the parts it may import."
    text = (NOTEBOOKS / "index.ipynb").read_text(encoding="utf-8")
    index = "\n".join("".join(c["source"]) for c in json.loads(text)["cells"])
    rows = re.findall(r"^\| *`vad\.(\w+)` *\|[^|]*\|([^|\n]*)\|", index, re.M)
    above = [part for part, _ in rows]
    return {part: set(above[:i] if "all above" in allowed else re.findall(r"`(\w+)`", allowed)) for i, (part, allowed) in enumerate(rows)}


def cells_of(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def is_exported(cell):
    return cell["cell_type"] == "code" and re.search(r"^#\|\s*export", "".join(cell["source"]), re.M) is not None


def exported_cells():
    for path in CHAPTERS:
        cells = cells_of(path)
        for i, cell in enumerate(cells):
            if is_exported(cell):
                after = next((c for c in cells[i + 1:] if c["cell_type"] == "code"), None)
                yield path.relative_to(NOTEBOOKS), "".join(cell["source"]), after is not None and not is_exported(after)


def definitions(source):
    return [n for n in ast.parse(source).body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]


def test_each_part_imports_only_what_the_map_allows():
    allowed, seen = the_map(), defaultdict(set)
    for path in MODULES: seen[part_of(path)] |= set(imported(path)) - {part_of(path)}
    parts = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}
    assert parts <= set(allowed)
    for part, names in seen.items():
        if part in ("__init__", "__main__", "_main"): continue
        assert names <= allowed[part], f"vad.{part} imports {sorted(names - allowed[part])}, which the map does not allow"


def test_the_map_has_no_circle():
    order = list(the_map())
    for i, (part, names) in enumerate(the_map().items()):
        assert names <= set(order[:i]), f"vad.{part} stands before {sorted(names - set(order[:i]))}"


def test_modules_do_not_import_each_other_in_circles():
    uses = {}
    for path in MODULES:
        here = path.relative_to(ROOT).with_suffix("").parts
        found = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body: # imports inside a function wait until it is called
            if isinstance(node, ast.ImportFrom) and node.level:
                base = (*here[:len(here) - node.level], *((node.module or "").split(".") if node.module else ()))
                found |= {".".join(base)} | {".".join((*base, n.name)) for n in node.names}
        uses[".".join(here)] = found
    done, on_the_way = set(), []

    def visit(name):
        if name in done or name not in uses: return
        assert name not in on_the_way, " -> ".join([*on_the_way[on_the_way.index(name):], name])
        on_the_way.append(name)
        for other in sorted(uses[name]): visit(other)
        on_the_way.pop()
        done.add(name)

    for name in uses: visit(name)


def test_a_public_name_means_one_thing():
    homes = defaultdict(set)
    for path in MODULES:
        for node in definitions(path.read_text(encoding="utf-8")):
            if not node.name.startswith("_"): homes[node.name].add(path.relative_to(ROOT).as_posix())
    assert {name: sorted(where) for name, where in homes.items() if len(where) > 1} == {}


def test_lines_are_at_most_110_columns():
    "what nbdev writes by itself, the list of a module's names, is wider"
    wide = [f"{path}: {line}" for path, source, _ in exported_cells() for line in source.split("\n") if len(line) > 110]
    assert wide == []


def test_an_exported_cell_is_one_definition_of_at_most_40_lines():
    for path, source, _ in exported_cells():
        found = definitions(source)
        assert len(found) <= 1, f"{path} defines {[n.name for n in found]} in one cell"
        if not found: continue # imports and tables
        assert sum(bool(line.strip()) for line in source.split("\n")) <= 40, f"{path}: {[n.name for n in found]} is too long"


def test_the_median_exported_cell_is_short():
    assert median(sum(bool(line.strip()) for line in source.split("\n")) for _, source, _ in exported_cells()) <= 12


def test_most_exported_cells_are_shown_at_work():
    shown = [followed for *_, followed in exported_cells()]
    assert sum(shown) >= .6 * len(shown)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_no_function_has_more_than_eight_parameters(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            args = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs) if a.arg not in ("self", "cls")]
            assert len(args) <= 8, f"{node.name} has {len(args)} parameters"


def test_cells_that_only_set_up_are_collapsed():
    for path in CHAPTERS:
        if path.relative_to(NOTEBOOKS).parts[0] in ("benchmarks", "papers"): continue
        for cell in cells_of(path):
            source = "".join(cell["source"])
            code = [n for n in ast.parse(re.sub(r"^[%!].*$", "", source, flags=re.M)).body] if cell["cell_type"] == "code" else []
            if code and all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in code):
                hidden = cell["metadata"].get("jupyter", {}).get("source_hidden")
                assert hidden, f"{path.relative_to(ROOT)}: a cell of imports is open: {source[:60]!r}"


def test_links_lead_somewhere():
    broken = []
    for path in [*CHAPTERS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        if path.suffix == ".ipynb": text = "\n".join("".join(c["source"]) for c in cells_of(path) if c["cell_type"] == "markdown")
        else: text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+?)(?:#[^)]*)?\)", text):
            if not re.match(r"https?:|mailto:|attachment:", target) and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert broken == []


def test_every_requirement_says_from_which_version_on():
    config = ConfigParser()
    config.read(ROOT / "settings.ini", encoding="utf-8")
    for name in ("requirements", "dev_requirements"):
        assert [r for r in config["DEFAULT"][name].split() if not re.search("[<>=]", r)] == []
