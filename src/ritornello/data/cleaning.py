"""Cleaning: what can be done to a document before it is counted, each step a function of its text alone, by name.

A plan lists the steps of each source, and they run in that order. Every step done twice is the step done once. None of them touches
what it does not name: a text without speaker tags comes out of `speaker-tags` as it was.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Sequence

from ritornello.errors import InputError, unknown

TAG = re.compile(r"^(?:[ \t]*\*?[^\s:]{1,12}:[ ]?\t[ \t]*)+", re.M)
NAME = re.compile(r"^(?:[ \t]*(?:[A-Z][\w.'-]*[ ]){0,3}[A-Z][\w.'-]*:[ \t]+)+(?=\S)", re.M)
CHAT = re.compile(
    r"^[%@][^\n]*\n?"  # headers, and tiers that annotate
    r"|\x15[^\x15\n]*\x15"  # time stamps
    r"|&[-+=~]?\w[\w:]*"  # fillers, fragments and events: &-um &=laughs
    r"|\[[^\[\]\n]*\]"  # [/] [//] [= explained] [?]
    r"|\+[^\w\s]+"  # +... +//. +/?
    r"|(?<![\w'])(?:xxx|yyy|www)(?![\w'])"  # not understood, or not written down
    r"|\b0(?=[a-z])"  # left out by the speaker: 0is
    r"|[<>\u2039\u203a\u21ab\u02cc\u02c8]",
    re.M,
)
SHORTENED = re.compile(r"(?<=\w)\((\w+)\)|\((\w+)\)(?=\w)")
MARKUP = re.compile(
    r"<!--.{0,5000}?-->|<(ref|math|table|script|style)\b[^<>]*(?:/>|>.{0,5000}?</\1>)|</?[A-Za-z][^<>]*>"
    r"|\{\{[^{}]*\}\}|\{\|[^{}]*\|\}|\[\[(?:[Ff]ile|[Ii]mage|[Cc]ategory):[^\[\]]*\]\]|'{2,}",
    re.S,
)
LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]|\[(?:https?:)?//[^\s\[\]]+[ ]?([^\[\]\n]*)\]")
HEADING = re.compile(r"^[ \t]*=.*=[ \t]*$", re.M)
SPACED = re.compile(r"(?<=\S)[ \t]+(?=[;:!?%)\]}]|[.,](?!\d)|n't\b|'(?:s|m|d|ll|re|ve)\b)")
OPENED = re.compile(r"(?<=[(\[{$])[ \t]+(?=\S)")
GLUE = re.compile(r"(?<=\S)[ \t]+@([-.,])@[ \t]+")
SUBTITLE = re.compile(r"\([^()\n]*\)|\[[^\[\]\n]*\]|\{[^{}\n]*\}|[\u266a\u266b#*]+|^[ \t]*(?:[-\u2013\u2014][ \t]*)+(?=\S)|</?[ibu]>", re.M)
GUTENBERG_START = re.compile(r"\A.*?^\*{3}[ ]*START OF (?:THE|THIS) PROJECT GUTENBERG[^\n]*\n", re.S | re.M)
GUTENBERG_END = re.compile(r"^\*{3}[ ]*END OF (?:THE|THIS) PROJECT GUTENBERG.*\Z", re.S | re.M)
ILLUSTRATION = re.compile(r"\[Illustration[^\[\]]*\]")
EMPHASIS = re.compile(r"(?<![\w_])_([^_\n]+)_(?![\w_])")
QUOTES = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′`´", "'"),
        **dict.fromkeys("“”„‟″«»", '"'),
        **dict.fromkeys("–−", "-"),
        **dict.fromkeys("—―", "--"),
        "…": "...",
        "\u00a0": " ",
    }
)
HIDDEN = dict.fromkeys(
    [*(each for each in range(32) if chr(each) not in "\t\n"), *range(127, 160), 0x00AD, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF, 0xFFFD]
)


def speaker_tags(text: str) -> str:
    """takes away who speaks where a tab follows: "*MOT:\\t", "A:\\t", "me013:\\t" """
    return TAG.sub("", text)


def speaker_names(text: str) -> str:
    """takes away who speaks at the beginning of a line: "Warren: ", "Mr. Chief Justice: " """
    return NAME.sub("", text)


def chat_codes(text: str) -> str:
    """takes away the codes of CHILDES transcripts: xxx, [//], &-um, +..., (be)cause becomes because"""
    return _settle(lambda each: SHORTENED.sub(r"\1\2", CHAT.sub("", each)), text)


def subtitles(text: str) -> str:
    """takes away the dashes, sounds in brackets, notes of music and tags of film subtitles"""
    return _settle(lambda each: SUBTITLE.sub("", each), text)


def gutenberg(text: str) -> str:
    """takes away Project Gutenberg's licence, [Illustration] and the _marks_ of emphasis"""
    text = GUTENBERG_END.sub("", GUTENBERG_START.sub("", text))
    return _settle(lambda each: EMPHASIS.sub(r"\1", ILLUSTRATION.sub("", each)), text)


def markup(text: str) -> str:
    """takes away what is left of HTML and wiki markup, entities read, links by their words, headings without marks"""

    def once(each: str) -> str:
        words = LINK.sub(lambda link: link[1] or link[2] or "", MARKUP.sub("", html.unescape(each)))
        return HEADING.sub(lambda heading: heading[0].strip("= \t"), words)

    return _settle(once, text)


def join_lines(text: str) -> str:
    """makes one line of each paragraph, for text that was wrapped at a width"""
    return re.sub(r"(?<=\S)[ \t]*\n[ \t]*(?=\S)", " ", text)


def repeated_lines(text: str) -> str:
    """takes away a line that equals the one before it"""
    kept: list[str] = []
    for line in text.split("\n"):
        if not (kept and line.strip() and line == kept[-1]):
            kept.append(line)
    return "\n".join(kept)


def spaced_signs(text: str) -> str:
    """puts signs back to their words: "go ?" becomes "go?", "do n't" "don't", "a @-@ b" "a-b" """
    return _settle(lambda each: OPENED.sub("", SPACED.sub("", GLUE.sub(r"\1", each))), text)


def quotes(text: str) -> str:
    """makes quotation marks, apostrophes, dashes and dots those of ASCII"""
    return text.translate(QUOTES)


def unicode(text: str) -> str:
    """composes letters (NFC) and takes away control characters, soft hyphens and marks that cannot be seen"""
    return _settle(lambda each: unicodedata.normalize("NFC", each.translate(HIDDEN)), text)


def lower(text: str) -> str:
    """makes every letter small"""
    return _settle(str.lower, text)


def whitespace(text: str) -> str:
    """leaves one space between words, none at the ends of lines, and at most one empty line"""
    lines = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", lines).strip("\n")


STEPS: dict[str, Callable[[str], str]] = {
    step.__name__.replace("_", "-"): step
    for step in (
        speaker_tags,
        speaker_names,
        chat_codes,
        subtitles,
        gutenberg,
        markup,
        join_lines,
        repeated_lines,
        spaced_signs,
        quotes,
        unicode,
        lower,
        whitespace,
    )
}


def described() -> dict[str, str]:
    """What each step does, in a line."""
    return {name: (step.__doc__ or "").strip() for name, step in STEPS.items()}


def check(steps: Sequence[str], where: str) -> None:
    """InputError, which begins with `where`, for a step that there is not, or one named twice."""
    for place, name in enumerate(steps):
        if name not in STEPS:
            raise InputError(f"{where}: {unknown('cleaning step', name, STEPS)}")
        if name in steps[:place]:
            raise InputError(f"{where}: the step {name} is named twice; once is enough")


def _settle(step: Callable[[str], str], text: str) -> str:
    """The step until nothing changes: what it takes away can bring together what it should take away."""
    while (changed := step(text)) != text:
        text = changed
    return text
