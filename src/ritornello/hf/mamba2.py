"""Mamba-2: one decay a head, without channel mixing. Names and settings as in transformers' Mamba2ForCausalLM.

One epsilon serves the norms between layers and the one inside. transformers does not limit the steps (`time_step_limit`) of
tokens fed one by one, only those of a whole text; here a limit holds for both.
"""

from typing import Any

import torch

from ritornello.hf.layout import Layout, Settings
from ritornello.mixers.mamba2 import Mamba2
from ritornello.model import LM, LMConfig


def read(settings: Settings) -> LMConfig:
    dim, expand = settings.size("hidden_size"), settings.size("expand", 2)
    head_dim, eps = settings.size("head_dim", 64, most=dim), settings.number("layer_norm_epsilon", 1e-5)
    settings.only("num_heads", expand * dim // head_dim)
    settings.only("intermediate_size", expand * dim)
    settings.only("hidden_act", "silu", "swish")
    settings.only("rms_norm", True)
    settings.skip("time_step_rank", "chunk_size", "residual_in_fp32", "time_step_floor", "rescale_prenorm_residual")
    mamba2 = Mamba2.Config(
        expand=expand,
        head_dim=head_dim,
        state_dim=settings.size("state_size", 128),
        groups=settings.size("n_groups", 8),
        conv=settings.size("conv_kernel", 4),
        conv_bias=settings.flag("use_conv_bias", True),
        bias=settings.flag("use_bias", False),
        dt_min=settings.number("time_step_min", 0.001),
        dt_max=settings.number("time_step_max", 0.1),
        dt_limit=_limit(settings),
        eps=eps,
    )
    return LMConfig(
        vocab=settings.size("vocab_size"),
        dim=dim,
        layers=("mamba2",) * settings.depth(),
        channel=None,
        mixers={"mamba2": mamba2},
        norm_eps=eps,
        tied=settings.flag("tie_word_embeddings", False),
    )


def _limit(settings: Settings) -> tuple[float, float] | None:
    """Bounds of the steps; none if they are 0 and infinity, as JSON does not know it or as transformers writes it."""
    found = settings.get("time_step_limit", (0.0, float("inf")))
    if isinstance(found, list | tuple) and len(found) == 2:
        least, most = (float("inf") if each == {"__float__": "Infinity"} else each for each in found)
        if all(isinstance(each, int | float) and not isinstance(each, bool) for each in (least, most)) and 0 <= least < most:
            return None if (least, most) == (0, float("inf")) else (float(least), min(float(most), torch.finfo(torch.float32).max))
    raise settings.error("time_step_limit", found, "with two numbers in order")


def write(model: LM) -> dict[str, Any]:
    time: Any = model.blocks[0].time
    table = {
        "num_heads": time.heads,
        "head_dim": time.head_dim,
        "state_size": time.config.state_dim,
        "n_groups": time.config.groups,
        "expand": time.config.expand,
        "conv_kernel": time.config.conv,
        "use_bias": time.config.bias,
        "use_conv_bias": time.config.conv_bias,
        "hidden_act": "silu",
        "layer_norm_epsilon": time.config.eps,
        "time_step_min": time.config.dt_min,
        "time_step_max": time.config.dt_max,
    }
    return table if time.config.dt_limit is None else table | {"time_step_limit": list(time.config.dt_limit)}


LAYOUT = Layout(
    model_type="mamba2",
    architecture="Mamba2ForCausalLM",
    mixers=frozenset({"mamba2"}),
    channel=None,
    read=read,
    write=write,
    names={
        "embedding": "backbone.embeddings",
        "blocks.#.time_norm": "backbone.layers.#.norm",
        "blocks.#.mamba2.into": "backbone.layers.#.mixer.in_proj",
        "blocks.#.mamba2.conv": "backbone.layers.#.mixer.conv1d",
        "blocks.#.mamba2.dt_bias": "backbone.layers.#.mixer.dt_bias",
        "blocks.#.mamba2.A_log": "backbone.layers.#.mixer.A_log",
        "blocks.#.mamba2.D": "backbone.layers.#.mixer.D",
        "blocks.#.mamba2.norm": "backbone.layers.#.mixer.norm.weight",
        "blocks.#.mamba2.out": "backbone.layers.#.mixer.out_proj",
        "norm": "backbone.norm_f",
        "head": "lm_head",
    },
)
