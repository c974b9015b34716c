"""minLSTM as in appendix B of Feng et al. 2024 (arXiv:2410.01201): everything in logarithms, one token after the other."""

from paper_mingru import log_g, recur, softplus


def minlstm(w):
    """x (B, T, D), h (B, N) above zero and the weights by name, to the outputs and the last hidden state."""
    f, i, v = (w["x"] @ w[f"{name}.weight"].T + w[f"{name}.bias"] for name in "fiv")
    difference = softplus(-f) - softplus(-i)  # log of i over f
    hidden = recur(-softplus(difference), -softplus(-difference) + log_g(v), w["h"])
    return {"y": hidden @ w["out.weight"].T, "end": hidden[:, -1]}
