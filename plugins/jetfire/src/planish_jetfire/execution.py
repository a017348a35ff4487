"""Which kernels would run on this machine."""

from __future__ import annotations

import torch
from planish_kernels.block_matmul.op import block_matmul_op, triton_multiplies
from planish_kernels.formats.block_float8 import BlockFloat8
from planish_kernels.formats.block_int8 import BlockInt8
from planish_kernels.formats.block_scaled import BlockScaled
from planish_kernels.runtime.capability import forced_backend, interpreting

from planish_jetfire.config import JetfireConfig

FORMATS: dict[str, type[BlockScaled]] = {"int8": BlockInt8, "float8": BlockFloat8}
_DENSE = "dense"


def device_of(model_device: torch.device) -> torch.device:
    """The model's GPU, or the current one, to which a trainer will move it; else the CPU."""
    if model_device.type == "cuda" or not torch.cuda.is_available():
        return model_device
    return torch.device("cuda", torch.cuda.current_device())


def why_reference(config: JetfireConfig, device: torch.device) -> str | None:
    """Why matmuls of blocks run on the plain torch reference on a device; None if kernels run."""
    if forced_backend() == "reference":
        return "PLANISH_BACKEND=reference"
    available = block_matmul_op.availability()["triton"]
    if not available:
        return available.reason
    if interpreting():
        return "Triton's interpreter is for tests"
    codes = torch.empty((), dtype=FORMATS[config.code].code_dtype, device="meta" if device.type == "meta" else device)
    support = triton_multiplies(codes, config.block)
    return None if support else support.reason


def details(config: JetfireConfig, *, flow: str, backend: str) -> dict[str, str]:
    """For one linear: which flow it is in, and what runs each of its matmuls."""
    quantized = f"{config.code}/{config.block}, {backend}"
    return {"flow": flow, **{name: quantized if name in config.matmuls else _DENSE for name in _MATMULS}}


_MATMULS = ("forward", "input_grad", "weight_grad")
