"""LLaMA: attention with rotary positions, SwiGLU, RMSNorm. Names and settings as in transformers' LlamaForCausalLM.

Rotary positions have no limit of their own, so `max_position_embeddings` is only a note.
"""

from typing import Any

from ritornello.errors import divide
from ritornello.hf.layout import Layout, Settings, Stored
from ritornello.mixers.attention import Attention
from ritornello.mixers.swiglu import SwiGLU
from ritornello.model import LM, LMConfig


def read(settings: Settings) -> LMConfig:
    dim, heads = settings.size("hidden_size"), settings.size("num_attention_heads")
    head_dim = divide(dim, heads, f"{settings.where}: hidden_size over num_attention_heads")
    settings.only("head_dim", head_dim)
    settings.only("hidden_act", "silu", "swish")
    settings.only("mlp_bias", False)
    settings.only("pretraining_tp", 1)
    attention = Attention.Config(
        head_dim=head_dim,
        kv_heads=settings.size("num_key_value_heads", heads),
        bias=settings.flag("attention_bias", False),
        rope_base=rope(settings).number("rope_theta", 10000.0),
    )
    return LMConfig(
        vocab=settings.size("vocab_size"),
        dim=dim,
        layers=("attention",) * settings.depth(),
        channel="swiglu",
        mixers={"attention": attention, "swiglu": SwiGLU.Config(hidden=settings.size("intermediate_size"))},
        norm_eps=settings.number("rms_norm_eps", 1e-6),
        tied=settings.flag("tie_word_embeddings", False),
    )


def rope(settings: Settings) -> Settings:
    """The settings of rotary positions: a table of their own in later files, among the others in earlier ones."""
    settings.only("rope_scaling")
    table = settings.get("rope_parameters")
    if table is None:
        return settings
    if not isinstance(table, dict):
        raise settings.error("rope_parameters", table, "with a table")
    found = Settings(table, f"{settings.where}: rope_parameters")
    found.only("rope_type", "default")
    found.skip("rope_theta", "partial_rotary_factor")  # read by the caller
    found.done()
    return found


def write(model: LM) -> dict[str, Any]:
    block: Any = model.blocks[0]
    time = block.time
    return {
        "intermediate_size": block.channel.up.out_features,
        "num_attention_heads": time.heads,
        "num_key_value_heads": time.kv_heads,
        "head_dim": time.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": model.config.norm_eps,
        "rope_parameters": {"rope_theta": time.config.rope_base, "rope_type": "default"},
        "attention_bias": time.config.bias,
        "mlp_bias": False,
        "max_position_embeddings": 2048,
    }


def older(stored: dict[str, Stored]) -> dict[str, Stored]:
    """Earlier files hold the rates of rotation, which follow from the settings."""
    return {name: tensor for name, tensor in stored.items() if not name.endswith(".rotary_emb.inv_freq")}


LAYOUT = Layout(
    model_type="llama",
    architecture="LlamaForCausalLM",
    mixers=frozenset({"attention"}),
    channel="swiglu",
    read=read,
    write=write,
    older=older,
    names={
        "embedding": "model.embed_tokens",
        "blocks.#.time_norm": "model.layers.#.input_layernorm",
        "blocks.#.attention.q": "model.layers.#.self_attn.q_proj",
        "blocks.#.attention.k": "model.layers.#.self_attn.k_proj",
        "blocks.#.attention.v": "model.layers.#.self_attn.v_proj",
        "blocks.#.attention.out": "model.layers.#.self_attn.o_proj",
        "blocks.#.channel_norm": "model.layers.#.post_attention_layernorm",
        "blocks.#.channel.gate": "model.layers.#.mlp.gate_proj",
        "blocks.#.channel.up": "model.layers.#.mlp.up_proj",
        "blocks.#.channel.down": "model.layers.#.mlp.down_proj",
        "norm": "model.norm",
        "head": "lm_head",
    },
)
