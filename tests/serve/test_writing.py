"""Many tokens in one native call: the draws of `sample`, the text and the state of a session that goes token by token."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from ritornello._native.library import library
from ritornello.data.tokenizers import ByteTokenizer
from ritornello.errors import InputError
from ritornello.mixers import MIXERS, mixer
from ritornello.model import LM, LMConfig
from ritornello.serve.native import NativeEngine
from ritornello.serve.plan import STEPS
from ritornello.serve.sampling import sample
from ritornello.serve.session import AHEAD, Session, start, stream, text_stream
from ritornello.state import flatten, map_leaves

pytestmark = [
    pytest.mark.skipif(isinstance(library(), str), reason=f"no kernels: {library()}"),
    pytest.mark.filterwarnings("ignore:LSTM with projections"),
]

PLAIN = {"temperature": 1.0, "top_k": None, "top_p": None}
SETTINGS = [{}, {"temperature": 0.0}, {"temperature": 0.7, "top_k": 5}, {"top_p": 0.8}, {"temperature": 1.5, "top_k": 90, "top_p": 0.9}]


def made(name="mingru", vocab=257, **rest):
    """A model of two layers that is sure enough of what follows."""
    config = LMConfig(vocab=vocab, dim=48, layers=(name,) * 2, channel=None, tied=False, mixers={name: mixer(name).Config(**rest)})
    model = LM(config).eval()
    with torch.no_grad():
        model.embedding.weight.mul_(20)
        model.head.weight.mul_(20)
    return model


def uniform(generator):
    return float(torch.rand(1, 1, dtype=torch.float64, generator=generator))


def drawn(logits, u, **options):
    """The one token that the kernel draws; None where it draws none."""
    engine = NativeEngine(made(vocab=len(logits)))
    tokens, _, _ = engine.write(logits, engine.init_state(1), [u], **PLAIN | options, stop=None)
    return tokens[0] if tokens else None


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(-3, 3) | st.floats(-9, 9, width=32) | st.just(-math.inf), min_size=1, max_size=400),
    st.sampled_from([0, 1e-310, 0.3, 1.0, 1e300]),
    st.none() | st.integers(1, 410),
    st.none() | st.floats(0.01, 1),
    st.integers(0, 2**32),
)
@example([1.0, 2.0, 3.0], 1.0, None, 0.999, 3)  # top_p looks at all of them, and keeps them
def test_draws_are_those_of_sample(logits, temperature, top_k, top_p, seed):
    logits = torch.tensor([*map(float, logits), 0.5])
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    wanted = sample(logits[None], generator=torch.Generator().manual_seed(seed), **options)
    assert drawn(logits, uniform(torch.Generator().manual_seed(seed)), **options) == int(wanted)


@pytest.mark.parametrize("options", SETTINGS)
def test_draws_are_those_of_sample_in_a_large_vocabulary(options):
    logits, engine, state = 4 * torch.randn(5003), NativeEngine(made(vocab=5003)), None
    for seed in range(200):
        state = state or engine.init_state(1)
        u = uniform(torch.Generator().manual_seed(seed))
        tokens, _, _ = engine.write(logits, state, [u], **PLAIN | options, stop=None)
        assert tokens == sample(logits[None], generator=torch.Generator().manual_seed(seed), **PLAIN | options).tolist()


def test_the_ends_of_the_unit_interval_are_tokens_that_may_be_drawn():
    for size in range(1, 60):
        logits = torch.randn(size)
        assert drawn(torch.cat([torch.tensor([-math.inf]), logits]), 0.0) == 1
        assert drawn(logits, 1 - 2**-53) == size - 1
        assert drawn(logits, 1.0) == size - 1


@pytest.mark.parametrize("bad", [[0.0, math.nan], [math.nan, 0.0], [0.0, math.inf], [-math.inf, -math.inf]])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_without_a_distribution_draw_nothing_and_say_so_in_a_text(bad, temperature):
    assert drawn(torch.tensor(bad), 0.5, temperature=temperature) is None
    session = start(NativeEngine(made()), 256, seed=1)
    spoilt = replace(session, logits=torch.cat([torch.full((255,), bad[0]), torch.tensor(bad)]))
    with pytest.raises(InputError, match="the model has diverged"):
        list(text_stream(spoilt, ByteTokenizer(), temperature=temperature, max_tokens=3))


WAYS = {"mamba": {"conv": 3}, "lstm": {"expand": 2, "projection": 24}}


@pytest.mark.parametrize("name", [name for name in STEPS if name in MIXERS and name not in ("swiglu", "geglu", "gelu")])
@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_the_state_after_many_tokens_is_the_one_after_each(name, weights):
    """Bit for bit, from a warm state that stays what it was."""
    engine = NativeEngine(made(name, **WAYS.get(name, {})), weights)
    session = start(engine, 256, seed=3).feed([4, 9, 2])
    before = map_leaves(torch.clone, session.state)
    numbers = [uniform(replace(session, count=session.count + place).generator()) for place in range(21)]
    tokens, logits, state = engine.write(session.logits, session.state, numbers, **PLAIN, stop=None)
    steps = list(stream(session, max_tokens=21, stop=None))
    assert tokens == [token for token, _ in steps]
    assert torch.equal(logits, steps[-1][1].logits)
    for found, wanted in ((state, steps[-1][1].state), (session.state, before)):
        for path, leaf in flatten(found).items():
            assert torch.equal(leaf, flatten(wanted)[path]), path


@pytest.mark.parametrize("options", SETTINGS)
@pytest.mark.parametrize("n", [0, 1, AHEAD - 1, AHEAD, 3 * AHEAD + 5])
def test_a_text_is_the_stream_of_its_session(options, n):
    session = start(NativeEngine(made("hgrn2")), 256, seed=5)
    wanted = bytes(token for token, _ in stream(session, **PLAIN | options, max_tokens=n, stop=256))
    assert n == len(wanted)
    assert n < 16 or len(set(wanted)) > 3
    text = "".join(text_stream(session, ByteTokenizer(), **PLAIN | options, max_tokens=n))
    assert text == wanted.decode("utf-8", "replace")


@pytest.mark.parametrize("place", [0, 1, AHEAD - 1, AHEAD, 40])
def test_the_end_of_a_text_ends_it(place):
    session: Session = start(NativeEngine(made()), 256, seed=2)
    free = [token for token, _ in stream(session, max_tokens=41, stop=None)]
    tokenizer = ByteTokenizer()
    tokenizer.eos = free[place]
    wanted = bytes(free[: free.index(free[place])]).decode("utf-8", "replace")
    assert "".join(text_stream(session, tokenizer, max_tokens=400)) == wanted


def test_writing_is_of_one_row():
    engine = NativeEngine(made())
    with pytest.raises(InputError, match=r"state: expected shape \(1, "):
        engine.write(torch.zeros(257), engine.init_state(2), [0.5], **PLAIN, stop=None)
    tokens, logits, state = engine.write(torch.ones(257), engine.init_state(1), [], **PLAIN, stop=None)
    assert tokens == []
    assert_close(logits, torch.ones(257))
    assert flatten(state).keys() == flatten(engine.init_state(1)).keys()
