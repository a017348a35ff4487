"""The options of 2:4 pre-training."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from planish.config import Config
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

DECAY_GRID = (1e-6, 6e-6, 2e-5, 6e-5, 2e-4, 6e-4, 2e-3)
"""Decay factors that ``decay="auto"`` tries: those that the paper's experiments used, and their neighbours."""


def _decay(value: Any) -> Any:
    if value == "auto":
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError("decay is a number from 0 on, or 'auto' to search it in short trial runs") from None
    if isinstance(value, bool) or not math.isfinite(number) or number < 0:
        raise ValueError("decay is a finite number from 0 on, or 'auto' to search it in short trial runs")
    return number


def _off(value: Any) -> Any:
    """YAML 1.1 reads a bare ``off`` as false."""
    return "off" if value is False else value


def _grid(value: tuple[float, ...]) -> tuple[float, ...]:
    if not value or any(not math.isfinite(item) or item < 0 for item in value):
        raise ValueError("the grid holds at least one decay factor, each finite and not negative")
    return tuple(sorted(set(value)))


class Pretrain24Config(Config):
    """Options of :class:`planish_pretrain24.Pretrain24`."""

    method: Literal["fst", "sste", "virtual"] = Field(
        "fst",
        description="fst: transposable masks, masked decay, dense finish; sste: continuous soft threshold, sparse "
        "to the end; virtual: change nothing and report the flip rate that the dense run would have",
    )
    decay: Annotated[float | Literal["auto"], BeforeValidator(_decay)] = Field(
        6e-5,
        description="fst: masked decay factor, added to gradients after clipping; 0 is the plain straight-through "
        "estimator; auto searches it in trial runs before training",
    )
    mask_interval: int = Field(
        40,
        ge=1,
        description="optimizer steps from one mask search to the next; flip rates of different intervals differ",
    )
    dense_finish: float = Field(
        1 / 6, ge=0, lt=1, description="fst: share of the run, at its end, that trains dense; 0 keeps it sparse"
    )
    mvue: Annotated[Literal["exact", "approx", "off"], BeforeValidator(_off)] = Field(
        "exact",
        description="unbiased 2:4 estimate of the output gradient in the weight gradient: exact has least variance; "
        "approx is the pair-sampling estimator, for comparison; off leaves that matmul dense",
    )
    execution: Literal["auto", "sparse", "emulate"] = Field(
        "auto",
        description="auto: sparse kernels where they pay, else masked dense matmuls; sparse: sparse kernels or an "
        "error; emulate: masked dense matmuls everywhere",
    )
    sparse_dtype: Literal["bfloat16", "float16"] = Field(
        "bfloat16", description="dtype of packed weights whose master is float32 (that of the run's autocast)"
    )
    fuse_gated_activation: bool = Field(
        True, description="on a GPU, compute act(gate) * up of gated FFNs in one fused kernel"
    )
    min_features: int = Field(16, ge=4, description="linears with fewer in or out features than this are left alone")
    seed: int = Field(0, ge=0, lt=2**31, description="of the gradient estimates' random draws")
    layer_metrics: bool = Field(True, description="report a flip rate for each layer beside the global one")
    rebuild_masks: bool = Field(
        False, description="accept a checkpoint without masks into a run, and search the masks anew from its weights"
    )
    search_steps: int = Field(240, ge=2, description="decay=auto: optimizer steps of each trial run (the warm-up)")
    search_window: float = Field(
        0.5, gt=0, le=1, description="decay=auto: share of a trial, at its end, over which flip rates are averaged"
    )
    search_grid: Annotated[tuple[float, ...], AfterValidator(_grid)] = Field(
        DECAY_GRID, description="decay=auto: the factors that are tried"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Pretrain24Config:
        if self.decay == "auto":
            if self.method != "fst":
                raise ValueError(f"decay='auto' belongs to method 'fst'; method {self.method!r} has no masked decay")
            if self.search_steps * self.search_window < self.mask_interval:
                raise ValueError(
                    f"search_steps={self.search_steps} times search_window={self.search_window:g} holds no mask search "
                    f"at mask_interval={self.mask_interval}; lengthen the trials or shorten the interval"
                )
        return self
