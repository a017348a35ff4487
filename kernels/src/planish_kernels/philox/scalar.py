"""Seeds and offsets as tensors, which a CUDA graph reads anew at each replay."""

from __future__ import annotations

import torch
from torch import Tensor


def as_scalar(name: str, value: int | Tensor, device: torch.device) -> Tensor:
    """``value`` as a 0-d int64 tensor on ``device``.

    Raises:
        ValueError: it is a tensor of another shape or dtype, or an integer of more than 64 bits.
    """
    if isinstance(value, Tensor):
        if value.dtype is not torch.int64 or value.dim() != 0:
            found = f"dtype {value.dtype}, shape {tuple(value.shape)}"
            raise ValueError(f"{name} has {found}, expected a 0-d int64 tensor or an int: torch.tensor(7)")
        return value.to(device)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{name}={value} does not fit 64 bits: reduce it, for example modulo 2**63")
    return torch.full((), value, dtype=torch.int64, device=device)
