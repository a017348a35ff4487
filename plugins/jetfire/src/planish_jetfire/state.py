"""What INT8 training remembers about a layer or block: buffers of a child module, so that a state_dict carries all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from planish_kernels.nn import LinearEncoders
from torch import Tensor, nn

if TYPE_CHECKING:
    from planish_jetfire.linear.sparse_weight_codes import SparseWeightCodes

CHILD = "jetfire"
"""Name under which the state hangs below its layer or block."""

DRAWS_A_PASS = 16
"""Offsets that one backward pass may use up: each stochastic rounding in it takes one of its own."""

_SEED_STEP = 0x9E3779B97F4A7C15
_INT64 = 2**64


def signed64(value: int) -> int:
    """``value`` modulo 2^64, as a signed 64-bit integer."""
    value %= _INT64
    return value - _INT64 if value >= 2**63 else value


class QuantizationState(nn.Module):
    """State of one layer or block under INT8 training; its parent is that module.

    A checkpoint without it (of the dense model, say) is as good: draws begin anew.

    Buffers:
        seed: int64 0-d: key of the random draws, the same on every rank (a rank adds its own term).
        draws: int64 0-d: offset of the next draw.
        steps: int64 0-d: optimizer steps done, as of the last ``state_dict``.

    Attributes:
        rounding: of gradients: ``"stochastic"`` or ``"nearest"``.
        start_step: optimizer step from which matmuls are quantized.
        started: whether it has been reached, as a plain bool, so that no forward pass waits for the device.
        steps_done: optimizer steps done, as a plain int.
        rank: rank in data-parallel training.
        compute_dtype: dtype of the module's last input, autocast included.
        before: encoders that a layer of another method had, for ``finish``; None where it had none.
        sparse_codes: quantized 2:4 weight of a layer whose weight another method keeps so; else None.
    """

    seed: Tensor
    draws: Tensor
    steps: Tensor
    _sites: Tensor

    def __init__(self, device: torch.device, *, seed: int, rounding: str, start_step: int) -> None:
        """Create the state on a device; give each layer a seed of its own."""
        super().__init__()
        self.rounding = rounding
        self.start_step = start_step
        self.steps_done = 0
        self.started = start_step == 0
        self.rank = 0
        self.compute_dtype: torch.dtype | None = None
        self.before: LinearEncoders | None = None
        self.sparse_codes: SparseWeightCodes | None = None
        self.register_buffer("seed", torch.tensor(signed64(seed), dtype=torch.int64, device=device))
        for name in ("draws", "steps"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("_sites", torch.arange(DRAWS_A_PASS, device=device), persistent=False)

    @property
    def quantizes(self) -> bool:
        """Whether its module computes quantized now: in training mode, from ``start_step`` on."""
        return self.training and self.started

    def own_seed(self) -> Tensor:
        """The key of this rank's draws, int64 0-d."""
        return self.seed + signed64(self.rank * _SEED_STEP) if self.rank else self.seed

    def take_offset(self) -> Tensor:
        """The offset of one draw, int64 0-d; the next one is another."""
        offset = self.draws.clone()
        self.draws.add_(1)
        return offset

    def take_offsets(self) -> Tensor:
        """The offsets of a backward pass, int64 ``[DRAWS_A_PASS]``."""
        offsets = self.draws + self._sites
        self.draws.add_(DRAWS_A_PASS)
        return offsets

    def set_steps(self, steps: int) -> None:
        """Note that ``steps`` optimizer steps are done."""
        self.steps_done = steps
        self.started = steps >= self.start_step

    def extra_repr(self) -> str:
        """Rounding, and where it stands."""
        return f"gradients rounded {self.rounding}" + ("" if self.started else f", dense until step {self.start_step}")

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
        if not any(key.startswith(prefix) for key in state_dict):
            return  # weights of a dense model: all that is lost is where the random draws stood
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if not self.steps.is_meta and f"{prefix}steps" in state_dict:
            self.set_steps(int(self.steps))


def states(model: nn.Module) -> Iterator[tuple[str, nn.Module, QuantizationState]]:
    """Yield name, module and state of every layer and block under INT8 training."""
    for name, module in model.named_modules():
        state = module._modules.get(CHILD)
        if isinstance(state, QuantizationState):
            yield name, module, state
