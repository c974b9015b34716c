"""Softmax attention as a recurrence: a weighted mean of all values so far, its weights exp(logit), one number for the sum of each.

    num_t = e^-w num_{t-1} + e^{s_t} v_t      den_t = e^-w den_{t-1} + e^{s_t}      y_t = num_t / den_t

w >= 0 makes old tokens fade (absent: none does). With a bonus u a token is read with e^{u + s_t} in place of e^{s_t}, before it is
stored, and the past as it was:

    y_t = (num_{t-1} + e^{u + s_t} v_t) / (den_{t-1} + e^{u + s_t})

Sums are kept divided by e^m, m_t = max(m_{t-1} - w, s_t) being the largest logit as it has faded, so no logit overflows and den >= 1.

`chunk` finds every m by doubling (the maximum over 1, 2, 4, ... tokens), after which the sums are two runs of `scan`. y depends on no
m, which therefore needs no gradient there; the sums that are handed on do, and are put into units of a last m that has one.

Source: Feng et al. 2024, arXiv:2405.13956 (Aaren: neither w nor u); Peng et al. 2023, arXiv:2305.13048 (RWKV-4: both).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ritornello.ops import scan
from ritornello.ops.op import Implementation, Op, native

NONE = -1e30  # the largest logit where there was none


class State(NamedTuple):
    m: Tensor  # (B, *S) float32, the largest faded logit, -1e30 before the first
    num: Tensor  # (B, *V) float32, in units of e^m
    den: Tensor  # (B, *S) float32, in units of e^m


def loop(s: Tensor, v: Tensor, w: Tensor | None, u: Tensor | None, state: State, reset: Tensor | None) -> tuple[Tensor, State]:
    """The definition. s: (B, T, *S) logits; v: (B, T, *V), S having ones where a logit is for many values; w, u: S or fewer axes, or None;
    reset: (B, T) bool. Returns y (B, T, *V) and the state.
    """
    m, num, den = state
    outputs = []
    resets = scan.like(reset, s).unbind(1) if reset is not None else [None] * s.shape[1]
    for s_t, v_t, reset_t in zip(s.unbind(1), v.unbind(1), resets, strict=True):
        if reset_t is not None:
            m, num, den = torch.where(reset_t, NONE, m), torch.where(reset_t, 0, num), torch.where(reset_t, 0, den)
        if u is not None:
            outputs.append(_bonus(s_t, v_t, u, m, num, den))
        faded = m if w is None else m - w
        m = torch.maximum(faded, s_t)
        keep, write = torch.exp(faded - m), torch.exp(s_t - m)
        num, den = keep * num + write * v_t, keep * den + write
        if u is None:
            outputs.append(num / den)
    return torch.stack(outputs, 1) if outputs else v, State(m, num, den)


def chunk(s: Tensor, v: Tensor, w: Tensor | None, u: Tensor | None, state: State, reset: Tensor | None) -> tuple[Tensor, State]:
    """The same by two scans; see the top of the file."""
    if s.shape[1] == 0:
        return v, state
    m = _maxima(s, w, state.m, reset)
    m_before = torch.cat([state.m[:, None], m[:, :-1]], 1)
    if reset is not None:
        m_before = torch.where(scan.like(reset, s), NONE, m_before)
    faded = m_before if w is None else m_before - w
    keep, write = torch.exp(faded - m), torch.exp(s - m)
    num, end_num = scan.chunk(keep, write * v, state.num, reset)
    den, end_den = scan.chunk(keep, write, state.den, reset)
    last = _last(s, w, state.m, reset)
    units = torch.exp(m[:, -1] - last)  # 1, with a gradient
    end = State(last, units * end_num, units * end_den)
    if u is None:
        return num / den, end
    before = (torch.cat([first[:, None], each[:, :-1]], 1) for first, each in ((state.num, num), (state.den, den)))
    num, den = before if reset is None else (torch.where(scan.like(reset, each), 0, each) for each in before)
    return _bonus(s, v, u, m_before, num, den), end


def _bonus(s: Tensor, v: Tensor, u: Tensor, m: Tensor, num: Tensor, den: Tensor) -> Tensor:
    """The mean over the past and, with logit u + s, the token itself."""
    top = torch.maximum(m, u + s).detach()
    past, own = torch.exp(m - top), torch.exp(u + s - top)
    return (past * num + own * v) / (past * den + own)


@torch.no_grad()
def _maxima(s: Tensor, w: Tensor | None, m: Tensor, reset: Tensor | None) -> Tensor:
    """m after every token, (B, T, *S)."""
    maxima, document, reach = torch.cat([m[:, None], s], 1), _documents(s, reset), 1  # reach: tokens that each maximum is of
    while reach < maxima.shape[1]:
        earlier = maxima[:, :-reach] if w is None else maxima[:, :-reach] - reach * w
        if document is not None:
            earlier = torch.where(document[:, reach:] == document[:, :-reach], earlier, NONE)
        maxima = torch.cat([maxima[:, :reach], torch.maximum(maxima[:, reach:], earlier)], 1)
        reach *= 2
    return maxima[:, 1:]


def _last(s: Tensor, w: Tensor | None, m: Tensor, reset: Tensor | None) -> Tensor:
    """m after the last token, (B, *S)."""
    logits, document = torch.cat([m[:, None], s], 1), _documents(s, reset)
    if w is not None:
        age = torch.arange(s.shape[1], -1, -1, device=s.device, dtype=s.dtype)
        logits = logits - age.view(-1, *[1] * (s.dim() - 2)) * w
    return (logits if document is None else torch.where(document == document[:, -1:], logits, NONE)).amax(1)


def _documents(s: Tensor, reset: Tensor | None) -> Tensor | None:
    """Which document the incoming state, 0, and each token belong to, (B, 1 + T, 1, ...)."""
    return None if reset is None else scan.like(torch.nn.functional.pad(reset.cumsum(1), (1, 0)), s)


def _few_steps(s: Tensor, *rest: Tensor | None) -> str | None:
    return f"{s.shape[1]} steps, fewer than two pieces of {scan.CHUNK}" if s.shape[1] < 2 * scan.CHUNK else None


softmax_scan = Op(
    "softmax_scan",
    {"native": native("softmax_scan", "native_scans"), "chunk": Implementation(chunk, _few_steps), "loop": Implementation(loop)},
)
