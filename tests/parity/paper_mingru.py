"""minGRU as in appendix B of Feng et al. 2024 (arXiv:2410.01201): everything in logarithms, one token after the other."""

import numpy as np


def softplus(x):
    return np.logaddexp(0, x)


def log_g(x):
    return np.where(x >= 0, np.log(np.maximum(x, 0) + 0.5), -softplus(-x))


def recur(log_a, log_b, h):
    """h_t = a_t h_{t-1} + b_t of positive numbers, (B, T, N) and (B, N)."""
    hidden, log_h = [], np.log(h)
    for t in range(log_a.shape[1]):
        log_h = np.logaddexp(log_a[:, t] + log_h, log_b[:, t])
        hidden.append(np.exp(log_h))
    return np.stack(hidden, 1)


def mingru(w):
    """x (B, T, D), h (B, N) above zero and the weights by name, to the outputs and the last hidden state."""
    k = w["x"] @ w["z.weight"].T + w["z.bias"]
    v = w["x"] @ w["v.weight"].T + w["v.bias"]
    hidden = recur(-softplus(k), -softplus(-k) + log_g(v), w["h"])
    return {"y": hidden @ w["out.weight"].T, "end": hidden[:, -1]}
