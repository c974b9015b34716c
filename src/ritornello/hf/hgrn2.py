"""HGRN2 with SwiGLU and RMSNorm. Names and settings as in flash-linear-attention's HGRN2ForCausalLM.

Its layer normalises the heads' outputs with an epsilon of 1e-5 whatever `norm_eps` says, ours with 1e-6. The output of a head is
linear in its values, so the value map times sqrt(1e-5 / 1e-6) is the same function there.

Files of 2024, such as BabyHGRN's, hold the gate and the up map of SwiGLU as one tensor, the gate first.

Source: flash-linear-attention 0.6.0, fla/models/hgrn2; for older files its history.
"""

from typing import Any

from ritornello.errors import divide
from ritornello.hf.layout import Change, Layout, Settings, Stored
from ritornello.mixers.hgrn2 import HGRN2
from ritornello.mixers.swiglu import SwiGLU
from ritornello.model import LM, LMConfig

LOUDER = (1e-5 / 1e-6) ** 0.5  # their values beside ours


def read(settings: Settings) -> LMConfig:
    dim = settings.size("hidden_size")
    heads = settings.get("num_heads")
    usual = 128 if heads is None else divide(dim, settings.size("num_heads"), f"{settings.where}: hidden_size over num_heads")
    head_dim = settings.size("expand_ratio", usual)
    settings.only("num_heads", divide(dim, head_dim, f"{settings.where}: hidden_size over expand_ratio"))
    settings.only("hidden_act", "swish", "silu")
    settings.only("use_lower_bound", True)
    settings.only("elementwise_affine", True)
    settings.only("attn")
    settings.only("attnres_block_size")
    width = settings.size("conv_size", 4)
    conv = width if settings.flag("use_short_conv", False) else None
    settings.skip("attn_mode", "share_conv_kernel", "use_l2warp")  # kernels, what later versions have not, training
    settings.skip("fuse_norm", "fuse_swiglu", "fuse_cross_entropy", "fuse_linear_cross_entropy")
    ratio = settings.size("hidden_ratio", 4)
    hidden = settings.size("intermediate_size", 256 * -(-int(dim * ratio * 2 / 3) // 256))
    eps = settings.number("norm_eps", settings.number("rms_norm_eps", 1e-6))
    settings.only("rms_norm_eps", eps)
    return LMConfig(
        vocab=settings.size("vocab_size"),
        dim=dim,
        layers=("hgrn2",) * settings.depth(),
        channel="swiglu",
        mixers={"hgrn2": HGRN2.Config(head_dim=head_dim, conv=conv), "swiglu": SwiGLU.Config(hidden=hidden)},
        norm_eps=eps,
        tied=settings.flag("tie_word_embeddings", False),
    )


def write(model: LM) -> dict[str, Any]:
    block: Any = model.blocks[0]
    return {
        "attn_mode": "chunk",
        "num_heads": block.time.heads,
        "expand_ratio": block.time.head_dim,
        "use_short_conv": bool(block.time.config.conv),
        "conv_size": block.time.config.conv or 4,
        "use_lower_bound": True,
        "elementwise_affine": True,
        "intermediate_size": block.channel.up.out_features,
        "hidden_act": "swish",
        "norm_eps": model.config.norm_eps,
        "max_position_embeddings": 2048,
    }


def older(stored: dict[str, Stored]) -> dict[str, Stored]:
    """Two tensors for the one that holds gate and up map."""
    found = dict(stored)
    for name, tensor in stored.items():
        up = name.replace(".mlp.gate_proj.", ".mlp.up_proj.")
        if up not in stored and len(tensor.shape) == 2 and tensor.shape[0] % 2 == 0:
            half = (tensor.shape[0] // 2, tensor.shape[1])
            found[name], found[up] = (Stored(half, lambda load=tensor.load, part=part: load().chunk(2)[part]) for part in (0, 1))  # type: ignore[misc]
    return found


LAYOUT = Layout(
    model_type="hgrn2",
    architecture="HGRN2ForCausalLM",
    mixers=frozenset({"hgrn2"}),
    channel="swiglu",
    read=read,
    write=write,
    older=older,
    names={
        "embedding": "model.embeddings",
        "blocks.#.time_norm": "model.layers.#.attn_norm",
        "blocks.#.hgrn2.rise": "model.lower_bounds",
        "blocks.#.hgrn2.q": "model.layers.#.attn.q_proj",
        "blocks.#.hgrn2.f": "model.layers.#.attn.f_proj",
        "blocks.#.hgrn2.v": "model.layers.#.attn.i_proj",
        "blocks.#.hgrn2.q_conv": "model.layers.#.attn.q_conv1d",
        "blocks.#.hgrn2.f_conv": "model.layers.#.attn.f_conv1d",
        "blocks.#.hgrn2.v_conv": "model.layers.#.attn.i_conv1d",
        "blocks.#.hgrn2.norm": "model.layers.#.attn.g_norm",
        "blocks.#.hgrn2.out": "model.layers.#.attn.o_proj",
        "blocks.#.channel_norm": "model.layers.#.mlp_norm",
        "blocks.#.channel.gate": "model.layers.#.mlp.gate_proj",
        "blocks.#.channel.up": "model.layers.#.mlp.up_proj",
        "blocks.#.channel.down": "model.layers.#.mlp.down_proj",
        "norm": "model.norm",
        "head": "lm_head",
    },
    changes={"time.v.weight": Change(lambda v: v * LOUDER, lambda v: v / LOUDER)},
)
