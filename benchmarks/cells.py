"""The cells' kernels against what else computes the same, forward and backward: S15.

    python -m benchmarks.cells [--rounds 7] [--keep] [--only slstm]

sLSTM against its Python loop, the whole mixer and the cell alone; the GRU mixer against torch.nn.GRU with the same weights. Before anything
is timed, outputs and gradients are compared with the float64 loop.
"""

import argparse
import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.common import Part, Row, Work, errors, gradients, main, medians, ratio
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.mixers.cell import over_time
from ritornello.mixers.gru import GRU
from ritornello.mixers.slstm import SLSTM, step
from ritornello.ops import native_cells

WIDTH = 256


def of_mixer(mixer: Mixer, x: Tensor, impl: str) -> Work:
    x = x.clone().requires_grad_()
    return gradients(lambda: mixer(x, mixer.init_state(len(x)), Context(impl=impl))[0], [x, *mixer.parameters()])


def checked(works: dict[str, Work], truth: Work) -> dict[str, Work]:
    """As they are, once all are found to compute the same."""
    wanted = truth()
    found = {name: max(errors(each(), wanted)) for name, each in works.items()}
    assert max(found.values()) < 5e-6, found
    return works


def slstm_rows(B: int, T: int, rounds: int) -> Iterator[Row]:
    torch.manual_seed(0)
    mixer, x = SLSTM(WIDTH, SLSTM.Config(), Place()), torch.randn(B, T, WIDTH)
    with torch.no_grad():
        mixer.r.normal_(std=mixer.head_dim**-0.5)
    whole = {"native": of_mixer(mixer, x, "auto"), "loop": of_mixer(mixer, x, "loop")}
    checked(whole, of_mixer(copy.deepcopy(mixer).double(), x.double(), "loop"))

    def cell(impl: str, dtype: torch.dtype = torch.float32) -> Work:
        u = torch.randn(B, T, 4, 4, WIDTH // 4, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
        r = mixer.r.detach().permute(1, 2, 0, 3).flatten(2).to(dtype).requires_grad_()
        memory = tuple(leaf.to(dtype) for leaf in mixer.init_state(B)[1:])
        if impl == "native":
            return gradients(lambda: native_cells.slstm(u, r, *memory, None)[0], [u, r])
        return gradients(lambda: over_time(lambda u, memory: step(r, u, memory), u, memory, memory, None)[0], [u, r])

    alone = checked({"native": cell("native"), "loop": cell("loop")}, cell("loop", torch.float64))
    for row, what, works in (("S15", "mixer", whole), ("S15 cell", "cell alone", alone)):
        times = medians(works, rounds)
        yield ratio(row, f"sLSTM {what}, B={B} T={T} width {WIDTH}, 4 heads", "loop", times, mixer="sLSTM", B=B)


def gru_rows(B: int, T: int, rounds: int) -> Iterator[Row]:
    torch.manual_seed(0)
    mixer, x = GRU(WIDTH, GRU.Config(), Place()), torch.randn(B, T, WIDTH)
    theirs = nn.GRU(WIDTH, WIDTH, batch_first=True)
    theirs.load_state_dict(mixer.gru.state_dict())
    theirs_x = x.clone().requires_grad_()
    works = {
        "native": of_mixer(mixer, x, "auto"),
        "nn.GRU": gradients(lambda: theirs(theirs_x)[0], [theirs_x, *theirs.parameters()]),
    }
    times = medians(checked(works, of_mixer(copy.deepcopy(mixer).double(), x.double(), "loop")), rounds)
    yield ratio("S15", f"GRU, B={B} T={T} width {WIDTH}", "nn.GRU", times, mixer="GRU", B=B)


def each_batch(rows: Callable[[int, int, int], Iterator[Row]]) -> Part:
    def part(options: argparse.Namespace) -> Iterator[Row]:
        for B in (1, 2) if options.quick else (1, 8, 32):
            yield from rows(B, 32 if options.quick else 512, options.rounds)

    return part


PARTS = {"slstm": each_batch(slstm_rows), "gru": each_batch(gru_rows)}

main(__name__, __doc__, PARTS)
