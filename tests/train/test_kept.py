"""Teachers' likeliest tokens on disk: what is read is what was written, to float16, and sums to 1."""

import numpy as np
import pytest
import torch

from ritornello.data.batches import Batch
from ritornello.errors import InputError
from ritornello.train.kept import Kept, likeliest, read, write


def opinions(vocab: int = 300, places: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (3 * torch.randn(1, places, vocab, generator=generator)).log_softmax(-1)


@pytest.mark.parametrize(("vocab", "kind"), [(300, "<u2"), (70_000, "<u4")])
def test_a_file_holds_the_likeliest_ids_and_the_rest(tmp_path, vocab, kind):
    log_p = opinions(vocab, 7)
    write(tmp_path / "part", likeliest(log_p, 4)[0], 11, vocab)
    first, (ids, kept, rest) = read(tmp_path / "part")
    values, wanted = log_p[0].topk(4)
    assert first == 11
    assert ids.dtype == np.dtype(kind)
    assert (ids == wanted.numpy()).all()
    np.testing.assert_allclose(kept, values.numpy(), rtol=1e-3)
    np.testing.assert_allclose(np.exp(rest.astype(np.float64)), 1 - values.double().exp().sum(-1).numpy(), rtol=4e-3, atol=1e-5)


def test_a_file_is_smaller_than_what_it_holds(tmp_path):
    write(tmp_path / "part", likeliest(opinions(300, 2000), 16)[0], 0, 300)
    assert (tmp_path / "part").stat().st_size < 0.9 * 2000 * (16 * 4 + 2)


def test_what_is_kept_of_everyone_sums_to_one(tmp_path):
    """A float16 of log 1/21 is off by 4e-4; a student that is as undecided as its teacher has nothing to learn all the same."""
    write(tmp_path / "part", likeliest(torch.full((1, 6, 21), 1 / 21).log(), 21)[0], 0, 21)
    lesson = Kept([tmp_path / "part"], 6, 1.0, tmp_path)
    places = torch.tensor([[0, 1, 2], [3, 4, 5]])
    batch = Batch(places, places, None, places[:, 0], places)
    assert abs(float(lesson(batch, torch.zeros(2, 3, 21), ())[0])) < 1e-5


def test_places_are_found_whatever_file_they_are_in(tmp_path):
    log_p = opinions(places=10)
    found = likeliest(log_p, 300)[0]
    for first, last in ((0, 4), (4, 10)):
        write(tmp_path / f"{first}", found[first:last], first, 300)
    lesson = Kept([tmp_path / "0", tmp_path / "4"], 10, 1.0, tmp_path)
    places = torch.tensor([[3, 4, 9], [0, 5, 2]])
    batch = Batch(places, places, None, places[:, 0], places)
    assert float(lesson(batch, log_p[0][places], ())[0]) < 1e-4
    assert float(lesson(batch, log_p[0][places.flip(0)], ())[0]) > 1


def test_damage_is_told_in_one_line(tmp_path):
    write(tmp_path / "part", likeliest(opinions(), 4)[0], 0, 300)
    data = bytearray((tmp_path / "part").read_bytes())
    data[-1] ^= 1
    (tmp_path / "part").write_bytes(data)
    with pytest.raises(InputError, match="damaged: its checksum does not match its content; delete it, and it is made anew"):
        read(tmp_path / "part")
