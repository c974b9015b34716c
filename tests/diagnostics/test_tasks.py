"""Each task against a second, plain-Python telling of what it asks, and its chance level against those who only guess."""

import itertools

import pytest
import torch

from ritornello.diagnostics import TASKS, task_named
from ritornello.diagnostics.task import Task
from ritornello.errors import InputError

NAMES = list(TASKS)
LENGTHS = (16, 33)


def draw(name: str, n: int = 40, length: int = 16, seed: int = 0):
    return task_named(name).sample(torch.Generator().manual_seed(seed), n, length)


def bits(row):
    """Running parity, by counting."""
    return {t: row[: t + 1].count(1) % 2 for t in range(len(row))}


def window(row):
    return {t: [sum(row[max(0, t - size + 1) : t + 1]) % 2 for size in range(2, 9)] for t in range(len(row))}


def permuted(points: int, even: bool):
    """Move things about on a table, one permutation after the other."""

    def answer(row):
        elements = [
            p for p in itertools.permutations(range(points)) if not even or sum(a > b for a, b in itertools.combinations(p, 2)) % 2 == 0
        ]
        things, answers = list(range(points)), {}
        for t, index in enumerate(row):
            things = [elements[index][place] for place in things]
            answers[t] = elements.index(tuple(things))
        return answers

    return answer


def changes(row):
    """The first bit is the last one exactly where the number of changes between is even."""
    return {t: int(sum(a != b for a, b in itertools.pairwise(row[: t + 1])) % 2 == 0) for t in range(1, len(row))}


def flip_flop(row):
    kept, answers = None, {}
    for t, symbol in enumerate(row):
        if symbol in (0, 1):
            kept = symbol
        elif symbol == 4:
            answers[t] = kept
    return answers


def powers(row):
    """From the first b on, the next letter, read off the string itself."""
    return {t: (row[t + 1] if t + 1 < len(row) else 0) for t in range(len(row)) if row[t] > 1}


def shuffle(row):
    stacks, answers = ([], []), {}
    for t, symbol in enumerate(row):
        if symbol:
            kind, closes = divmod(symbol - 1, 2)
            stacks[kind].pop() if closes else stacks[kind].append(t)
            answers[t] = bool(stacks[0]) + 2 * bool(stacks[1])
    assert not any(stacks)
    return answers


def dyck(row):
    stack, answers = [], {}
    for t, symbol in enumerate(row):
        if symbol:
            stack.append((symbol, t))
            assert len(stack) <= 4
        else:
            kind, opened = stack.pop()
            if t - opened > 1:
                answers[t] = kind - 1
    return answers


def recite(row):
    go = row.index(1)
    said = [symbol - 2 for symbol in row[:go] if symbol]
    assert not any(row[go + 1 :])
    return {go + j: symbol for j, symbol in enumerate(said)}


def adding(row):
    marked = [number for number, mark in row if mark]
    assert len(marked) == 2
    return {len(row) - 1: sum(marked)}


def recall(row):
    book, answers, t = {}, {}, 0
    while t < len(row):
        if t + 1 < len(row) and row[t + 1] >= 64:
            assert row[t] not in book
            book[row[t]], t = row[t + 1] - 64, t + 2
        else:
            answers[t], t = book[row[t]], t + 1
    return answers


def induction(row):
    after, answers = {}, {}
    for t, symbol in enumerate(row):
        if t:
            after[row[t - 1]] = symbol
        if symbol in after and symbol in row[:t]:
            answers[t] = after[symbol]
    return answers


REBER = ["BTXSE", "BTSXSE", "BPVVE", "BTXXVVE", "BPTVPSE", "BTXXVPSE", "BPVPXVVE", "BTSSXXTTVPXTVVE"]
NOT_REBER = ["BTXE", "BPVSE", "BTTXSE", "BPTVVV", "BTXXVVT"]
TELLINGS = {
    "parity": bits,
    "n-parity": window,
    "mod-sum": lambda row: {t: sum(row[: t + 1]) % 5 for t in range(len(row))},
    "even-pairs": changes,
    "s3": permuted(3, False),
    "a5": permuted(5, True),
    "s5": permuted(5, False),
    "flip-flop": flip_flop,
    "anbn": powers,
    "anbncn": powers,
    "shuffle-dyck": shuffle,
    "dyck": dyck,
    "copy": recite,
    "repeat": recite,
    "selective-copy": recite,
    "adding": adding,
    "recall": recall,
    "induction": induction,
}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", TELLINGS)
def test_the_oracle_equals_a_plain_telling(name, length):
    sample, asked = draw(name, length=length), 0
    for row, targets, mask in zip(sample.inputs.tolist(), sample.targets.tolist(), sample.mask.tolist(), strict=True):
        wanted = TELLINGS[name](row)
        assert [t for t, is_asked in enumerate(mask) if is_asked] == sorted(wanted)
        for t, answer in wanted.items():
            assert targets[t] == pytest.approx(answer)
        asked += len(wanted)
    assert asked


def reber_next(embedded: bool):
    """{prefix: letters that may follow}, from all strings up to length 14, grown letter by letter from a list of rules."""
    rules = ["0B1", "1T2", "1P3", "2S2", "2X4", "3T3", "3V5", "4X3", "4S6", "5P4", "5V6", "6E7"]  # place, letter, place
    strings, growing = [], [("", "0")]
    while growing:
        text, at = growing.pop()
        for here, letter, there in rules:
            if here == at and len(text) < 13:
                strings.append(text + letter) if there == "7" else growing.append((text + letter, there))
    if embedded:
        strings = ["B" + side + text + side + "E" for text in strings if len(text) <= 9 for side in "TP"]
    follow: dict[str, set] = {}
    for text in strings:
        for t in range(1, len(text)):
            follow.setdefault(text[:t], set()).add(text[t])
    return strings, follow


@pytest.mark.parametrize("name", ["reber", "embedded-reber"])
def test_reber_answers_are_what_all_short_strings_say(name):
    strings, follow = reber_next(name == "embedded-reber")
    length, each = 9, task_named(name)
    possible = {text for text in strings if len(text) == length}
    sample, found = draw(name, n=400, length=length), set()
    for row, targets, mask in zip(sample.inputs.tolist(), sample.targets.tolist(), sample.mask.tolist(), strict=True):
        text = "".join("BTPSXVE"[letter] for letter in row)
        found.add(text)
        assert mask == [True] * (length - 1) + [False]
        for t in range(length - 1):
            if t < 4:  # so that every way on ends within the lengths that were listed
                assert set(each.sets[targets[t]]) == follow[text[: t + 1]]
            assert text[t + 1] in each.sets[targets[t]]
    assert found == possible


def test_reber_knows_its_strings():
    """The strings of the textbook follow the graph, the others leave it."""
    walk = task_named("reber")
    for text, right in [(text, True) for text in REBER] + [(text, False) for text in NOT_REBER]:
        place, legal = 0, True
        for letter in text:
            index = "BTPSXVE".index(letter)
            legal, place = legal and bool(walk.may[place, index]), int(walk.to[place, index])
        assert (legal and place == walk.end) is right, text


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_is_a_sample(name):
    one, same, other = (draw(name, n=8, length=24, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one.inputs, other.inputs)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_what_it_says(name):
    each = task_named(name)
    for length in {each.shortest, 16, 40}:
        sample = draw(name, n=64, length=length)
        assert sample.inputs.shape[:2] == sample.mask.shape == (64, length)
        assert sample.mask.any()
        if not each.numbers:
            assert 0 <= int(sample.inputs.min()) <= int(sample.inputs.max()) < each.symbols
            asked = sample.targets[sample.mask]
            assert 0 <= int(asked.min()) <= int(asked.max()) < each.answers
    with pytest.raises(InputError, match=f"needs at least {each.shortest}"):
        draw(name, length=each.shortest - 1)


def outputs_of(each: Task, answers: torch.Tensor) -> torch.Tensor:
    """Logits that say these answers, (n, T) or (n, T, heads)."""
    if each.numbers:
        return answers[..., None].float()
    hot = torch.nn.functional.one_hot(answers.view(*answers.shape[:2], each.heads), each.answers)
    return hot.flatten(2).float()


@pytest.mark.parametrize("name", NAMES)
def test_chance_is_what_the_best_constant_gets(name):
    """Whoever answers the same everywhere, or at random, scores as `chance` says; whoever is right scores 1."""
    each, sample = task_named(name), draw(name, n=2000, length=24)
    asked = sample.mask if each.heads == 1 else sample.mask[..., None]
    elsewhere = 0 if each.numbers else (sample.targets + 1) % each.answers  # what is said there does not matter
    right = each.scores(outputs_of(each, torch.where(asked, sample.targets, elsewhere)), sample)
    assert torch.equal(right[~right.isnan()], torch.ones_like(right[~right.isnan()]))
    shape = sample.targets.shape
    generator = torch.Generator().manual_seed(9)
    if each.numbers:
        guesses = [torch.full(shape, value) for value in (0.9, 1.0, 1.1)]
    else:
        guesses = [torch.full(shape, answer) for answer in range(min(each.answers, 16))]
        guesses.append(torch.randint(each.answers, shape, generator=generator))
    scores = [each.scores(outputs_of(each, guess), sample).nanmean(0) for guess in guesses]
    best = float(torch.stack(scores).amax(0).mean())
    assert best == pytest.approx(each.chance, abs=0.045)


@pytest.mark.parametrize(("name", "spoilt", "score"), [("parity", 0, 1.0), ("parity", 10, 0.0), ("shuffle-dyck", 0, 0.0)])
def test_only_the_second_half_counts_unless_all_must_be_right(name, spoilt, score):
    each, sample = task_named(name), draw(name, length=20)
    said = sample.targets.clone()
    said[:, spoilt : spoilt + 10] = (said[:, spoilt : spoilt + 10] + 1) % each.answers
    assert float(each.scores(outputs_of(each, said), sample).mean()) == score


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_least_where_the_answers_are_right(name):
    each, sample = task_named(name), draw(name, length=20)
    right, wrong = sample.targets, (sample.targets + 1) % (each.answers if not each.numbers else 3)
    assert float(each.loss(20 * outputs_of(each, right) if not each.numbers else outputs_of(each, right), sample)) < 1e-3
    assert float(each.loss(20 * outputs_of(each, wrong), sample)) > 0.5


def test_bounded_strings_use_their_room():
    """Counters are asked for numbers beyond the training lengths; brackets reach their bound; reads lie far from writes."""
    powers_of = (draw("anbn", n=500, length=64).inputs == 1).sum(1)
    assert (int(powers_of.min()), int(powers_of.max())) == (16, 32)
    inputs = draw("dyck", n=100, length=64).inputs
    assert int((2 * (inputs > 0).long() - 1).cumsum(1).max()) == 4
    inputs = draw("shuffle-dyck", n=300, length=64).inputs
    assert int(((inputs == 1).long() - (inputs == 2).long()).cumsum(1).max()) > 8


def test_an_unknown_task_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"unknown task 'party'\. Did you mean 'parity'\?"):
        task_named("party")
