"""What a recurrence can do, shown by weights set by hand, and what it cannot, shown for any weights. Nothing is trained; float64.

A witness is an op whose inputs are computed from a task's symbols one by one, and a read-out; it is right on everything, at
lengths no training would reach. Numbers of facts and tasks are those of the list of diagnostics.
"""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ritornello.diagnostics import task_named
from ritornello.mixers import mixer
from ritornello.mixers.base import Context, Place
from ritornello.ops.block import block
from ritornello.ops.delta import delta
from ritornello.ops.outer import outer
from ritornello.ops.scan import scan

both = pytest.mark.parametrize("impl", ["loop", "chunk"])
SHUT = -1e4  # a log decay as good as a gate of 0


def drawn(name: str, n: int, length: int):
    return task_named(name).sample(torch.Generator().manual_seed(length), n, length)


def hot(symbols: Tensor, kinds: int) -> Tensor:
    return one_hot(symbols, kinds).double()


def right(answers: Tensor, sample) -> bool:
    """Whether every answer asked for is the oracle's."""
    return torch.equal(answers[sample.mask].long(), sample.targets[sample.mask])


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


# Fact 1 (D1): non-negative diagonal transitions cannot alternate; negative ones do at once.


@both
def test_a_positive_diagonal_is_monotone_on_a_constant_input(impl):
    decay = torch.tensor([1e-6, 0.1, 0.5, 0.9, 1 - 1e-6, 1.0], dtype=torch.float64).expand(1, 300, 6)
    for b, start in itertools.product((-2.0, 0.3), (-5.0, 0.0, 5.0)):
        h = scan(decay, torch.full_like(decay, b), state=torch.full_like(decay[:, 0], start), impl=impl)[0]
        steps = torch.cat([torch.full_like(h[:, :1], start), h], 1).diff(dim=1)
        assert bool(((steps >= -1e-12).all(1) | (steps <= 1e-12).all(1)).all())


def test_hgrn_is_monotone_where_it_is_positive_and_not_where_it_is_signed():
    """The same of the mixer itself, whatever its weights: its state on 1, 1, 1, ... alternates only with negative eigenvalues."""
    turns = {}
    for eigenvalues in ("positive", "signed"):
        kind = mixer("hgrn")
        layer = kind(8, kind.Config(eigenvalues=eigenvalues), Place()).double()
        with torch.no_grad():
            for weight in layer.parameters():
                weight.normal_(std=2.0, generator=torch.Generator().manual_seed(weight.numel()))
            state, x, held = layer.init_state(1), torch.ones(1, 1, 8, dtype=torch.float64), []
            for _ in range(40):
                state = layer(x, state, Context())[1]
                held.append(state.h[0])
        steps = torch.stack(held).diff(dim=0)
        steps = steps.where(steps.abs() > 1e-12, 0)
        turns[eigenvalues] = int((steps[1:] * steps[:-1] < 0).sum())
    assert turns["positive"] == 0
    assert turns["signed"] > 20


@both
def test_parity_by_a_sign(impl):
    """a = 1 on 0 and -1 on 1: the state is the parity itself, at length 100,000."""
    sample = drawn("parity", 1, 100_000)
    a = 1 - 2 * sample.inputs.double()
    h, _ = scan(a, torch.zeros_like(a), state=torch.ones(1, dtype=torch.float64), impl=impl)
    assert right(h < 0, sample)


@both
def test_parity_by_a_reflection(impl):
    """The delta rule with beta = 2 on ones turns its only direction round; with beta in [0, 1] it could not."""
    sample = drawn("parity", 1, 3000)
    key = torch.ones(1, 3000, 1, 1, dtype=torch.float64)
    beta = 2 * sample.inputs.double()[..., None, None]
    y, _ = delta(key, zeros(1, 3000, 1, 1), key, beta * key, key, None, state=torch.ones(1, 1, 1, 1, dtype=torch.float64), impl=impl)
    assert right(y[..., 0, 0] < 0, sample)


@both
def test_swaps_of_five_things_by_reflections(impl):
    """Each swap of two places is one Householder reflection, so the delta rule with beta = 2 tracks words of swaps in S5."""
    T, generator = 2000, torch.Generator().manual_seed(1)
    swaps = torch.tensor(list(itertools.combinations(range(5), 2)))[torch.randint(10, (T,), generator=generator)]
    key = ((hot(swaps[:, 0], 5) - hot(swaps[:, 1], 5)) / 2**0.5)[None, :, None]  # (1, T, 1, 5)
    start = torch.eye(5, dtype=torch.float64)[None, None]
    query = hot(torch.zeros(T, dtype=torch.long), 5)[None, :, None]
    y, _ = delta(query, torch.zeros_like(key), torch.zeros_like(key), 2 * key, key, None, state=start, impl=impl)
    things = list(range(5))
    for t, (i, j) in enumerate(swaps.tolist()):
        things[i], things[j] = things[j], things[i]
        assert int(y[0, t, 0].argmax()) == things[0]


# Fact 2 (D10): a tied gate keeps the state within the hull of its inputs; a cell that adds counts on.


@both
def test_a_tied_gate_is_bounded_and_a_free_one_counts(impl):
    generator = torch.Generator().manual_seed(0)
    f = torch.rand(4, 5000, 8, generator=generator, dtype=torch.float64)
    v = 2 * torch.rand(4, 5000, 8, generator=generator, dtype=torch.float64) - 1
    h, _ = scan(f, (1 - f) * v, state=zeros(4, 8), impl=impl)
    assert float(h.abs().max()) <= 1
    one = torch.ones(1, 100_000, 1, dtype=torch.float64)
    assert float(scan(one, one, state=zeros(1, 1), impl=impl)[1]) == 100_000


def counter() -> torch.nn.LSTM:
    """An LSTM over 0 (end), a, b, c: the first cell holds how many more a than b came, the second how many more b than c."""
    cell = torch.nn.LSTM(4, 2).double()
    with torch.no_grad():
        for weight in cell.parameters():
            weight.zero_()
        cell.bias_ih_l0[:] = torch.tensor([60.0, 60.0, 60.0, 60.0, 0.0, 0.0, 60.0, 60.0])  # all gates open: i i f f g g o o
        cell.weight_ih_l0[4, 1:3] = torch.tensor([60.0, -60.0])
        cell.weight_ih_l0[5, 2:4] = torch.tensor([60.0, -60.0])
    return cell


@pytest.mark.parametrize(("name", "letters"), [("anbn", 2), ("anbncn", 3)])
def test_an_lstm_counts(name, letters):
    """h = tanh(count) tells zero from the rest: the next letter follows when the count of the letter before is used up."""
    sample = drawn(name, 8, 300 * letters)
    with torch.no_grad():
        h = counter()(hot(sample.inputs, 4).transpose(0, 1))[0].transpose(0, 1)  # (n, T, 2)
    used_up = torch.where(sample.inputs == 2, h[..., 0], h[..., 1]).abs() < 0.5
    following = torch.where(sample.inputs == letters, 0, sample.inputs + 1)
    assert right(torch.where(used_up, following, sample.inputs), sample)


@both
def test_two_counters_know_which_brackets_are_open(impl):
    sample = drawn("shuffle-dyck", 4, 3000)
    change = torch.tensor([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)[sample.inputs]
    h, _ = scan(torch.ones_like(change), change, state=zeros(4, 2), impl=impl)
    assert right((h > 0.5).long() @ torch.tensor([1, 2]), sample)


@both
def test_a_cell_that_adds_adds(impl):
    """D14: the sum of marked numbers, to rounding, after 20,000 steps."""
    sample = drawn("adding", 4, 20_000)
    products = sample.inputs.double().prod(-1)
    h, _ = scan(torch.ones_like(products), products, state=zeros(4), impl=impl)
    assert float((h[:, -1] - sample.targets[:, -1]).abs().max()) < 1e-6


# Latches (D5, D8, D11): gates of 0 and 1, positive and tied.


@both
def test_flip_flop_by_a_tied_latch(impl):
    sample = drawn("flip-flop", 4, 5000)
    keep = (sample.inputs > 1).double()
    h, _ = scan(keep, (1 - keep) * sample.inputs, state=zeros(4), impl=impl)
    assert right(h, sample)


@both
def test_even_pairs_by_a_latch_on_the_first_symbol(impl):
    sample = drawn("even-pairs", 4, 5000)
    keep = torch.ones(4, 5000, dtype=torch.float64)
    keep[:, 0] = 0
    h, _ = scan(keep, (1 - keep) * sample.inputs, state=zeros(4), impl=impl)
    assert right(h == sample.inputs, sample)


@both
def test_bounded_brackets_by_a_counter_and_a_latch_for_each_depth(impl):
    """Layer 1 counts how deep we are; layer 2 has a latch for each depth, written by what opens there."""
    sample = drawn("dyck", 4, 2000)
    opens = sample.inputs > 0
    change = 2 * opens.double() - 1
    depth, _ = scan(torch.ones_like(change), change, state=zeros(4), impl=impl)
    at = torch.where(opens, depth, depth + 1).long()  # whose latch is written or read
    write = hot(at, 6) * opens[..., None]
    latches, _ = scan(1 - write, write * sample.inputs[..., None], state=zeros(4, 6), impl=impl)
    assert right(latches.gather(-1, at[..., None])[..., 0] - 1, sample)


# Fact 3 (D15, D16): a matrix holds as many pairs as it has keys, and no more.


@both
@pytest.mark.parametrize("tied", [True, False])
def test_one_hot_keys_hold_a_pair_each_and_are_used_again(impl, tied):
    """With f = 1 - k a used key is overwritten; with f = 1 its values add up."""
    K, V, T = 16, 4, 200
    generator = torch.Generator().manual_seed(2)
    keys, v = torch.randint(K, (T,), generator=generator), torch.randn(T, V, generator=generator, dtype=torch.float64)
    k = hot(keys, K)[None, :, None]
    g = SHUT * k if tied else torch.zeros_like(k)
    y, S = outer(k, k, v[None, :, None], g, None, state=zeros(1, 1, K, V), impl=impl)
    held = zeros(K, V)
    for t in range(T):
        held[keys[t]] = v[t] + (0 if tied else held[keys[t]])
        torch.testing.assert_close(y[0, t, 0], held[keys[t]], rtol=0, atol=0 if tied and impl == "loop" else 1e-12)
    torch.testing.assert_close(S[0, 0], held, rtol=0, atol=1e-12)


@pytest.mark.parametrize("K", [2, 5, 16])
def test_one_key_too_many_collides(K):
    """Whatever the K + 1 keys and the queries: reading all values back is a map of rank K, so it is not the identity."""
    keys, queries = (torch.randn(1, K + 1, 1, K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in (3, 4))
    values = torch.eye(K + 1, dtype=torch.float64)[None, :, None]
    _, S = outer(keys, keys, values, torch.zeros_like(keys), None, state=zeros(1, 1, K, K + 1))
    for asked in (keys, queries):
        read = asked[0, :, 0] @ S[0, 0]
        assert int(torch.linalg.matrix_rank(read)) == K
        assert float(torch.linalg.matrix_norm(read - torch.eye(K + 1, dtype=torch.float64), 2)) >= 1 - 1e-9


@both
def test_the_delta_rule_overwrites_without_a_gate(impl):
    """With beta = 1 the last value of each orthogonal key is what is read, though nothing ever decays."""
    K, T, generator = 16, 200, torch.Generator().manual_seed(5)
    basis = torch.linalg.qr(torch.randn(K, K, generator=generator, dtype=torch.float64))[0]
    keys, v = torch.randint(K, (T,), generator=generator), torch.randn(1, T, 1, 3, generator=generator, dtype=torch.float64)
    k = basis[keys][None, :, None]
    _, S = delta(k, k, v, k, k, None, state=zeros(1, 1, K, 3), impl=impl)
    last = {int(key): v[0, t, 0] for t, key in enumerate(keys)}
    for key, value in last.items():
        torch.testing.assert_close(basis[key] @ S[0, 0], value, rtol=0, atol=1e-10)


@both
def test_recall_by_a_matrix(impl):
    """D15 with the task's 64 keys: the key before is the key, and what follows is written to it."""
    sample = drawn("recall", 4, 192)
    before = torch.cat([torch.full((4, 1), 64), sample.inputs[:, :-1]], 1)
    is_value = (sample.inputs >= 64)[..., None, None]
    k = hot(before, 72)[:, :, None] * is_value
    v = hot(sample.inputs, 72)[:, :, None] * is_value
    y, _ = outer(hot(sample.inputs, 72)[:, :, None], k, v, torch.zeros_like(k), None, state=zeros(4, 1, 72, 72), impl=impl)
    assert right(y[:, :, 0].argmax(-1) - 64, sample)


@both
def test_induction_by_a_shift_and_a_matrix(impl):
    """D16: the symbol before is the key, this one the value; the tie overwrites, so the last follower is read."""
    sample = drawn("induction", 4, 400)
    symbol = hot(sample.inputs, 16)[:, :, None]
    k = torch.nn.functional.pad(symbol[:, :-1], (0, 0, 0, 0, 1, 0))
    y, _ = outer(symbol, k, symbol, SHUT * k, None, state=zeros(4, 1, 16, 16), impl=impl)
    assert right(y[:, :, 0].argmax(-1), sample)


# Fact 4 (D4, D7, D9, D26): any finite automaton is a product of transition matrices.


def walk(to: Tensor, inputs: Tensor, impl: str) -> Tensor:
    """The places (B, T) an automaton reaches from place 0, its steps to[place, symbol] as matrices."""
    matrices = hot(to.T, len(to)).mT  # (symbols, to, from)
    start = hot(torch.zeros(len(inputs), 1, dtype=torch.long), len(to))
    h, _ = block(matrices[inputs][:, :, None], None, None, state=start, impl=impl)
    assert torch.equal(h.sum(-1), torch.ones_like(h[..., 0]))  # one place, exactly
    return h[:, :, 0].argmax(-1)


@both
@pytest.mark.parametrize(("name", "length"), [("parity", 10_000), ("mod-sum", 10_000), ("s3", 10_000), ("a5", 400), ("s5", 100)])
def test_words_of_groups_by_matrices(impl, name, length):
    sample = drawn(name, 1, length)
    assert right(walk(task_named(name).table, sample.inputs, impl), sample)


@both
def test_s5_by_five_by_five_permutations(impl):
    """Five places are enough: the product of permutation matrices is the matrix of the product."""
    sample = drawn("s5", 1, 10_000)
    elements = torch.tensor(list(itertools.permutations(range(5))))
    h, _ = block(
        hot(elements, 5).mT[sample.inputs][:, :, None].expand(-1, -1, 5, -1, -1), None, None, state=torch.eye(5).double()[None], impl=impl
    )
    images = h[0].argmax(-1)  # (T, 5): where each of the five things lies now
    assert torch.equal(images, elements[sample.targets[0]])


@both
def test_a_random_automaton_equals_its_simulation(impl):
    generator = torch.Generator().manual_seed(6)
    for places, symbols in ((2, 2), (7, 3), (12, 5)):
        to = torch.randint(places, (places, symbols), generator=generator)
        inputs = torch.randint(symbols, (1, 10_000), generator=generator)
        place, wanted = 0, []
        for symbol in inputs[0].tolist():
            place = int(to[place, symbol])
            wanted.append(place)
        assert walk(to, inputs, impl)[0].tolist() == wanted


@both
@pytest.mark.parametrize("name", ["reber", "embedded-reber"])
def test_grammars_by_their_automaton(impl, name):
    sample, grammar = drawn(name, 4, 500), task_named(name)
    assert right(grammar.asks[walk(grammar.to, sample.inputs, impl)], sample)


# Shift registers (D2, D12, D13) and fact 5: a state of b bits repeats at most b / log2(kinds) symbols.


def shift(size: int) -> Tensor:
    """Every entry moves down one place; the first is free."""
    return torch.diag(torch.ones(size - 1, dtype=torch.float64), -1)


@both
def test_parities_of_windows_by_a_shift_register(impl):
    sample = drawn("n-parity", 2, 2000)
    entry = torch.nn.functional.pad(sample.inputs.double()[..., None, None], (0, 7))
    h, _ = block(shift(8).expand(2, 2000, 1, 8, 8), entry, None, state=zeros(2, 1, 8), impl=impl)
    assert right(h[:, :, 0].cumsum(-1)[..., 1:] % 2, sample)


@both
@pytest.mark.parametrize("name", ["copy", "selective-copy"])
def test_copying_by_a_shift_register(impl, name):
    """It shifts when a symbol comes in and when one has been said; a latch knows that the sign was given."""
    sample = drawn(name, 4, 1000)
    going = scan((sample.inputs != 1).double(), (sample.inputs == 1).double(), state=zeros(4), impl=impl)[0].cumsum(1) > 1
    comes = sample.inputs > 1
    A = torch.where((comes | going)[..., None, None, None], shift(4), torch.eye(4, dtype=torch.float64))
    entry = torch.nn.functional.pad((sample.inputs * comes).double()[..., None, None], (0, 3))
    h, _ = block(A, entry, None, state=zeros(4, 1, 4), impl=impl)
    assert right(h[:, :, 0, -1] - 2, sample)


def words(kinds: int, size: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(kinds), repeat=size)))


@pytest.mark.parametrize("size", [3, 6, 8, 10])
def test_a_state_of_six_bits_repeats_six_bits(size):
    """A number mod 64 as a shift register reaches the bound, 64 of the 2^n words, and six signs of a random HGRN2 no more."""
    texts, bound = words(2, size), min(1.0, 2**6 / 2**size)
    register = scan(torch.full_like(texts.double(), 2.0), texts.double(), state=zeros(len(texts)))[1] % 64
    assert len(register.unique()) / len(texts) == bound
    kind = mixer("hgrn2")
    layer = kind(4, kind.Config(), Place()).double()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_(generator=torch.Generator().manual_seed(weight.numel()))
        x = torch.randn(2, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64)[texts]
        S = layer(x, layer.init_state(len(texts)), Context())[1].S
    views = S.flatten(1) @ torch.randn(16, 6, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    signs = views > views.median(0).values
    told_apart = len(signs.unique(dim=0)) / len(texts)  # the best any read-out could do
    assert told_apart <= bound
    assert told_apart > 2 / len(texts)


def test_a_double_repeats_fifty_three_bits():
    """h = 8 h + x keeps 17 symbols of 8 kinds exactly, 51 bits, and cannot keep 18 of them, 54 bits."""
    digits = torch.randint(8, (200, 18), generator=torch.Generator().manual_seed(8))
    digits[:, 0] = 7
    for size, exact in ((17, True), (18, False)):
        x = digits[:, :size].double()
        h = scan(torch.full_like(x, 8.0), x, state=zeros(200))[1]
        said = [[int(number) // 8 ** (size - 1 - place) % 8 for place in range(size)] for number in h.tolist()]
        assert (said == digits[:, :size].tolist()) is exact
