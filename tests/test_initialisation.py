"""Every parameter of every mixer starts as its `reset_parameters` says: a table with a row for each entry of MIXERS.

A row gives, for a layer, what holds for each parameter by name. Of n random numbers the share
below any limit is within 2.5 / sqrt(n) of what it should be (Kolmogorov and Smirnov): of 65536, a spread that is off by 5% is noticed.
"""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from ritornello.mixers import MIXERS, mixer
from ritornello.mixers.base import Context, Mixer, Place

D, L = 256, 4  # the width, and how many layers there are
WIDE = D**-0.5  # torch's bound for a map of D inputs
SIZES = {"head_dim": 4, "heads": 64}  # many heads, so that what there is one of a head has a distribution

Check = Callable[[Tensor], None]


def follows(cdf: Callable[[Tensor], Tensor]) -> Check:
    def check(found: Tensor) -> None:
        n = found.numel()
        share = cdf(found.double().flatten().sort().values)
        apart = (share - (torch.arange(n) + 0.5) / n).abs().max().item()
        assert apart < 2.5 / n**0.5, f"{apart:.3f} from its distribution: {n} numbers of mean {found.mean():.4g}, spread {found.std():.4g}"

    return check


def normal(std: float) -> Check:
    return follows(torch.distributions.Normal(torch.zeros((), dtype=torch.float64), std).cdf)


def uniform(low: float, high: float) -> Check:
    inside = follows(lambda numbers: ((numbers - low) / (high - low)).clamp(0, 1))

    def check(found: Tensor) -> None:
        least, most, edge = found.min().item(), found.max().item(), min(1, 20 / found.numel()) * (high - low)
        assert low - 1e-6 <= least <= low + edge, f"the least is {least:.6g}, which should be {low:.6g}"
        assert high - edge <= most <= high * (1 + 1e-6) + 1e-6, f"the most is {most:.6g}, which should be {high:.6g}"
        inside(found)

    return check


def within(bound: float) -> Check:
    return uniform(-bound, bound)


def exactly(wanted: Tensor | float) -> Check:
    def check(found: Tensor) -> None:
        torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=found.dtype).expand_as(found), rtol=1e-4, atol=1e-5)

    return check


def of(function: Callable[[Tensor], Tensor], check: Check) -> Check:
    """The parameter is what makes something else be as it should."""
    return lambda found: check(function(found))


def maps(names: str, weight: Check, bias: Check | None = None) -> dict[str, Check]:
    """Linear maps, convolutions and norms by name."""
    parts = {"weight": weight} | ({"bias": bias} if bias else {})
    return {f"{name}.{part}": check for name in names.split() for part, check in parts.items()}


ONE, ZERO = exactly(1.0), exactly(0.0)
SMALL = normal(0.02)
STEPS = of(lambda bias: softplus(bias).log(), uniform(math.log(0.001), math.log(0.1)))
FLOORS = of(lambda rise: rise.softmax(0).cumsum(0) - rise.softmax(0)[0], exactly(torch.arange(L)[:, None] / L))
ACROSS = torch.linspace(0, 1, D)  # the channels


def deep(layer: Mixer) -> float:
    """0 in the first layer, 1 in the last."""
    return layer.place.index / (L - 1)


def rise(layer: Mixer) -> Tensor:
    """The RWKVs' mixes over the channels, from the last token to this one."""
    return (torch.arange(D) / D) ** (1 - layer.place.index / L)


def floors(layer: Mixer) -> dict[str, Check]:
    """All of a kind learn theirs in the first layer's table."""
    return {"rise": FLOORS} if layer.place.nth == 0 else {}


def lstm(layer: Mixer) -> dict[str, Check]:
    bias = torch.cat([torch.zeros(D), torch.ones(D), torch.zeros(2 * D)])  # i, f, g, o
    weights = {f"lstm.weight_{way}_l0": within(WIDE) for way in ("ih", "hh")}
    return {**weights, "lstm.bias_ih_l0": exactly(bias), "lstm.bias_hh_l0": ZERO}


def mlstm(layer: Mixer) -> dict[str, Check]:
    many = normal((2 / (5 * D)) ** 0.5)
    gates = maps("i", ZERO, normal(0.1)) | maps("f", ZERO, exactly(torch.linspace(3, 6, 64)))
    ways = {"up.weight": many, "q": many, "k": many, "v": many, "down.weight": normal((4 / (L**2 * D)) ** 0.5)}
    return ways | gates | maps("conv", within(0.5), within(0.5)) | {"skip": ONE, "norm.weight": ONE}


def slstm(layer: Mixer) -> dict[str, Check]:
    bias = torch.zeros(4, 64, 4)
    bias[1] = 5 - 12 * torch.linspace(0, 1, 4) ** (0.3 + 1.3 * deep(layer))
    parts = {"w": normal((2 / (5 * D)) ** 0.5), "r": ZERO, "b": exactly(bias), "norm.weight": ONE}
    return parts | maps("conv", within(0.5), within(0.5))


def rglru(layer: Mixer) -> dict[str, Check]:
    weights = maps("x y", normal(WIDE), ZERO) | maps("out", normal((2 / (L * D)) ** 0.5), ZERO) | maps("conv", normal(0.05), ZERO)
    gates = {"r_weight": normal(0.05), "i_weight": normal(0.05), "r_bias": ZERO, "i_bias": ZERO}
    return weights | gates | {"rate": of(lambda rate: (-2 * softplus(rate)).exp(), uniform(0.9**2, 0.999**2))}


def rwkv4(layer: Mixer) -> dict[str, Check]:
    mixes = {"mix_r": exactly(rise(layer).sqrt()), "mix_k": exactly(rise(layer)), "mix_v": exactly(rise(layer) + 0.3 * deep(layer))}
    decay, zigzag = -5 + 8 * ACROSS ** (0.7 + 1.3 * deep(layer)), math.log(0.3) + torch.tensor([0, 0.5, -0.5]).repeat(D)[:D]
    return mixes | {"decay": exactly(decay), "bonus": exactly(zigzag)} | maps("r k v out", SMALL)


def rwkv6(layer: Mixer) -> dict[str, Check]:
    fast, slow = 1 - rise(layer).sqrt(), 1 - rise(layer)
    numbers = {
        "mix": torch.stack([fast, slow, slow - 0.3 * deep(layer), fast, slow]),  # r, k, v, g, w
        "mix_all": slow,
        "decay": -6 + 5 * ACROSS ** (0.7 + 1.3 * deep(layer)),
        "bonus": (deep(layer) * (1 - ACROSS) + torch.tensor([0, 0.1, -0.1]).repeat(D)[:D]).view(64, 4),
    }
    low = {"mix_up": within(0.01)} | maps("decay_up", within(0.01)) | maps("mix_down decay_down", ZERO)
    return {name: exactly(each) for name, each in numbers.items()} | low | maps("r k v g out", SMALL) | maps("norm", ONE, ZERO)


def rwkv7(layer: Mixer) -> dict[str, Check]:
    tenth = of(lambda up: up.T @ up - 0.01 * torch.eye(up.shape[1]), ZERO)  # orthogonal, at a tenth
    within_head = torch.tensor([-1, -1 / 9, 1 / 9, 1]).repeat(64)  # the square of -1, -1/3, 1/3 and 1, signs kept
    steepness = torch.tensor([[0.2], [0.9], [0.7], [0.7], [0.9], [0.2]])  # r, w, k, v, a, g
    numbers = {
        "mix": 1 - (torch.arange(D) / D) ** (steepness * (1 - layer.place.index / L)),
        "w.up.bias": -5.5 + 6 * ACROSS ** (1 + deep(layer) ** 0.3) + 2.5 * within_head,
        "a.up.bias": -0.39 + 0.4 * ACROSS + 0.3 * within_head,
        "kappa": 0.76 - 0.1 * ACROSS,
        "alpha": 1.02,
        "bonus": -0.04,
    } | ({"towards_first.up.bias": 0.93 - 0.4 * ACROSS} if layer.place.nth else {})
    low = ["w", "a", "g"] + (["towards_first"] if layer.place.nth else [])
    low_rank = {f"{name}.up.weight": tenth for name in low} | {f"{name}.down.weight": ZERO for name in low}
    weights = maps("r v", within(WIDE / 2)) | maps("k", within(WIDE / 20)) | maps("out", ZERO)
    norm = maps("norm", exactly(((1 + layer.place.index) / L) ** 0.7), ZERO)
    return {name: exactly(each) for name, each in numbers.items()} | low_rank | weights | norm


TABLE: dict[str, Callable[[Mixer], dict[str, Check]]] = {
    "aaren": lambda layer: maps("k v out", SMALL) | {"q": normal(1)},
    "attention": lambda layer: maps("q k v out", SMALL),
    "bidirectional": lambda layer: (
        {f"{way}.{name}": check for way in ("forwards", "backwards") for name, check in lstm(layer).items()}
        | maps("out", within((2 * D) ** -0.5))
    ),
    "block": lambda layer: (
        maps("transition write out", SMALL) | {"transition.bias": of(lambda bias: bias.view(-1, 8, 8), exactly(torch.eye(8)))}
    ),
    "deltanet": lambda layer: maps("q k v out beta", SMALL) | maps("conv", within(0.5)) | maps("norm", ONE),
    "gated_deltanet": lambda layer: (
        maps("q k v beta a gate out", SMALL)
        | maps("conv", within(0.5))
        | maps("norm", ONE)
        | {"A_log": of(torch.exp, uniform(0.01, 16)), "dt_bias": STEPS}
    ),
    "geglu": lambda layer: maps("gate up down", SMALL, ZERO),
    "gelu": lambda layer: maps("up down", SMALL, ZERO),
    "gla": lambda layer: (
        maps("q k v gate out narrow forget", SMALL)
        | maps("norm", ONE)
        | {"forget.bias": of(lambda bias: bias.sigmoid() ** (1 / 16), exactly(2 ** (-1 / 16)))}
    ),
    "gru": lambda layer: {f"gru.{part}_{way}_l0": within(WIDE) for part in ("weight", "bias") for way in ("ih", "hh")},
    "hgrn": lambda layer: (
        maps("i f g out", SMALL, ZERO) | maps("norm", ONE, ZERO) | floors(layer) | {"theta": exactly(10000.0 ** (-2 * torch.arange(D) / D))}
    ),
    "hgrn2": lambda layer: maps("q f v out", SMALL) | maps("norm", ONE) | floors(layer),
    "lru": lambda layer: (
        maps("b", normal((2 * D) ** -0.5))
        | maps("c", normal(D**-0.5))
        | {"d": normal(1), "nu": of(lambda nu: (-2 * nu.exp()).exp(), uniform(0, 1)), "theta": of(torch.exp, uniform(0, 2 * math.pi))}
        | {"gamma": of(lambda gamma: gamma.exp() ** 2 + (-2 * layer.nu.exp()).exp(), ONE)}
    ),
    "lstm": lstm,
    "mamba": lambda layer: (
        maps("up select out", SMALL)
        | maps("conv", within(0.5), within(0.5))
        | maps("dt", within(16**-0.5), STEPS)
        | {"A_log": of(lambda A_log: -A_log.exp(), exactly(-torch.arange(1.0, 17))), "D": ONE}
    ),
    "mamba2": lambda layer: (
        maps("into", within(WIDE))
        | maps("out", within((2 * D) ** -0.5))
        | maps("conv", within(0.5), within(0.5))
        | {"A_log": of(torch.exp, uniform(1, 16)), "dt_bias": STEPS, "D": ONE, "norm": ONE}
    ),
    "mingru": lambda layer: maps("z v", within(WIDE), within(WIDE)) | maps("out", within((2 * D) ** -0.5)),
    "minlstm": lambda layer: maps("f i v", within(WIDE), within(WIDE)) | maps("out", within((2 * D) ** -0.5)),
    "mlstm": mlstm,
    "retnet": lambda layer: (
        maps("q k", within(2**-2.5 * (6 / (2 * D)) ** 0.5))
        | maps("v gate", within(2**-2.5 * (6 / (3 * D)) ** 0.5))
        | maps("out", within(0.5 * (6 / (3 * D)) ** 0.5))
        | maps("norm", ONE)
    ),
    "rglru": rglru,
    "rnn": lambda layer: {f"rnn.{part}_{way}_l0": within(WIDE) for part in ("weight", "bias") for way in ("ih", "hh")},
    "rwkv4": rwkv4,
    "rwkv6": rwkv6,
    "rwkv7": rwkv7,
    "rwkv_channel": lambda layer: maps("k r v", SMALL) | {"mix_k": exactly(rise(layer)), "mix_r": exactly(rise(layer))},
    "slstm": slstm,
    "swiglu": lambda layer: maps("gate up down", SMALL),
    "unitary": lambda layer: maps("skew out", SMALL),
    "window": lambda layer: maps("q k v out", SMALL) | {"out.bias": ZERO},
}


def fresh(kind: str, place: Place) -> Mixer:
    config = mixer(kind).Config()
    return mixer(kind)(D, dataclasses.replace(config, **{name: size for name, size in SIZES.items() if hasattr(config, name)}), place)


@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("kind", sorted(MIXERS))
def test_parameters_start_as_documented(kind, at):
    assert kind in TABLE, (
        f"{kind}: TABLE needs a row with what its reset_parameters says of each parameter, as {{'q.weight': normal(0.02)}}"
    )
    layer = fresh(kind, Place(at, L, at, L))
    found, checks = dict(layer.named_parameters()), TABLE[kind](layer)
    assert found.keys() == checks.keys(), f"{kind}: the row in TABLE and the parameters differ in {sorted(found.keys() ^ checks.keys())}"
    for name, check in checks.items():
        try:
            check(found[name].detach())
        except AssertionError as error:
            raise AssertionError(f"{kind} {name}: {error}") from None


@pytest.mark.parametrize("kind", sorted(MIXERS))
def test_a_fresh_layer_neither_explodes_nor_breaks(kind):
    layer = mixer(kind)(D, mixer(kind).Config(), Place())
    with torch.no_grad():
        y, _ = layer(torch.randn(2, 64, D), layer.init_state(2), Context())
    assert y.isfinite().all()
    assert y.square().mean().sqrt() < 30
