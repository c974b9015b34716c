"""The block-diagonal linear RNN of Fan, Chi and Rudnicky 2023 (arXiv:2309.07412), section 3, in NumPy: one row.

Its transition has blocks of columns v made of the input, each block divided by its longest column's p-norm where that exceeds 1.
"""

import numpy as np


def states(w, xs, h, block, p):
    """xs (T, D), the hidden state h (D,). Returns all hidden states (T, D)."""
    hs = []
    for x in xs:
        whole, entries = np.zeros((len(h), len(h))), w["transition.weight"] @ x + w["transition.bias"]
        for at in range(0, len(h), block):
            columns = [[entries[(at + i) * block + j] for i in range(block)] for j in range(block)]
            longest = max(sum(abs(entry) ** p for entry in column) ** (1 / p) for column in columns)
            for j, column in enumerate(columns):
                whole[at : at + block, at + j] = np.array(column) / max(1, longest)
        h = whole @ h + w["write.weight"] @ x
        hs.append(h)
    return np.array(hs)
