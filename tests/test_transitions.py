"""Mixers whose transition is a matrix made of the input: automata by weights set by hand, rotations that compose and keep lengths."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ritornello.errors import InputError
from ritornello.mixers.base import Context, Place
from ritornello.mixers.block import Block
from ritornello.mixers.block import State as BlockState
from ritornello.mixers.unitary import State as UnitaryState
from ritornello.mixers.unitary import Unitary, rotation


def automaton(matrices: torch.Tensor, dim: int) -> Block:
    """A mixer whose first block, of n, is moved by matrices[letter] (letters, n, n) where the input is the letter's unit vector.

    The letter after the last one writes the start: the first of n states.
    """
    letters, n, _ = matrices.shape
    mixer = Block(dim, Block.Config(block=n), Place())
    with torch.no_grad():
        for weight in mixer.parameters():
            weight.zero_()
        mixer.transition.weight[: n * n, :letters] = matrices.flatten(1).mT
        mixer.write.weight[0, letters] = 1
        mixer.out.weight.copy_(torch.eye(dim))
    return mixer


def run(mixer: Block, word: torch.Tensor, start: int, dim: int) -> torch.Tensor:
    """The mixer's outputs after each letter of `word` (T,)."""
    text = torch.nn.functional.one_hot(torch.cat([torch.tensor([start]), word]), dim).float()
    with torch.no_grad():
        return mixer(text[None], mixer.init_state(1), Context())[0][0, 1:]


def test_permutation_blocks_sum_modulo_five_for_ten_thousand_steps():
    digits = torch.stack([torch.eye(5).roll(digit, 0) for digit in range(5)])
    word = torch.randint(5, (10_000,))
    y = run(automaton(digits, 10), word, 5, 10)
    assert torch.equal(y[:, :5], torch.nn.functional.one_hot(word.cumsum(0) % 5, 5).float())


@given(states=st.integers(2, 6), letters=st.integers(1, 5), seed=st.integers(0, 99))
def test_any_finite_automaton_is_walked_exactly(states, letters, seed):
    """Not only permutations: letters may merge states. The limit on columns leaves 0-1 matrices as they are."""
    generator, dim = torch.Generator().manual_seed(seed), 6 * states
    table = torch.randint(states, (letters, states), generator=generator)  # letter, state -> next state
    word = torch.randint(letters, (10_000 if seed < 20 else 300,), generator=generator)
    y = run(automaton(torch.nn.functional.one_hot(table, states).float().mT, dim), word, letters, dim)
    at, walk, moves = 0, [], table.tolist()
    for letter in word.tolist():
        at = moves[letter][at]
        walk.append(at)
    assert torch.equal(y[:, :states], torch.eye(states)[walk])


@pytest.mark.parametrize("norm", [1.0, 1.2, 2.0])
def test_no_column_of_a_block_is_longer_than_one(norm):
    """From a unit vector, one step leads to a column of A; in the 1-norm no number of steps gets further than a length of 1."""
    mixer = Block(8, Block.Config(block=4, norm=norm), Place()).double()
    with torch.no_grad():
        mixer.transition.weight.normal_()
        mixer.write.weight.zero_()
        mixer.out.weight.copy_(torch.eye(8))
        x, unit = torch.randn(1, 50, 8, dtype=torch.float64).repeat(4, 1, 1), torch.eye(4, dtype=torch.float64)
        y, _ = mixer(x, BlockState(unit[:, None].repeat(1, 2, 1)), Context())
    lengths = torch.linalg.vector_norm(y.unflatten(-1, (2, 4)), norm, dim=-1)  # of each start, step and block
    torch.testing.assert_close(lengths[:, 0].amax(0), torch.ones(2, dtype=torch.float64))
    if norm == 1:
        assert lengths.max() < 1 + 1e-12


@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_a_thousand_rotations_keep_the_states_length(impl):
    """In float32, to 1e-5, by turns small and large."""
    mixer = Unitary(64, Unitary.Config(head_dim=16), Place())
    torch.nn.init.normal_(mixer.skew.weight, std=0.5)
    with torch.no_grad():
        mixer.out.weight.copy_(torch.eye(64))
        y, state = mixer(torch.randn(2, 1000, 64), mixer.init_state(2), Context(impl=impl))
    for h in (y.unflatten(-1, (4, 16)), state.h):
        assert (h.norm(dim=-1) - 1).abs().max() < 1e-5


@given(words=st.integers(1, 40), seed=st.integers(0, 99))
def test_a_phrase_is_the_product_of_its_words(words, seed):
    """Strict compositionality: the phrase's matrix, multiplied up with no text before it, does to any state what its words do."""
    mixer = Unitary(8, Unitary.Config(head_dim=4), Place()).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        mixer.skew.weight.normal_(generator=generator)
        x, h = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((1, words, 8), (1, 2, 4)))
        phrase = torch.eye(4, dtype=torch.float64)
        for Q in rotation(mixer.skew(x[0]).unflatten(-1, (2, 6)), 4):
            phrase = Q @ phrase  # of both heads
        _, state = mixer(x, UnitaryState(h), Context())
    torch.testing.assert_close(state.h[0], (phrase @ h[0][..., None])[..., 0], rtol=1e-12, atol=1e-12)


def test_settings_that_make_no_transition_are_refused():
    with pytest.raises(InputError, match=r"block norm: 0.5 is less than 1"):
        Block(16, Block.Config(norm=0.5), Place())
    with pytest.raises(InputError, match=r"block dim over block: 16 does not divide into parts of 5; use 15 or 20"):
        Block(16, Block.Config(block=5), Place())
    with pytest.raises(InputError, match=r"unitary head_dim: in 1 dimensions there is nothing to turn"):
        Unitary(16, Unitary.Config(head_dim=1), Place())
