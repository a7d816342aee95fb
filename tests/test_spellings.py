"The command lines of the two founding documents, with the script's name replaced by the command."
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_tiny
from test_cli import COMMANDS, call, sentence
from test_learner import message

from vad.core.provenance import shared
from vad.core.records import read_json
from vad.core.spellings import in_our_words
from vad.data.synthetic import write_scenes

TRAIN = "train --gpus 0 --dataset_type {d} --dataset_path ./data --exp_dir {e} {more}--epochs 50 --batch_size 32"
EVALUATE = ("evaluate --gpus 0 --dataset_path ./data --dataset_type {d} --t_length 5 {more}"
            "--model_dir ./exp/{d}/pred/{e}/model.pth --m_items_dir ./exp/{d}/pred/{e}/keys.pt")
VISUALIZE = ("visualize --gpus 0 --dataset_type {d} --dataset_path ./data --model_dir ./exp/{d}/pred/{e}/model.pth "
             "--m_items_dir ./exp/{d}/pred/{e}/keys.pt --attn_decoder {a} --num_videos 3 --frames_per_video 5")
EMBED = "embed --method {m} --data_path ./videos --output_dir ./out --max_frames {f} --frame_skip 2 --output_dim {w} {more}--dataset_type binary"
FRAMES = [(d, e, a) for d in ("ped2", "avenue") for e, a in (("baseline", "none"), (f"{d}_attn_decoder", "gate"))]


def read_line(line, monkeypatch=None):
    "a command line -> the command, and what each of its options is"
    import torch
    if monkeypatch: monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    name, *words = line.split()
    command = COMMANDS[name]
    return command.make_context(name, words).params

@pytest.mark.parametrize("d, e, a", FRAMES)
@pytest.mark.filterwarnings("ignore:There is no GPU")
def test_training(d, e, a):
    p = read_line(TRAIN.format(d=d, e=e, more="--attn_decoder gate " * (a == "gate")))
    assert (p["data"], p["out"]) == (Path("data", d), Path("exp", d, "pred", e))
    assert (p["epochs"], p["batch"], p["preset"], p["attention"]) == (50, 32, "paper", a if a == "gate" else None)

@pytest.mark.parametrize("d, e, a", FRAMES)
@pytest.mark.filterwarnings("ignore:There is no GPU")
def test_evaluation(d, e, a):
    p = read_line(EVALUATE.format(d=d, e=e, more="--attn_decoder gate " * (a == "gate")))
    assert (Path(p["run"]), p["data"]) == (Path("exp", d, "pred", e), Path("data", d))

@pytest.mark.parametrize("d, e, a", FRAMES)
@pytest.mark.filterwarnings("ignore:There is no GPU")
def test_visualization(d, e, a):
    p = read_line(VISUALIZE.format(d=d, e=e, a=a))
    assert (p["run"], p["data"], p["num_videos"], p["frames_per_video"]) == (Path("exp", d, "pred", e), Path("data", d), 3, 5)
    assert p["out"] == Path("visualizations", f"{d}_{'attn_decoder' if a == 'gate' else 'baseline'}")

@pytest.mark.parametrize("m, f, w, more", [("cnn", 100, 1024, ""), ("resnet50", 150, 1024, ""), ("vit", 75, 2048, "--vit_model vit_small_patch16_224 ")])
def test_embedding(m, f, w, more):
    p = read_line(EMBED.format(m=m, f=f, w=w, more=more))
    assert (p["videos"], p["out"], p["method"], p["frames"], p["skip"], p["width"], p["kind"]) == (Path("videos"), Path("out"), m, f, 2, w, "binary")
    assert p["model"] == ("vit_small_patch16_224" if more else None)
    assert read_line(EMBED.format(m=m, f=f, w=w, more=more).replace("binary", "multiclass"))["kind"] == "multiclass"

PARTS = ["--method cnn --max_frames 50 --frame_skip 3 --output_dim 512", "--method vit --max_frames 100 --frame_skip 1 --output_dim 2048 --vit_model vit_base_patch16_224",
         "--method resnet50 --max_frames 100 --frame_skip 2 --output_dim 1024"]

@pytest.mark.parametrize("part", PARTS)
def test_a_line_without_folders_says_so(tmp_path, part):
    "as the document has them; with folders they are whole"
    sentence(call(tmp_path, "embed", *part.split()), "videos", code=2) if "--output_dir" in part else sentence(call(tmp_path, "embed", *part.split()), "--help", code=2)
    p = read_line(f"embed {part} --data_path ./videos --output_dir ./out")
    assert part.split()[3] == str(p["frames"]) and part.split()[7] == str(p["width"])

def test_the_two_steps_of_clips():
    p = read_line("embed --method resnet50 --data_path /data --output_dir /embeddings")
    assert (p["videos"], p["out"], p["frames"]) == (Path("/data"), Path("/embeddings"), None)
    p = read_line("classify --embeddings_path /embeddings/resnet_embeddings.npy --labels_path /embeddings/resnet_labels.npy")
    assert (p["embeddings"], p["labels"], p["out"]) == tuple(map(Path, ("/embeddings/resnet_embeddings.npy", "/embeddings/resnet_labels.npy", "/embeddings/classifier")))


# ---- for real, on data so small that fifty epochs are seconds

CLIP = 3 # of the small original
SMALL = "--size 16 16 --channels 1 --width 4 --items 3"

def test_frames_from_training_to_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "data/ped2")
    for e, more in (("baseline", ""), ("ped2_attn_decoder", "--attn_decoder gate ")):
        rc, out, err = call(tmp_path, *TRAIN.format(d="ped2", e=e, more=more).split(), *SMALL.split())
        assert rc == 0 and "50 epochs" in out, err
        assert torch.cuda.is_available() or "There is no GPU 0 here" in err
        record = read_json(tmp_path / f"exp/ped2/pred/{e}/record.json")["settings"]
        assert (record["epochs"], record["batch"], record["attention"]) == (50, 32, "gate" if more else "none")
        rc, out, err = call(tmp_path, *EVALUATE.format(d="ped2", e=e, more=more).split())
        assert rc == 0 and "AUC micro" in out and "confusion" in out, err
        rc, out, err = call(tmp_path, *VISUALIZE.format(d="ped2", e=e, a="gate" if more else "none").split())
        assert rc == 0 and "15 sheets" in out, err
    assert {p.name for p in (tmp_path / "visualizations").iterdir()} == {"ped2_baseline", "ped2_attn_decoder"}
    sentence(call(tmp_path, *EVALUATE.format(d="ped2", e="baseline", more="--attn_decoder gate ").split()), "attention none", "--attn_decoder")
    sentence(call(tmp_path, *EVALUATE.format(d="ped2", e="baseline", more="").replace("--t_length 5", "--t_length 4").split()), "clip 5", "--t_length 4")

def test_the_originals_own_files_are_evaluated(tmp_path, monkeypatch):
    if shared("golden") is None: pytest.skip("the golden numbers are not in the shared folder (VAD_SHARED)")
    from test_memory import small_original
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "data/ped2")
    state, _ = small_original(width=8)
    where = tmp_path / "exp/ped2/pred/baseline"
    where.mkdir(parents=True)
    torch.save(state, where / "model.pth")
    line = EVALUATE.format(d="ped2", e="baseline", more="").replace("--t_length 5", f"--t_length {CLIP}").split()
    sentence(call(tmp_path, *line), "keys.pt")
    items = torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
    torch.save(torch.nn.functional.normalize(items, dim=1), where / "keys.pt")
    for _ in range(2): # the second time it is there
        rc, out, err = call(tmp_path, *line)
        assert rc == 0 and "AUC micro" in out, err
    assert len(list(where.glob("imported-*/metrics.json"))) == 1

def test_clips_from_films_to_a_classifier(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scenes(tmp_path / "scenes", cameras=6, normal=1, size=(60, 88), frames=16)
    for folder in filter(Path.is_dir, (tmp_path / "scenes").iterdir()): # two folders, as the document has them
        to = tmp_path / "videos" / ("normal" if folder.name == "normal" else "anomalous")
        to.mkdir(parents=True, exist_ok=True)
        for film in folder.iterdir(): film.rename(to / film.name)
    line = EMBED.format(m="cnn", f=12, w=16, more="").split()
    rc, out, err = call(tmp_path, *line, "--size", 32, "--device", "cpu")
    assert rc == 0, err
    assert np.load(tmp_path / "out/cnn_embeddings.npy").shape[1:] == (12, 16)
    quick = "--hidden 8 --projection 8 --heads 2 --epochs 2 --device cpu".split()
    rc, out, err = call(tmp_path, *"classify --embeddings_path ./out/cnn_embeddings.npy --labels_path ./out/cnn_labels.npy --split clip".split(), *quick)
    assert rc == 0 and "accuracy" in out and (tmp_path / "out/classifier/metrics.json").exists(), err

def test_avenues_films_become_frames(tmp_path, monkeypatch):
    "the script without any option"
    from films import write_film
    monkeypatch.chdir(tmp_path)
    sentence(call(tmp_path, "data", "extract"), "data/avenue", "training_videos")
    for part in ("training", "testing"):
        (tmp_path / f"data/avenue/Avenue Dataset/{part}_videos").mkdir(parents=True)
        write_film(tmp_path / f"data/avenue/Avenue Dataset/{part}_videos/01.avi", range(6), codec="mpeg4")
        (beside := tmp_path / f"data/avenue/__MACOSX/Avenue Dataset/{part}_videos").mkdir(parents=True) # as a Mac unpacks it
        (beside / "._01.avi").write_bytes(b"\0\5\x16\7")
    rc, out, err = call(tmp_path, "data", "extract")
    assert rc == 0, err
    for part in ("training", "testing"): assert len(list((tmp_path / f"data/avenue/{part}/frames/01").iterdir())) == 6
    sentence(call(tmp_path, "data", "extract", "data/avenue"), "--out")


# ---- what cannot be honoured

@pytest.mark.parametrize("line, words", [
    ("train --gpus all --dataset_type ped2 --exp_dir a", ["--gpus all", "--device"]), ("train --dataset_type ped2 --exp_dir", ["--exp_dir needs a value"]),
    ("train --dataset_type ped2 --exp_dir a --fdim 512 --mdim 256", ["--fdim", "--width"]), ("train --dataset_type ped2 --exp_dir a --fdim 9", ["9", "--width"])])
def test_what_cannot_be(tmp_path, line, words): sentence(call(tmp_path, *line.split()), *words)

def test_our_own_lines_stay_as_they_are():
    for line in ("train data/ped2 --out run --epochs 3", "evaluate run data --threshold 0.1", "embed videos --out out --kind binary", "reproduce --seeds 0 1"):
        name, *words = line.split()
        assert in_our_words(name, words, None) == words

@pytest.mark.parametrize("words, kept", [("train --dataset_path d --exp_dir log --preset=quick", "--preset=quick"), ("train --dataset_path d --exp_dir log --config=c.yaml", "--config=c.yaml"),
                                         ("classify --embeddings_path e/x.npy --out=mine", "--out=mine"), ("visualize RUN --dataset_path d --dataset_type ped2 --out=mine", "--out=mine")])
def test_what_is_said_with_an_equals_sign_is_said(words, kept):
    command, *rest = words.split()
    ours = in_our_words(command, rest, None)
    option = kept.partition("=")[0]
    assert [w for w in ours if w.partition("=")[0] == option] == [kept] and "paper" not in ours

@pytest.mark.parametrize("words, said", [("evaluate RUN D --m_items_dir keys.pt", "--m_items_dir"), ("evaluate RUN D --t_length 9", "--t_length"), ("compare A B D --gpus", "--gpus needs"),
                                         ("evaluate RUN D --th --batch_size_test 3", "--th needs a value")])
def test_old_options_that_would_be_dropped(words, said):
    command, *rest = words.split()
    message(lambda: in_our_words(command, rest, None), said)

def test_a_run_folder_may_have_a_dot(tmp_path):
    (tmp_path / "run.v1").mkdir()
    assert in_our_words("evaluate", ["--model_dir", str(tmp_path / "run.v1"), "D"], None)[0] == str(tmp_path / "run.v1")
    assert in_our_words("evaluate", ["--model_dir", str(tmp_path / "run.v1/model.pth"), "D"], None)[0] == str(tmp_path / "run.v1")
