"""Which kernel each matmul of a model ran on."""

from __future__ import annotations

import torch
from planish.api import applied
from planish.report import KernelUse
from planish_kernels.nn import EncodedLinear
from torch import nn


def kernel_uses(model: nn.Module, tokens: int, dtype: torch.dtype) -> list[KernelUse]:
    """Return one entry per matmul of each encoded linear; where there is none, what the plans said.

    Args:
        model: The model, its transforms applied and not finished.
        tokens: Rows of a linear's input in a micro-step.
        dtype: Of the computation.
    """
    found: list[KernelUse] = []
    for name, module in model.named_modules():
        if isinstance(module, EncodedLinear):
            for operation, choice in module.explain(tokens, dtype).items():
                falls_back = choice.kernel == "reference" or choice.kernel.startswith("reference")
                found.append(
                    KernelUse(
                        module=name,
                        operation=operation,
                        kernel=choice.kernel,
                        fallback=choice.reason if falls_back else None,
                    )
                )
    explained = {use.module for use in found}
    for live in applied(model):
        for planned in live.plan.touched:
            if planned.name not in explained:
                found += [
                    KernelUse(module=planned.name, operation=operation, kernel=kernel, fallback=None)
                    for operation, kernel in planned.details.items()
                ]
    return found
