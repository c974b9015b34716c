"""The cells' kernels against what else computes the same, forward and backward: S15.

    python benchmarks/cells.py [--rounds 7] [--keep] [--only slstm]

sLSTM against its Python loop, the whole mixer and the cell alone; the GRU mixer against torch.nn.GRU with the same weights. One process,
one thread, thread-CPU time, candidates interleaved, medians, after outputs and gradients were compared with the float64 loop. A ratio is
how many times longer the other takes. `--keep` appends a line for each row to docs/results/speed.jsonl.
"""

import argparse
import copy
import json

import torch
from kernels import RESULTS, Work, errors, medians, row
from torch import Tensor, nn

from ritornello.config import to_dict
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.mixers.cell import over_time
from ritornello.mixers.gru import GRU
from ritornello.mixers.slstm import SLSTM, step
from ritornello.ops import native_cells
from ritornello.provenance import collect

T, WIDTH = 512, 256


def work(run, leaves: list[Tensor]) -> Work:
    """Forward and backward of sum(y * w), w fixed and at random, as a sum of alike terms cancels: y and the gradients of the leaves."""

    weight: list[Tensor] = []

    def both() -> list[Tensor]:
        y = run()
        if not weight:
            weight.append(torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y.dtype))
        return [y.detach(), *torch.autograd.grad(y, leaves, weight[0])]

    return both


def of_mixer(mixer: Mixer, x: Tensor, impl: str) -> Work:
    x = x.clone().requires_grad_()
    return work(lambda: mixer(x, mixer.init_state(len(x)), Context(impl=impl))[0], [x, *mixer.parameters()])


def checked(works: dict[str, Work], truth: Work) -> dict[str, Work]:
    """As they are, once all are found to compute the same."""
    wanted = truth()
    found = {name: max(errors(each(), wanted)) for name, each in works.items()}
    assert max(found.values()) < 5e-6, found
    return works


def slstm_rows(B: int, rounds: int) -> list[dict]:
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
            return work(lambda: native_cells.slstm(u, r, *memory, None)[0], [u, r])
        return work(lambda: over_time(lambda u, memory: step(r, u, memory), u, memory, memory, None)[0], [u, r])

    alone = checked({"native": cell("native"), "loop": cell("loop")}, cell("loop", torch.float64))
    rows = []
    for what, works in (("mixer", whole), ("cell alone", alone)):
        times = medians(works, rounds)
        rows.append(row(f"sLSTM {what}, B={B} T={T} width {WIDTH}, 4 heads", "loop", times["loop"] / times["native"], times["native"]))
    return rows


def gru_rows(B: int, rounds: int) -> list[dict]:
    torch.manual_seed(0)
    mixer, x = GRU(WIDTH, GRU.Config(), Place()), torch.randn(B, T, WIDTH)
    theirs = nn.GRU(WIDTH, WIDTH, batch_first=True)
    theirs.load_state_dict(mixer.gru.state_dict())
    theirs_x = x.clone().requires_grad_()
    works = {
        "native": of_mixer(mixer, x, "auto"),
        "nn.GRU": work(lambda: theirs(theirs_x)[0], [theirs_x, *theirs.parameters()]),
    }
    times = medians(checked(works, of_mixer(copy.deepcopy(mixer).double(), x.double(), "loop")), rounds)
    return [row(f"GRU, B={B} T={T} width {WIDTH}", "nn.GRU", times["nn.GRU"] / times["native"], times["native"])]


def main() -> None:
    parser = argparse.ArgumentParser(description="The cells' kernels against what else computes the same.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=("slstm", "gru"))
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    made_by = to_dict(collect())
    for name, part in (("slstm", slstm_rows), ("gru", gru_rows)):
        for B in (1, 8, 32) if options.only in (None, name) else ():
            for line in part(B, options.rounds):
                print(line, flush=True)
                if options.keep:
                    with RESULTS.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line | {"threads": 1, "made_by": made_by}) + "\n")


if __name__ == "__main__":
    main()
