"""Log-probabilities of many short texts, a beginning that several of them share computed once.

Texts are sorted, so that those with a common beginning are neighbours, and a group of neighbours is cut at the same depths into levels.
The rows of a level are the group's distinct beginnings up to its end, each going on from the state of the row it extends. A level from
depth a to depth b has

    rows(a, b) = the texts longer than a that differ from their neighbour within the first b tokens

and costs as much as rows(a, b) * (b - a + c) + PASS tokens, where c is what taking over a state costs. The cuts that cost least are
found by dynamic programming; most texts that share nothing are one level, as if each were scored by itself. All levels go through a
layer before the next layer begins, so that no more than one layer's states are held, and those few stay near the processor.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ritornello.mixers.base import Context
from ritornello.model import LM, normed
from ritornello.state import nbytes
from ritornello.state import rows as select

GROUP_BYTES = 2**26  # of one layer's states in one level
PASS = 64  # tokens that take as long as a pass through the model of however few
NODES = 512  # whose logits are held at once
TAKING_OVER = 24  # multiplications by a weight that take as long as reading and writing a byte of state anew


class Level(NamedTuple):
    tokens: Tensor  # (rows, tokens)
    parents: Tensor  # (rows,) whose state each goes on from: rows of the level before, of the first the fresh state


def shared_log_prob(model: LM, texts: Sequence[list[int]], first: Sequence[int], tokens: int) -> Iterator[tuple[list[int], Tensor]]:
    """Group after group: the indices of its texts, and their sums of log p of the tokens from `first` on, (group,) float64.

    A pass takes about `tokens` tokens, fewer where the state is large.
    """
    fresh = model.init_state(1)
    worth = TAKING_OVER * nbytes(fresh) / sum(weight.numel() for weight in model.parameters())
    most = max(1, GROUP_BYTES // max(1, *map(nbytes, fresh)))
    left = sorted(range(len(texts)), key=lambda index: texts[index][:-1])
    while left:
        room = list(accumulate(len(texts[index]) for index in left[:most]))
        count = max(1, sum(size <= tokens for size in room))
        group, left = left[:count], left[count:]
        yield group, _group(model, fresh, [texts[index] for index in group], [first[index] for index in group], worth, tokens)


def _group(model: LM, fresh: tuple, texts: list[list[int]], first: list[int], worth: float, tokens: int) -> Tensor:
    """Sums of the texts of one group, whose inputs are sorted; `fresh` is a state of one row."""
    device = model.head.weight.device
    padded = pad_sequence([torch.tensor(text) for text in texts], batch_first=True, padding_value=-1)
    sizes = torch.tensor([len(text) - 1 for text in texts])  # inputs: the last token is only predicted
    inputs = padded[:, :-1].where(torch.arange(padded.shape[1] - 1) < sizes[:, None], -1)
    common = F.pad((inputs[1:] == inputs[:-1]).cumprod(1).sum(1), (1, 0))  # with the neighbour before; equal inputs: to the end
    begin, row = torch.tensor(first), torch.zeros(len(texts), dtype=torch.int64)
    levels, asked = [], []
    for a, b in pairwise(cuts(sizes, common, worth, tokens)):
        live = sizes > a
        new = live & (common < b)
        levels.append(Level(inputs[new, a:b].clamp_min(0).to(device), row[new].to(device)))
        row = new.cumsum(0) - 1
        at = torch.arange(a, b)
        text, step = ((at < sizes[:, None]) & (at + 1 >= begin[:, None]) & live[:, None]).nonzero().unbind(1)
        asked.append((text, row[text] * (b - a) + step, padded[text, a + step + 1]))
    sums = torch.zeros(len(texts), dtype=torch.float64)
    for features, (text, nodes, targets) in zip(_features(model, fresh, levels), asked, strict=True):
        if len(text):
            sums.index_add_(0, text, _log_p(model, features.flatten(0, 1), nodes, targets))
    return sums


def _features(model: LM, fresh: tuple, levels: Sequence[Level]) -> list[Tensor]:
    """Normed features (rows, tokens, D) of each level."""
    contexts = [Context(impl=model.impl) for _ in levels]
    outputs = [[model.embed(level.tokens)] for level in levels]
    for block, state in zip(model.blocks, fresh, strict=True):
        for place, (level, below, context) in enumerate(zip(levels, outputs, contexts, strict=True)):
            x, state = block(below, select(state, level.parents), context)
            outputs[place] = [*below, x] if model.config.wiring == "dense" else [x]
    return [normed(model.norm, below[-1], context) for below, context in zip(outputs, contexts, strict=True)]


def cuts(sizes: Tensor, common: Tensor, worth: float, longest: int) -> list[int]:
    """The depths, from 0 to the longest text's, between which levels cost least; see the top of the file. None is longer than `longest`."""
    whole = int(sizes.max())
    ends = torch.cat([sizes, common, torch.arange(0, whole + 1, longest)]).clamp_max(whole).unique()
    depths = ends.tolist()
    rows = (sizes > ends[:, None]).double() @ (common[:, None] < ends).double()  # (from, to)
    lengths = ends - ends[:, None]
    costs = (rows * (lengths + worth) + PASS).where(lengths <= longest, torch.inf)
    best, back = torch.zeros(len(depths), dtype=torch.float64), [0] * len(depths)
    for end in range(1, len(depths)):
        cost, place = (best[:end] + costs[:end, end]).min(0)
        best[end], back[end] = cost, int(place)
    found = [len(depths) - 1]
    while found[-1]:
        found.append(back[found[-1]])
    return [depths[place] for place in reversed(found)]


def _log_p(model: LM, features: Tensor, nodes: Tensor, targets: Tensor) -> Tensor:
    """log p of each target (N,) after the features (nodes, D) of its node (N,), float64 on the CPU; each node's logits made once."""
    order = nodes.argsort(stable=True)
    used, place = nodes[order].unique_consecutive(return_inverse=True)
    found = torch.empty(len(nodes), dtype=torch.float64)
    bounds = torch.searchsorted(place, torch.arange(0, len(used) + NODES, NODES).clamp_max(len(used))).tolist()
    for chosen, (low, high) in zip(used.split(NODES), pairwise(bounds), strict=True):
        logits = model.logits(features[chosen.to(features.device)])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        here = (place[low:high] - place[low]).to(logits.device)
        picked = logits[here, targets[order[low:high]].to(logits.device)]
        found[order[low:high]] = (picked - logits.logsumexp(-1)[here]).double().cpu()
    return found
