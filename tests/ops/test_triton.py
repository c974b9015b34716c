"""The GPU's kernels without a GPU: our loops stand in for flash-linear-attention's functions, called by its conventions.

Layouts, scale, gates, states and documents are what these tests hold; the kernels themselves are compared with the loop in
`python -m benchmarks.gpu`, before anything is timed, and in the last test, where there is a GPU.
"""

import ast
import importlib.util
import sys
import types
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ritornello.errors import InputError
from ritornello.ops import delta as delta_file
from ritornello.ops import outer as outer_file
from ritornello.ops import triton
from ritornello.ops.op import Implementation, Op

B, T, H, K, V = 3, 21, 2, 6, 4


def by_documents(step, inputs, scale, initial_state, output_final_state, cu_seqlens):
    """`step` on equally long rows, or on the documents of one row."""
    first = inputs[0]
    assert initial_state.dtype == torch.float32
    assert all(each.is_contiguous() and each.isfinite().all() for each in inputs)
    scale = first.shape[-1] ** -0.5 if scale is None else scale
    inputs = [first.float() * scale, *(each.float() for each in inputs[1:])]
    if cu_seqlens is None:
        y, end = step(*inputs, initial_state)
    else:
        assert len(first) == 1
        assert len(initial_state) == len(cu_seqlens) - 1
        bounds = zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), initial_state, strict=True)
        found = [step(*(each[:, a:b] for each in inputs), state[None]) for a, b, state in bounds]
        y, end = torch.cat([y for y, _ in found], 1), torch.cat([end for _, end in found])
    return y.to(first.dtype), end if output_final_state else None


def chunk_gla(q, k, v, g, scale=None, initial_state=None, output_final_state=False, cu_seqlens=None):
    assert q.shape == k.shape == g.shape

    def step(q, k, v, g, S):
        return outer_file.loop(q, k, v, g, None, S, None)

    return by_documents(step, [q, k, v, g], scale, initial_state, output_final_state, cu_seqlens)


def chunk_simple_gla(q, k, v, g=None, scale=None, initial_state=None, output_final_state=False, cu_seqlens=None):
    assert g.shape == q.shape[:3]

    def step(q, k, v, g, S):
        return outer_file.loop(q, k, v, g[..., None], None, S, None)

    return by_documents(step, [q, k, v, g], scale, initial_state, output_final_state, cu_seqlens)


def chunk_rwkv6(r, k, v, w, u, scale=None, initial_state=None, output_final_state=False, cu_seqlens=None):
    assert r.shape == k.shape == w.shape
    assert u.shape == r.shape[2:]

    def step(r, k, v, w, S):
        return outer_file.loop(r, k, v, w, u.float(), S, None)

    return by_documents(step, [r, k, v, w], scale, initial_state, output_final_state, cu_seqlens)


def chunk_dplr_delta_rule(q, k, v, a, b, gk, scale=None, initial_state=None, output_final_state=False, cu_seqlens=None):
    """S = (diag(exp gk) + b a') S + k v', written here by itself."""
    assert q.shape == k.shape == a.shape == b.shape == gk.shape

    def step(q, k, v, a, b, gk, S):
        out = []
        for t in range(q.shape[1]):
            held = torch.einsum("bhk,bhkv->bhv", a[:, t], S)
            S = gk[:, t].exp()[..., None] * S + b[:, t][..., None] * held[:, :, None] + k[:, t][..., None] * v[:, t][:, :, None]
            out.append(torch.einsum("bhk,bhkv->bhv", q[:, t], S))
        return torch.stack(out, 1), S

    return by_documents(step, [q, k, v, a, b, gk], scale, initial_state, output_final_state, cu_seqlens)


STAND_INS = {
    "gla": chunk_gla,
    "simple_gla": chunk_simple_gla,
    "rwkv6": chunk_rwkv6,
    "generalized_delta_rule": chunk_dplr_delta_rule,
}


@pytest.fixture
def stand_ins(monkeypatch):
    """Modules named as flash-linear-attention's, and nothing said against calling them; the names of those called, with dtypes."""
    called = []
    for name, function in STAND_INS.items():

        def counted(*, function=function, **words):
            called.append((function.__name__, {name: x.dtype for name, x in words.items() if isinstance(x, torch.Tensor)}))
            return function(**words)

        monkeypatch.setitem(sys.modules, f"fla.ops.{name}", types.SimpleNamespace(**{function.__name__: counted}))
    monkeypatch.setattr(triton, "against", lambda name, *inputs: None)
    return called


def leaves(op, decays, bonus, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    q, k, r = (normal(B, T, H, K) for _ in range(3))
    p, v, S = F.normalize(normal(B, T, H, K), dim=-1), normal(B, T, H, V), normal(B, H, K, V)
    g = None if decays == "none" else F.logsigmoid(normal(B, T, H, K if decays == "channel" else 1))
    u = normal(H, K) if bonus else None
    inputs = [q, k, v, g, u] if op == "outer" else [q, k, v, 0.3 * r, p, g]
    return [None if each is None else each.to(dtype).requires_grad_() for each in inputs], S.requires_grad_()


def results(op, inputs, S, reset, impl):
    """Outputs, end states, and the gradients of all inputs and of the first states."""
    y, end = {"outer": outer_file.outer, "delta": delta_file.delta}[op](*inputs, state=S, reset=reset, impl=impl)
    wanted = [each for each in (*inputs, S) if each is not None]
    weight = torch.linspace(-1, 1, y.numel()).view(y.shape)
    return [y, end, *torch.autograd.grad((y * weight).sum() + end.square().sum(), wanted)]


def documents(kind):
    if kind == "none":
        return None
    reset = torch.zeros(B, T, dtype=torch.bool)
    if kind == "some":  # inside a row, at its start, at its end, two in a row; the last row has none
        reset[0, [5, 6, T - 1]] = True
        reset[1, [0, 9]] = True
    return reset


CASES = [
    ("outer", "channel", False, "chunk_gla"),
    ("outer", "head", False, "chunk_simple_gla"),
    ("outer", "channel", True, "chunk_rwkv6"),
    ("outer", "head", True, "chunk_rwkv6"),
    ("delta", "none", False, "chunk_dplr_delta_rule"),
    ("delta", "head", False, "chunk_dplr_delta_rule"),
    ("delta", "channel", False, "chunk_dplr_delta_rule"),
]


@pytest.mark.parametrize("kind", ["none", "empty", "some"])
@pytest.mark.parametrize(("op", "decays", "bonus", "kernel"), CASES)
def test_the_calls_compute_what_the_loop_does(stand_ins, op, decays, bonus, kernel, kind):
    inputs, S = leaves(op, decays, bonus)
    found, wanted = (results(op, inputs, S, documents(kind), impl) for impl in ("auto", "loop"))
    assert [name for name, _ in stand_ins] == [kernel]
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("op", "decays", "bonus", "kernel"), CASES)
def test_bfloat16_reaches_the_kernels_and_states_stay_float32(stand_ins, op, decays, bonus, kernel):
    inputs, S = leaves(op, decays, bonus, torch.bfloat16)
    inputs[1] = inputs[1].detach().float().requires_grad_()  # a key made in float32
    y, end, *_ = results(op, inputs, S, None, "triton")
    ((_, dtypes),) = stand_ins
    wide = {name for name, dtype in dtypes.items() if dtype == torch.float32}
    assert wide == {"initial_state", *({"g", "gk", "w"} & set(dtypes))}
    assert (y.dtype, end.dtype) == (torch.bfloat16, torch.float32)
    wide_inputs = [None if each is None else each.detach().float().requires_grad_() for each in inputs]
    torch.testing.assert_close(end, results(op, wide_inputs, S, None, "loop")[1], rtol=2e-2, atol=2e-2)


def test_only_what_is_narrow_takes_inputs_as_they_come():
    def seen(q, k, S, reset):
        return q, (q.dtype, k and k.dtype)

    op = Op("op", {"narrow": Implementation(seen, lambda q, k: None, narrow=True), "wide": Implementation(seen)})
    q = torch.zeros(2, dtype=torch.bfloat16)
    assert op(q, None, state=torch.zeros(1))[1] == (torch.bfloat16, None)
    assert op(q, None, state=torch.zeros(1), impl="wide")[1] == (torch.float32, None)
    assert op(q, None, state=torch.zeros(1, dtype=torch.float64))[1] == (torch.float64, None)


def test_a_gate_that_shuts_wholly_is_a_number(stand_ins):
    (q, k, v, g, _), S = leaves("outer", "channel", False)
    g = g.detach().clone()
    g[:, 3] = -torch.inf
    found = results("outer", [q, k, v, g.requires_grad_(), None], S, None, "triton")
    assert all(torch.isfinite(each).all() for each in found)


def test_without_a_gpu_it_is_passed_over_and_says_so():
    inputs, S = leaves("outer", "channel", False)
    reason = "inputs are on cpu" if torch.cuda.is_available() else "no GPU"
    assert f"triton: {reason}" in outer_file.outer.explain(*inputs)
    with pytest.raises(InputError, match=f"^outer: the GPU's kernel cannot run here: {reason}; leave the choice to auto$"):
        outer_file.outer(*inputs, state=S, impl="triton")


@pytest.mark.parametrize(
    ("name", "length", "keys", "dtype", "precision", "said"),
    [
        ("outer", 16, 8, torch.bfloat16, "highest", None),
        ("outer", 16, 8, torch.float32, "high", None),
        ("outer", 16, 8, torch.float32, "highest", "inputs are float32 and these kernels multiply in TF32"),
        ("outer", 16, 8, torch.float64, "high", "inputs are float64"),
        ("outer", 15, 8, torch.bfloat16, "highest", "15 steps"),
        ("outer", 16, 512, torch.bfloat16, "highest", None),
        ("delta", 16, 256, torch.bfloat16, "highest", None),
        ("delta", 16, 257, torch.bfloat16, "highest", "keys of 257"),
        ("delta", 16, 8, torch.float32, "high", "inputs are float32, which"),
    ],
)
def test_what_speaks_against_the_kernels(monkeypatch, name, length, keys, dtype, precision, said):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision)
    found = triton._unfit(name, torch.empty(1, length, 1, keys, dtype=dtype))
    assert (found is None) if said is None else found.startswith(said)


@pytest.mark.parametrize("missing", ["fla", "triton"])
def test_what_is_not_installed_is_named(monkeypatch, missing):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else object())
    on_gpu = types.SimpleNamespace(device=types.SimpleNamespace(type="cuda"))
    assert triton.against("outer", on_gpu) == ("flash-linear-attention is not installed" if missing == "fla" else "triton is not installed")


@pytest.mark.parametrize("module", STAND_INS)
def test_the_stand_ins_have_the_names_that_the_package_has(module):
    """Read from its source: importing it needs triton."""
    spec = importlib.util.find_spec("fla")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("flash-linear-attention is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "ops" / module
    name = STAND_INS[module].__name__
    definitions = [
        node
        for path in folder.rglob("chunk.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    ours = set(STAND_INS[module].__code__.co_varnames[: STAND_INS[module].__code__.co_argcount])
    assert ours <= {each.arg for each in definitions[0].args.args}
    assert name in (folder / "__init__.py").read_text("utf-8")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", ["none", "some"])
@pytest.mark.parametrize(("op", "decays", "bonus", "kernel"), CASES)
def test_the_kernels_themselves_equal_the_loop(op, decays, bonus, kernel, kind):
    pytest.importorskip("fla")
    inputs, S = leaves(op, decays, bonus, torch.bfloat16)
    inputs = [None if each is None else each.detach().cuda().requires_grad_() for each in inputs]
    S, reset = S.detach().cuda().requires_grad_(), documents(kind)
    reset = None if reset is None else reset.cuda()
    found, wanted = (results(op, inputs, S, reset, impl) for impl in ("triton", "loop"))
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).float().norm() < 3e-2 * b.float().norm()
