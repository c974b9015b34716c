"""RWKV-7's time mixing, section 4.1 of Peng et al. 2025 (arXiv:2503.14456), in NumPy: one row, one token after another.

As in the paper vectors are rows and a head's state is (V, K), so what is read of it is r S^T.
"""

import numpy as np


def sigma(a):
    return 1 / (1 + np.exp(-a))


def time_mix(w, xs, before, states, firsts, heads, eps=64e-5):
    """One layer. xs (T, D), the input before them, a state (V, K) for each head, the first layer's values (T, D) or None in that layer.

    Returns the outputs (T, D), the states, and the values of all tokens before any is mixed in.
    """
    outputs, values = [], []
    for t, x in enumerate(xs):
        mixed = [x * (1 - mu) + before * mu for mu in w["mix"]]
        before = x
        receptance = mixed[0] @ w["r.weight"].T
        decay = np.exp(-np.exp(-0.5) * sigma(np.tanh(mixed[1] @ w["w.down.weight"].T) @ w["w.up.weight"].T + w["w.up.bias"]))
        key = mixed[2] @ w["k.weight"].T
        value = mixed[3] @ w["v.weight"].T
        values.append(value)
        if firsts is not None:
            share = sigma(mixed[3] @ w["towards_first.down.weight"].T @ w["towards_first.up.weight"].T + w["towards_first.up.bias"])
            value = (1 - share) * value + share * firsts[t]
        rate = sigma(mixed[4] @ w["a.down.weight"].T @ w["a.up.weight"].T + w["a.up.bias"])
        gate = sigma(mixed[5] @ w["g.down.weight"].T) @ w["g.up.weight"].T

        removal = key * w["kappa"]
        replacement = key * (1 - w["alpha"] + rate * w["alpha"])
        read = []
        for h, part in enumerate(np.split(np.arange(len(x)), heads)):
            kappa = removal[part] / np.sqrt((removal[part] ** 2).sum())
            transition = np.diag(decay[part]) - np.outer(kappa, rate[part] * kappa)
            states[h] = states[h] @ transition + np.outer(value[part], replacement[part])
            found = receptance[part] @ states[h].T
            found = (found - found.mean()) / np.sqrt(found.var() + eps) * w["norm.weight"][part] + w["norm.bias"][part]
            read.append(found + (receptance[part] * w["bonus"][h] * replacement[part]).sum() * value[part])
        outputs.append((gate * np.concatenate(read)) @ w["out.weight"].T)
    return np.array(outputs), states, np.array(values)
