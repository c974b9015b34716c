"""English agreement pairs made from words that the training text holds, so that grammar is tested and not vocabulary.

A frame is a sentence with one controller (a subject, a determiner, a conjunction) and one target (a verb, a noun, a pronoun) that must
agree with it in number. Each frame gives two pairs that mirror each other:

    The function returns the value.  > The function return the value.
    The functions return the value.  > The functions returns the value.

The two words compared are the same in both pairs, the other way round, so a unigram model is right on exactly one of the two: 50 %.
Except in `subject_verb` and `determiner_noun` the words beside the target are the same in both pairs too, so a bigram model is held
to 50 % as well: what decides stands further back. Design after Linzen et al. 2016, arXiv:1611.01368, and BLiMP (Warstadt et al. 2020,
arXiv:1912.00582).
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from ritornello.evals.pairs import MinimalPair

LEAST = 50  # pairs, for a phenomenon to be worth a number
KEEP = 16  # words of a kind, the most frequent ones
WORD = re.compile(r"[^\W\d_]+")

T = TypeVar("T")
Forms = tuple[str, str]  # singular, plural


class Agreement(NamedTuple):
    """Pairs by phenomenon, each tagged "singular" or "plural" after what is right; `reason` says what is lacking, and why."""

    pairs: dict[str, list[MinimalPair]]
    reason: str | None


class Lexicon(NamedTuple):
    """Words of one kind of text, in base form. Any agent can do any verb to any thing.

    No collective or mass nouns, no verb whose past is its base form ("read"), no "with" (some speakers let it coordinate): each would
    make a bad sentence good.
    """

    name: str
    agents: str
    things: str
    verbs: str
    participles: str
    adjectives: str
    prepositions: str
    starts: tuple[str, ...]  # up to the object; none takes a clause
    reflexive: str  # verbs
    selves: dict[str, str]  # pronoun -> agents


class Words(NamedTuple):
    """What the text holds of a lexicon, in the forms that sentences need."""

    agents: list[Forms]
    things: list[Forms]
    verbs: list[Forms]
    participles: list[str]
    adjectives: list[str]
    prepositions: list[str]
    starts: list[str]
    determiners: list[Forms]
    copulas: list[Forms]
    modals: list[str]
    reflexive: list[str]
    selves: list[tuple[Forms, Forms]]  # an agent and its pronouns


class Follows(NamedTuple):
    """A word that goes with the controller."""

    singular: str
    plural: str


class Target(NamedTuple):
    """The word that agrees in the good sentence only."""

    singular: str
    plural: str


Frame = tuple[str | Follows | Target, ...]
Case = Callable[[str], str]


class Pick:
    """Draws that are the same in every version of Python."""

    def __init__(self, seed: str):
        self.random = random.Random(seed).random  # noqa: S311

    def __call__(self, items: Sequence[T]) -> T:
        return items[int(self.random() * len(items))]


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs: runs of letters, upper and lower case kept apart."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(WORD.findall(text))
    return counts


def agreement_pairs(counts: Mapping[str, int], *, min_count: int = 2, size: int = 64) -> Agreement:
    """`size` pairs for each phenomenon, of words that each occur at least `min_count` times in the text counted.

    The lexicon with the most frequent nouns is used. A phenomenon with fewer than 50 pairs is left out, with a reason; a text that is
    not English gives none. The same counts give the same pairs.
    """
    case = str if counts.get("The", 0) >= min_count else str.lower  # a text in lower case is tested in lower case
    found = {lexicon.name: _words(lexicon, counts, min_count, case) for lexicon in LEXICONS}
    chosen, words = max(found.items(), key=lambda item: sum(_count(counts, *forms) for forms in item[1].agents + item[1].things))
    short = [kind for kind in Words._fields if kind not in ("reflexive", "selves") and len(getattr(words, kind)) < 2]
    if short:
        return Agreement({}, f"no agreement pairs: of common {chosen} English words the text holds too few {', '.join(short)}")
    made = {name: _pairs(name, frame, words, counts, min_count, size, case) for name, frame in PHENOMENA.items()}
    lacking = [name for name, pairs in made.items() if len(pairs) < LEAST]
    reason = f"no agreement pairs of {', '.join(lacking)}: the text holds too few words for them" if lacking else None
    return Agreement({name: pairs for name, pairs in made.items() if name not in lacking}, reason)


def _pairs(
    name: str, frame: Callable[[Words, Pick], Frame], words: Words, counts: Mapping[str, int], least: int, size: int, case: Case
) -> list[MinimalPair]:
    """Mirrored pairs of distinct frames; fewer than `size` if the words give no more."""
    if not (words.selves and words.reflexive) and frame is reflexive:
        return []
    pick, seen, pairs = Pick(name), set[Frame](), list[MinimalPair]()
    for _ in range(50 * size):
        if len(pairs) + 2 > size:
            break
        made = frame(words, pick)
        if made in seen:
            continue
        seen.add(made)
        couple = [MinimalPair(case(_say(made, n, n)), case(_say(made, n, 1 - n)), tag=("singular", "plural")[n]) for n in (0, 1)]
        if all(_count(counts, *WORD.findall(side)) >= least for pair in couple for side in (pair.good, pair.bad)):
            pairs += couple
    return pairs


def _say(frame: Frame, controller: int, target: int) -> str:
    """The sentence with controller and target in the numbers given: 0 singular, 1 plural."""
    return " ".join(part if isinstance(part, str) else part[target if isinstance(part, Target) else controller] for part in frame) + "."


def subject_verb(words: Words, pick: Pick) -> Frame:
    """The function returns the value. The value has been used. The value is used."""
    noun = pick(words.agents + words.things)
    return pick(
        [
            ("The", Follows(*pick(words.agents)), Target(*pick(words.verbs)), "the", pick(pick(words.things))),
            ("The", Follows(*noun), Target("has", "have"), "been", pick(words.participles)),
            ("The", Follows(*noun), Target(*pick(words.copulas)), pick(words.participles)),
        ]
    )


def across_phrase(words: Words, pick: Pick) -> Frame:
    """The value of the options is used: the nearer noun has a number of its own."""
    noun, other = _two(words.agents + words.things, pick)
    end = (Target(*pick(words.copulas)), pick(words.participles))
    return ("The", Follows(*noun), pick(words.prepositions), "the", pick(other), *end)


def across_clause(words: Words, pick: Pick) -> Frame:
    """The value that the functions return is used. The function that returns the values is used."""
    agent, thing, verb = pick(words.agents), pick(words.things), pick(words.verbs)
    end = (Target(*pick(words.copulas)), pick(words.participles))
    n = pick((0, 1))
    return pick(
        [
            ("The", Follows(*thing), "that", "the", agent[n], verb[n], *end),
            ("The", Follows(*agent), "that", Follows(*verb), "the", thing[n], *end),
        ]
    )


def in_clause(words: Words, pick: Pick) -> Frame:
    """You can use the function that returns the value. You can use the value that is found."""
    start = (pick(words.starts), "the")
    return pick(
        [
            (*start, Follows(*pick(words.agents)), "that", Target(*pick(words.verbs)), "the", pick(pick(words.things))),
            (*start, Follows(*pick(words.things)), "that", Target(*pick(words.copulas)), pick(words.participles)),
        ]
    )


def coordination(words: Words, pick: Pick) -> Frame:
    """The name and the value are used. The name of the value is used."""
    (noun, _), (other, _) = _two(words.agents + words.things, pick)
    end = (Target(*pick(words.copulas)), pick(words.participles))
    return ("The", noun, Follows(pick(words.prepositions), "and"), "the", other, *end)


def determiner_noun(words: Words, pick: Pick) -> Frame:
    """You can use this value. You can use these values."""
    return (pick(words.starts), Follows(*pick(words.determiners)), Target(*pick(words.agents + words.things)))


def determiner_adjective_noun(words: Words, pick: Pick) -> Frame:
    """You can use this new value. You can use these new values."""
    start, determiner, noun = determiner_noun(words, pick)
    return (start, determiner, pick(words.adjectives), noun)


def reflexive(words: Words, pick: Pick) -> Frame:
    """The function can call itself. The functions can call themselves."""
    noun, pronouns = pick(words.selves)
    return ("The", Follows(*noun), pick(words.modals), pick(words.reflexive), Target(*pronouns))


PHENOMENA: dict[str, Callable[[Words, Pick], Frame]] = {
    "subject_verb": subject_verb,
    "subject_verb_across_phrase": across_phrase,
    "subject_verb_across_clause": across_clause,
    "subject_verb_in_clause": in_clause,
    "subject_verb_coordination": coordination,
    "determiner_noun": determiner_noun,
    "determiner_adjective_noun": determiner_adjective_noun,
    "reflexive": reflexive,
}

DETERMINERS = [("this", "these"), ("that", "those"), ("every", "many"), ("each", "several"), ("one", "two"), ("another", "both")]
COPULAS = [("is", "are"), ("was", "were")]
MODALS = "can could may might must should will would"
IRREGULAR = {"man": "men", "woman": "women", "gentleman": "gentlemen", "child": "children"}

LEXICONS = (
    Lexicon(
        name="technical",
        agents="function method object class module program command handler thread script package parser decorator server widget "
        "application iterator descriptor callback interface process generator client constructor coroutine task container operator",
        things="argument value name file attribute string line option character item error key variable parameter element header "
        "integer exception field flag message path literal filename block word tuple expression result event example",
        verbs="return take use accept create contain define provide support require change handle represent write find check "
        "remove add print include produce evaluate convert send need replace",
        participles="used called given found created defined changed removed replaced stored included required supported added "
        "needed ignored printed converted",
        adjectives="new different special current simple empty small large optional additional similar common standard internal "
        "specific local valid old long short original",
        prepositions="of in for from",
        starts=("You can use", "You should use", "You must use", "We can use", "They will use", "It will use", "It may return"),
        reflexive="call describe change remove replace close define add represent copy update compare convert print test",
        selves={
            "itself": "function method object class module program command handler thread script package parser decorator server "
            "widget application iterator descriptor callback interface process generator client coroutine task container"
        },
    ),
    Lexicon(
        name="general",
        agents="man woman boy girl child king friend mother father brother sister soldier captain teacher doctor student lady "
        "gentleman servant officer dog horse bird cat lion farmer queen prince lawyer",
        things="house book letter door room tree flower road ship table window stone picture story box boat chair ball toy car street "
        "garden field",
        verbs="see know like want find take bring keep hold need remember love make use leave carry hear watch",
        participles="seen found taken left known lost brought kept forgotten carried loved remembered wanted needed heard",
        adjectives="old new little great small good big strange fine beautiful poor",
        prepositions="near behind beside by from",
        starts=("You can take", "I will take", "We must keep", "They would bring", "She might take", "He could keep", "I can bring"),
        reflexive="help see hurt save hide protect wash blame love know show trust forget",
        selves={
            "himself": "man boy king father brother gentleman prince",
            "herself": "woman girl mother sister lady queen",
            "itself": "dog horse bird cat lion",
        },
    ),
    Lexicon(
        name="encyclopedic",
        agents="city town village state country school university station river island church book film song album artist player writer "
        "scientist website museum",
        things="building bridge road park street game name award event language place area line castle tower hill lake festival title",
        verbs="include contain use cover feature serve follow show offer need hold give represent describe mention",
        participles="known called named found used built made given described created seen included considered shown",
        adjectives="new old small large great famous important popular local national modern major common different",
        prepositions="in near from of for",
        starts=("He would use", "They could use", "It may include", "It would include", "They will include", "She could use"),
        reflexive="describe call name support protect include represent change show define",
        selves={"itself": "city town village state station river island book film song album website"},
    ),
)


def _words(lexicon: Lexicon, counts: Mapping[str, int], least: int, case: Case) -> Words:
    """The words of a lexicon whose forms all occur `least` times, at most KEEP of a kind, the most frequent first."""

    def held(forms: Iterable[Forms]) -> list[Forms]:
        return sorted((pair for pair in forms if _count(counts, *pair) >= least), key=lambda pair: -_count(counts, *pair))[:KEEP]

    def single(words: Iterable[str]) -> list[str]:
        return [word for word in words if _count(counts, *word.split()) >= least]

    pronouns = {noun: (pronoun, "themselves") for pronoun, nouns in lexicon.selves.items() for noun in nouns.split()}
    agents = held((noun, _with_s(noun)) for noun in lexicon.agents.split())
    return Words(
        agents=agents,
        things=held((noun, _with_s(noun)) for noun in lexicon.things.split()),
        verbs=held((_with_s(verb), verb) for verb in lexicon.verbs.split()),
        participles=single(lexicon.participles.split())[:KEEP],
        adjectives=single(lexicon.adjectives.split())[:KEEP],
        prepositions=single(lexicon.prepositions.split()),
        starts=single(map(case, lexicon.starts)),
        determiners=held(DETERMINERS),
        copulas=held(COPULAS),
        modals=single(MODALS.split()),
        reflexive=single(lexicon.reflexive.split()),
        selves=[(noun, pronouns[noun[0]]) for noun in agents if noun[0] in pronouns and _count(counts, *pronouns[noun[0]]) >= least],
    )


def _with_s(word: str) -> str:
    """The plural of a noun, the third person of a verb."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    return word + ("es" if re.search(r"(s|x|z|ch|sh)$", word) else "s")


def _count(counts: Mapping[str, int], *words: str) -> int:
    """How often the rarest of the words occurs."""
    return min(counts.get(word, 0) for word in words)


def _two(nouns: list[Forms], pick: Pick) -> tuple[Forms, Forms]:
    """Two different nouns."""
    first = pick(nouns)
    return first, pick([noun for noun in nouns if noun != first])
