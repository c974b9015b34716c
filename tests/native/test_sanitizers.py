"""The kernels under the address and undefined-behaviour sanitizers, in C++ programs of their own.

`driver` calls each at many sizes beside plain loops; `replay` takes a step of whole models through the decoder.
"""

import ctypes
import functools
import re
import struct
import subprocess
from pathlib import Path

import pytest
import torch
from laws import small

import ritornello.serve.native
from ritornello._native import library
from ritornello.mixers import CHANNEL
from ritornello.model import LM, LMConfig
from ritornello.serve.native import NativeEngine
from ritornello.serve.plan import STEPS, WEIGHTS
from ritornello.state import named_leaves

FOLDER = Path(__file__).parent
NAMES = list(library.ISAS)
HERE = [name for name in NAMES if NAMES.index(name) >= NAMES.index(library.instruction_set())]  # what this processor has
CHECKS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
LANES = {"avx512": 16, "avx2": 8, "base": 4}


@pytest.fixture(scope="module", params=[HERE[0], *(pytest.param(name, marks=pytest.mark.slow) for name in HERE[1:-1]), *HERE[1:][-1:]])
def program(request, tmp_path_factory):
    """The path of a program by its name, its kernels for the widest and the narrowest instruction set, the rest if there is time."""
    compiler = library.compiler()
    if compiler is None:
        pytest.skip("no C++ compiler found")
    folder = tmp_path_factory.mktemp(request.param)
    options = (*CHECKS, "-D_GLIBCXX_ASSERTIONS", "-g1", "-O0", library.OPENMP, *library._options(request.param))
    probe = folder / "probe.cpp"
    probe.write_text("int main() { return 0; }\n", encoding="utf-8")
    if subprocess.run([compiler, *CHECKS, str(probe), "-o", str(folder / "probe")], capture_output=True, check=False).returncode:
        pytest.skip(f"{compiler} has no sanitizers")
    failure = library._compile(compiler, options, library._sources(), folder / "kernels.so")
    assert failure is None, failure

    @functools.cache
    def link(name: str) -> str:
        made = folder / name
        kernels = [str(folder / f"{source.stem}.o") for source in library._sources()]
        words = ["-std=c++17", "-O1", *CHECKS, library.OPENMP, *kernels, "-o", str(made)]
        subprocess.run([compiler, "-std=c++17", "-O1", "-c", str(FOLDER / f"{name}.cpp"), "-o", f"{made}.o"], check=True)
        subprocess.run([compiler, f"{made}.o", *words], check=True)
        return str(made)

    link.lanes = LANES[request.param]
    return link


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[:4000]
    return done.stdout


def test_no_kernel_reads_or_writes_beside_its_buffers(program):
    """And each agrees with its formula, gradients too."""
    assert "comparisons, 0 failures" in run(program("driver"))


def test_every_kernel_is_tried():
    exported = {
        name for path in library._sources() for name in re.findall(r'extern "C"[^\n]*?(ritornello_\w+)\(', path.read_text(encoding="utf-8"))
    }
    called = {
        name
        for path in [*FOLDER.glob("*.cpp"), *FOLDER.glob("*.h")]
        for name in re.findall(r"ritornello_\w+", path.read_text(encoding="utf-8"))
    }
    assert exported - called == {"ritornello_about", "ritornello_vnni"}


class Replay:
    """Stands for the library: a step goes to a program by file, and what it made comes back by file."""

    def __init__(self, program, folder: Path, vnni: bool):
        self.program, self.folder = program, folder
        self.ritornello_lanes, self.ritornello_vnni = lambda: program.lanes, lambda: int(vnni)

    def ritornello_decode(self, reference) -> None:
        call, sizes, links = reference._obj, {}, []
        engine, B = self.engine, call.B
        for tensor in engine._plan.kept:
            sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        leaves = [B * torch.empty(shape, dtype=kind).nbytes for shape, kind in engine._leaves]
        arrays = {call.steps: ctypes.sizeof(engine._steps), call.before: 8 * len(leaves), call.after: 8 * len(leaves)}
        sizes |= arrays | {call.tokens: 8 * B, call.logits: 4 * B * call.vocab}
        for array in (call.before, call.after):
            sizes |= dict(zip(pointers(array, len(leaves)), leaves, strict=True))
        sizes[ctypes.addressof(call)] = ctypes.sizeof(call)  # the last one: the argument
        order = {address: place for place, address in enumerate(sizes)}
        for address in (*arrays, ctypes.addressof(call)):
            for place, target in enumerate(pointers(address, sizes[address] // 8)):
                if target in order:
                    links.append((order[address], 8 * place, order[target]))
        contents = [ctypes.string_at(address, size) for address, size in sizes.items()]
        data = [struct.pack("q", len(contents)), *(struct.pack("q", len(each)) + each for each in contents)]
        data += [struct.pack("q", len(links)), *(struct.pack("3q", *link) for link in links)]
        (self.folder / "in").write_bytes(b"".join(data))
        run(self.program("replay"), str(self.folder / "in"), str(self.folder / "out"))
        after, at = (self.folder / "out").read_bytes(), 0
        for address, size in sizes.items():
            if address not in arrays and address != ctypes.addressof(call):
                ctypes.memmove(address, after[at : at + size], size)
            at += size


def pointers(address: int, count: int) -> list[int]:
    return list((ctypes.c_int64 * count).from_address(address))


@pytest.mark.parametrize("weights", WEIGHTS)
@torch.no_grad()
def test_a_step_of_a_model_stays_in_its_buffers(weights, program, tmp_path, monkeypatch):
    for B, dim, name in [(B, dim, name) for B, dim in ((1, 24), (5, 40), (16, 32)) for name in STEPS]:
        layers, channel = (("hgrn2",), name) if name in CHANNEL else ((name,) * 2, None)
        model = LM(LMConfig(vocab=37, dim=dim, layers=layers, channel=channel, mixers={name: small(name)})).eval()
        replay = Replay(program, tmp_path, vnni=B > 1)
        monkeypatch.setattr(ritornello.serve.native, "library", lambda replay=replay: replay)
        replay.engine = engine = NativeEngine(model, weights)
        _, state = model(torch.randint(37, (B, 3)), model.init_state(B))
        tokens = torch.randint(37, (B, 1))
        wanted, found = model(tokens, state), engine(tokens, state)
        for (path, a), (_, b) in zip(named_leaves(found), named_leaves(wanted), strict=True):
            assert (a.double() - b).norm() <= {"float32": 1e-4, "bfloat16": 0.05, "int8": 0.1}[weights] * (b.double().norm() + 1e-3), (
                name,
                B,
                path,
            )
