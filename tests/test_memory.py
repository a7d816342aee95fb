"The memory equals a literal loop, and everything equals the original numbers."
import json
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from vad.models import memory
from vad.models.mnad import MNAD, from_original
from vad.core.errors import UserError
from vad.core.provenance import shared

needs_golden = pytest.mark.skipif(shared("golden") is None, reason="the golden numbers are not in the shared folder (VAD_SHARED)")


# ---- a literal loop, over queries, items and channels, in double precision

def dot(a, b): return sum(float(x) * float(y) for x, y in zip(a, b))

def softmax(row):
    e = [np.exp(x - max(row)) for x in row]
    return [x / sum(e) for x in e]

def ranked(q, items): return sorted(range(len(items)), key=lambda m: -dot(q, items[m]))

def loop_read(queries, items):
    out = []
    for q in queries:
        w = softmax([dot(q, m) for m in items])
        out.append([sum(w[j] * float(items[j][d]) for j in range(len(items))) for d in range(len(q))])
    return out

def loop_update(items, queries, over):
    weights = list(zip(*(softmax([dot(q, m) for q in queries]) for m in items))) # [query][item], over queries
    owner, out = [ranked(q, items)[0] for q in queries], []
    for j, m in enumerate(items):
        mine = [n for n in range(len(queries)) if owner[n] == j]
        counted = mine if over == "own" else range(len(queries))
        moved = m.double().numpy()
        for n in mine: moved = moved + weights[n][j] / max(weights[k][j] for k in counted) * queries[n].double().numpy()
        out.append(moved / np.sqrt(dot(moved, moved)))
    return out

def loop_compactness(queries, items):
    return [np.mean([(float(a) - float(b))**2 for a, b in zip(q, items[ranked(q, items)[0]])]) for q in queries]

def loop_separateness(queries, items, margin):
    def distance(a, b): return np.sqrt(sum((float(x) - float(y) + 1e-6)**2 for x, y in zip(a, b))) # PyTorch's epsilon
    out = []
    for q in queries:
        first, second = ranked(q, items)[:2]
        out.append(max(0., distance(q, items[first]) - distance(q, items[second]) + margin))
    return out

@st.composite
def queries_and_items(draw):
    "unit rows, (N, D) and (M, D), whose nearest items are clear: where two are equally near, which one is taken means nothing"
    n, m, d = draw(st.integers(1, 12)), draw(st.integers(2, 6)), draw(st.integers(2, 7))
    number = st.floats(-4, 4, width=32)
    q, k = (F.normalize(torch.from_numpy(draw(hnp.arrays(np.float32, (rows, d), elements=number)) + 1e-3), dim=1) for rows in (n, m))
    near = (q @ k.T).sort(1, descending=True).values
    rows = ((near[:, 0] - near[:, 1] > 1e-4) & (near[:, 1] - near[:, 2:3].amax(1) > 1e-4 if m > 2 else torch.ones(n, dtype=torch.bool))).nonzero()[:, 0]
    return q[rows], k

def random_rows(seed, n, m, d):
    g = torch.Generator().manual_seed(seed)
    return (F.normalize(torch.randn(k, d, generator=g), dim=1) for k in (n, m))

def same(ours, loop): torch.testing.assert_close(ours.double(), torch.tensor(np.array(loop)), rtol=1e-4, atol=1e-5)

def equals_the_loop(q, k, over, margin):
    same(memory.read(q, k), loop_read(q, k))
    same(memory.update(k, q, over), loop_update(k, q, over))
    same(memory.compactness(q, k), loop_compactness(q, k))
    same(memory.separateness(q, k, margin), loop_separateness(q, k, margin))

@settings(deadline=None, max_examples=150)
@given(queries_and_items(), st.sampled_from(["all", "own"]), st.sampled_from([.1, 1., 2.]))
def test_memory_is_the_literal_loop_on_any_values(rows, over, margin):
    q, k = rows
    if len(q): equals_the_loop(q, k, over, margin)

@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(2, 12), st.integers(2, 20), st.sampled_from(["all", "own"]))
def test_memory_is_the_literal_loop_on_any_shape(seed, n, m, d, over):
    equals_the_loop(*random_rows(seed, n, m, d), over, 1.)

@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 9), st.integers(2, 6), st.integers(2, 9))
def test_a_batch_with_items_of_its_own_each_is_one_after_another(seed, b, n, m, d):
    q, k = (x.unflatten(0, (b, -1)) for x in random_rows(seed, b * n, b * m, d))
    for f in (memory.read, memory.compactness, memory.separateness):
        torch.testing.assert_close(f(q, k), torch.stack([f(x, y) for x, y in zip(q, k)]))
        torch.testing.assert_close(f(q, k[0]), torch.stack([f(x, k[0]) for x in q]))
    torch.testing.assert_close(memory.update(k[0], q), memory.update(k[0], q.flatten(0, 1)))

def test_an_item_that_nobody_chose_stays():
    q, k = F.normalize(torch.tensor([[1., .1], [1., -.1]]), dim=1), torch.tensor([[1., 0.], [-1., 0.]])
    for over in ("all", "own"): assert torch.equal(memory.update(k, q, over)[1], k[1])

def test_extreme_weights_stay_finite():
    "an item whose own queries all have a weight that underflows"
    q = torch.cat([torch.tensor([[1., 0.]]).repeat(3, 1), torch.tensor([[0., 1.]])]) * 200
    k = torch.tensor([[1., 0.], [-1., .0]])
    for over in ("all", "own"): assert memory.update(k, q, over).isfinite().all()


# ---- the original numbers

def golden(name): return {k: torch.from_numpy(v) for k, v in np.load(shared("golden") / f"{name}.npz", allow_pickle=False).items()}

def near(ours, theirs, rtol):
    "relative to the largest value: single elements near zero carry no more digits than that"
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol * float(theirs.abs().max()))

@needs_golden
@pytest.mark.parametrize("name", ["memory_small", "memory_full"])
def test_memory_has_the_original_numbers(name):
    g = golden(name)
    grid, items = F.normalize(g["query"], dim=1), g["keys"]
    rows = memory.as_rows(grid)
    near(torch.cat([grid, memory.as_grid(memory.read(rows, items), grid)], 1), g["read"], 1e-5)
    flat = rows.flatten(0, 1)
    near((flat @ items.T).softmax(0), g["score_query"], 1e-5)
    near((flat @ items.T).softmax(1), g["score_memory"], 1e-5)
    near(memory.update(items, rows), g["updated_keys"], 1e-5)
    near(memory.update(items, rows), g["test_updated_keys"], 1e-5)
    for when in ("compactness", "test_compactness"): near(memory.compactness(rows, items).mean(), g[when], 1e-5)
    assert torch.equal((flat @ items.T).argmax(1), g["nearest"])
    near(memory.separateness(rows, items).mean(), g["separateness"], 1e-5)

def by_rule(name, shape):
    "a parameter of the golden networks"
    n = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("num_batches_tracked"): return torch.zeros(shape, dtype=torch.long)
    if name.endswith("running_var"): n = np.abs(n) * .5 + .5
    elif name.endswith("running_mean"): n = n * .1
    elif len(shape) == 1: n = 1 + .1 * n if name.endswith("weight") else .05 * n
    else: n = n * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(n, np.float32))

def original(variant):
    shapes = json.loads((shared("golden") / f"{variant}_parameters.json").read_text())
    return {name: by_rule(name, tuple(shape)) for name, shape in shapes.items()}

VARIANTS = dict(mnad_predict_none=("predict", False), mnad_predict_gate=("predict", True), mnad_reconstruct=("reconstruct", False))

@needs_golden
@pytest.mark.parametrize("variant", VARIANTS)
def test_whole_networks_have_the_original_numbers(variant):
    task, gated = VARIANTS[variant]
    g, model = golden(variant), from_original(original(variant))
    assert (model.task, model.gates is not None, model.memory, model.training) == (task, gated, True, False)
    with torch.no_grad(): out = model(g["x"], g["keys"])
    near(out.prediction, g["output"], 1e-4)
    near(out.compactness.mean(), g["compactness"].mean(), 1e-4)
    assert torch.equal(out.items, g["keys"]) and (out.attention is not None) == gated
    if task == "reconstruct": return # its golden numbers are of evaluation alone
    with torch.no_grad(): trained = model.train()(g["x"], g["keys"])
    for name, ours in dict(output=trained.prediction, compactness=trained.compactness.mean(), separateness=trained.separateness.mean(),
                           keys=trained.items).items(): near(ours, g[f"train_{name}"], 1e-4)

@needs_golden
@pytest.mark.parametrize("change, word", [
    (lambda s: s.pop("encoder.moduleConv2.3.weight"), "moduleConv2|encoder.blocks.1"),
    (lambda s: s.pop("encoder.moduleConv1.0.weight"), "encoder.moduleConv1.0.weight"),
    (lambda s: s.update({"decoder.moduleUnknown.weight": torch.zeros(3)}), "decoder.moduleUnknown.weight"),
    (lambda s: s.update({"encoder.moduleConv3.0.bias": torch.zeros(3)}), "encoder.blocks.2.0.bias"),
    (lambda s: s.update({"encoder.moduleConv1.0.weight": torch.zeros(7)}), "encoder.moduleConv1.0.weight"),
    (lambda s: s.pop("att_gate2.psi.0.weight"), "gates.gates.1.psi.0.weight"),
    (lambda s: [s.pop(k) for k in list(s) if k.startswith("decoder")], "decoder"),
    (lambda s: s.update({"encoder.moduleConv1.0.weight": 3}), "encoder.moduleConv1.0.weight"),
])
def test_a_state_dict_that_does_not_fit_is_a_problem(change, word):
    state = original("mnad_predict_gate")
    change(state)
    with pytest.raises(UserError) as e: from_original(state)
    assert any(w in str(e.value) for w in word.split("|")) and "\n" not in str(e.value), str(e.value)

@needs_golden
def test_a_state_dict_saved_in_parallel_is_read_as_well():
    state = original("mnad_reconstruct")
    a, b = from_original(state), from_original({f"module.{k}": v for k, v in state.items()})
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))

def theirs(name):
    "what the original calls the parameter that we call `name`"
    back = [("encoder.blocks.{}.", "encoder.moduleConv{}.", 1), ("decoder.ups.{}.", "decoder.moduleUpsample{}.", -4),
            ("decoder.blocks.{}.", "decoder.moduleDeconv{}.", -3)]
    name = name.replace("decoder.bottom.", "decoder.moduleConv.")
    for ours, published, offset in back:
        for i in range(4): name = name.replace(ours.format(i), published.format(i + offset if offset > 0 else -offset - i))
    for i in range(3):
        for part, w in (("from_gating", "W_g"), ("from_skip", "W_x"), ("psi", "psi")):
            name = name.replace(f"gates.gates.{i}.{part}.", f"att_gate{3 - i}.{w}.")
    return name

def small_original(**sizes):
    "the state_dict of a small network as the original names it, and our names for the same tensors"
    torch.manual_seed(0)
    state = MNAD(**dict(task="predict", channels=1, clip=3, width=2) | sizes).state_dict()
    return {theirs(k): v for k, v in state.items()}, state

WRAPPED = dict(
    state_dict=lambda s: dict(state_dict=s, epoch=3, optimizer=dict(state={}, param_groups=[])),
    model=lambda s: dict(model=s, loss=.1),
    model_state_dict=lambda s: dict(model_state_dict=s),
    both=lambda s: dict(model=dict(state_dict=s)),
    parallel=lambda s: {f"module.{k}": v for k, v in s.items()},
    compiled=lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    parallel_compiled=lambda s: dict(state_dict={f"module._orig_mod.{k}": v for k, v in s.items()}),
    compiled_parallel=lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
    within=lambda s: {k.replace("encoder.", "encoder._orig_mod."): v for k, v in s.items()},
    parameters=lambda s: {k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()},
    double=lambda s: {k: v.double() if v.is_floating_point() else v for k, v in s.items()})

@pytest.mark.parametrize("how", WRAPPED)
def test_wrappers_and_prefixes_change_no_weight(how):
    published, ours = small_original(attention="gate")
    found = from_original(WRAPPED[how](published)).state_dict()
    assert found.keys() == ours.keys() and all(torch.equal(found[k], v) for k, v in ours.items())

@pytest.mark.parametrize("spoil, says", [
    (lambda s: s["encoder.moduleConv1.0.weight"].view(-1)[3:4].fill_(float("nan")), "nan or infinite numbers in 'encoder.blocks.0.0.weight'"),
    (lambda s: s["decoder.moduleConv.1.running_var"].fill_(float("-inf")), "nan or infinite numbers in 'decoder.bottom.1.running_var'"),
    (lambda s: s.update({"encoder.moduleConv2.0.weight": s["encoder.moduleConv2.0.weight"].to(torch.int8)}), "torch.int8"),
    (lambda s: s.update({"encoder.moduleConv2.0.weight": s["encoder.moduleConv2.0.weight"] + 1j}), "torch.complex64"),
    (lambda s: s.update({"module.encoder.moduleConv2.0.weight": torch.zeros(4, 2, 3, 3)}), "twice"), (lambda s: s.update(epoch=3), "a int under '.*epoch'"),
    (lambda s: s.clear(), "no plain tensors")])
def test_weights_that_would_give_wrong_numbers_are_problems(spoil, says):
    published, _ = small_original()
    spoil(published)
    for wrap in (lambda s: s, WRAPPED["parallel_compiled"] if "twice" not in says else WRAPPED["state_dict"]):
        with pytest.raises(UserError, match=says): from_original(wrap(published))

def test_every_variant_survives_the_journey_through_original_names():
    "small networks of each kind, renamed as the original names them, are recognised with their sizes"
    for sizes in (dict(task="predict", channels=1, clip=4, width=2), dict(task="predict", channels=3, clip=5, width=3, attention="gate"),
                     dict(task="reconstruct", channels=3, width=2), dict(task="predict", channels=1, width=2, memory=False)):
        model = MNAD(**sizes)
        found = from_original({theirs(k): v for k, v in model.state_dict().items()})
        assert (found.task, found.channels, found.clip, found.dim, found.memory, found.gates is None) == \
               (model.task, model.channels, model.clip, model.dim, model.memory, model.gates is None)
        assert all(torch.equal(v, found.state_dict()[k]) for k, v in model.state_dict().items())
