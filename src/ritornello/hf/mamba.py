"""Mamba: selective state spaces alone, without channel mixing. Names and settings as in transformers' MambaForCausalLM.

Earlier files repeat sizes under the names of the authors' code (`d_model`, `n_layer`); they must agree.
"""

from typing import Any

from ritornello.hf.layout import Layout, Settings
from ritornello.mixers.mamba import Mamba
from ritornello.model import LM, LMConfig


def read(settings: Settings) -> LMConfig:
    dim, depth, expand = settings.size("hidden_size"), settings.depth(), settings.size("expand", 2)
    for name, size in (("intermediate_size", expand * dim), ("d_inner", expand * dim), ("d_model", dim), ("n_layer", depth)):
        settings.only(name, size)
    settings.only("hidden_act", "silu", "swish")
    settings.only("rms_norm", True)
    settings.only("ssm_cfg", {})
    settings.only("time_step_scale", 1.0)  # these and the next: of the initialisation, or of how it is computed
    settings.skip("time_step_min", "time_step_max", "time_step_floor", "time_step_init_scheme", "rescale_prenorm_residual")
    settings.skip("residual_in_fp32", "fused_add_norm", "pad_vocab_size_multiple", "use_mambapy", "use_associative_scan")
    rank = None if settings.get("time_step_rank", "auto") == "auto" else settings.size("time_step_rank")
    mamba = Mamba.Config(
        state_dim=settings.size("state_size", 16),
        expand=expand,
        conv=settings.size("conv_kernel", 4),
        rank=rank,
        bias=settings.flag("use_bias", False),
        conv_bias=settings.flag("use_conv_bias", True),
    )
    return LMConfig(
        vocab=settings.size("vocab_size"),
        dim=dim,
        layers=("mamba",) * depth,
        channel=None,
        mixers={"mamba": mamba},
        norm_eps=settings.number("layer_norm_epsilon", 1e-5),
        tied=settings.flag("tie_word_embeddings", True),
    )


def write(model: LM) -> dict[str, Any]:
    time: Any = model.blocks[0].time
    return {
        "state_size": time.config.state_dim,
        "expand": time.config.expand,
        "intermediate_size": time.inner,
        "conv_kernel": time.config.conv,
        "time_step_rank": time.rank,
        "use_bias": time.config.bias,
        "use_conv_bias": time.config.conv_bias,
        "hidden_act": "silu",
        "layer_norm_epsilon": model.config.norm_eps,
    }


LAYOUT = Layout(
    model_type="mamba",
    architecture="MambaForCausalLM",
    mixers=frozenset({"mamba"}),
    channel=None,
    read=read,
    write=write,
    names={
        "embedding": "backbone.embeddings",
        "blocks.#.time_norm": "backbone.layers.#.norm",
        "blocks.#.mamba.up": "backbone.layers.#.mixer.in_proj",
        "blocks.#.mamba.conv": "backbone.layers.#.mixer.conv1d",
        "blocks.#.mamba.select": "backbone.layers.#.mixer.x_proj",
        "blocks.#.mamba.dt": "backbone.layers.#.mixer.dt_proj",
        "blocks.#.mamba.A_log": "backbone.layers.#.mixer.A_log",
        "blocks.#.mamba.D": "backbone.layers.#.mixer.D",
        "blocks.#.mamba.out": "backbone.layers.#.mixer.out_proj",
        "norm": "backbone.norm_f",
        "head": "lm_head",
    },
)
