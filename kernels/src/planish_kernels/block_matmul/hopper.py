"""Block-scaled matmul in CUDA C++ for Hopper, ``hopper.cu``: wgmma from shared memory that TMA fills."""

from __future__ import annotations

import ctypes
import functools
from collections import OrderedDict
from dataclasses import dataclass
from importlib.resources import files

import torch
from torch import Tensor

from planish_kernels.runtime.capability import cuda_available, cuda_capability, nvrtc_available
from planish_kernels.runtime.driver import TensorMap, byte_tensor_map
from planish_kernels.runtime.nvrtc import CudaKernel, load_kernel
from planish_kernels.runtime.support import YES, Support, no

STAGE = COLUMNS = 128
ORDERED = True
_RATES = {2: 0.93, 3: 1.0}
"""How fast tiles of so many warpgroups are, where all processors have one."""
_ALIGNMENT = 16
_OUT = {torch.float32: "FLOAT32", torch.bfloat16: "BFLOAT16", torch.float16: "FLOAT16"}
_MAPS_KEPT = 4096


@dataclass(frozen=True)
class Variant:
    """How ``hopper.cu`` is instantiated.

    Attributes:
        groups: warpgroups that multiply; a tile has 64 rows for each.
        stages: of the pipeline through shared memory, 128 codes of the inner dimension each.
        ordered: whether the warpgroups issue their products in turns.
        sum: how INT8 products become floats; see the head of ``hopper.cu``.
    """

    groups: int
    stages: int
    ordered: bool = ORDERED
    sum: str = "CONVERTED"

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a thread block."""
        return self.stages * (64 * self.groups + COLUMNS) * STAGE + 1024


class _Work(ctypes.Structure):
    _fields_ = (
        ("a_scale_rows", ctypes.c_int64),
        ("a_scale_cols", ctypes.c_int64),
        ("b_scale_rows", ctypes.c_int64),
        ("b_scale_cols", ctypes.c_int64),
        ("out_stride", ctypes.c_int64),
        ("m", ctypes.c_int32),
        ("n", ctypes.c_int32),
        ("k", ctypes.c_int32),
        ("out_scale_columns", ctypes.c_int32),
    )


@functools.cache
def hopper_available() -> Support:
    """Whether a Hopper GPU is here, and what compiles CUDA C++ for it at run time."""
    if not (gpu := cuda_available()):
        return gpu
    capability = cuda_capability()
    if capability is None or capability[0] != 9:
        return no(f"wgmma is for Hopper GPUs (compute capability 9.0), this one has {capability}", worth_warning=False)
    support = nvrtc_available()
    return support if support else no(support.reason)


def hopper_multiplies(a_codes: Tensor, b_codes: Tensor, block: int) -> Support:
    """Whether the kernel takes these codes ``[m, k]`` and ``[k, n]``."""
    capability = cuda_capability(a_codes.device)
    if capability is None or capability[0] != 9:
        found = a_codes.device.type if capability is None else f"compute capability {capability[0]}.{capability[1]}"
        return no(f"wgmma is for Hopper GPUs (compute capability 9.0), this is {found}", worth_warning=False)
    if block not in (32, 64, 128):
        return no(f"the block is {block}: take 32, 64 or 128")
    (m, k), n = a_codes.shape, b_codes.shape[1]
    if k % _ALIGNMENT:
        return no(f"TMA reads rows of a multiple of 16 bytes, the inner dimension is {k}", worth_warning=False)
    if min(m, n, k) == 0 or max(m, n, k) >= 2**31 - 2**10:
        return no(f"a product [{m}, {k}] @ [{k}, {n}] is out of its range", worth_warning=False)
    return YES


def _along_inner(codes: Tensor) -> Tensor:
    """Codes ``[rows, inner]``, the inner dimension contiguous: how wgmma reads 8-bit operands and TMA fetches them."""
    if codes.stride(1) == 1 and codes.stride(0) % _ALIGNMENT == 0 and codes.data_ptr() % _ALIGNMENT == 0:
        return codes
    if codes.stride(0) == 1:
        from planish_kernels.block_matmul.turn import turned

        return turned(codes.t())
    return codes.contiguous()


@functools.cache
def _kernel(block: int, variant: Variant, is_int8: bool, out: str, stochastic: bool, index: int) -> CudaKernel:
    source = files("planish_kernels.block_matmul").joinpath("hopper.cu").read_text()
    values = (block, variant.groups, variant.stages, variant.ordered, is_int8, variant.sum, out, stochastic)
    name = (
        f"block_matmul<{', '.join(str(value).lower() if isinstance(value, bool) else str(value) for value in values)}>"
    )
    return load_kernel(source, name, device=torch.device("cuda", index), arch="sm_90a", name="hopper.cu")


_MAPS: OrderedDict[tuple[int, ...], TensorMap] = OrderedDict()


def _map(codes: Tensor, rows: int) -> TensorMap:
    """Describing a matrix takes microseconds of the host: the last few thousand are kept, by address and shape."""
    key = (codes.data_ptr(), *codes.shape, codes.stride(0), rows)
    found = _MAPS.get(key)
    if found is None:
        found = _MAPS[key] = byte_tensor_map(codes.view(torch.uint8), rows, STAGE)
        if len(_MAPS) > _MAPS_KEPT:
            _MAPS.popitem(last=False)
    return found


@functools.cache
def _processors(index: int) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count


_STAGES = {2: 6, 3: 5}


def default_variant(block: int, quantizes: bool, m: int, n: int, processors: int) -> Variant:
    """The variant that should be fastest for an output ``[m, n]``: its tiles hold whole blocks, and few are left over.

    Args:
        block: side of a block.
        quantizes: whether the output is quantized, for which a tile must hold whole blocks.
        m, n: the output's shape.
        processors: of the GPU; each works on one tile at a time.
    """

    def rate(groups: int) -> float:
        tiles = -(-m // (64 * groups)) * -(-n // COLUMNS)
        return _RATES[groups] * m * n / (-(-tiles // processors) * processors * 64 * groups * COLUMNS)

    fitting = [groups for groups in _STAGES if not quantizes or 64 * groups % block == 0]
    groups = max(fitting, key=rate)
    return Variant(groups, _STAGES[groups])


def block_matmul_hopper(
    a_codes: Tensor,
    a_scales: Tensor,
    b_codes: Tensor,
    b_scales: Tensor,
    block: int,
    bias: Tensor | None,
    out: Tensor,
    out_scales: Tensor | None,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
    variant: Variant | None = None,
) -> None:
    """Write ``a @ b + bias`` to ``out`` [m, n], row-major; with ``out_scales`` as codes and scales.

    Operands that do not lie along the inner dimension are turned first, into a copy.
    """
    (m, k), n = a_codes.shape, b_codes.shape[1]
    is_int8 = a_codes.dtype is torch.int8
    quantizes = out_scales is not None
    with torch.cuda.device(a_codes.device):
        a, b = _along_inner(a_codes), _along_inner(b_codes.t())
        index = a.device.index
        if variant is None:
            variant = default_variant(block, quantizes, m, n, _processors(index))
        kernel = _kernel(
            block, variant, is_int8, "CODES" if quantizes else _OUT[out.dtype], stochastic and quantizes, index
        )
        rows = 64 * variant.groups
        tiles = -(-m // rows) * -(-n // COLUMNS)
        work = _Work(
            *a_scales.stride(), *b_scales.t().stride(), out.stride(0), m, n, k,
            0 if out_scales is None else out_scales.shape[1],
        )  # fmt: skip
        kernel.launch(
            (min(tiles, _processors(index)),), (128 * (variant.groups + 1),),
            _map(a, rows), _map(b, COLUMNS), a_scales, b_scales,
            None if bias is None else bias.to(torch.float32), out, out_scales, seed, offset, work,
            shared_bytes=variant.shared_bytes
        )  # fmt: skip
