"""Linear layers, however they store their weight."""

from __future__ import annotations

from torch import nn


def features(module: nn.Module) -> tuple[int, int] | None:
    """``(in_features, out_features)`` of a linear-like module, else None.

    Linear-like is ``nn.Linear``, and a module that stores ``weight`` [in, out] and says so by the attributes ``nx`` and
    ``nf``, as Hugging Face's ``Conv1D`` does.
    """
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if stores_transposed(module):
        rows, cols = module._parameters["weight"].shape  # type: ignore[union-attr]
        return rows, cols
    return None


def stores_transposed(module: nn.Module) -> bool:
    """Whether the module is a linear layer that stores its weight [in, out], as Hugging Face's ``Conv1D``."""
    weight = module._parameters.get("weight")
    sizes = (getattr(module, "nx", None), getattr(module, "nf", None))
    return (
        weight is not None and weight.dim() == 2 and type(module).__name__ == "Conv1D" and sizes[1] == weight.shape[1]
    )
