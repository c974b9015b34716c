"""How mixers start that start neither at small random numbers nor as torch does: as their papers say."""

import math

import pytest
import torch

from ritornello.mixers.base import Place
from ritornello.mixers.mamba import Mamba
from ritornello.mixers.rwkv4 import RWKV4
from ritornello.model import LM, LMConfig


def test_rwkv_starts_as_in_its_paper():
    """In the first layer a channel's mix is its rank among all, further up it is nearer to 1; the logarithms of decays span -5 to 3."""
    model = LM(LMConfig(vocab=5, dim=32, layers=("rwkv4",) * 3, channel="rwkv_channel"))
    first, last = model.blocks[0], model.blocks[2]
    rank = torch.arange(32) / 32
    torch.testing.assert_close(first.time.mix_k, rank)
    torch.testing.assert_close(first.time.mix_r, rank.sqrt())
    torch.testing.assert_close(first.channel.mix_k, rank)
    torch.testing.assert_close(last.time.mix_v, rank ** (1 / 3) + 0.3)
    torch.testing.assert_close(last.channel.mix_r, rank ** (1 / 3))
    for block in model.blocks:
        decay = block.time.decay
        assert (decay[0], decay[-1]) == (-5, 3)
        assert (decay.diff() >= 0).all()
        assert (block.time.bonus - math.log(0.3)).tolist()[:3] == pytest.approx([0, 0.5, -0.5], abs=1e-6)
    torch.testing.assert_close(first.time.decay[16], torch.tensor(-5 + 8 * (16 / 31) ** 0.7))
    torch.testing.assert_close(last.time.decay[16], torch.tensor(-5 + 8 * (16 / 31) ** 2.0))
    assert RWKV4(1, RWKV4.Config(), Place()).decay.isfinite().all()


def test_mamba_starts_as_in_its_paper():
    """A = -1, ..., -16 in every channel; step sizes spread evenly on a logarithmic scale from 0.001 to 0.1."""
    module = Mamba(512, Mamba.Config(), Place())
    assert module.rank == 32
    torch.testing.assert_close(-module.A_log.exp(), -torch.arange(1.0, 17).expand(1024, 16))
    log_dt = torch.nn.functional.softplus(module.dt.bias.detach()).log10()
    assert -3.001 < log_dt.min() < -2.9
    assert -1.1 < log_dt.max() < -0.999
    assert float(log_dt.mean()) == pytest.approx(-2, abs=0.1)
    assert float(module.dt.weight.detach().abs().max()) == pytest.approx(32**-0.5, rel=0.01)
