"""A folder that a user named is there whole or not at all, with ordinary permissions."""

import os
import time

import pytest

from ritornello.data.cache import named_folder
from ritornello.errors import InputError


def test_it_appears_at_the_end(tmp_path):
    with named_folder(tmp_path / "a" / "out") as folder:
        (folder / "file").write_text("x")
        assert not (tmp_path / "a" / "out").exists()
    assert (tmp_path / "a" / "out" / "file").read_text() == "x"
    (tmp_path / "usual").mkdir()
    assert (tmp_path / "a" / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert os.listdir(tmp_path / "a") == ["out"]


def test_what_is_there_stays(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="out exists; choose another --out"), named_folder(tmp_path / "out"):
        pass
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written: "), named_folder(tmp_path / "file" / "out"):
        pass


def test_a_full_disk_is_one_line(tmp_path):
    left = "out: cannot be written: No space left on device; nothing was left there"
    with pytest.raises(InputError, match=left), named_folder(tmp_path / "out"):
        raise OSError(28, "No space left on device")
    assert not any(tmp_path.iterdir())


def test_the_remains_of_a_killed_process_are_swept_a_day_later(tmp_path):
    for name in (".out.part-old", ".out.part-new", ".other.part-old"):
        (tmp_path / name).mkdir()
    for name in (".out.part-old", ".other.part-old"):
        os.utime(tmp_path / name, (time.time() - 90_000,) * 2)
    with named_folder(tmp_path / "out"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"out", ".out.part-new", ".other.part-old"}
