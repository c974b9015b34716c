"""The laws, for every entry of MIXERS, alone and as a stack: see ritornello/mixers/base.py."""

import dataclasses
from itertools import combinations, pairwise
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import DIM, STABILISERS, Alone, Stack, assert_same, lively, requires_grad, small, total, warm

from ritornello.errors import InputError
from ritornello.mixers import CHANNEL, MIXERS, mixer
from ritornello.mixers.base import LAWS, Context, Place
from ritornello.model import LM, LMConfig, parameters
from ritornello.state import flatten, named_leaves, nbytes, rows, stack, unflatten

BUILDS = {f"{name}-{build.__name__.lower()}": (build, name) for name in sorted(MIXERS) for build in (Alone, Stack)}
every = pytest.mark.parametrize("name", BUILDS)
lengths = st.integers(1, 40)
INDUCTOR = ("hgrn2-alone", "lstm-alone", "attention-alone")  # compiled in the default suite; the rest take long


def obeying(law: str):
    """Every entry that declares the law."""
    return pytest.mark.parametrize("name", [name for name, (_, kind) in BUILDS.items() if law in mixer(kind).laws])


def build(name: str, dtype: torch.dtype = torch.float64):
    make, kind = BUILDS[name]
    return lively(make(kind), dtype)


@st.composite
def pieces(draw):
    """A length, where to cut it, and where each of three rows resets (None: nowhere, the fast path)."""
    length = draw(lengths)
    cuts = sorted(draw(st.sets(st.integers(1, length), max_size=6)) | {length})
    share = draw(st.sampled_from([None, 0.05, 0.3, 0.9]))
    reset = None if share is None else torch.rand(3, length, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))) < share
    return length, [end - start for start, end in zip([0, *cuts], cuts, strict=False)], reset


@obeying("split")
@pytest.mark.parametrize("impl", ["auto", "loop"])
@given(piece=pieces())
def test_split(name, impl, piece):
    length, cuts, reset = piece
    module = build(name)
    x, before = torch.randn(3, length, DIM, dtype=torch.float64), warm(module)
    want, end = module(x, before, reset, impl)
    got, state = [], before
    for part, mask in zip(x.split(cuts, 1), reset.split(cuts, 1) if reset is not None else [None] * len(cuts), strict=True):
        y, state = module(part, state, mask, impl)
        got.append(y)
    assert_same(torch.cat(got, 1), want)
    assert_same(state, end)


@obeying("split")
@pytest.mark.parametrize("every_token", [False, True])
def test_split_where_gates_are_at_their_ends(name, every_token):
    """Weights so large that gates reach 1e-6 and 1 - 1e-6 and further, with few resets and with one at every token but the first."""
    module = build(name)
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(8)
    x, before = torch.randn(3, 40, DIM, dtype=torch.float64), warm(module)
    reset = torch.rand(3, 40) < (1.0 if every_token else 0.05)
    reset[:, 0] = False
    want, end = module(x, before, reset)
    got, state = [], before
    for part, mask in zip(x.split((1, 16, 6, 17), 1), reset.split((1, 16, 6, 17), 1), strict=True):
        y, state = module(part, state, mask)
        got.append(y)
    assert want.isfinite().all()
    assert_same(torch.cat(got, 1), want, 1e-7)
    assert_same(state, end, 1e-7)


@obeying("causal")
@given(length=st.integers(2, 40), at=st.data())
def test_causal(name, length, at):
    module, cut = build(name), at.draw(st.integers(1, length - 1))
    x, before = torch.randn(3, length, DIM, dtype=torch.float64), warm(module)
    other = x.clone()
    other[:, cut:] = torch.randn_like(other[:, cut:])
    assert_same(module(other, before)[0][:, :cut], module(x, before)[0][:, :cut])


@obeying("reset")
@pytest.mark.parametrize("impl", ["auto", "loop"])
@given(length=lengths, seed=st.integers(0, 99))
def test_reset(name, impl, length, seed):
    """Each row, cut by hand at its resets and gone on from a fresh state, gives what one call with `reset` gives."""
    module, generator = build(name), torch.Generator().manual_seed(seed)
    x, before = torch.randn(3, length, DIM, dtype=torch.float64), warm(module)
    reset, further = torch.rand(2, 3, length, generator=generator) < 0.15
    reset[1] = False
    if "split" not in mixer(BUILDS[name][1]).laws:  # a document has to stay whole
        further[:] = False
    y, end = module(x, before, reset, impl)
    ends = []
    for row in range(3):
        state, got = rows(before, slice(row, row + 1)), []
        cuts = ((reset | further)[row, 1:].nonzero()[:, 0] + 1).tolist()
        for start, until in pairwise([0, *cuts, length]):
            if reset[row, start]:
                state = module.init_state(1)
            out, state = module(x[row : row + 1, start:until], state, None, impl)
            got.append(out)
        assert_same(torch.cat(got, 1), y[row : row + 1])
        ends.append(state)
    assert_same(end, stack(ends))


@obeying("rows")
@given(length=lengths, order=st.lists(st.integers(0, 2), min_size=1, max_size=4))
def test_rows(name, length, order):
    """Some of the rows, or one of them twice, give what they give among all."""
    module, order = build(name), torch.tensor(order)
    x, before = torch.randn(3, length, DIM, dtype=torch.float64), warm(module)
    reset = torch.rand(3, length) < 0.1
    y, end = module(x, before, reset)
    some, some_end = module(x[order], rows(before, order), reset[order])
    assert_same(some, y[order])
    assert_same(some_end, rows(end, order))


@obeying("grad")
@given(piece=pieces())
def test_gradients_are_the_loops_and_cross_every_cut(name, piece):
    length, cuts, reset = piece
    module, x = build(name), torch.randn(3, length, DIM, dtype=torch.float64)
    state, results = warm(module), []
    ways = [("loop", [length]), ("auto", [length]), ("auto", cuts)]
    for impl, parts in ways if "split" in mixer(BUILDS[name][1]).laws else ways[:2]:
        inputs, before = x.clone().requires_grad_(), requires_grad(state)
        leaves = [leaf for _, leaf in named_leaves(before) if leaf.is_floating_point() and leaf.numel()]
        outputs, after = [], before
        for part, mask in zip(inputs.split(parts, 1), reset.split(parts, 1) if reset is not None else [None] * len(parts), strict=True):
            y, after = module(part, after, mask, impl)
            outputs.append(y)
        wanted = [inputs, *leaves, *module.parameters()]
        grads = torch.autograd.grad(total(torch.cat(outputs, 1), after), wanted, allow_unused=True)
        results.append([torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(grads, wanted, strict=True)])
    for got in results[1:]:
        for a, b in zip(got, results[0], strict=True):
            assert_same(a, b, 1e-8)


@obeying("bytes")
def test_bytes(name):
    """A state after 50 tokens is as large as after 5, but for the leaves that say they grow."""
    module = build(name)
    few, many = (module(torch.randn(2, steps, DIM, dtype=torch.float64), module.init_state(2))[1] for steps in (5, 50))
    growing = {leaf for leaf in flatten(few) if leaf.rsplit(".", 1)[-1] in mixer(BUILDS[name][1]).grows}
    for leaf in flatten(few):
        sizes = flatten(few)[leaf].numel(), flatten(many)[leaf].numel()
        assert sizes[1] == sizes[0] * 10 if leaf in growing else sizes[1] == sizes[0], leaf
    assert (nbytes(few) == nbytes(many)) == (not growing)


@obeying("dtype")
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_dtype(name, weights, autocast):
    module = build(name, weights)
    fresh = module.init_state(2)
    reset = torch.rand(2, 20) < 0.2
    for mask in (None, reset):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y, state = module(torch.randn(2, 20, DIM, dtype=weights), fresh, mask)
        assert y.isfinite().all()
        assert {leaf: value.dtype for leaf, value in named_leaves(state)} == {leaf: value.dtype for leaf, value in named_leaves(fresh)}


@every
def test_a_state_survives_its_file(name, tmp_path):
    """Saved in the flat form in the middle of a text and read back, the rest of the text comes out the same."""
    from safetensors.torch import load_file, save_file

    module = build(name)
    state = warm(module)
    save_file({leaf: value.contiguous() for leaf, value in flatten(state).items()}, tmp_path / "state.safetensors")
    again = unflatten(module.init_state(3), load_file(tmp_path / "state.safetensors"))
    x = torch.randn(3, 7, DIM, dtype=torch.float64)
    assert_same(module(x, again)[0], module(x, state)[0], 1e-13)


@every
def test_the_incoming_state_is_not_mutated(name):
    module = build(name)
    before = warm(module)
    kept = {leaf: value.clone() for leaf, value in named_leaves(before)}
    module(torch.randn(3, 9, DIM, dtype=torch.float64), before, torch.rand(3, 9) < 0.3)
    assert all(torch.equal(value, kept[leaf]) for leaf, value in named_leaves(before))


@every
def test_initialisation_is_repeatable_and_works_after_to_empty(name):
    kind = BUILDS[name][1]
    made = []
    for _ in range(2):
        torch.manual_seed(7)
        made.append(mixer(kind)(DIM, mixer(kind).Config(), Place()))
    with torch.device("meta"):
        ghost = mixer(kind)(DIM, mixer(kind).Config(), Place())
    torch.manual_seed(7)
    mixer(kind)(DIM, mixer(kind).Config(), Place())  # torch's own modules draw once before our initialisation does
    ghost = ghost.to_empty(device="cpu")
    ghost.reset_parameters()
    for first, second, third in zip(*(module.parameters() for module in (*made, ghost)), strict=True):
        assert torch.equal(first, second)
        assert third.isfinite().all()
        if third.numel() >= DIM:  # of fewer numbers the spread says little
            assert third.std().sub(first.std()).abs() < 0.5 * first.std() + 1e-6


@pytest.mark.parametrize("kind", sorted(MIXERS))
def test_a_law_that_is_not_declared_is_broken(kind):
    """A mixer may leave out only what it cannot obey: one that sees ahead. It is shown to see ahead."""
    assert mixer(kind).laws | {"split", "causal"} == LAWS
    if not {"split", "causal"} <= mixer(kind).laws:
        module = lively(Alone(kind))
        x = torch.randn(1, 9, DIM, dtype=torch.float64)
        whole, cut = module(x, module.init_state(1))[0], module(x[:, :5], module.init_state(1))[0]
        assert (whole[:, :5] - cut).abs().max() > 1e-3


@every
def test_double_precision_gradcheck(name):
    """Autograd's gradients of outputs and end state, for input and parameters, agree with finite differences from a warm state."""
    module = build(name)
    x, before = torch.randn(3, 4, DIM, dtype=torch.float64, requires_grad=True), warm(module)
    names, weights = zip(*module.named_parameters(), strict=True)
    reset = torch.zeros(3, 4, dtype=torch.bool)
    reset[1, 2] = True

    def run(x, *weights):
        return total(*torch.func.functional_call(module, dict(zip(names, weights, strict=True)), (x, before, reset)), without=STABILISERS)

    assert torch.autograd.gradcheck(run, (x, *weights), fast_mode=True, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # torch.nn.LSTM caches its weights in a list
@every
def test_a_step_exports(name):
    """torch.export takes one step with its state as inputs and outputs; fed back 9 times it gives the module's own numbers."""
    module = build(name).eval()
    state = mine = warm(module)
    growing = bool(mixer(BUILDS[name][1]).grows)
    program = None
    with torch.no_grad():
        for step in torch.randn(3, 9, DIM, dtype=torch.float64).split(1, 1):
            if program is None or growing:  # of a state that grows, an export knows one size
                program = torch.export.export(module, (step, state), strict=False).module()
            y, state = program(step, state)
            want, mine = module(step, mine)
            assert_same(y, want)
            assert_same(state, mine)


def assert_compiles(name: str, backend: str) -> None:
    torch.compiler.reset()
    module = build(name)
    before, reset = warm(module), torch.zeros(3, 9, dtype=torch.bool)
    reset[1, 4] = True
    x = torch.randn(3, 9, DIM, dtype=torch.float64)
    with torch.no_grad():
        want, end = module(x, before, reset)
        got, state = torch.compile(module, backend=backend)(x, before, reset)
    assert_same(got, want, 1e-8)
    assert_same(state, end, 1e-8)


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.*:DeprecationWarning")  # torch's compiler makes one to look at
@every
def test_compiles(name):
    assert_compiles(name, "aot_eager")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in INDUCTOR else pytest.mark.slow) for name in BUILDS if name.endswith("-alone")]
)
def test_compiles_with_inductor(name):
    assert_compiles(name, "inductor")


@pytest.mark.parametrize("kind", sorted(MIXERS))
def test_only_the_first_layer_of_a_kind_shares(kind):
    """What it wrote for the later ones stays as it is, however many there are."""
    x, context, shared = torch.randn(2, 9, DIM, dtype=torch.float64), Context(), {}
    for nth in range(3):
        layer = lively(mixer(kind)(DIM, small(kind), Place(nth, 3, nth, 3)))
        x, _ = layer(x, layer.init_state(2), context)
        if nth == 0:
            shared = dict(context.shared)
        assert context.shared.keys() == shared.keys()
        assert all(context.shared[key] is value for key, value in shared.items())


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")  # torch's, of one backend that another stands in for
@pytest.mark.parametrize("kind", sorted(MIXERS))
def test_a_setting_works_or_is_refused_in_one_line(kind):
    """Zero, -1 and a size that fits nothing, for every number among the settings."""
    for field in dataclasses.fields(mixer(kind).Config):
        types = {field.type, *get_args(field.type)}
        for value in (0, -1, 7) if int in types else (0.0, -1.0) if float in types else ():
            y, words = torch.zeros(()), ""
            try:
                layer = mixer(kind)(DIM, mixer(kind).Config(**{field.name: value}), Place())
                y, _ = layer(torch.randn(2, 9, DIM), layer.init_state(2), Context())
            except InputError as error:
                words = str(error)
            assert "\n" not in words
            assert y.isfinite().all(), f"{kind}.{field.name}: {value} is accepted and breaks the layer"


def test_no_two_mixers_are_the_same():
    """On the same numbers in their weights and the same input, every pair of entries differs."""
    x = torch.randn(1, 12, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    outputs = {}
    for kind in sorted(MIXERS):
        module = lively(Alone(kind))
        outputs[kind] = module(x, module.init_state(1))[0].detach()
    for (a, y), (b, z) in combinations(outputs.items(), 2):
        assert (y - z).abs().max() > 1e-6, f"{a} and {b} compute the same"


@pytest.mark.parametrize("kind", sorted(MIXERS))
def test_the_config_counts_the_modules_parameters(kind):
    time, channel = (("hgrn2",), kind) if kind in CHANNEL else ((kind,) * 3, None)
    config = LMConfig(vocab=11, dim=32, layers=time, channel=channel, tied=False)
    count = sum(weight.numel() for weight in LM(config).parameters())
    assert parameters(config) == count
    assert parameters(config, embedding=False) == count - 2 * 11 * 32
