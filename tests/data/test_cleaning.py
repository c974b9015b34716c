"""Each step on lines of the forms that real corpora have; what it does not name it leaves; twice is once."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ritornello.data.cleaning import STEPS, check, described
from ritornello.errors import InputError

CASES = [
    ("speaker-tags", "*MOT:\tlook at the cat .\n*CHI:\tcat .", "look at the cat .\ncat ."),
    ("speaker-tags", "A:\tUh, yes.\nB: \tNo: never.", "Uh, yes.\nNo: never."),
    ("speaker-tags", "me013:\tum so\nfe008:\tA:\tokay.", "um so\nokay."),
    ("speaker-tags", "Note: a colon,\tand a tab later", "Note: a colon,\tand a tab later"),
    ("speaker-names", "Warren: Number 12.\nO'Connor: Justice White: so: it is.", "Number 12.\nso: it is."),
    ("speaker-names", "Mr. Chief Justice: Go on.\nthe reason: none", "Go on.\nthe reason: none"),
    ("speaker-names", "Counsel:\nWell", "Counsel:\nWell"),
    ("chat-codes", "&-um I [//] we xxx go (be)cause it 0is <so> +...", " I  we  go because it is so "),
    ("chat-codes", "@Begin\nwhere (i)s it ?\n%mor:\tadv v\nhere . \x15100_200\x15", "where is it ?\nhere . "),
    ("chat-codes", "the axxx is (not) here", "the axxx is (not) here"),
    ("subtitles", "- Hello.\n– (door slams) Who's [whispers] there?\n♪ la la ♪", "Hello.\n Who's  there?\n la la "),
    ("subtitles", "a well-known man", "a well-known man"),
    (
        "gutenberg",
        "Title\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\nIt was _very_ late.\n"
        "[Illustration: a cat]\n*** END OF THE PROJECT GUTENBERG EBOOK X\nlicence",
        "It was very late.\n\n",
    ),
    ("gutenberg", "a snake_case_name stays", "a snake_case_name stays"),
    ("markup", "== Early life ==\nHe was a [[king|ruler]] of [[France]].<ref>book</ref>", "Early life\nHe was a ruler of France."),
    ("markup", "''Tom &amp; Jerry'' {{cite|a={{b}}}} <br/>[http://x.org here] &lt;b&gt;", "Tom & Jerry  here "),
    ("markup", " = = = Valkyria = = = \n3 < 4 and a = b", "Valkyria\n3 < 4 and a = b"),
    ("join-lines", "one of them rich and the\nother poor.\n\nNow", "one of them rich and the other poor.\n\nNow"),
    ("repeated-lines", "no .\nno .\nno .\nyes .\nno .\n\n\nno .", "no .\nyes .\nno .\n\n\nno ."),
    ("spaced-signs", "where does he go ? I do n't , really . ( so ) a @-@ b .5", "where does he go? I don't, really. (so) a-b .5"),
    ("quotes", "“It’s…” – he—said", '"It\'s..." - he--said'),
    ("unicode", "cafe\u0301 so\u00adft\u200b \x07bell\ttab", "café soft bell\ttab"),
    ("lower", "The ÉCOLE İ", "the école i\u0307"),
    ("whitespace", "  a \t b\u00a0c  \n\n\n\n d \n", "a b c\n\nd"),
]


@pytest.mark.parametrize(("step", "text", "want"), CASES)
def test_a_step_does_what_it_says(step, text, want):
    assert STEPS[step](text) == want


def test_every_step_has_a_case_and_a_line_of_description():
    assert {step for step, _, _ in CASES} == set(STEPS)
    assert all(len(line) > 20 and "\n" not in line for line in described().values())


LINES = st.lists(
    st.sampled_from([part for _, text, _ in CASES for part in text.split("\n")] + ["", "A:\t", "= =", "[[", "(a)(b)"]), max_size=6
)


@pytest.mark.parametrize("step", sorted(STEPS))
@given(lines=LINES, noise=st.text("aA:.*&[]()<>=_-+ \t\n'{}|/@0", max_size=40))
def test_twice_is_once(step, lines, noise):
    once = STEPS[step]("\n".join([*lines, noise]))
    assert STEPS[step](once) == once


@pytest.mark.parametrize("step", sorted(STEPS))
def test_no_text_takes_a_step_long(step):
    hard = ["<ref>", "[[", "= ", "(", "{{", " ", "_a", "''", "+", "&a", "[Illustration", "A:\t", "A. ", "*** START", "<!--", "@-@ "]
    began = time.monotonic()
    for piece in hard:
        STEPS[step](piece * 3000)
    assert time.monotonic() - began < 3


def test_a_step_that_is_not_there_or_named_twice_is_refused():
    with pytest.raises(InputError, match=r"childes: unknown cleaning step 'speaker-tag'\. Did you mean 'speaker-tags'"):
        check(["speaker-tag"], "childes")
    with pytest.raises(InputError, match="childes: the step lower is named twice"):
        check(["lower", "whitespace", "lower"], "childes")
