"""What tests of whole runs share: a text, and a folder and a cache of their own."""

from pathlib import Path

import pytest
import torch
from example_text import prose
from schooling import SMALL

import ritornello
from ritornello._native.library import library


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(prose(25), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def ground(tmp_path_factory):
    """A folder with a text, a cache, and two trained teachers of different tokenizers."""
    where = tmp_path_factory.mktemp("ground")
    (where / "text.txt").write_text(prose(25, words=60))
    library()  # from the user's cache, if it is there: compiling it anew takes long
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(where / "cache"))
        patch.chdir(where)
        for name, more in (("teacher", {}), ("words", {"tokenizer": "bpe", "vocab": 300, "mixer": "lstm"})):
            ritornello.run("text.txt", out=name, documents="blank", quiet=True, steps=10, **SMALL | more)
    return where


@pytest.fixture
def there(ground, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(ground / "cache"))
    monkeypatch.chdir(ground)
