"""What must be right on a machine before the speed of 2:4 layers is worth a word."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from planish_kernels.mvue24 import mvue24
from planish_kernels.runtime.self_test import run_self_tests
from torch import Tensor, nn

from planish_pretrain24.config import Pretrain24Config
from planish_pretrain24.sparsifier import Pretrain24
from planish_pretrain24.state import layers

TOLERANCE = 8e-3
"""Relative Frobenius error of a bfloat16 product against float64: operands are exact, the result is rounded once."""

_TOKENS, _WIDTH = 1000, 512


def oracle_failures(device: torch.device) -> list[str]:
    """What disagrees with its oracle, in words; empty if nothing does.

    The self-tests of the kernels; then for each linear of a sparse network output, input gradient and weight gradient
    against float64 products of the masked weight and of the same drawn gradient.
    """
    failures = [f"self-test {result.name}: {result.detail}" for result in run_self_tests(device) if not result.ok]
    return [*failures, *_layer_failures(device)]


def _layer_failures(device: torch.device) -> Iterator[str]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(_WIDTH, 4 * _WIDTH, bias=False), nn.GELU(), nn.Linear(4 * _WIDTH, _WIDTH, bias=False))
    net = net.to(device, torch.bfloat16)
    transform = Pretrain24(Pretrain24Config(execution="sparse", dense_finish=0.0))
    transform.apply(net, transform.plan(net))
    transform.on_train_start(net, 1000)
    found = list(layers(net))
    if len(found) != 2:
        yield f"{len(found)} of 2 linears were taken"
    for name, layer, state in found:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        hidden = torch.randn(_TOKENS, weight.shape[1], device=device, dtype=torch.bfloat16).requires_grad_()
        grad = torch.randn(_TOKENS, weight.shape[0], device=device, dtype=torch.bfloat16)
        drawn = mvue24(grad, state.own_seed(), state.draws.clone(), impl="reference")
        masked = (weight.detach() * state.kept()).double()
        output = layer(hidden)
        output.backward(grad)
        assert hidden.grad is not None
        assert weight.grad is not None
        for what, ours, expected in (
            ("output", output, hidden.detach().double() @ masked.t()),
            ("input gradient", hidden.grad, grad.double() @ masked),
            ("weight gradient", weight.grad, drawn.double().t() @ hidden.detach().double()),
        ):
            error = float((ours.detach().double() - expected).norm() / expected.norm())
            if not error <= TOLERANCE:
                yield f"{what} of layer {name}: relative error {error:.2g} exceeds {TOLERANCE}"
