"""What 2:4 training remembers about one linear layer: buffers of a child module, so that a state_dict carries all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from planish_pretrain24.packs import WeightPacks

CHILD = "sparsity"
"""Name under which the state hangs below its linear layer."""

Method = Literal["fst", "sste", "virtual"]

_SEED_STEP = 0x9E3779B97F4A7C15
_INT64 = 2**64


def signed64(value: int) -> int:
    """``value`` modulo 2^64, as a signed 64-bit integer."""
    value %= _INT64
    return value - _INT64 if value >= 2**63 else value


class LayerSparsity(nn.Module):
    """State of one linear layer under 2:4 training; its parent is the layer.

    Buffers:
        mask: uint8 ``[out_features, ceil(in_features / 8)]``: one bit a weight, set where it is kept, in the logical
            orientation [out, in] whatever the layer's storage.
        flips: int64 0-d: weights whose mask bit changed at the last search.
        steps: int64 0-d: optimizer steps done, as of the last ``state_dict``.
        is_dense: uint8 0-d: 1 in the dense finish.
        draws: int64 0-d: estimates of the output gradient drawn so far; the offset of the next one.
        seed: int64 0-d: key of the draws, the same on every rank (a rank adds its own term).
        scale: float32 0-d: the frozen factor of S-STE; 1 for other methods.

    Attributes:
        dense: ``is_dense`` as a plain bool, so that no forward pass waits for the device.
        steps_done: optimizer steps done, as a plain int.
        is_fresh: nothing was trained or loaded yet: masks and scale may still follow the weights.
        masks_missing: a checkpoint that has no masks was loaded into a fresh layer.
        dense_from: optimizer step from which training is dense; None where it is not, or not known yet.
        rank: rank in data-parallel training.
        on_kernels: whether the layer runs on 2:4 kernels; else it is emulated.
        packs: the weight packed for them; None where the layer is emulated, or another method encodes its weight.
    """

    mask: Tensor
    flips: Tensor
    steps: Tensor
    is_dense: Tensor
    draws: Tensor
    seed: Tensor
    scale: Tensor
    _octets: Tensor

    def __init__(
        self,
        method: Method,
        weight: Tensor,
        *,
        transposed: bool,
        seed: int,
        rebuild_masks: bool = False,
        original: type[nn.Module] | None = None,
    ) -> None:
        """Create the state for a layer.

        Args:
            method: The training method.
            weight: The layer's weight as stored; read for its shape and device.
            transposed: Whether it is stored [in_features, out_features].
            seed: Of the gradient estimates; give each layer its own.
            rebuild_masks: Whether a checkpoint without masks is accepted.
            original: Class of the layer that :func:`restore` goes back to; None if it was not replaced.
        """
        super().__init__()
        self.method: Method = method
        self.transposed = transposed
        self.rebuild_masks = rebuild_masks
        self.original = original
        rows, cols = reversed(weight.shape) if transposed else weight.shape
        self.out_features, self.in_features = int(rows), int(cols)
        device = weight.device
        self.register_buffer("mask", torch.zeros(rows, (cols + 7) // 8, dtype=torch.uint8, device=device))
        for name in ("flips", "steps", "draws"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("is_dense", torch.zeros((), dtype=torch.uint8, device=device))
        self.register_buffer("seed", torch.tensor(signed64(seed), dtype=torch.int64, device=device))
        self.register_buffer("scale", torch.ones((), dtype=torch.float32, device=device))
        # One lookup turns a byte into eight flags, several times faster on a CPU than shifting bit by bit.
        octets = (torch.arange(256, device=device).unsqueeze(1) >> torch.arange(8, device=device)) & 1
        self.register_buffer("_octets", octets != 0, persistent=False)
        self.dense = False
        self.steps_done = 0
        self.is_fresh = True
        self.masks_missing = False
        self.dense_from: int | None = None
        self.rank = 0
        self.on_kernels = False
        self.packs: WeightPacks | None = None

    def logical(self, stored: Tensor) -> Tensor:
        """A weight or its gradient as [out_features, in_features]: a view."""
        return stored.t() if self.transposed else stored

    def kept(self) -> Tensor:
        """Bool [out_features, in_features]: the entries that the mask keeps."""
        flags = self._octets.index_select(0, self.mask.reshape(-1).to(torch.int32))
        return flags.view(self.out_features, -1)[:, : self.in_features]

    def dropped(self) -> Tensor:
        """Bool [out_features, in_features]: the entries that the mask sets to zero."""
        return ~self.kept()

    def own_seed(self) -> Tensor:
        """The key of this rank's draws, int64 0-d."""
        return self.seed + signed64(self.rank * _SEED_STEP) if self.rank else self.seed

    def set_dense(self, dense: bool) -> None:
        """Switch between sparse and dense training: nothing but the mode changes."""
        self.dense = dense
        self.is_dense.fill_(int(dense))

    def set_steps(self, steps: int) -> None:
        """Note that ``steps`` optimizer steps are done."""
        self.steps_done = steps
        self.is_fresh = False

    def extra_repr(self) -> str:
        """Method, phase and size."""
        phase = "dense" if self.dense else "2:4"
        return f"{self.method}, {phase}, out_features={self.out_features}, in_features={self.in_features}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        scale = self.scale
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._forget_packs()
        if self.scale.dtype is not torch.float32 and not self.scale.is_meta:
            # A model turned to half precision keeps the factor of its weights exact.
            self.scale = scale.to(self.scale.device)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        # Counted on the host and written when it is asked for: no kernel for each layer and step.
        self.steps.fill_(self.steps_done)
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        if f"{prefix}mask" not in state_dict:
            # Right before training starts, an error after (see on_gradients) unless masks may be rebuilt.
            self.masks_missing = self.steps_done == 0 or self.rebuild_masks
            self._forget_packs()
            if self.rebuild_masks:
                return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if self.mask.is_meta or f"{prefix}mask" not in state_dict:
            return
        self.dense = bool(self.is_dense)
        self.steps_done = int(self.steps)
        self.is_fresh = False
        self.masks_missing = False
        self._forget_packs()

    def _forget_packs(self) -> None:
        if self.packs is not None:
            self.packs.invalidate()


def layers(model: nn.Module) -> Iterator[tuple[str, nn.Module, LayerSparsity]]:
    """Yield ``(qualified name, linear layer, its state)`` for every layer of the model that has one."""
    for name, module in model.named_modules():
        state = module._modules.get(CHILD)
        if isinstance(state, LayerSparsity):
            yield name, module, state


def logical_weight(layer: nn.Module, state: LayerSparsity) -> Tensor:
    """The layer's weight, detached, as [out_features, in_features]."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return state.logical(weight.detach())


def attach(layer: nn.Module, state: LayerSparsity) -> None:
    """Hang the state below its layer."""
    layer.add_module(CHILD, state)


def detach(layer: nn.Module) -> None:
    """Take the state off its layer."""
    del layer._modules[CHILD]


__all__ = ["CHILD", "LayerSparsity", "Method", "attach", "detach", "layers", "logical_weight", "signed64"]
