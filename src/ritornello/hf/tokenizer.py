"""Our tokenizer in the form that AutoTokenizer opens.

    tokenizer(text)                            BOS, then the ids that ours gives
    tokenizer(text, add_special_tokens=False)  these ids alone, as lm-evaluation-harness asks before it puts BOS there itself
    tokenizer(text, other)                     BOS text EOS other

A special token's name in a text is text (split_special_tokens), except in tokenizers that look whole words up in their vocabulary, as
BERT's: there it is found. Padding is a pad token where the vocabulary has one, else EOS; what is padding is the attention mask's to say.
"""

from pathlib import Path

import tokenizers
from tokenizers.processors import TemplateProcessing

from ritornello.data.tokenizers import Tokenizer
from ritornello.folder import write_bytes, write_json

PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>")


def write_tokenizer(words: Tokenizer, path: Path) -> dict[str, int]:
    """Put tokenizer.json and tokenizer_config.json into a folder; the ids of its special tokens, named as in a config.json."""
    words.save(path / "tokenizer.json")
    raw = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    special = {added.content: index for index, added in raw.get_added_tokens_decoder().items() if added.special}
    names = {index: name for name, index in special.items()}
    bos, eos = names[words.bos], names[words.eos]
    pad = next((name for name in PAD_NAMES if name in special), eos)
    raw.post_processor = TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {eos} $B", special_tokens=[(bos, words.bos), (eos, words.eos)]
    )
    write_bytes(path / "tokenizer.json", raw.to_str(pretty=True).encode())
    table = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    table |= {"bos_token": bos, "eos_token": eos, "pad_token": pad, "padding_side": "left"}
    write_json(path / "tokenizer_config.json", table | {"split_special_tokens": True, "clean_up_tokenization_spaces": False})
    return {"bos_token_id": words.bos, "eos_token_id": words.eos, "pad_token_id": special[pad]}
