"""A step of an HGRN2 model as an ONNX graph, for ONNX Runtime to run: the formula alone, as lean as it can be written.

Bytes are ONNX Runtime's own dynamic quantisation of the matrix products. The state never leaves the runtime's memory.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ritornello.model import LM


class Lean(nn.Module):
    """(token (1, 1), S of each layer (H, K, K)) to (logits (1, V), S of each layer)."""

    def __init__(self, model: LM):
        super().__init__()
        self.model = model
        rise = next(block.time for block in model.blocks).rise.detach().softmax(0)
        self.register_buffer("floors", rise.cumsum(0) - rise[0])
        self.register_buffer("table", model.embedding.weight.detach().clone())  # the quantiser cannot share it with the head

    def forward(self, token: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        x, after = nn.functional.embedding(token, self.table)[0], []
        for block, floor, S in zip(self.model.blocks, self.floors.unbind(0), states, strict=True):
            mixer, u = block.time, _normed(block.time_norm, x)
            H, K = mixer.heads, mixer.head_dim
            q, f, v = nn.functional.silu(mixer.q(u)) * K**-0.5, floor + (1 - floor) * torch.sigmoid(mixer.f(u)), mixer.v(u)
            S = f.view(H, K, 1) * S + (1 - f).view(H, K, 1) * v.view(H, 1, K)
            after.append(S)
            x = x + mixer.out(_normed(mixer.norm, (q.view(H, 1, K) @ S).view(1, -1)))
            if block.channel is not None:
                u = _normed(block.channel_norm, x)
                x = x + block.channel.down(nn.functional.silu(block.channel.gate(u)) * block.channel.up(u))
        return self.model.head(_normed(self.model.norm, x)), *after


def _normed(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + norm.eps).rsqrt() * norm.weight


class OnnxStep:
    """A text that goes on in ONNX Runtime on one thread, in "float32" or "int8": each call feeds the likeliest token of the step before."""

    def __init__(self, model: LM, weights: str):
        import onnx
        import onnxruntime
        from onnxruntime.quantization import quantize_dynamic

        lean, mixer = Lean(model).eval(), model.blocks[0].time
        states = [torch.zeros(mixer.heads, mixer.head_dim, mixer.head_dim) for _ in model.blocks]
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "step.onnx")
            torch.onnx.export(lean, (torch.zeros(1, 1, dtype=torch.int64), *states), dynamo=True, verbose=False).save(path)
            if weights == "int8":
                graph = onnx.load(path)
                del graph.graph.value_info[:]  # what the exporter notes there stops the quantiser
                onnx.save(graph, path)
                quantize_dynamic(path, path := Path(folder, "int8.onnx"), op_types_to_quantize=["MatMul"])
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.value: Any = onnxruntime.OrtValue.ortvalue_from_numpy
        self.inputs, self.outputs = ([each.name for each in part] for part in (self.session.get_inputs(), self.session.get_outputs()))
        self.state, self.token = [self.value(state.numpy()) for state in states], torch.zeros(1, 1, dtype=torch.int64)

    def __call__(self) -> Tensor:
        """The logits (V,)."""
        feeds = dict(zip(self.inputs, [self.value(self.token.numpy()), *self.state], strict=True))
        logits, *self.state = self.session.run_with_ort_values(self.outputs, feeds)
        found = torch.from_numpy(logits.numpy())
        self.token = found.argmax(-1, keepdim=True)
        return found[0]
