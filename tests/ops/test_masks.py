"""The masks of dropout: the kernel's are the definition's bit for bit, backwards too, and they look like chance."""

import ctypes

import pytest
import torch

from ritornello._native.library import library
from ritornello.ops import native_pointwise as native
from ritornello.ops.dropout import dropout, kept, mixed

LARGE = (5, 67, 53)  # more than the kernel's least, at no multiple of any width


@pytest.mark.skipif(not isinstance(library(), ctypes.CDLL), reason=str(library()))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1 - 2**-40])
def test_the_kernel_and_the_definition_are_the_same_bits(rate, dtype):
    assert native.against(torch.empty(LARGE)) is None
    x, dy = (torch.randn(LARGE).to(dtype) for _ in range(2))
    results = []
    for impl, strided in (("auto", False), ("auto", True), ("loop", False)):
        leaf = (x.transpose(0, 1).contiguous().transpose(0, 1) if strided else x).detach().requires_grad_()
        torch.manual_seed(4)
        y = dropout(leaf, rate, impl)
        results.append((y, *torch.autograd.grad(y, leaf, dy)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("impl", ["auto", "loop"])
def test_what_is_kept_is_scaled_and_carries_the_gradient(impl):
    x = torch.rand(LARGE).add(1).requires_grad_()
    y = dropout(x, 0.25, impl)
    stays = y != 0
    torch.testing.assert_close(y[stays], x[stays] / 0.75)
    y.sum().backward()
    torch.testing.assert_close(x.grad, stays / 0.75)
    assert 0.23 < 1 - stays.double().mean() < 0.27


def test_masks_look_like_chance():
    """As often as the rate says, along each axis, and unlike their neighbours, in space and in seed."""
    shape, rate = torch.Size((512, 256)), 0.1
    seeds = [0, 1, 2, 2**32, 2**33, 2**62 + 12345]
    masks = torch.stack([~kept(shape, torch.tensor(seed), rate) for seed in seeds]).double()
    spread = (rate * (1 - rate)) ** 0.5
    for mask in masks:
        assert (mask.mean() - rate).abs() < 5 * spread / mask.numel() ** 0.5
        for axis in (0, 1):
            assert (mask.mean(axis) - rate).abs().max() < 5.5 * spread / shape[axis] ** 0.5
        centred = mask.flatten() - rate
        for lag in (1, 2, 16, 64, 256, 4096):
            product = (centred[:-lag] * centred[lag:]).mean()
            assert product.abs() < 5 * spread**2 / centred.numel() ** 0.5, lag
    between = torch.corrcoef(masks.flatten(1)) - torch.eye(len(seeds), dtype=torch.float64)
    assert between.abs().max() < 5 / masks[0].numel() ** 0.5


def test_every_bit_of_a_hash_turns_with_any_bit_of_place_and_seed():
    place, seed = torch.arange(2000), torch.tensor(987654321987)
    base = mixed(place, seed)
    turned = [mixed(place ^ 1 << bit, seed) for bit in range(32)] + [mixed(place, seed ^ 1 << bit) for bit in range(62)]
    for other in turned:
        flipped = (base ^ other)[:, None] >> torch.arange(32) & 1
        assert flipped.double().mean(0).sub(0.5).abs().max() < 0.1


def test_the_seed_comes_from_torchs_generator():
    x = torch.ones(LARGE)
    torch.manual_seed(3)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x, 0.5))
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(first.double(), dropout(x.double(), 0.5))
