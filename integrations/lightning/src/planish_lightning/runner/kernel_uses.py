"""Which kernel each matmul of a model ran on."""

from __future__ import annotations

import torch
from planish.api import applied
from planish.report import KernelUse
from planish_kernels.nn import EncodedLinear
from torch import nn


def kernel_uses(model: nn.Module, tokens: int, dtype: torch.dtype) -> list[KernelUse]:
    """Return one entry per operation of each changed module: what runs it, and for a fallback why.

    Args:
        model: The model, its transforms applied and not finished.
        tokens: Rows of a linear's input in a micro-step.
        dtype: Of the computation.
    """
    found: list[KernelUse] = []
    for live in applied(model):
        remarks = "; ".join(live.plan.notes) or None
        for planned in live.plan.touched:
            module = model.get_submodule(planned.name) if planned.name else model
            ran = module.explain(tokens, dtype) if isinstance(module, EncodedLinear) else {}
            for operation in dict.fromkeys((*ran, *planned.details)):
                kernel = ran[operation].kernel if operation in ran else planned.details[operation]
                falls_back = operation in ran and kernel in ("dense", "reference")
                if falls_back:  # the plan says what the dense matmul stands for, and its remarks say why
                    kernel = planned.details.get(operation, kernel)
                reason = (remarks if kernel.startswith("dense") else ran[operation].reason) if falls_back else None
                found.append(KernelUse(module=planned.name, operation=operation, kernel=kernel, fallback=reason))
    return found
