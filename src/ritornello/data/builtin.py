"""English prose that every Python carries: the language reference's topics and the standard library's docstrings.

Nothing is imported for it: docstrings are read from the source files as syntax trees. What is not prose (sessions with
`>>>`, code blocks, grammars, markup) is taken out. The same Python gives the same bytes.
"""

import ast
import hashlib
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from platform import python_version

from ritornello.data.sources import Part
from ritornello.errors import InputError

NAME = "python-documentation"
SKIP = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "dist-packages", "__pycache__"}
LEAST = 5  # words: a shorter docstring only says its function's name again

ROLE = re.compile(r":[a-z]+(?::[a-z]+)*:`[!~]?([^`<]*?)(?:\s*<[^`>]*>)?`")
TICKS = re.compile(r"(``|`)([^`]+?)(?:\s+<[^`>]*>)?\1_*")
STARS = re.compile(r"(?<![\w*])\*{1,2}(?=\S)([^*\n]+?)(?<=\S)\*{1,2}(?![\w*])")
RULE = re.compile(r"^\s*([-=~^*#+_.\"'])\1{3,}\s*$")
DIRECTIVE = re.compile(r"^\s*\.\. ?(?:[\w-]+::.*|_.*:.*|\[.*)?$")
SESSION = re.compile(r"^\s*>>>")
CODE = re.compile(r"[=({\[]|:$")


def sources() -> dict[str, str]:
    """One entry: the name of this Python's library, and a SHA-256 over all the files that are read."""
    digest = hashlib.sha256()
    for name, path in _modules():
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return {f"standard library of Python {python_version()}": digest.hexdigest()}


def parts() -> Generator[Part, None, None]:
    """A part for each topic of the language reference, then one for each module that has docstrings.

    A paragraph that stood before is left out: modules copy each other's documentation, and what is held out must be new.
    Raises InputError if this Python carries neither.
    """
    seen: set[str] = set()
    for name, path in _modules():
        texts = _topics(path) if name == "pydoc_data/topics.py" else [_docstrings(path)]
        for text in texts:
            if fresh := _unseen(text, seen):
                yield Part(name, False, iter([fresh]))
    if not seen:
        raise InputError(f"no source files with docstrings in {_library()}; name a text file to learn from")


def _unseen(text: str, seen: set[str]) -> str:
    """The paragraphs of a text that are not in `seen`, line ends aside; they are added to it."""
    fresh = []
    for block in text.split("\n\n"):
        words = " ".join(block.split())
        if words and words not in seen:
            seen.add(words)
            fresh.append(block)
    return "\n\n".join(fresh)


def _library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _modules() -> list[tuple[str, Path]]:
    """(name, path) of the library's source files, the topics first."""
    library, found = _library(), []
    for here, folders, files in os.walk(library):
        folders[:] = [name for name in folders if name not in SKIP and not name.startswith("config-")]
        paths = [Path(here, name) for name in files if name.endswith(".py") and not name.startswith("_sysconfigdata")]
        found += [(path.relative_to(library).as_posix(), path) for path in paths]
    return sorted(found, key=lambda pair: (not pair[0].startswith("pydoc_data/"), pair[0]))


def _tree(path: Path) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in old modules
        try:
            return ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            return None


def _topics(path: Path) -> list[str]:
    """The values of the dictionary `topics`, read as a literal."""
    tree = _tree(path)
    for node in tree.body if tree else []:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            table = ast.literal_eval(node.value)
            return [prose(table[name]) for name in sorted(table)]
    return []


def _docstrings(path: Path) -> str:
    """The docstrings of a module in the order of its source, a blank line between."""
    tree = _tree(path)
    texts = (prose(ast.get_docstring(node, clean=False) or "") for node in (_definitions(tree) if tree else []))
    return "\n\n".join(text for text in texts if len(text.split()) >= LEAST)


def _definitions(node: ast.AST) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node
    for field in ("body", "handlers", "orelse", "finalbody"):
        for child in getattr(node, field, ()):
            yield from _definitions(child)


def prose(text: str) -> str:
    """Documentation without its sessions, code blocks, grammars and markup; paragraphs keep their lines."""
    kept: list[str] = []
    for block in re.split(r"\n[ \t]*\n", inspect.cleandoc(text.encode("utf-8", "ignore").decode())):
        lines = block.split("\n")
        session = next((i for i, line in enumerate(lines) if SESSION.match(line)), len(lines))
        if (kept and _literal(kept[-1], lines[0])) or "::=" in block:
            continue
        lines = [line.rstrip() for line in lines[:session] if not RULE.match(line) and not DIRECTIVE.match(line)]
        if lines:
            kept.append("\n".join(lines))
    text = "\n\n".join(re.sub(r"::$", ":", block) for block in kept)
    text = TICKS.sub(r"\2", ROLE.sub(r"\1", text))
    return STARS.sub(r"\1", text).strip()


def _literal(above: str, line: str) -> bool:
    """Whether a block that begins with `line`, under the block `above`, is code and not text."""
    deeper = len(line) - len(line.lstrip()) > len(above) - len(above.lstrip())
    return deeper and (above.endswith("::") or (above.endswith(":") and CODE.search(line) is not None))
