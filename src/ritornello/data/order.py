"""Curricula: an order of documents for the first pass over them, easy ones first; later passes are mixed as ever.

random            mixed, as in every later pass
corpus            as they stand in the corpus: source after source, for what `ritornello data build` made in the plan's order
length            short documents first
surprisal         those first that a trigram model fitted on the other half of the documents foresees best, per token
surprisal:RUN     those first that another run's model foresees best, per byte of their beginnings; the plan adds "#" and its checksum

A batch has several rows, each of which reads a stretch of its own. So that all of them stand at the same point of the order, documents
are dealt out: each in turn to the row that has the fewest tokens so far, and within a row they keep their order.

Easy first: Elman 1993, "Learning and development in neural networks"; Bengio et al. 2009, "Curriculum learning". By length and rarity:
Platanios et al. 2019, arXiv:1903.09848. In the BabyLM challenge such orders rarely helped: Warstadt et al. 2023, arXiv:2504.08165.
"""

import heapq

import numpy as np

from ritornello.errors import InputError, unknown

ORDERS = ("random", "corpus", "length", "surprisal")
BY_RUN = "surprisal:"


def check_order(kind: str) -> None:
    """InputError for an order that there is not."""
    if kind not in ORDERS and not (kind.startswith(BY_RUN) and kind != BY_RUN):
        raise InputError(f"train.order: {unknown('order', kind, [*ORDERS, BY_RUN + 'RUN'])}")


def easy_first(difficulty: np.ndarray) -> np.ndarray:
    """Documents (n,) int64 by rising difficulty (n,), equal ones as they stand."""
    return np.argsort(difficulty, kind="stable").astype(np.int64)


def dealt(order: np.ndarray, sizes: np.ndarray, rows: int) -> np.ndarray:
    """The order (n,) int64 whose `rows` equal stretches each go through `order` from its beginning to its end.

    `sizes` (n,) are tokens by document. A stretch begins and ends where its documents do, to within a few of them.
    """
    heap = [(0, row) for row in range(rows)]
    row_of = np.empty(len(order), np.int64)
    for place, size in enumerate(sizes[order].tolist()):
        load, row = heapq.heappop(heap)
        row_of[place] = row
        heapq.heappush(heap, (load + size, row))
    return order[np.argsort(row_of, kind="stable")]
