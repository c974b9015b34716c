"""The text inside Python: prose, the same every time, and nothing imported for it."""

import sys

import pytest

from ritornello.data import builtin
from ritornello.data.builtin import parts, prose
from ritornello.errors import InputError


@pytest.fixture(scope="module")
def texts() -> list[tuple[str, str]]:
    before, modules = set(sys.modules), builtin._modules()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtin, "_modules", lambda: modules[::3] + modules[:2])
        found = [(part.name, "".join(part.pieces)) for part in parts()]
    assert not {name for name in set(sys.modules) - before if name.startswith(("antigravity", "tkinter", "turtle"))}
    return found


def test_there_is_a_lot_of_clean_text(texts):
    everything = "\n".join(text for _, text in texts)
    assert len(texts) > 200
    assert len(everything.split()) > 80_000
    assert ">>> " not in everything
    assert "::=" not in everything
    assert everything.count("``") < 10
    assert ":class:`" not in everything
    assert everything.isprintable() or {sign for sign in everything if not sign.isprintable()} <= set("\n\t\x0c\xa0\xad\u200b")
    assert all(text.strip() == text for _, text in texts)


def test_the_same_every_time(texts, monkeypatch):
    some = builtin._modules()[::3][:20]
    monkeypatch.setattr(builtin, "_modules", lambda: some)
    again = [(part.name, "".join(part.pieces)) for part in parts()]
    assert again == texts[: len(again)]
    assert builtin.sources() == builtin.sources()


def test_no_paragraph_stands_twice(texts):
    blocks = [" ".join(block.split()) for _, text in texts for block in text.split("\n\n")]
    assert len(blocks) == len(set(blocks)) > 5000


def test_prose():
    documentation = """Return the :class:`~thing.Thing` of ``x``, *now*.

        Title
        =====

        See `the manual <http://example.org>`_ for 2*3*4:

        >>> f(x)
        1

        Use it as::

            code = f(x)

        .. note:: this
        And **then** more.

        rule: x ::= y
    """
    assert prose(documentation) == (
        "Return the thing.Thing of x, now.\n\nTitle\n\nSee the manual for 2*3*4:\n\nUse it as:\n\nAnd then more."
    )


MODULE = '''"""What this one module is for."""
if x:
    def f():
        """What this one function does."""
    def g():
        "Short."
        return "\\d"
'''


def library(tmp_path, monkeypatch, **files: str) -> None:
    monkeypatch.setattr(builtin, "_library", lambda: tmp_path)
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/", 1)
        path = path.with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def test_topics_come_first_and_modules_in_order(tmp_path, monkeypatch):
    library(
        tmp_path,
        monkeypatch,
        pydoc_data__topics="topics = {'b': 'The second topic.', 'a': 'The first topic.'}\n",
        a=MODULE,
        broken="def f(:\n",
        test__z='"""A test that nobody should ever read."""\n',
    )
    assert [(part.name, *part.pieces) for part in parts()] == [
        ("pydoc_data/topics.py", "The first topic."),
        ("pydoc_data/topics.py", "The second topic."),
        ("a.py", "What this one module is for.\n\nWhat this one function does."),
    ]


def test_sources_change_with_the_text(tmp_path, monkeypatch):
    library(tmp_path, monkeypatch, a='"""What this one module is for."""')
    before = builtin.sources()
    library(tmp_path, monkeypatch, a='"""What that one module is for."""')
    assert before.keys() == builtin.sources().keys()
    assert before != builtin.sources()


def test_a_python_without_sources(tmp_path, monkeypatch):
    library(tmp_path, monkeypatch, a="x = 1\n")
    with pytest.raises(InputError, match=r"no source files with docstrings in .*; name a text file to learn from"):
        list(parts())
