"""RWKV-5 (Eagle) told a second time, token by token and head by head in NumPy, from Peng et al. 2024, arXiv:2404.05892, section 4.1."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def rwkv5(p: dict[str, Array]) -> tuple[Array, Array]:
    """Parameters, x (B, T, D), S (B, H, K, K) and last (B, D), all in `p`, to y (B, T, D) and the last S.

    lerp_j(a, b) = a + (b - a) mu_j;  wkv = diag(u) k' v + S;  S <- diag(w) S + k' v;  o = concat(SiLU(g) LayerNorm(r wkv)) Wo
    """
    B, T, _ = p["x"].shape
    _, H, K, _ = p["S"].shape
    w = np.exp(-np.exp(p["decay"]))
    outputs, ends = np.zeros_like(p["x"]), np.zeros_like(p["S"])
    for row in range(B):
        S, before = [np.array(head) for head in p["S"][row]], p["last"][row]
        for t in range(T):
            x = p["x"][row, t]
            r, k, v, g = (p[f"{name}.weight"] @ (x + (before - x) * mu) for name, mu in zip("rkvg", p["mix"], strict=True))
            joined = []
            for h in range(H):
                own = slice(h * K, (h + 1) * K)
                write = np.outer(k[own], v[own])
                o = r[own] @ (np.diag(p["bonus"][h]) @ write + S[h])
                S[h] = np.diag(w[own]) @ S[h] + write
                joined.append((o - o.mean()) / np.sqrt(o.var() + 64e-5))
            normed = np.concatenate(joined) * p["norm.weight"] + p["norm.bias"]
            outputs[row, t] = p["out.weight"] @ (g / (1 + np.exp(-g)) * normed)
            before = x
        ends[row] = S
    return outputs, ends
