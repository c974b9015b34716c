"""Aaren by the recurrence of section 3.1 of Feng et al. 2024 (arXiv:2405.13956), and by the softmax that it is to equal.

m_k = max(m_{k-1}, s_k)        s_k = <q, k_k>, here over sqrt(d)
a_k = a_{k-1} exp(m_{k-1} - m_k) + v_k exp(s_k - m_k)
c_k = c_{k-1} exp(m_{k-1} - m_k) + exp(s_k - m_k)        o_k = a_k / c_k
"""

import numpy as np


def aaren(w):
    """x (B, T, D), the state a (B, H, d), c and m (B, H, 1), and the weights by name, to the outputs and the last a, c, m."""
    (heads, d), outputs = w["q"].shape, np.zeros_like(w["x"])
    a, c, m = (w[name].copy() for name in ("a", "c", "m"))
    for b, h in np.ndindex(len(w["x"]), heads):
        own = slice(h * d, h * d + d)
        for t, token in enumerate(w["x"][b]):
            key, value = w["k.weight"][own] @ token, w["v.weight"][own] @ token
            score = w["q"][h] @ key / np.sqrt(d)
            largest = max(m[b, h, 0], score)
            a[b, h] = a[b, h] * np.exp(m[b, h] - largest) + value * np.exp(score - largest)
            c[b, h] = c[b, h] * np.exp(m[b, h] - largest) + np.exp(score - largest)
            m[b, h] = largest
            outputs[b, t] += w["out.weight"][:, own] @ (a[b, h] / c[b, h])
    return {"y": outputs, "a": a, "c": c, "m": m}


def attention(w):
    """The outputs from a fresh state: softmax attention under a causal mask, the same query at every position."""
    (heads, d), (_, T, _) = w["q"].shape, w["x"].shape
    later = np.triu(np.ones((T, T), dtype=bool), 1)
    mixed = []
    for h in range(heads):
        own = slice(h * d, h * d + d)
        scores = np.where(later, -np.inf, (w["x"] @ w["k.weight"][own].T @ w["q"][h] / np.sqrt(d))[:, None])  # (B, T, past)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed.append(weights @ (w["x"] @ w["v.weight"][own].T) / weights.sum(-1, keepdims=True))
    return np.concatenate(mixed, -1) @ w["out.weight"].T
