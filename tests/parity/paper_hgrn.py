"""HGRN as in section 3 of Qin et al. 2023 (arXiv:2311.04823), complex, two layers with their lower bounds, one number at a time."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def swish(x):
    return x * sigmoid(x)


def layer(w, x, h, bound):
    """x (B, T, D), h (B, D) complex, bound (D,) to the outputs and the last h. w(name) is a weight, (out, in)."""
    affine = lambda name: x @ w(f"{name}.weight").T + w(f"{name}.bias")
    B, T, D = x.shape
    parts = swish(affine("i")).reshape(B, T, D, 2)
    c = parts[..., 0] + 1j * parts[..., 1]
    decay = bound + (1 - bound) * sigmoid(affine("f"))
    seen = np.zeros((B, T, D, 2))
    h = h.copy()
    for b in range(B):
        for t in range(T):
            for d in range(D):
                h[b, d] = decay[b, t, d] * np.exp(1j * w("theta")[d]) * h[b, d] + (1 - decay[b, t, d]) * c[b, t, d]
                seen[b, t, d] = h[b, d].real, h[b, d].imag
    seen = seen.reshape(B, T, 2 * D)
    centred = seen - seen.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w("norm.weight") + w("norm.bias")
    return (normed * swish(affine("g"))) @ w("out.weight").T + w("out.bias"), h


def hgrn(w):
    """Both layers: x (B, T, D) and each layer's state h (B, D, 2) in, the outputs and the last states out."""
    share = np.exp(w["0.rise"]) / np.exp(w["0.rise"]).sum(0)
    x, ends = w["x"], {}
    for nth in (0, 1):
        start = w[f"{nth}.h"][..., 0] + 1j * w[f"{nth}.h"][..., 1]
        bound = share[1 : nth + 1].sum(0)
        x, h = layer(lambda name, nth=nth: w[f"{nth}.{name}"], x, start, bound)
        ends[f"{nth}.end"] = np.stack([h.real, h.imag], -1)
    return {"y": x, **ends}
