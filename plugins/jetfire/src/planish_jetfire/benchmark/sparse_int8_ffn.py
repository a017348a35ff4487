"""A feed-forward network with INT8 2:4 weights, forward and backward, as sparse tensor cores can compute it.

A sparse INT8 matmul sums over the whole inner dimension in INT32, so a scale that changes along it cannot be taken out
of the sum: square blocks do not fit. What fits is a scale for each row of either operand, with rows across the inner
dimension:

* forward, ``x @ w.T``, sums over inputs: a scale for each token of ``x`` and for each output of ``w``;
* input gradient, ``g @ w``, sums over outputs: a scale for each token of ``g`` and for each *input* of ``w``, hence a
  second quantization of the weight. Its mask is 2:4 both ways, so both are sparse.

Cutting the inner dimension into segments with scales of their own, one call each, would fit too. Each call then writes
the sums of its segment, 4 bytes an output, and another pass scales and adds them up. At 8192 tokens and a width of 4096
the first matmul of the network has 134 million outputs: 2.1 GB written, read and added for each segment, 0.5 ms at
4.3 TB/s. The whole dense product takes 1.6 ms in bfloat16 (1.1 TFLOP at 690 TFLOP/s), so four segments of 1024 inputs
already cost more than that, and blocks of 128 would need 32. Segments do not pay.

The weight gradient sums over tokens; it stays in bfloat16, dense or with the 2:4 estimate of the output gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from planish.benchmark import Row, interleave
from planish_kernels.cusparselt.algorithms import plan_for
from planish_kernels.cusparselt.op import matmul_works
from planish_kernels.cusparselt.plan import Problem
from planish_kernels.formats.sparse24_cusparselt import Sparse24CuSparseLt
from planish_kernels.mask24 import transposable_mask
from planish_kernels.matmul import matmul
from torch import Tensor

COMPILED, PLAIN = "compiled dense bfloat16", "dense bfloat16, not compiled"
TARGET = 1.6
TOLERANCE = 0.06
"""Relative error of gradients against float64 products of the masked weights: INT8 of Gaussian rows is off by 1.5 %."""


class SparseWeight(NamedTuple):
    """A weight [out, in] for both products: sparse codes, their scales, and the bfloat16 matrix that they stand for.

    ``forward`` is packed along inputs with a scale for each output; ``backward`` [in, out] along outputs, with a scale
    for each input.
    """

    forward: Tensor
    forward_scales: Tensor
    backward: Tensor
    backward_scales: Tensor
    shape: tuple[int, int]
    masked: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> SparseWeight:
        """Quantize and pack a bfloat16 weight, whose sides are multiples of 64."""
        mask = transposable_mask(weight)
        masked = weight * mask
        along_inputs, forward_scales = quantized_rows(masked)
        along_outputs, backward_scales = quantized_rows(masked.t().contiguous())
        return cls(
            _packed(along_inputs, mask), forward_scales, _packed(along_outputs, mask.t().contiguous()), backward_scales,
            (weight.shape[0], weight.shape[1]), masked,
        )  # fmt: skip


def quantized_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes and float32 scales [rows, 1], to nearest: a scale for each row."""
    values = matrix.float()
    scales = values.abs().amax(1, keepdim=True).clamp_min(2.0**-120) / 127
    return torch.round(values / scales).to(torch.int8), scales


def _packed(codes: Tensor, mask: Tensor) -> Tensor:
    encoded = Sparse24CuSparseLt.encode(codes, mask, trust_mask=True)
    assert isinstance(encoded, Sparse24CuSparseLt)
    return encoded.packed


def sparse_product(packed: Tensor, rows: int, cols: int, codes: Tensor) -> Tensor:
    """``codes [tokens, cols] @ unpacked [rows, cols].T`` of int8, summed in INT32, given in bfloat16 [tokens, rows]."""
    tokens = codes.shape[0]
    if packed.device.type != "cuda":
        weight = Sparse24CuSparseLt(packed, rows, cols).decode()
        return (codes.float() @ weight.float().t()).bfloat16()  # exact up to 2^24, which tests stay below
    out = torch.empty((tokens, rows), dtype=torch.bfloat16, device=codes.device)
    problem = Problem(rows, tokens, cols, torch.int8, torch.bfloat16, True, True)
    with torch.cuda.device(codes.device):
        plan_for(problem, packed, codes, out).run(packed, codes, out)
    return out


def _activate(product: Tensor, token_scales: Tensor, weight_scales: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scale, GELU, quantize: what went into the activation, its result in bfloat16, and the codes of that."""
    hidden = product.float() * token_scales * weight_scales.t()
    activated = F.gelu(hidden, approximate="tanh")
    return hidden.bfloat16(), activated.bfloat16(), *quantized_rows(activated)


def _scaled(product: Tensor, token_scales: Tensor, weight_scales: Tensor) -> Tensor:
    return (product.float() * token_scales * weight_scales.t()).bfloat16()


def _activation_backward(
    product: Tensor, token_scales: Tensor, weight_scales: Tensor, hidden: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    grad = product.float() * token_scales * weight_scales.t()
    grad = torch.ops.aten.gelu_backward(grad, hidden.float(), approximate="tanh")
    return grad.bfloat16(), *quantized_rows(grad)


class FeedForward:
    """``gelu(x @ w1.T) @ w2.T`` and its gradients; ``estimates`` draws the 2:4 estimate for the weight gradients."""

    def __init__(self, weights: tuple[Tensor, Tensor], *, estimates: bool, is_compiled: bool) -> None:
        self.first, self.second = (SparseWeight.of(weight) for weight in weights)
        self.estimates = estimates
        wrap: Callable[[Any], Any] = torch.compile if is_compiled else lambda function: function
        self._quantize, self._activate = wrap(quantized_rows), wrap(_activate)
        self._scale, self._activation_backward = wrap(_scaled), wrap(_activation_backward)

    def step(self, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Output, and the gradients of the input and of both weights, bfloat16."""
        first, second = self.first, self.second
        codes, scales = self._quantize(x)
        product = sparse_product(first.forward, *first.shape, codes)
        hidden, activated, codes, own = self._activate(product, scales, first.forward_scales)
        product = sparse_product(second.forward, *second.shape, codes)
        output = self._scale(product, own, second.forward_scales)
        codes, scales = self._quantize(grad)
        product = sparse_product(second.backward, *second.shape[::-1], codes)
        at_hidden, codes, own = self._activation_backward(product, scales, second.backward_scales, hidden)
        product = sparse_product(first.backward, *first.shape[::-1], codes)
        grad_x = self._scale(product, own, first.backward_scales)
        return output, grad_x, self._weight_grad(at_hidden, x), self._weight_grad(grad, activated)

    def _weight_grad(self, grad: Tensor, input: Tensor) -> Tensor:
        if not self.estimates:
            return grad.t() @ input
        estimate = Sparse24CuSparseLt.encode_gradient(grad, 1, 2)
        return matmul(estimate.T, input)


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
    if device.startswith("cuda") and not matmul_works(torch.device(device)):
        return
    x, grad, weights = _inputs(256, 128, device)
    network = FeedForward(weights, estimates=False, is_compiled=False)
    masked = network.first.masked.double(), network.second.masked.double()
    expected = dense_step(x.double(), grad.double(), masked)
    names = ("output", "input gradient", "first weight's gradient", "second weight's gradient")
    for name, found, exact in zip(names, network.step(x, grad), expected, strict=True):
        error = float((found.double() - exact).norm() / exact.norm())
        if not error <= TOLERANCE:
            yield f"INT8 2:4 network, {name}: relative error {error:.2g} exceeds {TOLERANCE}"


def ffn_rows(width: int, tokens: int, *, device: str, rounds: int, notes: list[str]) -> Iterator[Row]:
    """Forward and backward of a network of width ``width``, four times as wide inside."""
    on_gpu = device.startswith("cuda")
    if on_gpu:
        works = matmul_works(torch.device(device))
        if not works:
            notes.append(f"INT8 2:4 networks were left out: {works.reason}")
            return
    x, grad, weights = _inputs(tokens, width, device)
    dense = torch.compile(dense_step, dynamic=False) if on_gpu else dense_step
    kinds = {"dense weight gradient": False, "estimated weight gradient": True}
    networks = {name: FeedForward(weights, estimates=e, is_compiled=on_gpu) for name, e in kinds.items()}
    work: dict[str, Callable[[], Any]] = {
        name: (lambda network=network: network.step(x, grad))  # type: ignore[misc]
        for name, network in networks.items()
    }
    peer = COMPILED if on_gpu else PLAIN
    work[peer] = lambda: dense(x, grad, weights)
    times = interleave(work, device=device, rounds=rounds, graph=on_gpu)
    packing = interleave({"pack": lambda: [SparseWeight.of(weight) for weight in weights]}, device=device, rounds=5)
    for name in networks:
        yield Row.compare(
            f"int8_sparse_ffn/d{width}/tokens{tokens}/{name}",
            times[name],
            {peer: times[peer]},
            against=peer,
            target=TARGET if width == 4096 else None,
            extra={"mask_search_quantization_and_packing_ms": packing["pack"].median},
        )
