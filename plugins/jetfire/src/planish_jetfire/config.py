"""The options of INT8 training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from planish.config import Config
from pydantic import AfterValidator, Field, model_validator

Matmul = Literal["forward", "input_grad", "weight_grad"]
MATMULS: tuple[Matmul, ...] = ("forward", "input_grad", "weight_grad")

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"block": 32, "code": "int8"},
    "ampere": {"block": 32, "code": "int8"},
    "ada": {"block": 32, "code": "int8"},
    "hopper": {"block": 128, "code": "float8"},
}
"""What a preset stands for.

``paper``: 32x32 blocks, section 4 of the paper. ``ampere``, ``ada``: the same; there INT8 tensor cores leave the
floating-point units room for a scale every 32 entries. ``hopper``: there a scale every 32 entries costs more than the
tensor cores' work, so its blocks are 128 wide; float8 codes of that width are multiplied faster than INT8 ones, whose
sums must be converted, and hold outliers better (see the learning result).
"""
UNMEASURED = {
    "ampere": "the preset 'ampere' follows the ratio of INT8 to floating-point rate, and was not measured",
    "ada": "the preset 'ada' follows the ratio of INT8 to floating-point rate, and was not measured",
    "hopper": "the preset 'hopper' takes float8 blocks of 128 for speed; it was not measured on this machine",
}
"""What a plan says about presets that were not measured on the machine at hand."""


def _each_once(value: tuple[Matmul, ...]) -> tuple[Matmul, ...]:
    if not value:
        raise ValueError("name at least one matmul: forward, input_grad, weight_grad")
    return tuple(name for name in MATMULS if name in value)


class JetfireConfig(Config):
    """Options of :class:`planish_jetfire.Jetfire`."""

    preset: Literal["paper", "ampere", "ada", "hopper"] = Field(
        "paper",
        description="block and code where they are not given: int8 of 32; hopper: float8 of 128",
    )
    block: Literal[32, 64, 128] = Field(32, description="side of the square blocks that share a scale")
    code: Literal["int8", "float8"] = Field("int8", description="format of the codes; float8 is e4m3")
    flow: Literal["auto", "block", "linear"] = Field(
        "auto",
        description="block: quantized tensors between the operators of a transformer block; linear: quantized "
        "matmuls alone; auto: block where the model's blocks are understood, else linear",
    )
    residual: Literal["dual", "int8"] = Field(
        "dual",
        description="flow block: dual keeps the residual stream and its gradient in full precision, with a quantized "
        "copy for each branch; int8 rounds the stream itself after each sum",
    )
    matmuls: Annotated[tuple[Matmul, ...], AfterValidator(_each_once)] = Field(
        MATMULS, description="which of a linear's three matmuls are quantized; flow block needs all three"
    )
    stochastic: bool = Field(
        True, description="round gradients stochastically, which keeps them unbiased; false rounds them to nearest"
    )
    recompute_activation: bool = Field(
        False, description="flow block: compute the activation again in backward rather than save what it gave"
    )
    start_step: int = Field(0, ge=0, description="optimizer steps that train in full precision first")
    min_features: int = Field(32, ge=1, description="linears with fewer in or out features than this are left alone")
    seed: int = Field(0, ge=0, lt=2**31, description="of stochastic rounding")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        # A preset that does not exist is reported by its own field.
        preset = values.get("preset", "paper")
        return {**PRESETS.get(preset if isinstance(preset, str) else "", {}), **values}

    @model_validator(mode="after")
    def _consistent(self) -> JetfireConfig:
        if self.flow == "block" and set(self.matmuls) != set(MATMULS):
            raise ValueError(
                f"flow='block' quantizes all three matmuls, matmuls names {', '.join(self.matmuls)} only; "
                "leave matmuls out, or choose flow='linear'"
            )
        return self

    @property
    def rounding(self) -> str:
        """Of gradients, as kernels name it."""
        return "stochastic" if self.stochastic else "nearest"
