"""How well held-out text is predicted: bits per byte and perplexity a token, with standard errors.

    bits per byte = sum of nats / ln 2 / sum of UTF-8 bytes          perplexity = exp(sum of nats / number of tokens)

The end of a document is predicted too: its nats count, its bytes are zero. Bits per byte need no vocabulary, so models with
different tokenizers can be compared by them; perplexities a token cannot.

Both are ratios r = sum y / sum x over clusters of tokens that hang together: documents, or blocks of 256 tokens when there are fewer
than 20 documents. With k clusters, by the delta method (Cochran 1977, Sampling Techniques, 6.4),

    se(r)^2 = k / (k - 1) * sum (y_i - r x_i)^2 / (sum x)^2          se(exp m) = exp(m) se(m)
"""

import math

import torch
from torch import Tensor

from ritornello.errors import InputError
from ritornello.evals.report import Row
from ritornello.evals.scoring import Array

LEAST_DOCUMENTS = 20
BLOCK = 256


def held_out(nats: Array, documents: Array, nbytes: Array, *, suite: str = "held-out", by: str = "model") -> tuple[Row, ...]:
    """Bits per byte and perplexity of text scored token by token, by a neural model or any other.

    `nats` (N,) -log p of each target in document order; `documents` (N,) the index of its document; `nbytes` (N,) the UTF-8 bytes
    behind it, 0 for the end of a document (a tokenizer that loses text: scaled so that the sum is the text's own bytes).
    A row's n is the number of tokens.
    """
    nats, clusters, nbytes = _checked(nats, documents, nbytes)
    bits = _ratio_row(nats / math.log(2), nbytes, clusters, suite, "bits per byte", by)
    mean = _ratio_row(nats, torch.ones_like(nats), clusters, suite, "perplexity", by)
    if mean.value is None:
        return bits, mean
    if mean.value > 700:
        return bits, Row(suite, "all", "perplexity", None, n=mean.n, by=by, reason="too large for a float64")
    value = math.exp(mean.value)
    return bits, Row(suite, "all", "perplexity", value, None if mean.stderr is None else value * mean.stderr, mean.n, by=by)


def difference(
    nats: Array, baseline: Array, documents: Array, nbytes: Array, *, than: str, suite: str = "held-out", by: str = "model"
) -> Row:
    """Bits per byte of `nats` minus those of `baseline` on the same tokens; below zero the first predicts better.

    The standard error is that of the paired difference, far smaller than either's own. Shapes as for `held_out`.
    """
    if baseline.shape != nats.shape:
        raise InputError(f"difference: {len(nats)} tokens against {len(baseline)}; both must score the same tokens in the same order")
    ours, clusters, nbytes = _checked(nats, documents, nbytes)
    bits = (ours - torch.as_tensor(baseline).double().cpu()) / math.log(2)
    return _ratio_row(bits, nbytes, clusters, suite, f"bits per byte minus {than}", by)


def _checked(nats: Array, documents: Array, nbytes: Array) -> tuple[Tensor, Tensor, Tensor]:
    """Nats and bytes in float64, and the cluster (N,) of each token."""
    nats, documents, nbytes = (torch.as_tensor(part).cpu() for part in (nats, documents, nbytes))
    if not nats.shape == documents.shape == nbytes.shape or nats.dim() != 1 or not len(nats):
        raise InputError(f"held-out: nats, documents and bytes must be equally long lists, found {[*map(len, (nats, documents, nbytes))]}")
    found, clusters = documents.unique(return_inverse=True)
    if len(found) < LEAST_DOCUMENTS:
        clusters = torch.arange(len(nats)) // BLOCK
    return nats.double(), clusters, nbytes.double()


def _ratio_row(y: Tensor, x: Tensor, clusters: Tensor, suite: str, metric: str, by: str) -> Row:
    """sum y / sum x with its standard error over clusters; no standard error from a single one."""
    lost = int((~y.isfinite()).sum())
    if lost:
        return Row(suite, "all", metric, None, n=len(y), by=by, reason=f"{lost} of {len(y)} tokens have no finite score")
    if not x.sum():
        return Row(suite, "all", metric, None, n=len(y), by=by, reason="the text holds no bytes")
    k = int(clusters.max()) + 1
    above, below = (torch.zeros(k, dtype=torch.float64).index_add_(0, clusters, part) for part in (y, x))
    ratio = above.sum() / below.sum()
    stderr = float((k / (k - 1) * (above - ratio * below).square().sum()).sqrt() / below.sum()) if k > 1 else None
    return Row(suite, "all", metric, float(ratio), stderr, len(y), by=by)
