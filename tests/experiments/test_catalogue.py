"""The list of mixers: every entry is there, and its sizes are the module's own."""

import json

import pytest

from ritornello.cli import main
from ritornello.experiments.catalogue import catalogue
from ritornello.mixers import MIXERS, mixer
from ritornello.mixers.base import Place
from ritornello.state import nbytes


def test_every_mixer_is_listed_with_its_own_sizes():
    entries = {entry.name: entry for entry in catalogue(64)}
    assert set(entries) == set(MIXERS)
    for name in ("hgrn2", "lstm", "mamba", "swiglu"):
        module = mixer(name)(64, mixer(name).Config(), Place())
        assert entries[name].parameters == sum(weight.numel() for weight in module.parameters())
    assert entries["lstm"].state_bytes == 2 * 64 * 4 == nbytes(mixer("lstm")(64, mixer("lstm").Config(), Place()).init_state(1))
    assert entries["swiglu"].state_bytes == 0
    assert entries["attention"].grows
    assert not entries["hgrn2"].grows
    assert entries["hgrn2"].computes == ("outer: triton, native, chunk, loop",)
    assert all(entry.what for entry in entries.values())


def test_the_command_prints_it(capsys):
    assert main(["mixers", "--dim", "64", "--json"]) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} == set(MIXERS)
    assert main(["mixers"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n{name} " in printed for name in MIXERS)


@pytest.mark.parametrize("dim", ["0", "100000"])
def test_an_impossible_width_is_one_line(dim, capsys):
    assert main(["mixers", "--dim", dim]) == 2
    assert f"--dim: {dim} is out of range" in capsys.readouterr().err
