"SRU and SRU++ agree with their equations, with the reference package, with finite differences, and with themselves after export."
import copy
import importlib
import math
import os
import subprocess
import sys
import warnings
from functools import cache

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from vad.kernels import sru_kernels
from vad.models import sru
from vad.core.errors import UserError
from vad.models.srupp import SRUpp, attend

gentle = settings(deadline=None, max_examples=40, derandomize=True) # in single precision: a case in a million magnifies rounding beyond any bound


@cache
def reference():
    "the reference package; compiles when first imported"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("sru")

@pytest.fixture
def theirs():
    pytest.importorskip("ninja", reason="the reference package `sru` is not installed (pip install 'video-anomaly[sru]')")
    try: return reference()
    except (ImportError, RuntimeError, OSError) as e: pytest.skip(f"the reference package `sru` cannot be imported: {e}")


# ---- comparing

def close(ours, other, eps=1e-5):
    "to `eps` of the largest number, at least of one"
    for a, b in zip(ours, other, strict=True):
        assert a.shape == b.shape and float((a - b).detach().abs().max()) <= eps * max(1., float(b.detach().abs().max()))

def everything(model, x, **inputs):
    "outputs, states, and the gradients of input, first states and parameters under a fixed loss"
    model.zero_grad()
    x = x.clone().requires_grad_()
    leaves = {k: z.clone().requires_grad_() for k, z in inputs.items() if k == "c0" and z is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore") # the reference warns of gradients on a CPU
        h, c, *_ = model(x, **(inputs | leaves))
    (h * torch.linspace(-1, 1, h.numel()).view(h.shape).to(h)).sum().add((c * torch.linspace(1, -1, c.numel()).view(c.shape).to(c)).sum()).backward()
    return [h.detach(), c.detach(), x.grad, *(z.grad for z in leaves.values()), *(p.grad for _, p in sorted(model.named_parameters()) if p.grad is not None)]

def padding(length, batch, draw):
    "each clip has at least one step that is none"
    return torch.arange(length)[:, None] >= torch.tensor([draw(st.integers(1, length)) for _ in range(batch)])

@st.composite
def cases(draw, plus=False):
    "constructor arguments, and what to call the model with; widths of four at least, since normalising fewer numbers that happen to be alike magnifies rounding"
    hidden, bidirectional = draw(st.integers(4, 9)), draw(st.booleans())
    wide = hidden * (1 + bidirectional)
    settings = dict(input_size=draw(st.sampled_from([wide, 4, 7])), hidden_size=hidden, num_layers=draw(st.integers(1, 3)), bidirectional=bidirectional,
                    layer_norm=draw(st.booleans()), normalize_after=draw(st.booleans()), rescale=draw(st.booleans()), highway_bias=draw(st.sampled_from([0., -2., .5])),
                    dropout=draw(st.sampled_from([0., .3])), nn_rnn_compatible_return=draw(st.booleans()), proj_input_to_hidden_first=draw(st.booleans()),
                    weight_c_init=draw(st.sampled_from([1., .2])))
    if plus:
        heads = draw(st.integers(1, 3))
        settings |= dict(proj_size=heads * draw(st.integers(4, 6)), num_heads=heads, attn_dropout=draw(st.sampled_from([0., .2])), attn_layer_norm=draw(st.booleans()))
        settings |= draw(st.sampled_from([dict(), dict(attention_every_n_layers=2), dict(attention_last_n_layers=1)]))
    else:
        settings |= dict(projection_size=draw(st.sampled_from([0, 3])), has_skip_term=draw(st.booleans()), use_tanh=draw(st.booleans()), v1=draw(st.booleans()),
                         rnn_dropout=draw(st.sampled_from([0., .3])))
    length, batch = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    torch.manual_seed(draw(st.integers(0, 2**20)))
    inputs = dict(x=torch.randn(length, batch, settings["input_size"]),
                  c0=torch.randn(settings["num_layers"], batch, wide) if draw(st.booleans()) else None,
                  mask_pad=padding(length, batch, draw) if draw(st.booleans()) else None)
    if plus and draw(st.booleans()): inputs["attn_mask"] = torch.full((length, length), -math.inf).triu(1)
    return settings, inputs, draw(st.booleans())

def alpha(model):
    "let attention count: a fresh model has none"
    for name, p in model.named_parameters():
        if name.endswith("alpha"): nn.init.constant_(p, .7)


# ---- against the equations and finite differences

def arguments(L, B, N, D, k, highway, each, dtype=torch.float32):
    v = torch.randn(L if each else 1, B if each else 1, 2, N, D, dtype=dtype).clamp(-1, 1)
    return [torch.randn(L, B, k, N, D, dtype=dtype), torch.randn(L, B, N, D, dtype=dtype) if highway and k == 3 else None, v, torch.randn(B, N, D, dtype=dtype)]

def gradients(name, args, pad, drop, tanh):
    leaves = [None if z is None else z.clone().requires_grad_() for z in args]
    h, c = sru.recurrence(*leaves, pad, drop, tanh, name)
    (h * torch.linspace(-1, 1, h.numel()).view(h.shape).to(h)).sum().add((c * torch.linspace(1, -1, c.numel()).view(c.shape).to(c)).sum()).backward()
    return [h.detach(), c.detach(), *(z.grad for z in leaves if z is not None)]

@st.composite
def recurrences(draw, dtype=torch.float32):
    L, B, N, D = draw(st.integers(1, 9)), draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 5))
    torch.manual_seed(draw(st.integers(0, 2**20)))
    args = arguments(L, B, N, D, draw(st.integers(3, 4)), draw(st.booleans()), draw(st.booleans()), dtype)
    drop = torch.rand(B, N, D, dtype=dtype).round() * 2 if draw(st.booleans()) else None
    return args, padding(L, B, draw) if draw(st.booleans()) else None, drop, draw(st.booleans())

@gentle
@given(recurrences(), st.integers(1, 40))
def test_fused_equals_the_loop(case, block):
    whole, sru_kernels.BLOCK = sru_kernels.BLOCK, block # blocks of a step and of many
    try: close(gradients("fused", *case), gradients("loop", *case))
    finally: sru_kernels.BLOCK = whole

@settings(deadline=None, max_examples=15)
@given(recurrences(torch.double))
def test_gradients_are_those_of_finite_differences(case):
    args, pad, drop, tanh = case
    for name in ("fused", "loop"):
        assert torch.autograd.gradcheck(lambda *z: sru.recurrence(z[0], z[1] if args[1] is not None else None, *z[-2:], pad, drop, tanh, name),
                                        [z.requires_grad_() for z in args if z is not None], fast_mode=True)

@pytest.mark.parametrize("make", [lambda: sru.SRU(3, 2, 2, bidirectional=True, layer_norm=True, rescale=True), lambda: SRUpp(3, 2, 4, 2, num_heads=2, layer_norm=True)])
def test_whole_models_have_the_gradients_of_finite_differences(make):
    torch.manual_seed(0)
    model = make().double()
    alpha(model)
    names, parameters = zip(*model.named_parameters())
    pad, x = torch.tensor([[0, 0], [0, 0], [0, 1]]), torch.randn(3, 2, 3, dtype=torch.double, requires_grad=True)
    def run(x, *parameters): return torch.func.functional_call(model, dict(zip(names, parameters)), (x,), dict(mask_pad=pad))[:2]
    assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True)


# ---- against the reference package

@pytest.mark.parametrize("plus", [False, True], ids=["SRU", "SRU++"])
def test_everything_agrees_with_the_reference(plus, theirs):
    @settings(gentle, max_examples=120)
    @given(cases(plus))
    def agrees(case):
        arguments, inputs, training = case
        name = "SRUpp" if plus else "SRU"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore") # options that the reference calls deprecated
            other, ours = getattr(theirs, name)(**arguments), (SRUpp if plus else sru.SRU)(**arguments)
        alpha(other)
        ours.load_state_dict(other.state_dict()) # as they are
        for model in (ours, other): model.train(training)
        torch.manual_seed(1); a = everything(ours, **inputs)
        torch.manual_seed(1); b = everything(other, **inputs) # the same channels are dropped
        close(a, b)
        other.load_state_dict(ours.state_dict())
    agrees()

@pytest.mark.parametrize("arguments", [dict(num_layers=3), dict(bidirectional=True, projection_size=[3, 2], highway_bias=-1.), dict(proj_input_to_hidden_first=True),
                                       dict(proj_size=4), dict(proj_size=4, dropout=.2, attention_every_n_layers=2, proj_input_to_hidden_first=True)], ids=str)
def test_a_seed_gives_the_reference_s_initial_values(arguments, theirs):
    name = "SRUpp" if "proj_size" in arguments else "SRU"
    torch.manual_seed(3); other = getattr(theirs, name)(5, 8, **arguments).state_dict()
    torch.manual_seed(3); ours = (SRUpp if name == "SRUpp" else sru.SRU)(5, 8, **arguments).state_dict()
    assert ours.keys() == other.keys() and all(torch.equal(ours[k], other[k]) for k in ours)

@pytest.mark.parametrize("two", [False, True], ids=["u", "u and v"])
def test_a_transform_module_of_one_s_own(two, theirs):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.u, self.v = nn.Linear(4, 12), nn.Linear(4, 8)
        def forward(self, x): return (self.u(x), self.v(x)) if two else self.u(x)
        def reset_parameters(self): pass
    torch.manual_seed(0)
    other = theirs.SRU(4, 2, 2, bidirectional=True, transform_module=Own())
    ours = sru.SRU(4, 2, 2, bidirectional=True, transform_module=Own())
    ours.load_state_dict(other.state_dict())
    x = torch.randn(5, 3, 4)
    close(everything(ours, x), everything(other, x))

@gentle
@given(case=recurrences())
def test_the_reference_as_an_implementation(case):
    try: reference()
    except (ImportError, RuntimeError, OSError) as e: pytest.skip(f"the reference package `sru` cannot be imported: {e}")
    close(gradients("sru", *case), gradients("loop", *case))

def test_a_missing_reference_is_a_problem(monkeypatch):
    monkeypatch.setitem(sys.modules, "sru", None)
    with pytest.raises(UserError, match=r"pip install 'video-anomaly\[sru\]'"): sru.SRU(3, 3, implementation="sru")(torch.zeros(2, 1, 3))

def test_memory_of_the_past(theirs):
    torch.manual_seed(0)
    other, ours = theirs.SRUpp(5, 6, 4, 2), SRUpp(5, 6, 4, 2)
    alpha(other)
    ours.load_state_dict(other.state_dict())
    x, memory = torch.randn(4, 3, 5), [torch.randn(2, 3, 5), torch.randn(2, 3, 6)]
    inputs = dict(memory=memory, memory_mask_pad=torch.tensor([[0, 1, 0], [0, 0, 0]]).bool(),
                  mask_pad=torch.tensor([[0, 0, 0]] * 3 + [[0, 1, 1]]).bool(), attn_mask=torch.randn(4, 6))
    close(everything(ours, x, **inputs), everything(other, x, **inputs))
    for ours_kept, kept in zip(ours(x, **inputs)[2]["saved_inputs"], other(x, **inputs)[2]["saved_inputs"]): close([ours_kept], [kept])


# ---- padding, packing, precision

@gentle
@given(cases(plus=True))
def test_what_lies_in_the_padding_does_not_matter(case):
    arguments, inputs, _ = case
    model = SRUpp(**arguments).eval()
    alpha(model)
    pad = inputs.pop("mask_pad")
    if pad is None: return
    garbage = inputs["x"].masked_fill(pad[..., None], 1e3)
    close(everything(model, **inputs, mask_pad=pad)[:2], everything(model, **(inputs | dict(x=garbage)), mask_pad=pad)[:2])

@pytest.mark.parametrize("make", [lambda: sru.SRU(3, 4, bidirectional=True), lambda: SRUpp(3, 4, 4, bidirectional=True)])
def test_packed_sequences(make):
    torch.manual_seed(0)
    model, lengths = make().eval(), torch.tensor([2, 5, 3])
    alpha(model)
    x = torch.randn(5, 3, 3)
    h, c, *_ = model(nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False))
    unpacked, found = nn.utils.rnn.pad_packed_sequence(h)
    plain, states, *_ = model(x, mask_pad=torch.arange(5)[:, None] >= lengths)
    assert torch.equal(found, lengths)
    close([unpacked, c], [plain, states])

def test_a_clip_that_is_padding_from_end_to_end_is_zero_and_harms_nobody():
    torch.manual_seed(0)
    model = SRUpp(3, 4, 4, 2, layer_norm=True)
    alpha(model)
    x, pad = torch.randn(5, 2, 3), torch.tensor([[False, True]] * 5)
    found = everything(model, x, mask_pad=pad)
    assert all(z.isfinite().all() for z in found) and not found[0][:, 1].any() and not found[2][:, 1].any()
    close([found[0][:, :1]], [model(x[:, :1])[0].detach()])

@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.sampled_from(["none", "future", "padding", "all"]), st.integers(0, 99))
def test_attention_written_out_is_the_fused_one(length, seen, heads, kind, seed):
    "in half precision on a CPU, where training takes the products: outputs and gradients"
    torch.manual_seed(seed)
    shapes = (2, heads, length, 4), (2, heads, seen, 4), (2, heads, seen, 4)
    exact = [torch.randn(s).bfloat16().float().requires_grad_() for s in shapes]
    half = [x.detach().bfloat16().requires_grad_() for x in exact]
    where = dict(none=None, future=torch.ones(length, seen).triu(1).bool(), padding=torch.arange(seen).expand(2, 1, 1, seen) >= max(1, seen - 2),
                 all=torch.ones(length, seen).bool())[kind]
    mask = None if where is None else torch.zeros(where.shape).masked_fill(where, -math.inf)
    ours, theirs = attend(*half, None if mask is None else mask.bfloat16()), torch.nn.functional.scaled_dot_product_attention(*exact, mask)
    theirs = torch.nan_to_num(theirs) # of steps that may look nowhere
    assert ours.dtype == torch.bfloat16
    close([ours.float()], [theirs], eps=.05)
    if kind == "all": return
    ours.float().square().sum().backward()
    theirs.square().sum().backward()
    for a, b in zip(half, exact): assert (a.grad.float() - b.grad).abs().max() <= .06 * b.grad.abs().max() + .02

def test_half_precision_is_summed_in_single():
    torch.manual_seed(0)
    model, x = sru.SRU(16, 16, 2), torch.randn(40, 3, 16)
    with torch.autocast("cpu", torch.bfloat16): h, c = model(x)
    assert h.dtype == c.dtype == torch.float32
    close([h], [model(x)[0]], eps=.05)
    h.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())

CPU = ("loop", "fused", "sru")

def available(name):
    if name != "sru": return
    try: reference()
    except (ImportError, RuntimeError, OSError) as e: pytest.skip(f"the reference package `sru` cannot be imported: {e}")

def both(implementation="auto", bidirectional=True):
    "an SRU and an SRU++ of two layers that takes its attention seriously"
    torch.manual_seed(0)
    options = dict(num_layers=2, bidirectional=bidirectional, layer_norm=True, rescale=True, implementation=implementation)
    models = [sru.SRU(5, 4, **options), SRUpp(5, 4, 4, num_heads=2, **options)]
    alpha(models[1])
    return models

@pytest.mark.parametrize("k", [3, 4])
def test_gradients_too_small_for_full_digits_are_zeros(k):
    "matrix products over subnormal numbers take ten times as long; all other gradients stay as they are"
    g = torch.Generator().manual_seed(0)
    u, x, v, c0 = (torch.randn(*shape, generator=g) for shape in ((300, 2, k, 1, 8), (300, 2, 1, 8), (1, 1, 2, 1, 8), (2, 1, 8)))
    def grads(implementation):
        leaf = u.clone().requires_grad_()
        h, c = sru.recurrence(leaf, x, v, c0, implementation=implementation)
        (h[-1].sum() + c.sum()).backward()
        return leaf.grad
    ours, loop = grads("fused"), grads("loop")
    tiny = torch.finfo(torch.float32).tiny
    assert ((loop != 0) & (loop.abs() < tiny)).any() and not ((ours != 0) & (ours.abs() < sru_kernels.NOTHING)).any()
    assert (ours - loop).abs().max() <= 1e-5 * loop.abs().max() and (ours[loop.abs() > 1e-29] != 0).all()

@gentle
@given(rows=st.integers(1, 5), k=st.integers(3, 4), directions=st.integers(1, 2), dtype=st.sampled_from([torch.bfloat16, torch.float16, None]), seed=st.integers(0, 99))
def test_matrices_sorted_and_halved_in_one_pass_are_the_plain_ones(rows, k, directions, dtype, seed):
    "to the last bit, gradients too"
    g = torch.Generator().manual_seed(seed)
    n = directions * rows
    x, weight, bias = (torch.randn(*shape, generator=g) for shape in ((4, 2, 6), (n * k, 6), (2 * n,)))
    def plain(x, weight, bias):
        w = weight.unflatten(0, (-1, k)).transpose(0, 1).flatten(0, 1)
        return nn.functional.linear(x, w, nn.functional.pad(bias, (n, (k - 3) * n))).unflatten(-1, (k, directions, -1))
    def run(f):
        leaves = [z.clone().requires_grad_() for z in (x, weight, bias)]
        with torch.autocast("cpu", dtype, enabled=dtype is not None): u = f(*leaves)
        (u.float() * torch.linspace(-1, 1, u.numel()).view(u.shape)).sum().backward()
        return [u.detach(), *(z.grad for z in leaves)]
    for a, b in zip(run(lambda *z: sru_kernels.planes(*z, k, directions)), run(plain), strict=True): assert a.dtype == b.dtype and torch.equal(a, b)

@pytest.mark.parametrize("implementation", CPU)
def test_numbers_in_the_padding_need_be_none(implementation):
    available(implementation)
    x, pad = torch.randn(6, 3, 5), torch.arange(6)[:, None] >= torch.tensor([6, 2, 4])
    for model in both(implementation):
        want = everything(model, x.masked_fill(pad[..., None], 0), mask_pad=pad)
        for filler in (math.nan, math.inf):
            found = everything(model, x.masked_fill(pad[..., None], filler), mask_pad=pad)
            assert all(torch.equal(a, b) for a, b in zip(found, want, strict=True)) and all(z.isfinite().all() for z in found)
    def bare(filler): # the recurrence by itself
        torch.manual_seed(0)
        u, x, v, c0 = arguments(6, 3, 2, 4, 3, True, True)
        spoilt = [z.masked_fill(pad.view(6, 3, *[1] * (z.dim() - 2)), filler) for z in (u, x, v)]
        return gradients(implementation, [*spoilt, c0], pad, None, False)
    for a, b in zip(bare(0), bare(math.nan), strict=True): assert torch.equal(a, b)

def test_numbers_in_the_memorys_padding_need_be_none():
    model, x = both()[1].eval(), torch.randn(4, 3, 5)
    memory, pad = [torch.randn(2, 3, 5), torch.randn(2, 3, 8)], torch.tensor([[0, 1, 0], [1, 1, 0]])
    dirty = [m.masked_fill(pad.bool()[..., None], math.nan) for m in memory]
    h, c, _ = model(x, memory=dirty, memory_mask_pad=pad)
    assert h.isfinite().all() and torch.equal(h, model(x, memory=[m.masked_fill(pad.bool()[..., None], 0) for m in memory], memory_mask_pad=pad)[0])

@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("length, batch", [(0, 2), (3, 0), (0, 0)])
def test_no_steps_or_no_clips_give_no_outputs_and_leave_the_state(implementation, length, batch):
    available(implementation)
    for model in both(implementation):
        x, c0 = torch.randn(length, batch, 5), torch.randn(2, batch, 8)
        for pad in (None, torch.zeros(length, batch)):
            h, c, slope, slope0, *_ = everything(model, x, c0=c0, mask_pad=pad)
            assert h.shape == (length, batch, 8) and torch.equal(c, c0) and slope.shape == x.shape and slope0.shape == c0.shape
    args = arguments(length, batch, 1, 3, 4, False, False)
    h, c = sru.recurrence(*args, implementation=implementation)
    assert h.shape == (length, batch, 1, 3) and torch.equal(c, args[-1])


# ---- what attention may not see

@st.composite
def futures(draw):
    "a model in one direction, a sequence, one that differs from step `t` on, and the number of steps remembered from before"
    heads, memory, width = draw(st.integers(1, 3)), draw(st.integers(0, 3)), draw(st.integers(2, 6))
    length, batch = draw(st.integers(1, 9)), draw(st.integers(1, 3))
    torch.manual_seed(draw(st.integers(0, 2**20)))
    implementation, layers = draw(st.sampled_from(["loop", "fused"])), draw(st.integers(1, 2))
    model = SRUpp(3, width, 4 * heads, layers, num_heads=heads, layer_norm=draw(st.booleans()), implementation=implementation).eval()
    alpha(model)
    t, x = draw(st.integers(0, length)), torch.randn(length, batch, 3)
    other = torch.cat([x[:t], draw(st.sampled_from([1., 1e3])) * torch.randn(length - t, batch, 3)])
    past = [torch.randn(memory, batch, 3 if i == 0 else width) for i in range(model.num_layers)] if memory else None
    return model, x, other, t, past, memory, padding(length, batch, draw) if draw(st.booleans()) else None

@gentle
@given(futures())
def test_nothing_of_the_future_passes_a_mask_that_forbids_it(case):
    model, x, other, t, past, memory, pad = case
    mask = torch.ones(len(x), memory + len(x), dtype=torch.bool).triu(memory + 1) # True: may not look
    added = torch.zeros(mask.shape).masked_fill(mask, -math.inf)
    with torch.no_grad():
        h = model(x, mask_pad=pad, attn_mask=mask, memory=past)[0]
        assert torch.equal(h[:t], model(other, mask_pad=pad, attn_mask=mask, memory=past)[0][:t])
        assert torch.equal(h, model(x, mask_pad=pad, attn_mask=added, memory=past)[0])

def test_attention_without_a_mask_sees_the_future():
    "so that the test above could fail"
    model, x = both(bidirectional=False)[1].eval(), torch.randn(6, 2, 5)
    other = torch.cat([x[:4], torch.randn(2, 2, 5)])
    assert not torch.allclose(model(x)[0][:4], model(other)[0][:4])
    nothing = torch.zeros(6, 6, dtype=torch.bool) # forbids nothing
    assert torch.equal(model(x, attn_mask=nothing)[0], model(x, attn_mask=torch.zeros(6, 6))[0])

@pytest.mark.parametrize("mask, says", [
    (torch.ones(4, 4).triu(1), "only 0 and 1"), (torch.ones(4, 4).tril(), "only 0 and 1"), (torch.ones(4, 4, dtype=torch.half), "only 0 and 1"),
    (torch.ones(4, 4, dtype=torch.long).triu(1), "integers"), (torch.zeros(4, 4, dtype=torch.uint8), "integers"),
    (torch.full((4, 4), math.nan), "nan"), (torch.full((4, 4), math.inf), "nan or .inf")])
def test_a_mask_that_could_mean_two_things_is_a_problem(mask, says):
    with pytest.raises(UserError, match=f"{says}.*True = may not look"): both()[1](torch.zeros(4, 2, 5), attn_mask=mask)


# ---- what does not fit

def test_first_states_come_as_a_tensor_a_list_or_a_tuple():
    x, c0 = torch.randn(4, 3, 5), torch.randn(2, 3, 8)
    for model in both():
        h, c, *_ = model(x, c0)
        for given_as in (list(c0), tuple(c0)):
            again, state, *_ = model(x, given_as)
            assert torch.equal(h, again) and torch.equal(c, state)
        half = model(x, [c0[0], None])[0]
        assert torch.equal(half, model(x, torch.stack([c0[0], torch.zeros(3, 8)]))[0])

@pytest.mark.parametrize("inputs, says", [
    (dict(c0=[torch.zeros(3, 8)]), "c0 must hold 2 tensors"), (dict(c0=(torch.zeros(3, 8), torch.zeros(1, 8))), "c0 must be a tensor of shape .3, 8."),
    (dict(c0=(torch.zeros(2, 3, 8), torch.zeros(2, 3, 8))), "c0 must"), (dict(c0=torch.zeros(2, 1, 8)), "c0 must"), (dict(c0=0.), "c0 must.* not float"),
    (dict(mask_pad=torch.zeros(4)), "mask_pad must"), (dict(mask_pad=torch.zeros(4, 1)), "mask_pad must"), (dict(mask_pad=[[0] * 3] * 4), "mask_pad must.* not list"),
    (dict(attn_mask=torch.zeros(4, 5)), "attn_mask must be a tensor of shape .4, 4."), (dict(attn_mask=torch.zeros(3, 4, 4)), "attn_mask must"),
    (dict(attn_mask=torch.zeros(4, 4), memory=[torch.zeros(2, 3, 5), torch.zeros(2, 3, 8)]), "attn_mask must be a tensor of shape .4, 6."),
    (dict(memory=[torch.zeros(2, 3, 5), torch.zeros(2, 3, 5)]), "memory must be a tensor of shape .2, 3, 8."), (dict(memory=[torch.zeros(2, 1, 5), None]), "memory must"),
    (dict(memory_mask_pad=torch.zeros(2, 3)), "without memory"),
    (dict(memory=[torch.zeros(2, 3, 5), torch.zeros(2, 3, 8)], memory_mask_pad=torch.zeros(3, 2)), "memory_mask_pad must")])
def test_masks_memory_and_states_of_a_wrong_shape_are_problems(inputs, says):
    x, models = torch.randn(4, 3, 5), both()
    for model in models if not inputs.keys() & {"attn_mask", "memory", "memory_mask_pad"} else models[1:]:
        with pytest.raises(UserError, match=says) as e: model(x, **inputs)
        assert "\n" not in str(e.value)

@pytest.mark.parametrize("name, z", [("u", torch.zeros(4, 3, 5, 2, 5)), ("x", torch.zeros(4, 3, 2, 4)), ("v", torch.zeros(1, 3, 2, 2, 5)), ("c0", torch.zeros(2, 5)),
                                     ("pad", torch.zeros(3, 4)), ("drop", torch.zeros(3, 5))])
def test_arguments_of_a_recurrence_that_do_not_fit_are_problems(name, z):
    args = dict(zip(("u", "x", "v", "c0"), arguments(4, 3, 2, 5, 3, True, False)))
    with pytest.raises(UserError, match=f"{name} must"): sru.recurrence(**args | {name: z})

def test_what_only_the_loop_can_do_is_a_problem_elsewhere():
    from torch.autograd import forward_ad
    def penalty(model, x): torch.autograd.grad(model(x)[0].sum(), x, create_graph=True)[0].square().sum().backward()
    def forward(model, x):
        with forward_ad.dual_level(): return forward_ad.unpack_dual(model(forward_ad.make_dual(x, x))[0]).tangent.clone()
    tasks = {"second derivatives": penalty, "vmap": lambda model, x: torch.vmap(lambda z: model(z)[0])(x[None]), "forward-mode": forward,
             "torch.func": lambda model, x: torch.func.grad(lambda z: model(z)[0].sum())(x)}
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), warnings.catch_warnings():
        warnings.simplefilter("ignore") # of PyTorch's own decompositions
        for quick, slow in zip(both("fused"), both("loop")):
            for says, task in tasks.items():
                with pytest.raises(UserError, match=f"{says}.*use implementation='loop'"): task(quick, torch.randn(3, 2, 5, requires_grad=True))
                task(slow, torch.randn(3, 2, 5, requires_grad=True))
            assert all(p.grad is None or p.grad.isfinite().all() for p in slow.parameters()) and slow[0].weight_c.grad.any()

@pytest.mark.parametrize("call, message", [
    (lambda: sru.SRU(3, 4)(torch.zeros(5, 2, 7)), "length, batch, 3"), (lambda: sru.SRU(3, 4)([[1.]]), "length, batch, 3"),
    (lambda: sru.SRU(3, 4)(torch.zeros(5, 3)), "length, batch, 3"),
    (lambda: sru.SRU(3, 4)(torch.zeros(5, 2, 3), torch.zeros(2, 3, 4)), "c0"), (lambda: SRUpp(3, 4, 2)(torch.zeros(5, 2, 3), mask_pad=torch.zeros(2, 5)), "mask_pad"),
    (lambda: SRUpp(3, 4, 5, num_heads=2), "heads"), (lambda: SRUpp(3, 4, 2, attention_every_n_layers=2, attention_last_n_layers=1), "not both"),
    (lambda: SRUpp(3, 4, 2)(torch.zeros(5, 2, 3), memory=[None]), "memory"), (lambda: sru.SRU(3, 4, implementation="fast"), "no implementation 'fast'")])
def test_what_does_not_fit_is_a_problem(call, message):
    with pytest.raises(UserError, match=message): call()


# ---- export and kernels

@pytest.mark.parametrize("make", [lambda: sru.SRU(5, 4, 1, bidirectional=True, layer_norm=True, rescale=True),
                                  lambda: SRUpp(5, 4, 6, 2, num_heads=2)], ids=["SRU", "SRU++"])
def test_onnx(make, tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"): pytest.importorskip(name, reason=f"{name} is not installed")
    import onnxruntime
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.recurrent = make()
        def forward(self, x, pad): return self.recurrent(x, mask_pad=pad)[:2]
    torch.manual_seed(0)
    model = Classifier().eval()
    alpha(model)
    x, pad = torch.randn(4, 3, 5), torch.arange(4)[:, None] >= torch.tensor([4, 2, 3])
    batch = torch.export.Dim("batch")
    exported = torch.export.export(model, (x, pad), dynamic_shapes=({1: batch}, {1: batch}))
    close(exported.module()(x, pad), model(x, pad)) # though nobody asked for the loop
    torch.onnx.export(exported, (), tmp_path / "sru.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "sru.onnx", providers=["CPUExecutionProvider"])
    x, pad = torch.randn(4, 5, 5), torch.arange(4)[:, None] >= torch.tensor([4, 2, 3, 1, 4]) # another batch size
    feeds = dict(zip((i.name for i in session.get_inputs()), (x.numpy(), pad.numpy())))
    close([torch.from_numpy(z) for z in session.run(None, feeds)], [z.detach() for z in model(x, pad)])

INTERPRETED = """
import torch
torch.set_num_threads(1)
from vad.kernels import sru_kernels
from vad.models import sru
from vad.core.errors import UserError
from tests.test_sru import arguments, close, gradients
torch.manual_seed(0)
for dtype, eps in ((torch.float32, 1e-5), (torch.double, 1e-12)):
    for k, highway, each, padded, dropped, tanh in ((3, True, False, True, False, False), (4, True, False, False, True, True), (3, False, True, True, True, False)):
        args = arguments(4, 2, 2, 70, k, highway, each, dtype) # two programs a clip and direction
        pad = torch.arange(4)[:, None] >= torch.tensor([4, 2]) if padded else None
        drop = torch.rand(2, 2, 70).round().to(dtype) * 2 if dropped else None
        close(gradients("triton", args, pad, drop, tanh), gradients("loop", args, pad, drop, tanh), eps)
    if padded:
        lost = [args[0].masked_fill(pad.view(4, 2, 1, 1, 1), float("nan")), *args[1:]]
        close(gradients("triton", lost, pad, drop, tanh), gradients("loop", lost, pad, drop, tanh), eps)
for L, B in ((0, 2), (3, 0)):
    args = arguments(L, B, 2, 5, 3, True, False)
    h, c = sru.recurrence(*args, implementation="triton")
    assert h.shape == (L, B, 2, 5) and torch.equal(c, args[3])
leaves = [z.requires_grad_() for z in arguments(2, 1, 1, 3, 3, True, False)]
try: torch.autograd.grad(sru_kernels.triton(*leaves)[0].sum(), leaves[:1], create_graph=True)
except UserError: print("agree")
"""

def test_kernels_in_the_interpreter():
    pytest.importorskip("triton", reason="triton is not installed")
    env = os.environ | dict(TRITON_INTERPRET="1", PYTHONPATH=os.pathsep.join([os.getcwd(), *sys.path]))
    done = subprocess.run([sys.executable, "-c", INTERPRETED], capture_output=True, text=True, env=env)
    assert done.stdout.strip() == "agree", done.stderr

COMPILED = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from vad.kernels import sru_triton
sizes = dict(L="i32", D="i32")
for absent in ((), ("x", "pad", "drop")):
    for kernel, names in ((sru_triton.forward_kernel, "u x v c0 pad drop h states last"),
                          (sru_triton.backward_kernel, "u x v pad drop states last gh gc gu gx gv gc0")):
        names = names.split()
        none = [n for n in names if n in absent or absent and n == "gx"]
        flags = dict(K=4 if absent else 3, EACH=bool(absent), TANH=bool(absent), WIDTH=64)
        kinds = dict(pad="*i1", states="*fp32", last="*fp32", gv="*fp32")
        tensors = tuple("constexpr" if n in none else kinds.get(n, "*fp16") for n in names)
        signature = dict(tensors=tensors) | sizes | dict.fromkeys(flags, "constexpr")
        fixed = {(kernel.arg_names.index(name),): value for name, value in flags.items()} | {(0, names.index(n)): None for n in none}
        built = compile(ASTSource(kernel, signature, fixed), target=GPUTarget("cuda", 80, 32))
        assert built.asm["cubin"]
print("compiled")
"""

def test_kernels_compile_for_a_gpu_that_need_not_be_there():
    pytest.importorskip("triton", reason="triton is not installed")
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=os.pathsep.join(sys.path)))
    assert done.stdout.strip() == "compiled", done.stderr

@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@gentle
@given(recurrences())
def test_kernels_on_a_gpu(case):
    args, pad, drop, tanh = case
    on = lambda z: None if z is None else z.cuda()
    close([z.cpu() for z in gradients("triton", [on(z) for z in args], on(pad), on(drop), tanh)], gradients("loop", args, pad, drop, tanh))

def test_import_loads_and_compiles_nothing():
    code = "import sys, vad.models.srupp; print([m for m in ('triton', 'sru', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=os.pathsep.join(sys.path)))
    assert done.stdout.strip() == "[]", done.stdout + done.stderr

def test_a_copy_is_a_model_of_its_own():
    model = sru.SRU(3, 3)
    twin = copy.deepcopy(model)
    model[0].bias.data.add_(1)
    assert not torch.equal(twin[0].bias, model[0].bias) and twin.implementation == "auto"
