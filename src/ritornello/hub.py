"""The Hugging Face hub, asked whether it is there before a library waits for it."""

from urllib.error import HTTPError
from urllib.request import urlopen

from ritornello.errors import InputError


def reach(name: str, what: str) -> None:
    """InputError at once, naming `name` and what it cannot be, where there is no network: the library would try for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return  # what it has in its cache may be enough
    try:
        urlopen(constants.ENDPOINT, timeout=10).close()  # noqa: S310 (the hub's own address)
    except HTTPError:
        pass  # it answers: whether it has what is asked for is seen next
    except OSError as error:
        raise InputError(f"{name}: {what}: the Hugging Face hub does not answer: {getattr(error, 'reason', error)}") from error
