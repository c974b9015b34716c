"""The GRU of Cho et al. 2014 (arXiv:1406.1078), equations 5 to 8, in NumPy: the reset gate acts before the matrix product.

The paper leaves biases out; here every gate has one.
"""

import numpy as np


def sigma(a):
    return 1 / (1 + np.exp(-a))


def unit(w, xs, h):
    """One row: xs (T, inputs), the hidden units h. w: W_r, U_r, b_r, the same with z, and W, U, b. Returns all h (T, units)."""
    hs = []
    for x in xs:
        r = sigma(w["W_r"] @ x + w["U_r"] @ h + w["b_r"])
        z = sigma(w["W_z"] @ x + w["U_z"] @ h + w["b_z"])
        new = np.tanh(w["W"] @ x + w["U"] @ (r * h) + w["b"])
        h = z * h + (1 - z) * new
        hs.append(h)
    return np.array(hs)
