"""The unitary recurrent network of Bernardy and Lappin 2022 (arXiv:2208.05719) in NumPy, one head of one row.

The exponential goes by eigenvectors: for skew-symmetric S the matrix i S is Hermitian, with real eigenvalues.
"""

import numpy as np


def exponential(S):
    turns, axes = np.linalg.eigh(1j * S)
    return ((axes * np.exp(-1j * turns)) @ axes.conj().T).real


def states(embeddings, h):
    """embeddings (T, n (n - 1) / 2), each token's entries below the diagonal; h (n,). Returns all states (T, n)."""
    hs = []
    for entries in embeddings:
        S, left = np.zeros((len(h), len(h))), list(entries)
        for i in range(len(h)):
            for j in range(i):
                S[i, j] = left.pop(0)
                S[j, i] = -S[i, j]
        h = exponential(S) @ h
        hs.append(h)
    return np.array(hs)
