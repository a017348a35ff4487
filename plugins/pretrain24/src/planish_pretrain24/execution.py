"""Which kernel each matmul of a layer gets on this machine, and where 2:4 kernels do not pay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from planish.structure import features
from planish_kernels.cusparselt.op import layout_verified, matmul_works
from planish_kernels.runtime.capability import cusparselt_available
from torch import nn

from planish_pretrain24.config import Pretrain24Config

PAYS_FROM_FEATURES = 1024
"""Smallest of in and out features from which sparse matmuls gain more than packing costs.

Measured on an H200 (``planish bench pretrain24``: networks of width d to 4d and back, forward and backward, beside
compiled dense bfloat16): at 16384 tokens a micro-step d = 1024 gains 1.16x, and 1.19x when eight micro-steps share the
packed weights; d = 2048 gains 1.29x and 1.36x, d = 4096 1.43x and 1.48x. Narrower networks were not measured.
"""
PAYS_FROM_TOKENS = 16384
"""Tokens a micro-step at which they do at every width from ``PAYS_FROM_FEATURES``.

At 4096 tokens (``--quick``) d = 1024 loses a little, 0.98x; sizes in between were not measured. A layer does not know
how many tokens it will see when execution is settled, so this is said in the plan, and decides nothing.
"""
WHERE_IT_PAYS = (
    f"2:4 kernels pay at {PAYS_FROM_TOKENS} tokens a micro-step and more; with fewer, narrow layers may be slower than "
    f"dense (an H200 at 4096 tokens and {PAYS_FROM_FEATURES} features: 0.98x), and execution='emulate' keeps them dense"
)
"""A note for plans that have layers on 2:4 kernels."""
KERNEL_MULTIPLE = 64
"""Both features of a layer are multiples of this on the sparse path."""


@dataclass(frozen=True)
class Execution:
    """How one layer is executed.

    Attributes:
        sparse: Whether its matmuls run on 2:4 kernels; else they are dense, on masked operands.
        reason: Why.
        details: Matmul -> what runs it, for the plan.
    """

    sparse: bool
    reason: str
    details: Mapping[str, str]


def choose(layer: nn.Module, config: Pretrain24Config) -> Execution:
    """Decide for one layer. Never raises; :func:`planish_pretrain24.sparsifier.Pretrain24.apply` refuses a
    ``sparse`` that cannot be had."""
    if config.method == "virtual":
        return Execution(False, "observed only", dict.fromkeys(("forward", "input_grad", "weight_grad"), "dense"))
    refusal = "execution is 'emulate'" if config.execution == "emulate" else cannot(layer, config)
    if refusal is None and config.execution == "auto":
        refusal = does_not_pay(layer)
    if refusal is None:
        weight_grad = "dense" if config.mvue == "off" else "cusparselt, packed gradient"
        input_grad = "cusparselt" if config.method == "fst" else "dense on the thresholded weight"
        details = {"forward": "cusparselt", "input_grad": input_grad, "weight_grad": weight_grad}
        return Execution(True, "2:4 kernels", details)
    operand = "dense, masked weight" if config.method == "fst" else "dense, thresholded weight"
    weight_grad = "dense" if config.mvue == "off" else "dense, estimated gradient"
    return Execution(False, refusal, {"forward": operand, "input_grad": operand, "weight_grad": weight_grad})


def packed_dtype(layer: nn.Module, config: Pretrain24Config) -> torch.dtype:
    """The dtype of a layer's packs: that of a 16-bit weight, else the one that the options name."""
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    if weight.dtype in (torch.bfloat16, torch.float16):
        return weight.dtype
    return torch.float16 if config.sparse_dtype == "float16" else torch.bfloat16


def _gpu_of(weight: torch.Tensor) -> torch.device:
    """The weight's GPU, or the current one, to which a trainer will move it."""
    return weight.device if weight.is_cuda else torch.device("cuda", torch.cuda.current_device())


def cannot(layer: nn.Module, config: Pretrain24Config) -> str | None:
    """Why a layer cannot run on 2:4 kernels here; None if it can."""
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    support = cusparselt_available()
    if not support:
        return support.reason
    support = matmul_works(_gpu_of(weight))
    if not support:
        return support.reason
    if weight.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"its weight is {weight.dtype}; the 2:4 kernels take float32 masters, bfloat16 and float16"
    if config.mvue == "approx":
        return "mvue='approx' is for comparison and has no packer; use 'exact' or 'off'"
    size = features(layer) or (0, 0)
    for what, value in zip(("in_features", "out_features"), size, strict=True):
        if value % KERNEL_MULTIPLE:
            return f"{what} {value} is not a multiple of {KERNEL_MULTIPLE}, which the 2:4 kernels need"
    return None


def does_not_pay(layer: nn.Module) -> str | None:
    """Why 2:4 kernels would not make a layer faster; None if they would."""
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    fused = layout_verified(_gpu_of(weight))
    if not fused:
        return f"without fused packers packing costs more than 2:4 matmuls gain: {fused.reason}"
    size = features(layer) or (0, 0)
    if min(size) < PAYS_FROM_FEATURES:
        return (
            f"at {size[0]}x{size[1]} packing would cost about what 2:4 matmuls gain (measured to pay from "
            f"{PAYS_FROM_FEATURES} features and {PAYS_FROM_TOKENS} tokens a micro-step)"
        )
    return None
