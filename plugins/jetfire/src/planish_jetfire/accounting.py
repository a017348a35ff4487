"""What autograd saves for backward, counted in bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class SavedTensors:
    """Storages that autograd holds after a forward pass, each counted once.

    Attributes:
        nbytes: bytes of all of them.
        tensors: dtype and shape of the first saved tensor of each storage, with the bytes of the storage.
    """

    nbytes: int
    tensors: tuple[tuple[torch.dtype, tuple[int, ...], int], ...]

    def by_dtype(self) -> dict[torch.dtype, int]:
        """Bytes by dtype of the saved tensor."""
        counted: Counter[torch.dtype] = Counter()
        for dtype, _, nbytes in self.tensors:
            counted[dtype] += nbytes
        return dict(counted)


def saved_tensors(function: Callable[[], Any], exclude: Iterable[Tensor] = ()) -> SavedTensors:
    """What autograd saves while ``function`` runs.

    A storage counts once however often it is saved, and whole, since a view keeps all of it. What a backward pass
    would free only with its model is no activation: pass parameters and buffers as ``exclude``.

    Args:
        function: A forward pass; call it through a lambda with its inputs.
        exclude: Tensors whose storages do not count: parameters, buffers, inputs that live on anyway.
    """
    known = {_address(tensor) for tensor in exclude}
    held: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        address = _address(tensor)
        if address not in known and tensor.untyped_storage().nbytes():
            # Holding it keeps the address from being given to another storage.
            held.setdefault(address, tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    listed = tuple((t.dtype, tuple(t.shape), t.untyped_storage().nbytes()) for t in held.values())
    del result
    return SavedTensors(sum(nbytes for *_, nbytes in listed), listed)


def saved_bytes(function: Callable[[], Any], exclude: Iterable[Tensor] = ()) -> int:
    """The bytes that autograd saves while ``function`` runs; see :func:`saved_tensors`."""
    return saved_tensors(function, exclude).nbytes


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
