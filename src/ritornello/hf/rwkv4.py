"""RWKV-4: its time and channel mixing, LayerNorm, one more norm on the embedding. Names and settings as in transformers' RwkvForCausalLM.

`rescale_every` halves the residual stream every so many layers, against overflow in float16. In float32 it changes nothing but the
norms' epsilon in proportion: what comes in is read as if it were off, and it is written as off.
"""

from typing import Any

from ritornello.hf.layout import Change, Layout, Settings
from ritornello.mixers.rwkv_channel import RWKVChannel
from ritornello.model import LM, LMConfig

MIX = Change(lambda mix: mix[None, None], lambda mix: mix[0, 0])


def read(settings: Settings) -> LMConfig:
    dim = settings.size("hidden_size")
    settings.only("attention_hidden_size", dim)
    settings.skip("context_length", "rescale_every")
    return LMConfig(
        vocab=settings.size("vocab_size"),
        dim=dim,
        layers=("rwkv4",) * settings.depth(),
        channel="rwkv_channel",
        mixers={"rwkv_channel": RWKVChannel.Config(hidden=settings.size("intermediate_size", 4 * dim))},
        norm="layer",
        norm_eps=settings.number("layer_norm_epsilon", 1e-5),
        embedding_norm=True,
        tied=settings.flag("tie_word_embeddings", False),
    )


def write(model: LM) -> dict[str, Any]:
    channel: Any = model.blocks[0].channel
    return {
        "attention_hidden_size": model.config.dim,
        "intermediate_size": channel.k.out_features,
        "layer_norm_epsilon": model.config.norm_eps,
        "context_length": 1024,
        "rescale_every": 0,
    }


LAYOUT = Layout(
    model_type="rwkv",
    architecture="RwkvForCausalLM",
    mixers=frozenset({"rwkv4"}),
    channel="rwkv_channel",
    read=read,
    write=write,
    names={
        "embedding": "rwkv.embeddings",
        "embedding_norm": "rwkv.blocks.0.pre_ln",
        "blocks.#.time_norm": "rwkv.blocks.#.ln1",
        "blocks.#.rwkv4.mix_r": "rwkv.blocks.#.attention.time_mix_receptance",
        "blocks.#.rwkv4.mix_k": "rwkv.blocks.#.attention.time_mix_key",
        "blocks.#.rwkv4.mix_v": "rwkv.blocks.#.attention.time_mix_value",
        "blocks.#.rwkv4.decay": "rwkv.blocks.#.attention.time_decay",
        "blocks.#.rwkv4.bonus": "rwkv.blocks.#.attention.time_first",
        "blocks.#.rwkv4.r": "rwkv.blocks.#.attention.receptance",
        "blocks.#.rwkv4.k": "rwkv.blocks.#.attention.key",
        "blocks.#.rwkv4.v": "rwkv.blocks.#.attention.value",
        "blocks.#.rwkv4.out": "rwkv.blocks.#.attention.output",
        "blocks.#.channel_norm": "rwkv.blocks.#.ln2",
        "blocks.#.channel.mix_r": "rwkv.blocks.#.feed_forward.time_mix_receptance",
        "blocks.#.channel.mix_k": "rwkv.blocks.#.feed_forward.time_mix_key",
        "blocks.#.channel.r": "rwkv.blocks.#.feed_forward.receptance",
        "blocks.#.channel.k": "rwkv.blocks.#.feed_forward.key",
        "blocks.#.channel.v": "rwkv.blocks.#.feed_forward.value",
        "norm": "rwkv.ln_out",
        "head": "head",
    },
    changes={name: MIX for name in ("mix_r", "mix_k", "mix_v")},
)
