"""LRU as in appendix A of Orvieto et al. 2023 (arXiv:2303.06349), with NumPy's complex numbers."""

import numpy as np


def matrices(w):
    """lambda (N,), B with its normalisation (N, D) and C (D, N), complex. Without a normalisation, or with "plain" set, section 3's."""
    eigenvalues = w["nu"] + 1j * w["theta"] if w.get("plain") else np.exp(-np.exp(w["nu"]) + 1j * np.exp(w["theta"]))
    B = (w["b.weight"][0::2] + 1j * w["b.weight"][1::2]) * np.exp(w.get("gamma", 0 * w["nu"]))[:, None]
    C = w["c.weight"][:, 0::2] - 1j * w["c.weight"][:, 1::2]
    return eigenvalues, B, C


def lru(w):
    """x (B, T, D), h (B, N, 2) and the weights by name, to the outputs and the last h."""
    eigenvalues, B, C = matrices(w)
    outputs, ends = [], []
    for row, start in zip(w["x"], w["h"], strict=True):
        h, ys = start[:, 0] + 1j * start[:, 1], []
        for u in row:
            h = eigenvalues * h + B @ u
            ys.append((C @ h).real + w["d"] * u)
        outputs.append(ys)
        ends.append(np.stack([h.real, h.imag], -1))
    return {"y": np.array(outputs), "end": np.array(ends)}


def convolved(w):
    """The same from a state of zero by Fourier transforms: y is x convolved with Re(C lambda^t B), d x added."""
    eigenvalues, B, C = matrices(w)
    _, T, _ = w["x"].shape
    kernel = np.stack([(C @ (eigenvalues[:, None] ** t * B)).real for t in range(T)])  # (T, D, D)
    spectrum = np.einsum("foi,bfi->bfo", np.fft.rfft(kernel, 2 * T, axis=0), np.fft.rfft(w["x"], 2 * T, axis=1))
    return np.fft.irfft(spectrum, 2 * T, axis=1)[:, :T] + w["d"] * w["x"]
