"""One native call a token: the model's logits and states in float32, bounded errors in fewer bits, refusals in one line."""

import copy
import ctypes
import re

import pytest
import torch

import ritornello.serve.native
from ritornello._native.library import HERE, ISAS, OPENMP, _compile, _options, compiler, instruction_set, library
from ritornello.errors import InputError
from ritornello.mixers import CHANNEL, mixer
from ritornello.model import LM, LMConfig
from ritornello.serve.native import NativeEngine, explain, fastest
from ritornello.serve.plan import STEPS, WEIGHTS
from ritornello.serve.session import start, stream
from ritornello.state import flatten, map_leaves, rows

pytestmark = [
    pytest.mark.skipif(isinstance(library(), str), reason=f"no kernels: {library()}"),
    pytest.mark.filterwarnings("ignore:LSTM with projections"),  # torch's own, where the model runs it
]

VOCAB, DIM = 37, 48
WAYS = {
    "hgrn2": [{"head_dim": 16}, {}, {"conv": 3}],
    "mingru": [{}, {"expand": 1}],
    "lstm": [{}, {"expand": 2, "projection": 24}, {"expand": 2}],
    "gru": [{}],
    "retnet": [{"head_dim": 12}, {"expand": 1}],
    "mamba": [{}, {"state_dim": 5, "conv": 3, "bias": True, "conv_bias": False}, {"state_dim": 20}],
    "mlstm": [{}, {"heads": 2, "forget": "exp", "conv": 2}],
    "swiglu": [{}, {"hidden": 21}],
    "geglu": [{}],
    "gelu": [{}, {"activation": "gelu_tanh", "bias": False, "hidden": 50}],
}
CASES = [(name, way) for name, ways in WAYS.items() for way in ways]
ids = [f"{name}-{'-'.join(f'{key}={value}' for key, value in way.items()) or 'default'}" for name, way in CASES]


def made(name="hgrn2", way=None, **rest):
    """A model of three layers in which every path matters; a channel mixer sits above an HGRN2."""
    shape = {"layers": ("hgrn2",) * 2, "channel": name} if name in CHANNEL else {"layers": (name,) * 3, "channel": None}
    model_config = {"vocab": VOCAB, "dim": DIM, "mixers": {name: mixer(name).Config(**(way or {}))}} | shape | rest
    config = LMConfig(**model_config)
    model = LM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * (0.1 if weight.dim() > 1 else 0.3))
    return model


@torch.no_grad()
def warm(model, B, steps=9):
    return model(torch.randint(VOCAB, (B, steps)), model.init_state(B))[1]


def distance(found, wanted):
    """The largest relative error of a leaf, in norm."""
    found, wanted = ({"": x} if isinstance(x, torch.Tensor) else flatten(x) for x in (found, wanted))
    assert found.keys() == wanted.keys()
    for name, want in wanted.items():
        assert found[name].shape == want.shape, name
    pairs = [(found[name].double(), want.double()) for name, want in wanted.items() if want.numel()]
    return max((float((a - b).norm() / b.norm().clamp_min(1e-3)) for a, b in pairs), default=0.0)


def in_float64(state):
    return map_leaves(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, state)


@pytest.mark.parametrize("B", [1, 5])
@pytest.mark.parametrize(("name", "way"), CASES, ids=ids)
@torch.no_grad()
def test_float32_is_the_model_step_by_step(name, way, B):
    """From a warm state over 30 tokens: within 1e-5 of the model in float64, or where that is ill-conditioned as near as the model is."""
    model = made(name, way)
    engine, truth = NativeEngine(model), copy.deepcopy(model).double()
    state = theirs = warm(model, B)
    true = in_float64(state)
    worst = own = 0.0
    for tokens in torch.randint(VOCAB, (30, B, 1)):
        logits, state = engine(tokens, state)
        wanted, theirs = model(tokens, theirs)
        exact, true = truth(tokens, true)
        assert [leaf.dtype for leaf in flatten(state).values()] == [leaf.dtype for leaf in flatten(theirs).values()]
        worst = max(worst, distance(logits, exact), distance(state, true))
        own = max(own, distance(wanted, exact), distance(theirs, true))
    assert worst < max(1e-5, 3 * own)
    assert worst < 1e-3


@pytest.fixture(scope="module", params=ISAS)
def build(request, tmp_path_factory):
    """The decoder compiled for one instruction set."""
    if compiler() is None or list(ISAS).index(request.param) < list(ISAS).index(instruction_set()):
        pytest.skip(f"no compiler, or no processor for {request.param}")
    target = tmp_path_factory.mktemp(request.param) / "decode.so"
    failure = _compile(compiler(), (OPENMP, *_options(request.param)), [HERE / "decode.cpp", HERE / "scan.cpp"], target)
    assert failure is None, failure
    return ctypes.CDLL(str(target))


@pytest.mark.parametrize("weights", WEIGHTS)
@torch.no_grad()
def test_every_build_computes_the_same(build, weights, monkeypatch):
    model, tokens = made("hgrn2", channel="swiglu"), torch.randint(VOCAB, (7, 1))
    state = warm(model, 7)
    wanted, after = NativeEngine(model, weights)(tokens, state)
    monkeypatch.setattr(ritornello.serve.native, "library", lambda: build)
    other = NativeEngine(model, weights)
    for B in (7, 4, 3, 2, 1):
        logits, end = other(tokens[:B], rows(state, slice(B)))
        bound = 1e-2 if weights == "int8" else 1e-5  # a rounding apart, an input may become the next byte
        assert distance(logits, wanted[:B]) < bound
        assert distance(end, rows(after, slice(B))) < bound


@torch.no_grad()
def test_the_instruction_for_bytes_is_the_plain_sum():
    model = made("mamba", channel="geglu")
    engine, state = NativeEngine(model, "int8"), warm(model, 3)
    tokens = torch.randint(VOCAB, (3, 1))
    for B in (3, 1):
        found = []
        for engine._vnni in {0, library().ritornello_vnni()}:
            found.append(engine(tokens[:B], rows(state, slice(B))))
        for logits, after in found[1:]:
            assert torch.equal(logits, found[0][0])
            assert distance(after, found[0][1]) == 0


@pytest.mark.parametrize(("weights", "bound"), [("bfloat16", 0.01), ("int8", 0.04)])
@pytest.mark.parametrize("name", sorted(WAYS))
@torch.no_grad()
def test_fewer_bits_stay_near(name, weights, bound):
    """Logits of one step from the model's own states, and of a text cut anywhere."""
    model = made(name)
    engine, state = NativeEngine(model, weights), warm(model, 4)
    text = torch.randint(VOCAB, (4, 6))
    wanted, _ = model(text[:, :1], state)
    found, _ = engine(text[:, :1], state)
    assert 1e-5 < distance(found, wanted) < bound
    whole, end = engine(text, state)
    first, middle = engine(text[:, :4], state)
    second, after = engine(text[:, 4:], middle)
    assert torch.equal(whole, torch.cat([first, second], 1))
    assert distance(after, end) == 0


@torch.no_grad()
def test_bytes_are_exact_where_the_weights_are_bytes():
    """With weights on a grid of 1/127 of each row's largest, only the inputs' rounding is left: half a 127th of the largest."""
    model = made("mingru")
    for weight in model.parameters():
        if weight.dim() > 1:
            top = weight.abs().amax(1, keepdim=True)
            weight.copy_((weight / top * 127).round() / 127 * top)
    state, tokens = warm(model, 2), torch.randint(VOCAB, (2, 1))
    wanted, _ = model(tokens, state)
    assert distance(NativeEngine(model, "int8")(tokens, state)[0], wanted) < 0.02


@pytest.mark.parametrize("name", ["hgrn2", "lstm", "retnet", "mlstm", "mamba"])
@torch.no_grad()
def test_model_and_engine_take_turns_in_a_text(name):
    model = made(name)
    engine, before = NativeEngine(model), model.init_state(3)
    text = torch.randint(VOCAB, (3, 24))
    wanted, end = model(text, before)
    outputs, state, at = [], before, 0
    for turn, size in enumerate((1, 5, 1, 1, 9, 1, 3, 1, 1, 1)):
        y, state = (engine if size == 1 or turn % 2 else model)(text[:, at : at + size], state)
        outputs.append(y)
        at += size
    assert distance(torch.cat(outputs, 1), wanted) < 1e-4
    assert distance(state, end) < 1e-4


@pytest.mark.parametrize("weights", WEIGHTS)
@torch.no_grad()
def test_a_reset_starts_a_row_afresh(weights):
    model = made("mlstm")
    engine, state = NativeEngine(model, weights), warm(model, 3)
    text, reset = torch.randint(VOCAB, (3, 4)), torch.zeros(3, 4, dtype=torch.bool)
    reset[1, 0] = reset[2, 2] = True
    for T in (4, 1):
        logits, after = engine(text[:, :T], state, reset[:, :T])
        alone, end = engine(text[1:2, :T], model.init_state(1))
        assert distance(logits[1:2], alone) < (1e-5 if weights != "int8" else 0.02)
        assert distance(rows(after, slice(1, 2)), end) < (1e-5 if weights != "int8" else 0.02)


@torch.no_grad()
def test_states_are_values():
    """Stepping twice from a state gives the same, the state stays as it was, and nothing that came out shares its memory."""
    model = made("mamba")
    engine, state = NativeEngine(model), warm(model, 2)
    before = map_leaves(torch.clone, state)
    tokens = torch.randint(VOCAB, (2, 1))
    one, after = engine(tokens, state)
    two, again = engine(tokens, state)
    assert torch.equal(one, two)
    assert distance(state, before) == 0
    for leaves in zip(*(flatten(each).values() for each in (state, after, again)), strict=True):
        assert len({leaf.data_ptr() for leaf in leaves}) == 3
        assert torch.equal(*leaves[1:])


def test_a_session_writes_what_the_models_session_writes_and_forks():
    model = made("hgrn2", channel="swiglu")
    native, plain = (start(engine, 0, seed=5).feed([4, 9, 2]) for engine in (NativeEngine(model), model))

    def written(session):
        return [token for token, _ in stream(session, max_tokens=40, stop=None)]

    state = map_leaves(torch.clone, native.state)
    first = written(native)
    assert first == written(plain)
    assert first == written(native)
    assert distance(native.state, state) == 0


@torch.no_grad()
def test_awkward_inputs():
    model = made("hgrn2")
    for weights in WEIGHTS:
        engine, state = NativeEngine(model, weights), warm(model, 3)
        logits, after = engine(torch.empty(3, 0, dtype=torch.long), state)
        assert logits.shape == (3, 0, VOCAB)
        assert distance(after, state) == 0
        logits, after = engine(torch.empty(0, 1, dtype=torch.long), rows(state, slice(0)))
        assert logits.shape == (0, 1, VOCAB)
        odd = map_leaves(lambda leaf: leaf.mT.contiguous().mT, state)
        tokens = torch.randint(VOCAB, (3, 2))[:, 1:]
        assert torch.equal(engine(tokens, odd)[0], engine(tokens, state)[0])
        threads = torch.get_num_threads()
        torch.set_num_threads(2)
        assert torch.equal(engine(tokens, state)[0], (torch.set_num_threads(threads), engine(tokens, state))[1][0])


@pytest.mark.parametrize("weights", WEIGHTS)
def test_what_is_not_finite_shows(weights):
    model = made("mingru")
    state = map_leaves(lambda leaf: torch.full_like(leaf, torch.nan), model.init_state(1))
    assert NativeEngine(model, weights)(torch.tensor([[3]]), state)[0].isnan().all()


def test_bad_inputs_are_refused():
    engine = NativeEngine(made("hgrn2"))
    state = engine.init_state(1)
    for token in (-1, VOCAB):
        with pytest.raises(InputError, match=f"ids from 0 to {VOCAB - 1}"):
            engine(torch.tensor([[token]]), state)
    with pytest.raises(InputError, match="ids from 0"):
        engine(torch.tensor([[0.5]]), state)
    with pytest.raises(InputError, match=r"state: expected shape \(2, "):
        engine(torch.tensor([[1], [2]]), state)
    with pytest.raises(InputError, match="expected 3 leaves, found 2"):
        engine(torch.tensor([[1]]), state[:2])
    with pytest.raises(InputError, match="float64"):
        engine(torch.tensor([[1]]), in_float64(state))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"layers": ("hgrn2", "attention")}, "attention layers"),
        ({"layers": ("lstm",), "mixers": {"lstm": mixer("lstm").Config(peepholes=True)}}, "lstm with peepholes"),
        ({"layers": ("gru",), "mixers": {"gru": mixer("gru").Config(reset_after=False)}}, "reset_after=False"),
        ({"wiring": "dense"}, "dense wiring"),
        ({"wiring": "plain"}, "plain wiring"),
        ({"norm": "none"}, "a model without norms"),
        ({"layers": ("lstm",), "mixers": {"lstm": mixer("lstm").Config(reads=5)}}, "an lstm that reads a part of its input"),
        ({"channel": "rwkv_channel"}, "rwkv_channel layers"),
    ],
)
def test_what_cannot_be_decoded_natively_is_named(config, reason):
    model = LM(LMConfig(vocab=VOCAB, dim=DIM, **config))
    with pytest.raises(InputError, match=f"no native decoding: .*{reason}"):
        NativeEngine(model)
    assert fastest(model) is model
    assert re.match(f"torch: no native decoding: .*{reason}", explain(model))
    assert explain(made()) == "native"
    with pytest.raises(InputError, match=reason):
        fastest(model, "int8")


def test_other_weights_and_names_are_refused():
    with pytest.raises(InputError, match="weights are bfloat16 on cpu"):
        NativeEngine(made().bfloat16())
    with pytest.raises(InputError, match="unknown weights 'int4'"):
        fastest(made(), "int4")


def test_without_kernels_the_model_serves_in_float32(monkeypatch):
    monkeypatch.setattr(ritornello.serve.native, "library", lambda: "not built: no C++ compiler found")
    model = made()
    assert fastest(model) is model
    with pytest.raises(InputError, match="no native decoding: not built: no C"):
        fastest(model, "bfloat16")


def test_every_planned_mixer_is_tested():
    assert sorted(WAYS) == sorted(STEPS)


@pytest.mark.parametrize(
    "way",
    [
        {"norm": "layer", "embedding_norm": True, "embedding_scale": True},
        {"softcap": 3.0, "tied": False, "embedding_dim": 7},
        {"layers": ("gru", "mamba", "hgrn2"), "channel": "partner"},
    ],
)
@torch.no_grad()
def test_the_models_own_ways(way):
    model = made("gru", **{"channel": "swiglu"} | way)
    engine, state = NativeEngine(model), warm(model, 2)
    tokens = torch.randint(VOCAB, (2, 1))
    for found, wanted in zip(engine(tokens, state), model(tokens, state), strict=True):
        assert distance(found, wanted) < 1e-5
