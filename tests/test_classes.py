"Which class is normal, which clips come from one film, and which folds can be trained on: right by a rule, or one sentence."
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_labels import refused
from test_window import blocks, write_film

from vad.training import classifier
from vad.cli import run_app
from vad.training.splits import Clips, SplitSettings, clips_of, open_clips, split_clips
from vad.data.clips import collect, order_classes, pick_normal, says_normal
from vad.core.errors import UserError
from vad.core.provenance import shared
from vad.core.records import read_json, write_json
from vad.data.embedding import Workload, embed, open_embeddings
from vad.use.inspect_clips import ClipInspector
from vad.use.scorers import normal_class, open_scorer

EMBED = "--method cnn --frames 5 --width 16 --size 32 --batch 4 --device cpu --workers 1".split()
TRAIN = "--split clip --hidden 16 --layers 1 --cell sru --epochs 12 --batch 4 --lr 1e-2 --normalise --pool mean --device cpu".split()


# ---- names

PLAIN = [("Fight", "Non-Fight"), ("fights", "noFights"), ("accident", "background"), ("Violence", "NonViolence"), ("anomalous", "normal"), ("Abnormal", "Normal"),
         ("1", "0"), ("positive", "negative"), ("fi", "no_fight"), ("fire", "nofire"), ("weapons", "Without-Weapons"), ("abnormal", "not_abnormal"), ("crash", "regular")]

@pytest.mark.parametrize("anomalous, normal", PLAIN)
@pytest.mark.parametrize("turned", [False, True])
def test_the_normal_folder_by_its_name(tmp_path, anomalous, normal, turned):
    "whatever the alphabet puts first"
    for name in (anomalous, normal): touch(tmp_path, f"{name}/a.mp4")
    c = collect(tmp_path)
    assert c.classes == (normal, anomalous) and c.labels.tolist() == [0, 1] and c.normal == normal
    assert collect(tmp_path, "binary").classes == ("normal", "anomalous")
    assert collect(tmp_path, normal=anomalous).classes == (anomalous, normal) # the person's word goes before it
    assert normal_class((anomalous, normal)[::-1 if turned else 1], None) == (0 if turned else 1)

@pytest.mark.parametrize("names", [("brawl", "street"), ("1", "2"), ("-1", "1"), ("train", "val"), ("a", "b", "c"), ("mask", "no_mask"), ("normal", "background", "theft"),
                                   ("noFight", "normal"), ("normal_day", "normal_night", "theft"), ("abnormal", "irregular")])
def test_a_tree_that_does_not_say_it(tmp_path, names):
    for name in names: touch(tmp_path, f"{name}/a.mp4")
    for kind in ("auto", "binary"):
        with pytest.raises(UserError, match="--normal"): collect(tmp_path, kind)
    assert collect(tmp_path, normal=names[1]).classes[0] == names[1]
    assert collect(tmp_path, normal=names[:2]).classes == ("normal", *names[2:]) or "normal" in names[2:]
    if not any(map(says_normal, names)):
        c = collect(tmp_path, "multiclass")
        assert c.normal is None and set(c.classes) == set(names) and "none of them is taken for normal" in c.words()

def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root

def test_ucf_folders_are_one_normal_class(tmp_path):
    touch(tmp_path, "Abuse/a.mp4", "Training_Normal_Videos_Anomaly/b.mp4", "Testing_Normal_Videos_Anomaly/c.mp4", "Normal_Videos_event/d.mp4")
    c = collect(tmp_path)
    assert c.classes == ("normal", "Abuse") and np.bincount(c.labels).tolist() == [3, 1]
    assert c.words() == "Normal: normal (Normal_Videos_event, Testing_Normal_Videos_Anomaly, Training_Normal_Videos_Anomaly). Anomalous: Abuse."

def test_a_name_that_is_not_there(tmp_path):
    touch(tmp_path, "a/a.mp4", "normal/b.mp4")
    with pytest.raises(UserError, match="no folder or class 'calm': it has a, normal"): collect(tmp_path, normal=("normal", "calm"))
    with pytest.raises(UserError, match="kind='both'"): collect(tmp_path, "both")
    touch(tmp_path, "b/c.mp4")
    with pytest.raises(UserError, match="another one called normal"): collect(tmp_path, normal=("a", "b"))

@settings(deadline=None)
@given(st.lists(st.text("abnormlfight_- 01", min_size=1, max_size=9), min_size=1, max_size=5, unique=True), st.sampled_from(["auto", "binary", "multiclass"]))
def test_every_folder_gets_one_class(names, kind):
    try: order, has_normal = order_classes(names, kind, None, "it")
    except UserError: return
    assert set(order) == set(names) and has_normal == bool(pick_normal(names, None, "it"))
    first = [n for n in names if order[n] == next(iter(order.values()))]
    if has_normal: assert first == pick_normal(names, None, "it")


# ---- from films to scores

def command(monkeypatch, capsys, *args):
    "what a command prints, run in this process"
    monkeypatch.setattr("sys.argv", ["vad", *map(str, args)])
    capsys.readouterr()
    assert run_app() == (0, "")
    return capsys.readouterr().out

def film_tree(root, anomalous, normal):
    "anomalous films are dark and get darker, normal ones are coarse noise"
    for i in range(6):
        write_film(root / anomalous / f"a{i}.avi", (255 - f // 3 for f in blocks(8, 20 + i)))
        write_film(root / normal / f"n{i}.avi", blocks(8, i))
    return root

@pytest.mark.parametrize("anomalous, normal, said", [("Fight", "Non-Fight", []), ("brawl", "street", ["--normal", "street"])])
def test_anomalous_films_score_higher(tmp_path, monkeypatch, capsys, anomalous, normal, said):
    "through the commands, whatever the order of the folders; what is taken for normal is printed and recorded"
    tree, made, run = film_tree(tmp_path / "tree", anomalous, normal), tmp_path / "made", tmp_path / "run"
    def out(*args): return command(monkeypatch, capsys, *args)
    if said: assert f"has {anomalous}, {normal}, and no name says" in refused(monkeypatch, "embed", tree, "--output", made, *EMBED)
    assert f"Normal: {normal}. Anomalous: {anomalous}." in out("embed", tree, "--output", made, *said, *EMBED)
    assert read_json(made / "cnn_record.json")["normal"] == normal
    assert f"Normal: {normal}. Anomalous: {anomalous}." in out("classify", made, "--out", run, *TRAIN)
    assert read_json(run / "record.json")["data"]["normal"] == normal
    def mean(name, into, taken, *more):
        words = out("score", run, tree / name, "--out", tmp_path / into, "--window", .5, "--no-video", "--device", "cpu", *more)
        assert f"1 - the probability of {taken}, the normal class" in words
        (record,), (table,) = (tmp_path / into).rglob("*.json"), (tmp_path / into).rglob("*.csv")
        assert read_json(record)["scorer"]["normal"] == taken
        return pd.read_csv(table).score.mean()
    high, low = mean(f"{anomalous}/a0.avi", "a", normal), mean(f"{normal}/n0.avi", "n", normal)
    assert high > .7 > .3 > low
    assert mean(f"{anomalous}/a0.avi", "turned", anomalous, "--normal", anomalous) == pytest.approx(1 - high, abs=1e-5)
    assert "'calm'" in refused(monkeypatch, "score", run, tree / anomalous / "a0.avi", "--out", tmp_path / "none", "--normal", "calm")

@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    "embeddings of the folders brawl and street, as an older version left them: first by name, and no word on which is normal"
    root = tmp_path_factory.mktemp("old")
    tree = film_tree(root / "tree", "Fight", "Non-Fight")
    embed(collect(tree, normal="Fight"), root / "made", "cnn", 5, "cpu", 4, work=Workload(workers=1), width=16, size=32)
    record = read_json(root / "made/cnn_record.json")
    del record["normal"]
    write_json(root / "made/cnn_record.json", record)
    return root / "made"

def test_embeddings_that_do_not_say_it(embedded, tmp_path, monkeypatch, capsys):
    e = open_embeddings(embedded)
    assert e.classes == ("Fight", "Non-Fight")
    c = open_clips(embedded)
    assert c.classes == ("Non-Fight", "Fight") and (np.array(c.classes)[c.labels] == e.manifest.label).all()
    assert open_clips(embedded, normal="Fight").classes == ("Fight", "Non-Fight")
    assert open_clips(embedded, kind="binary").classes == ("normal", "anomalous")
    record = read_json(embedded / "cnn_record.json")
    other = shutil.copytree(embedded, tmp_path / "other")
    write_json(other / "cnn_record.json", record | dict(classes=["brawl", "street"]))
    assert "--normal" in refused(monkeypatch, "classify", other, "--out", tmp_path / "run", *TRAIN)
    assert "Normal: street. Anomalous: brawl." in command(monkeypatch, capsys, "classify", other, "--out", tmp_path / "run", "--normal", "street", *TRAIN)
    assert "none of them" in command(monkeypatch, capsys, "classify", other, "--out", tmp_path / "none", "--kind", "multiclass", *TRAIN)
    assert read_json(tmp_path / "none/record.json")["data"]["normal"] is None
    with pytest.raises(UserError, match="--watch"): open_scorer(tmp_path / "none", "cpu")
    assert open_scorer(tmp_path / "none", "cpu", watch="brawl").at == 0
    inspector = ClipInspector(tmp_path / "run", other, device="cpu") # counts classes as the run does, not as the embeddings
    assert inspector.clips.classes == ("street", "brawl")
    known = dict(zip(inspector.clips.names, np.array(inspector.clips.classes)[inspector.clips.labels]))
    assert all((known[v] == "brawl") == (v.startswith("Fight/")) for v in known)
    assert np.mean([x.predicted == x.label for x in map(inspector.explain, range(len(inspector)))]) > .8

def test_an_old_run_is_scored_by_the_rule(embedded, tmp_path):
    s, clips = classifier.ClassifierSettings(hidden=8, layers=1, cell="sru", epochs=1, batch=4), clips_of(open_embeddings(embedded), "old", "multiclass", "Fight")
    run = classifier.fit_classifier(s, clips, tmp_path / "run", "cpu").folder
    record = read_json(run / "record.json")
    assert record["data"]["classes"] == ["Fight", "Non-Fight"] and record["data"].pop("normal") == "Fight"
    write_json(run / "record.json", record)
    scorer = open_scorer(run, "cpu")
    assert (scorer.at, scorer.normal) == (1, "Non-Fight")

def test_segment_says_it(tmp_path, monkeypatch, capsys):
    pytest.importorskip("av", reason="PyAV is not installed")
    tree = film_tree(tmp_path / "tree", "brawl", "street")
    cut = "segment", tree, "--out", tmp_path / "clips", "--seconds", .4, "--shortest", .1
    assert "--normal" in refused(monkeypatch, *cut)
    assert "Normal: street. Anomalous: brawl." in command(monkeypatch, capsys, *cut, "--normal", "street")


# ---- sources

CLIPS = ("Fight/a_1.mp4", "Fight/a_2.mp4", "noFight/b_1.mp4", "noFight/sub/c.avi", "noFight/a_2.avi")

@pytest.mark.parametrize("sep", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("change", [str, lambda s: "./" + s, lambda s: s.replace("/", "\\"), lambda s: ".\\" + s.replace("/", "\\"),
                                    lambda s: s.rsplit(".", 1)[0], lambda s: f" {s} "])
def test_sources_as_people_write_them(tmp_path, sep, encoding, change):
    touch(tmp_path, *CLIPS)
    lines = [("Clip", "frames", "Source_Video"), *((change(c), "9", f"s{i // 2}") for i, c in enumerate(CLIPS[:4]))]
    (tmp_path / "sources.csv").write_text("".join(sep.join(line) + "\r\n" for line in lines), encoding=encoding, newline="")
    known = dict(zip(*(collect(tmp_path).table[c] for c in ("video", "source"))))
    assert known == {**{c: f"s{i // 2}" for i, c in enumerate(CLIPS[:4])}, CLIPS[4]: CLIPS[4]}

def test_sources_without_folders(tmp_path):
    touch(tmp_path, *CLIPS)
    (tmp_path / "sources.csv").write_text("video,source\na_1,x\nb_1.mp4,x\nsub/c,y\na_2.avi,\n\n")
    assert collect(tmp_path).table.set_index("video").source.to_dict() == {CLIPS[0]: "x", CLIPS[2]: "x", CLIPS[3]: "y", CLIPS[1]: CLIPS[1], CLIPS[4]: CLIPS[4]}

@pytest.mark.parametrize("text, words", [
    ("video,source\na_1,x\na_9.mp4,x\n", ("line 3", "'a_9.mp4'")), ("video,source\na_2,x\n", ("line 2", "'a_2'", "Fight/a_2.mp4", "noFight/a_2.avi")),
    ("video,source\na_1,x\nFight/a_1.mp4,y\n", ("line 3", "Fight/a_1.mp4", "'x'", "'y'")), ("video,source\na_1\n", ("line 2", "fewer columns")),
    ("clip\na_1\n", ("columns video and source",)), ("", ("columns video and source",))])
def test_sources_that_are_not_clear(tmp_path, monkeypatch, text, words):
    touch(tmp_path / "tree", *CLIPS)
    (tmp_path / "tree/sources.csv").write_text(text)
    said = refused(monkeypatch, "embed", tmp_path / "tree", "--output", tmp_path / "out", *EMBED)
    for word in ("sources.csv", *words): assert word in said
    assert not (tmp_path / "out").exists()

def test_a_rule_for_sources(tmp_path):
    touch(tmp_path, *CLIPS)
    with pytest.warns(UserWarning, match="fits 4 of 5 clips"): c = collect(tmp_path, source="(.*)_[0-9]+$")
    assert c.table.set_index("video").source.to_dict() == {CLIPS[0]: "a", CLIPS[1]: "a", CLIPS[2]: "b", CLIPS[3]: CLIPS[3], CLIPS[4]: "a"}
    with pytest.raises(UserError, match="fits none of 5 clips"): collect(tmp_path, source="take([0-9]+)")
    with pytest.raises(UserError, match="fits none of 5 clips"): collect(tmp_path, source="^()") # nothing is no source
    with pytest.raises(UserError, match="no regular expression"): collect(tmp_path, source="(")

def test_the_real_sources():
    if not (fights := shared("data/fights")): pytest.skip("the clips are not here (set VAD_SHARED)")
    want = pd.read_csv(fights / "sources.csv", dtype=str, keep_default_na=False).set_index("clip").source_video
    got = collect(fights).table.set_index("video").source
    assert all(got[v] == (want.get(v) or v) for v in got.index) and len(got) == 300

def test_names_in_other_forms_of_unicode(tmp_path):
    touch(tmp_path, "normal/caf\u00e9.mp4", "theft/b.mp4")
    (tmp_path / "sources.csv").write_text("video,source\ncafe\u0301,x\n", encoding="utf-8")
    assert collect(tmp_path).table.source.tolist() == ["x", "theft/b.mp4"]


# ---- folds

def some(labels, sources, classes=("normal", "theft", "arson")):
    n = len(labels)
    x = np.random.default_rng(0).normal(size=(n, 3, 4)).astype(np.float32)
    return Clips("some", x, np.array(labels), np.full(n, 3), np.array(sources), np.arange(n).astype(str), tuple(classes))

FEW = some([0] * 12 + [1] * 12 + [2] * 2, [f"v{i // 2}" for i in range(26)])
LUMPED = some([0] * 8 + [1] * 8, [*"aabbccdd", *"eeeeeeef"], ("normal", "theft"))

@pytest.mark.parametrize("kind, k, said", [("clip", 3, "Class arson has 2 clips, too few for 3 parts (normal: 12, theft: 12, arson: 2)"),
                                           ("source", 2, "Class arson has 1 source videos, too few for 2 parts (normal: 6, theft: 6, arson: 1)")])
def test_a_class_too_small_is_named(kind, k, said, tmp_path):
    with pytest.raises(UserError) as e: classifier.cross_validate(FEW, dict(sru=classifier.ClassifierSettings(cell="sru")), tmp_path / "run", SplitSettings(kind, k=k))
    assert said in str(e.value) and not (tmp_path / "run").exists()

def test_a_class_without_clips_is_named():
    with pytest.raises(UserError, match="Class arson has 0 clips"): next(split_clips(some([0, 1] * 5, range(10)), SplitSettings("clip", "none", 5)))

@pytest.mark.parametrize("kind", ["clip", "source"])
@settings(deadline=None, max_examples=40)
@given(st.data())
def test_every_fold_has_every_class_or_is_refused(kind, data):
    n = data.draw(st.integers(4, 30))
    labels = data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    sources = data.draw(st.lists(st.integers(0, 8).map(str), min_size=n, max_size=n))
    clips = some(labels, sources)
    try: parts = list(split_clips(clips, SplitSettings(kind, "none", data.draw(st.integers(2, 4)))))
    except UserError as e:
        assert "class" in str(e).casefold()
        return
    for train, test in parts: assert set(clips.labels[train]) == set(clips.labels[test]) == {0, 1, 2}

def test_a_split_is_refused_before_anything_is_trained(tmp_path):
    "theft has two films, one of which is tested: the other cannot be both trained on and validated by"
    s = classifier.ClassifierSettings(cell="sru", hidden=8, layers=1, epochs=1, batch=2)
    with pytest.raises(UserError, match="Class theft has 1 source videos, too few for 2 parts"):
        classifier.cross_validate(LUMPED, dict(sru=s), tmp_path / "run", SplitSettings(k=2))
    with pytest.raises(UserError, match="training part would have no clip of class theft"):
        classifier.train_and_test(s, LUMPED, np.arange(8), np.arange(8, 16), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    t = classifier.cross_validate(LUMPED, dict(sru=s), tmp_path / "run", SplitSettings(k=2), weighting=False)
    assert len(t) == 2 * (len(classifier.CONTROLS) + 1)
