"""Our models as classes of transformers: RitornelloConfig, and a model without a head, for causal language modelling and for labels.

    import ritornello.hf
    model = AutoModelForCausalLM.from_pretrained(FOLDER)

A folder written by `ritornello export RUN --to hf` names these classes in its config.json, so it also opens without the import, with
`trust_remote_code=True`: the code in the folder is one line that imports this file. `config.lm` is our LMConfig; it says everything.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.generation import GenerationMode
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast, SequenceClassifierOutputWithPast
from transformers.utils.generic import can_return_tuple

from ritornello.config import from_dict
from ritornello.errors import InputError
from ritornello.hf.cache import StateCache
from ritornello.hf.padding import last_tokens, padded_left, real_tokens, resets
from ritornello.hf.remote import AUTO_MAP, MODEL_TYPE, write_code
from ritornello.mixers.base import Mixer
from ritornello.model import LM, LMConfig
from ritornello.state import State


class RitornelloConfig(PreTrainedConfig):
    """Our LMConfig as plain values in `lm`, and the special tokens. Sizes are read from `lm`, under the names that others ask for."""

    model_type = MODEL_TYPE
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 (Trainer adds to it)

    lm: dict | None = None
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **options: Any) -> None:
        super().__post_init__(**options)
        self.auto_map = dict(AUTO_MAP)

    @property
    def architecture(self) -> LMConfig:
        return from_dict(LMConfig, self.lm, "config.json: lm")

    @property
    def vocab_size(self) -> int:
        return self.architecture.vocab

    @vocab_size.setter
    def vocab_size(self, size: int) -> None:  # resize_token_embeddings says so
        self.lm = {**(self.lm or {}), "vocab": size}

    @property
    def hidden_size(self) -> int:
        return self.architecture.dim

    @property
    def num_hidden_layers(self) -> int:
        return len(self.architecture.layers)

    @property
    def tie_word_embeddings(self) -> bool:
        return self.lm is not None and self.architecture.tied

    def save_pretrained(self, save_directory: Any, *args: Any, **options: Any) -> None:
        """As in transformers, and the line of code that opens the folder elsewhere; a model that is saved calls this."""
        super().save_pretrained(save_directory, *args, **options)
        write_code(Path(save_directory))

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Nothing: transformers would copy the whole file of the class into every folder saved."""


class RitornelloPreTrainedModel(PreTrainedModel):
    config_class = RitornelloConfig
    base_model_prefix = "model"
    _is_stateful = True  # transformers 5.5 asks this where later ones ask for the supported modes

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Nothing, as for the config."""

    def _init_weights(self, module: nn.Module) -> None:
        """For what a file lacks, such as a new head."""
        if isinstance(module, Mixer):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    def get_input_embeddings(self) -> nn.Module:
        return self.base_model.lm.embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.base_model.lm.embedding = value


class RitornelloModel(RitornelloPreTrainedModel):
    """Ids (B, T) to features (B, T, D). The head is kept here, so that one file of weights fits all three classes."""

    _tied_weights_keys = {"lm.head.weight": "lm.embedding.weight"}  # noqa: RUF012

    def __init__(self, config: RitornelloConfig):
        super().__init__(config)
        self.lm = LM(config.architecture)
        if not self.lm.embedding.weight.is_meta:
            parts: list[Any] = [*self.lm.modules()]
            for part in parts:
                part._is_hf_initialized = True  # it has begun as LM begins
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: StateCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPast:
        """Ids (B, T), or embeddings (B, T, D), to normed features (B, T, D).

        attention_mask: (B, tokens so far), ones and zeros, with padding at the ends only; see `hf.padding`. `past_key_values` is changed
        in place. hidden_states: the embedding, then each block's output (B, T, D), the last one normed, as transformers has them.
        Raises InputError for a mask with a hole, another model's cache, and both or none of ids and embeddings.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("give either input_ids or inputs_embeds")
        inputs: Any = input_ids if inputs_embeds is None else inputs_embeds
        rows, new = inputs.shape[:2]
        state, seen = self._state(past_key_values, rows)
        real = real_tokens(attention_mask, rows, seen + new, new)
        wanted = bool(self.config.output_hidden_states if output_hidden_states is None else output_hidden_states)
        with _outputs(self.lm, wanted) as kept:
            features, state = self.lm.features(inputs, state, resets(real, new))
        cache = None
        if (not self.training and self.config.use_cache) if use_cache is None else use_cache:
            cache = StateCache() if past_key_values is None else past_key_values
            cache.put(state, new)
        hidden = (*kept[:-1], features) if wanted else None
        return BaseModelOutputWithPast(last_hidden_state=features, past_key_values=cache, hidden_states=hidden)

    def _state(self, cache: StateCache | None, rows: int) -> tuple[State, int]:
        """The state to go on from, and how many tokens it has seen."""
        if cache is not None and not isinstance(cache, StateCache):
            raise InputError(f"past_key_values: a {type(cache).__name__} holds keys and values; use ritornello.hf.cache.StateCache()")
        if cache is None or cache.state is None:
            return self.lm.init_state(rows), 0
        if cache.batch_size != rows:
            raise InputError(f"past_key_values: the state has {cache.batch_size} rows, the input {rows}")
        return cache.state, cache.seen


class RitornelloForCausalLM(RitornelloPreTrainedModel, GenerationMixin):
    """A language model. Beam search picks rows of the state; what would have to take tokens back (assisted decoding) is refused."""

    _supported_generation_modes = (
        GenerationMode.GREEDY_SEARCH,
        GenerationMode.SAMPLE,
        GenerationMode.BEAM_SEARCH,
        GenerationMode.BEAM_SAMPLE,
    )

    def __init__(self, config: RitornelloConfig):
        super().__init__(config)
        self.model = RitornelloModel(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.model.lm.head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.model.lm.head = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: StateCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, vocab) for the token after each; of the last `logits_to_keep`, or of the places it holds, unless it is 0.

        labels: (B, T) ids, usually `input_ids` with -100 for padding; they are shifted here. The loss is in nats, a mean.
        """
        found = self.model(input_ids, attention_mask, past_key_values, inputs_embeds, use_cache, output_hidden_states)
        places = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.model.lm.logits(found.last_hidden_state[:, places])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1])
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=found.past_key_values, hidden_states=found.hidden_states)

    def generate(self, inputs: Tensor | None = None, *args: Any, **options: Any) -> Any:
        """As in transformers. Prompts padded on the right are moved to the right, so that writing goes on from their last token."""
        mask = options.get("attention_mask")
        tokens = options.pop("input_ids", None) if inputs is None else inputs
        if tokens is not None and mask is not None and mask.shape == tokens.shape:
            tokens, options["attention_mask"] = padded_left(tokens, mask)
        return super().generate(tokens, *args, **options)

    def _prepare_cache_for_generation(self, generation_config: Any, model_kwargs: dict[str, Any], *_: Any) -> None:
        if generation_config.cache_implementation is not None:
            raise InputError(
                f"cache_implementation {generation_config.cache_implementation!r} is for keys and values; a recurrent state needs none"
            )
        if generation_config.use_cache and model_kwargs.get("past_key_values") is None:
            model_kwargs["past_key_values"] = StateCache()


class RitornelloForSequenceClassification(RitornelloPreTrainedModel):
    """Labels from the features of the last token of text, wherever the padding is."""

    def __init__(self, config: RitornelloConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = RitornelloModel(config)
        self.score = nn.Linear(config.hidden_size, self.num_labels, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> SequenceClassifierOutputWithPast:
        """Logits (B, labels). Without an attention mask every token is text. labels: (B,), the loss is that of `config.problem_type`."""
        found = self.model(input_ids, attention_mask, None, inputs_embeds, False, output_hidden_states)
        rows, length = found.last_hidden_state.shape[:2]
        last = last_tokens(real_tokens(attention_mask, rows, length, length), rows, length)
        logits = self.score(found.last_hidden_state[torch.arange(rows), last])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutputWithPast(loss=loss, logits=logits, hidden_states=found.hidden_states)


@contextmanager
def _outputs(lm: LM, wanted: bool) -> Iterator[list[Tensor]]:
    """What the embedding and each block give while this is open, each (B, T, D); nothing if it is not wanted."""
    kept: list[Tensor] = []
    hooks = []
    if wanted:
        hooks = [lm.drop.register_forward_hook(lambda _, __, output: kept.append(output))]
        hooks += [block.register_forward_hook(lambda _, __, output: kept.append(output[0])) for block in lm.blocks]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


AutoConfig.register(MODEL_TYPE, RitornelloConfig)
AutoModel.register(RitornelloConfig, RitornelloModel)
AutoModelForCausalLM.register(RitornelloConfig, RitornelloForCausalLM)
AutoModelForSequenceClassification.register(RitornelloConfig, RitornelloForSequenceClassification)
