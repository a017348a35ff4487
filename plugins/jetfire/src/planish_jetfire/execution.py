"""Which kernels would run on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from planish_kernels.block_matmul.op import block_matmul_op, triton_multiplies
from planish_kernels.formats.block_float8 import BlockFloat8
from planish_kernels.formats.block_int8 import BlockInt8
from planish_kernels.formats.block_scaled import BlockScaled
from planish_kernels.formats.row_int8 import why_not_packed
from planish_kernels.nn import EncodedLinear, sparse24_along
from planish_kernels.runtime.capability import forced_backend, interpreting
from torch import nn

from planish_jetfire.config import JetfireConfig
from planish_jetfire.linear.sparse_encoders import keeps_weight_24
from planish_jetfire.planning import Candidate

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


def takes_rows(layer: nn.Module, config: JetfireConfig) -> bool:
    """Whether a layer's weight is another method's 2:4 weight that can be quantized by rows.

    float8 codes of such a weight stay in blocks, and its product dense: there is no sparse matmul of them here.
    """
    return isinstance(layer, EncodedLinear) and config.code == "int8" and keeps_weight_24(layer.encoders)


def sparse_details(layer: nn.Module, config: JetfireConfig, device: torch.device) -> dict[str, str]:
    """For a linear that ``takes_rows``: what runs its matmuls while its weight is 2:4, where that is not blocks."""
    assert isinstance(layer, EncodedLinear)
    runs = f"int8 rows x 2:4, {'reference' if _why_emulated(layer, device) else 'cusparselt'}"
    details = {}
    if "forward" in config.matmuls:
        details["forward"] = runs
    if "input_grad" in config.matmuls and sparse24_along(layer.encoders.input_grad.right, 0):
        details["input_grad"] = runs
    if "weight_grad" in config.matmuls and sparse24_along(layer.encoders.weight_grad.left, 0):
        details["weight_grad"] = "2:4 gradient, not quantized"
    return details


def sparse_notes(candidates: Iterable[Candidate], config: JetfireConfig, device: torch.device) -> list[str]:
    """What a plan says about linears that ``takes_rows``: how many, in which format, and why not on sparse kernels."""
    layers = [one.module for one in candidates if takes_rows(one.module, config)]
    if not layers:
        return []
    notes = [
        f"{len(layers)} linears have 2:4 weights of another transform: their products with the weight have a scale for "
        "each token and each row of the weight, which leaves an INT32 sum, in place of blocks"
    ]
    why = Counter(reason for layer in layers if (reason := _why_emulated(layer, device)))
    notes += [f"{count} of them are computed by the reference: {reason}" for reason, count in why.items()]
    return notes


def _why_emulated(layer: nn.Module, device: torch.device) -> str:
    """Why a layer's INT8 2:4 products do not run on sparse tensor cores; empty if they do."""
    assert isinstance(layer, EncodedLinear)
    if forced_backend() == "reference":
        return "PLANISH_BACKEND=reference"
    return why_not_packed(layer.out_features, layer.in_features, device)


_MATMULS = ("forward", "input_grad", "weight_grad")
