"""What tests of whole runs share: a text, and a folder and a cache of their own."""

from pathlib import Path

import pytest
from example_text import prose


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(prose(25), encoding="utf-8")
    return path
