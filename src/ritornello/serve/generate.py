"""A trained model writes: from a prompt to a stream of text, in constant memory for recurrent models."""

from collections.abc import Iterator

from ritornello.folder import Loaded
from ritornello.serve.native import fastest
from ritornello.serve.session import start, text_stream


def stream(
    loaded: Loaded,
    prompt: str = "",
    *,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    max_tokens: int = 200,
    weights: str = "float32",
) -> Iterator[str]:
    """Pieces of text that go on from the prompt, as they are written; special strings in the prompt are text.

    Ends after `max_tokens`, or where the model ends the text. The same seed writes the same text. A token is one native call where that
    can be (see `native`); weights of "bfloat16" or "int8" are faster and less exact, and an InputError where it cannot.
    """
    session = start(fastest(loaded.model, weights), loaded.tokenizer.bos, seed)
    return text_stream(session, loaded.tokenizer, prompt, temperature=temperature, top_k=top_k, top_p=top_p, max_tokens=max_tokens)


def generate(loaded: Loaded, prompt: str = "", **options: int | float | str | None) -> str:
    """The prompt and what the model writes after it; the options are those of `stream`."""
    return prompt + "".join(stream(loaded, prompt, **options))  # type: ignore[arg-type]
