"""LSTM and its eight variants, from the equations of Greff et al. 2015 (arXiv:1503.04069), sections 2 and 3, in NumPy.

Of the paper: W are input weights, R recurrent ones, p peepholes, b biases; z is the block input, y the block output. `without` names
what a variant leaves out or changes, in the paper's abbreviations: NIG, NFG, NOG, NIAF, NOAF, NP, CIFG, FGR (nothing: vanilla).
"""

import numpy as np

GATES = "ifo"
CHANGES = ("", "NIG", "NFG", "NOG", "NIAF", "NOAF", "NP", "CIFG", "FGR")


def sigma(a):
    return 1 / (1 + np.exp(-a))


def weights(change, inputs, blocks, outputs, seed=0):
    """Random arrays by the paper's names; `outputs` < blocks has a projection P as well."""
    random = np.random.default_rng(seed)
    gates = [gate for gate in GATES if gate not in {"NIG": "i", "NFG": "f", "NOG": "o", "CIFG": "f"}.get(change, "")]
    w = {}
    for part in ["z", *gates]:
        w[f"W_{part}"] = random.normal(size=(blocks, inputs)) * 0.4
        w[f"R_{part}"] = random.normal(size=(blocks, outputs)) * 0.4
        w[f"b_{part}"] = random.normal(size=blocks)
    if change != "NP":
        w |= {f"p_{gate}": random.normal(size=blocks) for gate in gates}
    if change == "FGR":
        w |= {f"R_{source}{gate}": random.normal(size=(blocks, blocks)) * 0.4 for source in gates for gate in gates}
    if outputs < blocks:
        w["P"] = random.normal(size=(outputs, blocks)) * 0.4
    return w


def block(change, w, xs, y, c, before=None):
    """One row: xs (T, inputs), the state y (outputs,), c (blocks,) and with FGR the last gates i, f, o. Returns ys, y, c, gates."""
    gates = before or {}
    ys = []
    for x in xs:

        def gate(name, cell, x=x, y=y, last=gates):
            if f"W_{name}" not in w:
                return np.ones_like(cell)
            a = w[f"W_{name}"] @ x + w[f"R_{name}"] @ y + w[f"b_{name}"]
            if change != "NP":
                a = a + w[f"p_{name}"] * cell
            if change == "FGR":
                a = a + sum(w[f"R_{source}{name}"] @ last[source] for source in GATES)
            return sigma(a)

        z = w["W_z"] @ x + w["R_z"] @ y + w["b_z"]
        z = z if change == "NIAF" else np.tanh(z)
        i = gate("i", c)
        f = 1 - i if change == "CIFG" else gate("f", c)
        c = z * i + c * f
        o = gate("o", c)
        y = (c if change == "NOAF" else np.tanh(c)) * o
        if "P" in w:
            y = w["P"] @ y
        gates = {"i": i, "f": f, "o": o}
        ys.append(y)
    return np.array(ys), y, c, gates
