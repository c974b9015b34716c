"""A packed copy of a model's weights that computes a token in one native call: an Engine with the model's own states.

    engine = NativeEngine(model, weights="int8")
    logits, state = engine(tokens, state)

In float32 it computes what the model does, to rounding. bfloat16 and int8 (one scale a row; inputs in 8 bits too) read a half and a
quarter of the bytes, which are what limits a single row, and are less exact. States, and everything between the maps, stay float32.
"""

import ctypes
from itertools import islice

import torch
from torch import Tensor

from ritornello._native.library import library
from ritornello.errors import InputError, expect_shape, unknown
from ritornello.model import LM, BlockState
from ritornello.serve.plan import WEIGHTS, Step, plan
from ritornello.state import State, map_leaves


class _Decode(ctypes.Structure):
    """As in decode.cpp."""

    _fields_ = [(name, ctypes.c_int64) for name in ("B", "vocab", "room", "count", "vnni", "threads")] + [
        (name, ctypes.c_void_p) for name in ("steps", "tokens", "before", "after", "logits")
    ]


class _Choice(ctypes.Structure):
    """As in sampling.h."""

    _fields_ = [
        *((name, ctypes.c_double) for name in ("temperature", "top_p")),
        *((name, ctypes.c_int64) for name in ("top_k", "stop", "count")),
        *((name, ctypes.c_void_p) for name in ("uniforms", "drawn")),
    ]


class NativeEngine:
    """Its weights are copied as they are now; the model itself reads texts in float32, so leave it as it is while the engine is in use.

    InputError says in one line why a model cannot be decoded natively.
    Uses as many threads as torch does when it is called; one is best for a single row of a small model.
    """

    def __init__(self, model: LM, weights: str = "float32"):
        if weights not in WEIGHTS:
            raise unknown("weights", weights, WEIGHTS)
        if isinstance(found := library(), str):
            raise InputError(f"no native decoding: {found}")
        for weight in model.parameters():
            if weight.device.type != "cpu" or weight.dtype != torch.float32:
                kind = f"{str(weight.dtype).removeprefix('torch.')} on {weight.device.type}"
                raise InputError(f"no native decoding: weights are {kind}, not float32 on cpu")
        self.weights, self.vocab, self._model, self._library = weights, model.config.vocab, model, found
        try:
            with torch.no_grad():
                self._plan = plan(model, weights, found.ritornello_lanes())
        except InputError as error:
            raise InputError(f"no native decoding: {error}") from error
        self._steps = (Step * len(self._plan.steps))(*self._plan.steps)
        self._vnni = found.ritornello_vnni()
        fresh = model.init_state(1)
        self._forms = [[(type(part), len(part)) for part in block] for block in fresh]
        self._leaves = [(tuple(leaf.shape[1:]), leaf.dtype) for leaf in _leaves(fresh)]

    def init_state(self, batch: int) -> State:
        """The model's."""
        return self._model.init_state(batch)

    def __call__(self, tokens: Tensor, state: State, reset: Tensor | None = None) -> tuple[Tensor, State]:
        """Ids (B, T) and a state to logits (B, T, vocab) and the state after them, in memory of their own; no gradients.

        In float32 a text of several tokens goes through the model itself, all of it at once. InputError for ids outside the vocabulary
        and for a state of another model or number of rows.
        """
        B, T = tokens.shape
        if T != 1 and self.weights == "float32":
            with torch.no_grad():
                return self._model(tokens, state, reset)
        logits = torch.empty(B, T, self.vocab)
        for t in range(T):
            if reset is not None and reset[:, t].any():
                state = _restarted(state, self._model.init_state(B), reset[:, t])
            if T == 1:
                return logits, self._token(tokens, state, logits)
            out = torch.empty(B, 1, self.vocab)
            state = self._token(tokens[:, t : t + 1], state, out)
            logits[:, t] = out[:, 0]
        return logits, state

    def write(
        self, logits: Tensor, state: State, uniforms: list[float], *, temperature: float, top_k: int | None, top_p: float | None,
        stop: int | None,
    ) -> tuple[list[int], Tensor, State]:  # fmt: skip
        """Draw a token from logits (V,) by each number u in [0, 1), feed it, and go on from there, all in one call.

        The tokens, the logits and the state (of one row) after them. Fewer tokens than numbers where `stop` would be the next one or
        the logits have no distribution. Draws are those of `sampling.sample`.
        """
        count, logits = len(uniforms), torch.empty(self.vocab).copy_(logits)
        call, after, _kept = self._call(1, state, logits)
        numbers, drawn = (ctypes.c_double * count)(*uniforms), (ctypes.c_int64 * count)()
        most, share, end = (default if given is None else given for given, default in ((top_k, self.vocab), (top_p, 1.0), (stop, -1)))
        addresses = [ctypes.addressof(array) for array in (numbers, drawn)]
        choice = _Choice(temperature, share, min(most, self.vocab), end, count, *addresses)
        done = self._library.ritornello_generate(ctypes.byref(call), ctypes.byref(choice))
        return drawn[:done], logits, self._state(after) if done else state

    def _token(self, tokens: Tensor, state: State, logits: Tensor) -> State:
        """Write the logits (B, 1, vocab); the state after."""
        B = len(tokens)
        ids = [id for row in tokens.tolist() for id in row]
        if any(not isinstance(id, int) or not 0 <= id < self.vocab for id in ids):
            raise InputError(f"tokens: expected ids from 0 to {self.vocab - 1}")
        call, after, _kept = self._call(B, state, logits)
        of_ids = (ctypes.c_int64 * B)(*ids)
        call.tokens = ctypes.addressof(of_ids)
        self._library.ritornello_decode(ctypes.byref(call))
        return self._state(after)

    def _call(self, B: int, state: State, logits: Tensor) -> tuple[_Decode, list[Tensor], object]:
        """All that a call needs but its tokens, the leaves it will write, and what must live until it returns."""
        before = self._checked(state, B)
        after = [torch.empty(B, *shape, dtype=dtype) for shape, dtype in self._leaves]
        of_before, of_after = ((ctypes.c_void_p * len(leaves))(*[leaf.data_ptr() for leaf in leaves]) for leaves in (before, after))
        sizes = (B, self.vocab, self._plan.room, len(self._steps), self._vnni, torch.get_num_threads())
        steps, befores, afters = (ctypes.addressof(array) for array in (self._steps, of_before, of_after))
        return _Decode(*sizes, steps, None, befores, afters, logits.data_ptr()), after, (before, of_before, of_after)

    def _state(self, leaves: list[Tensor]) -> State:
        each = iter(leaves)
        return tuple(BlockState(*[kind(*islice(each, count)) for kind, count in block]) for block in self._forms)

    def _checked(self, state: State, B: int) -> list[Tensor]:
        """The state's leaves, each in one piece."""
        leaves = _leaves(state)
        if len(leaves) != len(self._leaves):
            raise InputError(f"state: expected {len(self._leaves)} leaves, found {len(leaves)}; it is another model's")
        for leaf, (shape, dtype) in zip(leaves, self._leaves, strict=True):
            if leaf.shape != (B, *shape):
                expect_shape(leaf, (B, *shape), "state")
            if leaf.dtype != dtype or leaf.device.type != "cpu":
                raise InputError(f"state: expected {dtype} on cpu, found {leaf.dtype} on {leaf.device.type}")
        return [leaf if leaf.is_contiguous() else leaf.contiguous() for leaf in leaves]


def fastest(model: LM, weights: str = "float32") -> LM | NativeEngine:
    """The engine for a model: native if that can be; if not, in float32 the model itself, in fewer bits an InputError that says why."""
    try:
        return NativeEngine(model, weights)
    except InputError:
        if weights != "float32":
            raise
        return model


def explain(model: LM) -> str:
    """What `fastest` takes: "native", or "torch: " and why, in one line."""
    try:
        NativeEngine(model)
    except InputError as error:
        return f"torch: {error}"
    return "native"


def _leaves(state: State) -> list[Tensor]:
    return [leaf for block in state for part in block for leaf in part]


def _restarted(state: State, fresh: State, reset: Tensor) -> State:
    return map_leaves(lambda old, new: torch.where(reset.view(-1, *[1] * (old.dim() - 1)), new, old), state, fresh)
