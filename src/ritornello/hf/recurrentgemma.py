"""RecurrentGemma: Griffin's pattern of RG-LRU and local attention, GeGLU. Names and settings as in transformers' RecurrentGemmaForCausalLM.

A norm's weight is stored as what is to be added to one. The gates of an RG-LRU have as many blocks as attention has heads.
"""

from itertools import cycle, islice
from typing import Any

from ritornello.errors import divide
from ritornello.hf.layout import Change, Layout, Settings
from ritornello.hf.llama import rope
from ritornello.mixers.geglu import GeGLU
from ritornello.mixers.rglru import RGLRU
from ritornello.mixers.window import Window
from ritornello.model import LM, LMConfig

BLOCKS = {"recurrent": "rglru", "attention": "window"}


def read(settings: Settings) -> LMConfig:
    dim, heads = settings.size("hidden_size"), settings.size("num_attention_heads")
    head_dim = divide(dim, heads, f"{settings.where}: hidden_size over num_attention_heads")
    width = settings.size("lru_width", dim)
    kinds = settings.get("block_types", settings.get("_block_types", ("recurrent", "recurrent", "attention")))
    if not isinstance(kinds, list | tuple) or not kinds or not all(kind in BLOCKS for kind in map(str, kinds)):
        raise settings.error("block_types", kinds, "with a list of 'recurrent' and 'attention'")
    settings.skip("_block_types", "w_init_variance_scale", "final_w_init_variance_scale")
    settings.only("head_dim", head_dim)
    settings.only("hidden_activation", "gelu_pytorch_tanh")
    settings.only("attention_bias", False)
    settings.only("embeddings_scale_by_sqrt_dim", True)
    turning = rope(settings)
    window = Window.Config(
        window=settings.size("attention_window_size", 2048),
        head_dim=head_dim,
        kv_heads=settings.size("num_key_value_heads", heads),
        rope_fraction=turning.number("partial_rotary_factor", 0.5),
        rope_base=turning.number("rope_theta", 10000.0),
    )
    size = divide(width, heads, f"{settings.where}: lru_width over num_attention_heads")
    rglru = RGLRU.Config(width=width, head_dim=size, conv=settings.size("conv1d_width", 4))
    hidden = divide(settings.size("intermediate_size", 6 * dim), 2, f"{settings.where}: intermediate_size over its two maps")
    return LMConfig(
        vocab=settings.size("vocab_size"),
        dim=dim,
        layers=tuple(BLOCKS[kind] for kind in islice(cycle(kinds), settings.depth())),
        channel="geglu",
        mixers={"rglru": rglru, "window": window, "geglu": GeGLU.Config(hidden=hidden)},
        norm_eps=settings.number("rms_norm_eps", 1e-6),
        embedding_scale=True,
        softcap=settings.number("logits_soft_cap", 30.0),
        tied=settings.flag("tie_word_embeddings", True),
    )


def write(model: LM) -> dict[str, Any]:
    config = model.config
    blocks: dict[str, Any] = dict(zip(config.layers, model.blocks, strict=True))  # one of each kind
    kinds = {ours: theirs for theirs, ours in BLOCKS.items()}
    some = next(iter(blocks.values()))
    table = {
        "num_attention_heads": some.time.heads,
        "block_types": [kinds[name] for name in config.layers],
        "intermediate_size": 2 * some.channel.up.out_features,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": config.norm_eps,
        "logits_soft_cap": config.softcap,
        "attention_bias": False,
    }
    if "rglru" in blocks:
        time = blocks["rglru"].time
        table |= {"lru_width": time.width, "conv1d_width": time.config.conv}
    if "window" in blocks:
        own = blocks["window"].time.config
        turning = {"rope_type": "default", "rope_theta": own.rope_base, "partial_rotary_factor": own.rope_fraction}
        table |= {"attention_window_size": own.window, "num_key_value_heads": own.kv_heads, "rope_parameters": turning}
    return table


LAYOUT = Layout(
    model_type="recurrent_gemma",
    architecture="RecurrentGemmaForCausalLM",
    mixers=frozenset(BLOCKS.values()),
    channel="geglu",
    read=read,
    write=write,
    names={
        "embedding": "model.embed_tokens",
        "blocks.#.time_norm": "model.layers.#.temporal_pre_norm",
        "blocks.#.window.q": "model.layers.#.temporal_block.q_proj",
        "blocks.#.window.k": "model.layers.#.temporal_block.k_proj",
        "blocks.#.window.v": "model.layers.#.temporal_block.v_proj",
        "blocks.#.window.out": "model.layers.#.temporal_block.o_proj",
        "blocks.#.rglru.x": "model.layers.#.temporal_block.linear_x",
        "blocks.#.rglru.y": "model.layers.#.temporal_block.linear_y",
        "blocks.#.rglru.conv": "model.layers.#.temporal_block.conv_1d",
        "blocks.#.rglru.rate": "model.layers.#.temporal_block.rg_lru.recurrent_param",
        "blocks.#.rglru.r_weight": "model.layers.#.temporal_block.rg_lru.recurrent_gate_weight",
        "blocks.#.rglru.r_bias": "model.layers.#.temporal_block.rg_lru.recurrent_gate_bias",
        "blocks.#.rglru.i_weight": "model.layers.#.temporal_block.rg_lru.input_gate_weight",
        "blocks.#.rglru.i_bias": "model.layers.#.temporal_block.rg_lru.input_gate_bias",
        "blocks.#.rglru.out": "model.layers.#.temporal_block.linear_out",
        "blocks.#.channel_norm": "model.layers.#.channel_pre_norm",
        "blocks.#.channel.gate": "model.layers.#.mlp_block.gate_proj",
        "blocks.#.channel.up": "model.layers.#.mlp_block.up_proj",
        "blocks.#.channel.down": "model.layers.#.mlp_block.down_proj",
        "norm": "model.final_norm",
        "head": "lm_head",
    },
    changes={"norm.weight": Change(lambda weight: weight - 1, lambda weight: weight + 1)},
)
