"The book: built whole, all its links walked, nothing from a network; read in a real browser from the disk."
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import chromium

for name in ("sphinx", "myst_nb", "furo", "math_core"):
    pytest.importorskip(name, reason=f"{name} is not installed: pip install -e '.[book]'")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    "the folder of the book; a warning of Sphinx is an error"
    out = tmp_path_factory.mktemp("made") / "book"
    done = subprocess.run([sys.executable, ROOT / "book/build.py", out], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert done.stdout == f"Open {out / 'index.html'}\n" and not done.stderr
    return out


class Page(HTMLParser):
    "What a page links to, loads, and can be linked at; and its text."
    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.anchors, self.words, self.prose = set(), set(), set(), [], []
        self.equations = self.code = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[k] for k in ("id", "name") if attrs.get(k)}
        self.equations += tag == "math"
        self.code += tag in ("pre", "code")
        if tag == "a" and attrs.get("href"): self.links.add(attrs["href"])
        if tag == "link" and attrs.get("rel") in ("stylesheet", "icon", "preload", "search"): self.loads.add(attrs["href"])
        if tag != "a": self.loads |= {attrs[k] for k in ("src", "poster", "data") if attrs.get(k)}

    def handle_endtag(self, tag): self.code -= tag in ("pre", "code")

    def handle_data(self, text):
        self.words.append(text)
        if not self.code: self.prose.append(text)


@pytest.fixture(scope="module")
def pages(book):
    return {p: Page(p) for p in sorted(book.rglob("*.html"))}

def target(page, link):
    "the file that a link of a page leads to, and the anchor in it"
    parts = urlsplit(link)
    path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    return path / "index.html" if path.is_dir() else path, unquote(parts.fragment)

def is_outside(link): return bool(urlsplit(link).scheme or urlsplit(link).netloc)

def test_every_chapter_is_a_page(book, pages):
    for path in (ROOT / "nbs").rglob("*.ipynb"):
        if path.name == "index.ipynb" or ".ipynb_checkpoints" in path.parts: continue
        assert book / path.relative_to(ROOT).with_suffix(".html") in pages, path
    for name in ("index", "CONTRIBUTING", "CHANGELOG", "figures/ped2", "figures/ucf_crime", "figures/fights", "figures/cards/ped2.speed", "reference/models"):
        assert book / f"{name}.html" in pages, name

def test_every_link_leads_somewhere(book, pages):
    broken = []
    for page, found in pages.items():
        for link in found.links | found.loads:
            if is_outside(link): continue
            path, anchor = target(page, link)
            there = path.is_file() and (not anchor or path not in pages or anchor in pages[path].anchors)
            if not there or path.suffix == ".ipynb" or book not in path.parents: broken.append(f"{page.relative_to(book)}: {link}")
    assert broken == []

def test_every_page_is_reached_from_the_first(book, pages):
    seen, to_do = set(), [book / "index.html"]
    while to_do:
        page = to_do.pop()
        if page in seen or page not in pages: continue
        seen.add(page)
        to_do += [target(page, link)[0] for link in pages[page].links if not is_outside(link)]
    assert set(pages) - seen <= {book / "search.html"}

def test_nothing_is_loaded_from_a_network(book, pages):
    for page, found in pages.items():
        assert [x for x in found.loads if is_outside(x) and not x.startswith("data:")] == [], page
    for sheet in book.rglob("*.css"):
        urls = re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", sheet.read_text(encoding="utf-8"))
        assert not [u for u in urls if re.match("[\"']?(https?:)?//", "".join(u))], sheet

def test_equations_are_rendered_and_directives_are_gone(book, pages):
    memory = pages[book / "nbs/1_models/01_memory.html"]
    assert memory.equations >= 10
    for page, found in pages.items():
        text = "".join(found.words)
        assert "#| export" not in text and "#| default_exp" not in text, page
        assert not re.search(r"\\(frac|mathrm|sum|begin)\b", "".join(found.prose)), page

def test_the_reference_has_signatures_with_shapes(book, pages):
    text = "".join(pages[book / "reference/models.html"].words)
    assert re.search(r"def read\(\s+queries:Tensor, # \(\.\.\., N, D\) unit rows", text) and "What queries read from the memory" in text

def test_its_size(book):
    assert sum(p.stat().st_size for p in book.rglob("*") if p.is_file()) < 60e6


# ---- in a browser

@pytest.fixture(params=["light", "dark"])
def reader(request):
    "a page of a browser, and what went wrong in it"
    with chromium() as browser:
        page = browser.new_context(viewport=dict(width=1350, height=1000), color_scheme=request.param).new_page()
        wrong = []
        page.on("console", lambda m: m.type in ("error", "warning") and wrong.append(m.text))
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.on("requestfailed", lambda r: wrong.append(f"{r.url}: {r.failure}"))
        page.on("request", lambda r: r.url.startswith(("file:", "data:")) or wrong.append(r.url))
        yield page, wrong, request.param

def shoot(page, path):
    "a picture for a person to look at; on a busy machine Chromium may not give one at once"
    for attempts_left in (2, 1, 0):
        try: return page.screenshot(path=path)
        except Exception:
            if not attempts_left: raise
            page.wait_for_timeout(2000)

def test_the_book_is_read_from_disk(book, album, reader):
    page, wrong, theme = reader
    def keep(name): shoot(page, album / f"book_{name}_{theme}.png")
    page.goto((book / "index.html").as_uri())
    keep("index")
    page.get_by_role("link", name="A tour", exact=True).first.click()
    titles = []
    for _ in range(4):
        titles.append(page.locator("h1").first.inner_text().rstrip("#").strip())
        page.locator("a.next-page").click()
    assert titles == ["A tour", "Models", "Memory", "Attention gate"]
    page.locator("a.prev-page").click()
    equation = page.locator("math[display=block]").first
    equation.scroll_into_view_if_needed()
    box = equation.locator("mfrac, msub, msup, mrow").first.bounding_box()
    assert box["height"] > 5 and box["width"] > 5
    keep("equation")
    for name, address in dict(tour="nbs/00_tour", paper="nbs/papers/01_mnad", reference="reference/models", cli="nbs/6_engineering/30_command").items():
        page.goto((book / f"{address}.html").as_uri())
        if page.locator("article img").count():
            page.locator("article img").last.scroll_into_view_if_needed()
            assert page.locator("article img").last.evaluate("i => i.decode().then(() => i.naturalWidth)") > 100
        keep(name)
    assert wrong == []

def test_a_search_finds_a_chapter(book, album, reader):
    page, wrong, theme = reader
    page.goto((book / "nbs/papers/01_mnad.html").as_uri())
    page.locator("input[name=q]").fill("memory item")
    page.keyboard.press("Enter")
    found = page.locator("#search-results li a")
    found.get_by_text("Memory", exact=True).first.wait_for(timeout=60_000)
    shoot(page, album / f"book_search_{theme}.png")
    found.get_by_text("Memory", exact=True).first.click()
    assert page.url.split("?")[0].endswith("nbs/1_models/01_memory.html")
    assert wrong == []
