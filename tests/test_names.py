"Names from outside stay what they are in every table, and do no harm in any message, page or picture."
import re
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import write_tiny
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_cli import call
from test_learner import TINY

from vad.core import plot
from vad.reproduce import ablation, figures, report
from vad.scores import frame_scores
from vad.training import evaluation
from vad.core.errors import UserError, printable
from vad.core.progress_bar import progress
from vad.core.records import read_csv, read_json, write_csv
from vad.data.datasets import open_dataset
from vad.training.trainer import fit
from vad.data.video import natural

ODD = ["1", "01", "001", "1.0", "1e5", "NA", "N/A", "nan", "NaN", "null", "None", "true", "True", "inf", "-1", "+1", "=1+1", "@SUM(A1)", "-2+3", "'=1", "''-", "'tis",
       "\tx", "\rx", "\nx", "a,b", 'a "b"', "a\nb", "a\r\nb", " x", "x ", "", "é", "日本", "\u202egpj", "\udcff", "1_000", "0x10", "2024-01-01", "#", ";"]
names = st.one_of(st.sampled_from(ODD), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
quick = settings(max_examples=60, deadline=None)


# ---- tables

@quick
@given(st.lists(names, min_size=1), names, st.booleans())
def test_any_names_survive_a_table(tmp_path_factory, said, column, alone):
    assume(column != "n")
    path = tmp_path_factory.getbasetemp() / "any.csv"
    table = pd.DataFrame({column: said} | ({} if alone else dict(n=np.linspace(-1.5, 1 / 3, len(said)))))
    if column: # pandas gives a column without a name one of its own
        write_csv(path, table)
        pd.testing.assert_frame_equal(read_csv(path, {column: str}), table, check_exact=True)

def test_all_odd_names_survive_together(tmp_path):
    write_csv(tmp_path / "t.csv", pd.DataFrame(dict(video=ODD, n=range(len(ODD)))))
    assert list(read_csv(tmp_path / "t.csv", dict(video=str)).video) == ODD

@settings(max_examples=8, deadline=None)
@given(st.lists(names, min_size=2, max_size=6, unique=True), st.integers(0, 99))
def test_numbers_do_not_depend_on_what_videos_are_called(tmp_path_factory, said, seed):
    "metrics, intervals and gains are those of videos called a, b, c"
    rng, path = np.random.default_rng(seed), tmp_path_factory.getbasetemp()
    lengths = rng.integers(2, 9, len(said))
    x, other, y = rng.random((2, lengths.sum())), rng.random(lengths.sum()), np.concatenate([np.arange(n) % 2 for n in lengths])
    def measured(called):
        for k, z in enumerate((x[0], other)):
            (path / f"run{k}").mkdir(exist_ok=True)
            write_csv(path / f"run{k}/scores.csv", frame_scores.table(called, lengths, 4, regularity=z, online=x[1], label=y))
        t = frame_scores.read_table(path / "run0/scores.csv")
        assert list(dict.fromkeys(t.video)) == called and frame_scores.table_lengths(t).tolist() == lengths.tolist()
        draws = [ablation.drawn_again(frame_scores.read_table(path / f"run{k}/scores.csv"))["draws"] for k in (0, 1)]
        return evaluation.frame_measures(t, {}), draws, t.drop(columns="video").to_numpy().tolist()
    np.testing.assert_equal(measured(said), measured([chr(97 + i) for i in range(len(said))])) # nan equals nan

def test_two_videos_of_one_name_stay_two():
    assert frame_scores.table_lengths(frame_scores.table(["a", "a", "b"], [3, 2, 2], x=np.arange(7.))).tolist() == [3, 2, 2]

def test_runs_on_other_frames_are_not_compared():
    tables = [frame_scores.table(names, [2, 2], regularity=np.arange(4.), label=[0, 1, 0, 1]) for names in (["1", "2"], ["1", "02"])]
    found = pd.DataFrame([dict(key=k, seed=0, auc=90.) | ablation.drawn_again(t) for k, t in zip("ab", tables)])
    facts = pd.DataFrame([dict(row="a over b", needs="a b", metric="gain", value=np.nan)])
    with pytest.raises(UserError, match="different frames"): ablation.gain_table(found, facts, pd.DataFrame())
    assert len(ablation.gain_table(found.assign(frames="same"), facts, pd.DataFrame())) == 1

@pytest.mark.parametrize("cell", ["", "many", "nan", "inf"])
def test_a_cell_that_is_no_number_is_named(tmp_path, cell):
    (tmp_path / "scores.csv").write_text(f"video,frame,psnr\n1,0,2.5\n1,1,{cell}\n")
    with pytest.raises(UserError, match="scores.csv, line 3, .*psnr"): frame_scores.read_table(tmp_path / "scores.csv")

def test_a_spreadsheet_computes_nothing(tmp_path):
    write_csv(tmp_path / "t.csv", pd.DataFrame({"video": ODD, "=class": ["x"] * len(ODD), "score": -1.5}))
    raw = pd.read_csv(tmp_path / "t.csv", dtype=dict(video=str), keep_default_na=False, encoding_errors="surrogateescape")
    assert not [c for c in [*raw.columns, *raw.video] if c and c[0] in "=+-@\t\r"]
    assert (raw.score == -1.5).all() # numbers stay numbers

def test_a_file_in_another_encoding_is_no_list_of_sources(tmp_path):
    from vad.data.clips import read_sources
    write_csv(tmp_path / "sources.csv", pd.DataFrame(dict(video=["a/=1.mp4", "a/NA.mp4"], source=["=1", "NA"])))
    assert read_sources(tmp_path, ["a/=1.mp4", "a/NA.mp4"]) == {"a/=1.mp4": "=1", "a/NA.mp4": "NA"}
    (tmp_path / "sources.csv").write_bytes("video,source\nä.mp4,1\n".encode("latin-1"))
    with pytest.raises(UserError, match="sources.csv"): read_sources(tmp_path, ["ä.mp4"])


# ---- from the folder to the interval

def test_videos_called_like_numbers_and_nothing(tiny, tmp_path):
    "one model; the same three videos under plain and under odd names"
    run = fit(TINY, open_dataset(tiny), tmp_path / "run", "cpu").folder
    def found(called, into):
        root = write_tiny(tmp_path / into / "tiny")
        shutil.rmtree(root / "masks")
        for i, v in enumerate(sorted(called, key=lambda v: natural(root / v))): (root / f"testing/frames/{i + 1:02d}").rename(root / f"testing/frames/~{v}")
        for p in list((root / "testing/frames").glob("~*")): p.rename(p.with_name(p.name[1:]))
        if into in ("plain", "odd0"):
            code, out, err = call(tmp_path, "evaluate", run, root, "--device", "cpu", "--into", into)
            assert code == 0, err
        else:
            evaluation.evaluate(run, open_dataset(root), "cpu", into=into)
            figures.draw_run(run / into)
        m = read_json(run / into / "metrics.json")
        assert sorted(dict.fromkeys(frame_scores.read_table(run / into / "scores.csv").video)) == sorted(called)
        return m["regularity"], m["online"], (run / into / "controls.csv").read_text()
    plain = found(["a", "b", "c"], "plain")
    assert plain[0]["videos"] == 3
    for k, called in enumerate((["1", "01", "NA"], ["001", "null", "nan"], ["=1+1", "-1", "'=x"], ["a,b", 'c"d', "e\nf"], ["$x_{", "_y", "1e5"])):
        assert found(called, f"odd{k}") == plain, called


# ---- messages, pages, pictures

WILD = "a\x1b[2Jb\nc\rd\u202ee\udcff"

def tame(text): return text.isprintable() and "\x1b" not in text and text.encode("utf-8")

def test_a_sentence_stays_one_line():
    assert tame(str(UserError(f"{WILD} is missing."))) and tame(printable(WILD)) and printable("é 日本\u00a0x") == "é 日本\u00a0x"

def test_a_bar_stays_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("VAD_PROGRESS", str(tmp_path / "bar"))
    for _ in progress(range(2), label=WILD): pass
    said = (tmp_path / "bar").read_text()
    assert printable(WILD) in said and "\x1b[2J" not in said

def test_a_message_of_the_command_is_one_line(tmp_path):
    where = tmp_path / "a\x1b[2Jb\nc"
    code, out, err = call(tmp_path, "evaluate", where, where, "--device", "cpu")
    assert code == 1 and "\x1b" not in err + out and len(err.strip().splitlines()) == 1 and r"a\x1b[2Jb\nc" in err

def test_a_table_in_a_terminal():
    assert len(report.for_terminal(pd.DataFrame(dict(a=[WILD, "x"]))).splitlines()) == 3

NAME = '<b>&"\\_{$%#~^'

def test_a_page_shows_names_letter_by_letter(tmp_path):
    t = pd.DataFrame({NAME: [NAME, WILD]})
    facts = dict(title=NAME, halves=[], ids=[], sentences=[NAME], measurements=t, record="{}")
    page = report.rendered(overview=t, **facts)
    assert "<b>" not in page and page.count("&lt;b&gt;&amp;&#34;") >= 4 and page.encode("utf-8") and "\x1b" not in page

def test_latex_prints_names_letter_by_letter():
    "a dataset, a row and a column with every letter that LaTeX reads as a command"
    data = 'a_b & 50% {x} $#~^'
    text = report.for_latex(pd.DataFrame({"control": ["a_b & \\c"], "50% {x}": ["1.0"]}), f"Controls ({data})", "tab:mnad.controls")
    caption = re.search(r"\\caption\{(.*)\}", text)[1]
    assert r"a\_b \& 50\% \{x\} \$\#\textasciitilde{}\textasciicircum{}" in caption
    assert r"a\_b \& \textbackslash" in text and r"50\% \{x\}" in text
    bare = re.sub(r"\\[A-Za-z]+\*?(\[[^]]*\])?|\\[&%$#_{}\\]", "", text).replace("tab:mnad.controls", "") # without commands and escaped letters
    assert not set("%$#_~^") & set(bare) and bare.count("&") == 2 # between two columns, in two lines

def test_pictures_show_dollars_and_underscores(tmp_path):
    y = np.array([0, 1, 0, 1])
    runs = {}
    for name in (r"_$\frac{$", "$a$"):
        (folder := tmp_path / f"run{len(runs)}").mkdir()
        write_csv(folder / "scores.csv", frame_scores.table([r"$\bad{$", "a\nb"], [2, 2], regularity=1 - y + .1, label=y))
        runs[name] = folder
    fig = figures.draw_scores(runs, tmp_path / "s.png")
    assert {printable(n) for n in runs} <= {t.get_text().strip().replace(r"\$", "$") for t in fig.legends[0].get_texts()}
    plt.close(fig)
    fig = figures.draw_roc(runs, tmp_path / "r.png")
    assert len(fig.axes[0].get_legend().get_texts()) == 2
    plt.close(fig)
    assert list(dict.fromkeys(read_csv(tmp_path / "s.csv", dict(run=str, video=str)).run)) == list(runs)
    ax = plot.confusion([[1, 2], [3, 4]], names=["$x", "$y"])
    ax.figure.savefig(tmp_path / "c.png")
    plt.close(ax.figure)
