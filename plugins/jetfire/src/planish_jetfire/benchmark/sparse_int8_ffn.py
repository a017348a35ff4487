"""A feed-forward network with INT8 2:4 weights, forward and backward, beside the same network dense in bfloat16.

Another method keeps the weights 2:4; here fixed masks stand for it, and what is timed are the plugin's own layers on
them. ``planish_jetfire.linear.sparse_encoders`` says why their scales are those of rows. Cutting the inner dimension
into segments with scales of their own, one call each, would fit INT32 sums too. Each call then writes the sums of its
segment, 4 bytes an output, and another pass scales and adds them up. At 8192 tokens and a width of 4096 the first
matmul of the network has 134 million outputs: 2.1 GB written, read and added for each segment, 0.5 ms at 4.3 TB/s. The
whole dense product takes 1.6 ms in bfloat16 (1.1 TFLOP at 690 TFLOP/s), so four segments of 1024 inputs already cost
more than that, and blocks of 128 would need 32. Segments do not pay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import planish
import torch
import torch.nn.functional as F
from planish.benchmark import Row, interleave
from planish_kernels.formats.format import Operand
from planish_kernels.formats.row_int8 import why_not_packed
from planish_kernels.formats.sparse24_cusparselt import Sparse24CuSparseLt
from planish_kernels.mask24 import transposable_mask_bits, unpack_mask
from planish_kernels.nn import EncodedLinear, LinearEncoders, Operands
from torch import Tensor, nn

from planish_jetfire import Jetfire

COMPILED, PLAIN = "compiled dense bfloat16", "dense bfloat16, not compiled"
TARGET = 1.6
TOLERANCE = 0.06
"""Relative error of gradients against float64 products of the masked weights: INT8 of Gaussian rows is off by 1.5 %."""
WEIGHT_GRADIENTS: Mapping[str, Mapping[str, Any]] = {
    "estimated weight gradient": {},
    "INT8 weight gradient": {},
    "dense weight gradient": {"matmuls": ("forward", "input_grad")},
}
"""How the third matmul is computed, and the plugin's options for it: on a 2:4 estimate of the gradient in bfloat16, in
INT8 blocks, in bfloat16."""


class FixedMask:
    """A weight with a transposable mask that never changes: the encoder of a sparsifier."""

    def __init__(self, weight: Tensor) -> None:
        self.bits = transposable_mask_bits(weight)

    def masked(self, weight: Tensor) -> Tensor:
        """The weight [out, in] with zeros."""
        return weight * unpack_mask(self.bits, weight.shape[1])

    def encode(self, tensor: Tensor, *, contraction: int) -> Operand:
        """The masked weight, dense."""
        return self.masked(tensor)

    def is_sparse24(self, contraction: int) -> bool:
        """Along either dimension."""
        return True

    def weight_and_mask(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """The weight and its mask."""
        return tensor, self.bits


class Estimate:
    """The unbiased 2:4 estimate of the output gradient along its tokens."""

    def __init__(self, draws: Tensor) -> None:
        self.draws = draws

    def encode(self, tensor: Tensor, *, contraction: int) -> Operand:
        """The packed estimate of ``tensor`` [tokens, out]."""
        self.draws.add_(1)
        return Sparse24CuSparseLt.encode_gradient(tensor, 1, self.draws.clone())

    def is_sparse24(self, contraction: int) -> bool:
        """Along the tokens."""
        return contraction == 0


class FeedForward(nn.Module):
    """``gelu(x @ first.T) @ second.T``."""

    def __init__(self, weights: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta") for weight in weights
        )
        for linear, weight in zip((self.first, self.second), weights, strict=True):
            linear.weight = nn.Parameter(weight.clone())

    def forward(self, x: Tensor) -> Tensor:
        """``[tokens, width]`` to the same."""
        hidden: Tensor = self.second(F.gelu(self.first(x), approximate="tanh"))
        return hidden


class SparseStep:
    """Forward and backward of a network whose weights are 2:4 and INT8."""

    def __init__(self, weights: tuple[Tensor, Tensor], weight_gradient: str, x: Tensor, grad: Tensor) -> None:
        self.net, self.x, self.grad = FeedForward(weights), x.clone().requires_grad_(), grad
        self.masks = [FixedMask(weight) for weight in weights]
        for name, mask in zip(("first", "second"), self.masks, strict=True):
            draws = torch.zeros((), dtype=torch.int64, device=x.device)
            estimate = Estimate(draws) if weight_gradient.startswith("estimated") else None
            encoders = LinearEncoders(Operands(right=mask), Operands(right=mask), Operands(left=estimate))
            setattr(self.net, name, EncodedLinear.from_linear(getattr(self.net, name), encoders))
        options = {"block": 128, "flow": "linear", "min_features": 1, **WEIGHT_GRADIENTS[weight_gradient]}
        self.live = planish.apply(self.net, Jetfire(options), targets=["first", "second"])
        self.live.on_train_start(1_000)
        self.run: Callable[[Tensor], Tensor] = self.net

    def compile(self) -> None:
        """Compile the network from here on."""
        self.run = torch.compile(self.net, dynamic=False, fullgraph=True)

    def step(self) -> tuple[Tensor, ...]:
        """Output, and the gradients of the input and of both weights."""
        output = self.run(self.x)
        wanted = (self.x, self.net.first.weight, self.net.second.weight)
        return (output.detach(), *torch.autograd.grad(output, wanted, self.grad))

    def prepare_weights(self) -> None:
        """What an optimizer step costs beside the optimizer and the search of masks: quantizing and packing."""
        self.live.on_gradients(0)
        self.live.on_step(1)


def dense_step(x: Tensor, grad: Tensor, weights: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same of dense weights, as autograd would compute it."""
    first, second = weights
    hidden = x @ first.t()
    activated = F.gelu(hidden, approximate="tanh")
    output = activated @ second.t()
    at_hidden = torch.ops.aten.gelu_backward(grad @ second, hidden, approximate="tanh")
    return output, at_hidden @ first, at_hidden.t() @ x, grad.t() @ activated


def _inputs(tokens: int, width: int, device: str) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    torch.manual_seed(width)
    x, grad = (torch.randn(tokens, width, device=device, dtype=torch.bfloat16) for _ in range(2))
    weights = tuple(
        (torch.randn(out, into, device=device) / into**0.5).bfloat16()
        for out, into in ((4 * width, width), (width, 4 * width))
    )
    return x, grad, (weights[0], weights[1])


def failures(device: str) -> Iterator[str]:
    """What is further from float64 products of the masked weights than INT8 explains, in words.

    Nothing where the kernels are not there: then there is nothing to time either.
    """
    if device.startswith("cuda") and why_not_packed(512, 128, torch.device(device)):
        return
    x, grad, weights = _inputs(256, 128, device)
    names = ("output", "input gradient", "first weight's gradient", "second weight's gradient")
    for kind in ("INT8 weight gradient", "dense weight gradient"):
        step = SparseStep(weights, kind, x, grad)
        first, second = (
            mask.masked(weight.double()) for mask, weight in zip(step.masks, weights, strict=True)
        )  # fmt: skip
        expected = dense_step(x.double(), grad.double(), (first, second))
        for name, found, exact in zip(names, step.step(), expected, strict=True):
            error = float((found.double() - exact).norm() / exact.norm())
            if not error <= TOLERANCE:
                yield f"INT8 2:4 network, {kind}, {name}: relative error {error:.2g} exceeds {TOLERANCE}"


def ffn_rows(width: int, tokens: int, *, device: str, rounds: int, notes: list[str]) -> Iterator[Row]:
    """Forward and backward of a network of width ``width``, four times as wide inside."""
    on_gpu = device.startswith("cuda")
    if on_gpu:
        why = why_not_packed(4 * width, width, torch.device(device))
        if why:
            notes.append(f"INT8 2:4 networks were left out: {why}")
            return
    x, grad, weights = _inputs(tokens, width, device)
    if on_gpu:
        torch._dynamo.reset()
    dense = torch.compile(dense_step, dynamic=False) if on_gpu else dense_step
    steps = {kind: SparseStep(weights, kind, x, grad) for kind in WEIGHT_GRADIENTS}
    work: dict[str, Callable[[], Any]] = {}
    for kind, step in steps.items():
        if on_gpu:
            # The first pass in eager mode settles self-tests, searches and codes, which a compiled graph only reads.
            step.step()
            step.prepare_weights()
            step.compile()
        work[kind] = step.step
    peer = COMPILED if on_gpu else PLAIN
    work[peer] = lambda: dense(x, grad, weights)
    times = interleave(work, device=device, rounds=rounds, graph=on_gpu)
    masks = interleave({"search": lambda: [FixedMask(weight) for weight in weights]}, device=device, rounds=5)["search"]
    for kind, step in steps.items():
        packing = interleave({"pack": step.prepare_weights}, device=device, rounds=5)["pack"]
        yield Row.compare(
            f"int8_sparse_ffn/d{width}/tokens{tokens}/{kind}",
            times[kind],
            {peer: times[peer]},
            against=peer,
            target=TARGET if width == 4096 else None,
            extra={"mask_search_ms": masks.median, "quantizing_and_packing_weights_ms": packing.median},
        )
