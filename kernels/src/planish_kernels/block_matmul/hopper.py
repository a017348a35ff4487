"""Block-scaled matmul in CUDA C++ for Hopper, ``hopper.cu``: wgmma from shared memory that TMA fills."""

from __future__ import annotations

import ctypes
import functools
from collections import OrderedDict
from dataclasses import dataclass
from importlib.resources import files

import torch
from torch import Tensor

from planish_kernels.runtime.driver import TensorMap, byte_tensor_map
from planish_kernels.runtime.nvrtc import CudaKernel, load_kernel

STAGE = COLUMNS = 128
PARTS = ("hopper_machine.cuh", "hopper_output.cuh", "hopper.cu")
"""Of the source, in the order in which they are read."""
_RATES = {128: {2: 0.9, 3: 1.0}, 64: {2: 0.97, 3: 1.0}, 32: {2: 0.92, 3: 1.0}}
"""By block, how fast tiles of so many warpgroups are beside each other where all processors have one, on an H200 at its
limit of power: larger tiles move fewer bytes."""
ALIGNMENT = 16
"""Of rows in memory, in bytes, as TMA reads them."""
WRITTEN = {torch.float32: "FLOAT32", torch.bfloat16: "BFLOAT16", torch.float16: "FLOAT16"}
"""Dtypes of a dense product, and what the kernel calls them."""
_MAPS_KEPT = 4096


@dataclass(frozen=True)
class Variant:
    """How ``hopper.cu`` is instantiated.

    Attributes:
        groups: warpgroups that multiply; a tile has 64 rows for each.
        stages: of the pipeline through shared memory, 128 codes of the inner dimension each.
        writes_codes: whether the output is quantized; a warpgroup of its own does that, from shared memory.
    """

    groups: int
    stages: int
    writes_codes: bool = False

    @property
    def rows(self) -> int:
        """Of a tile."""
        return 64 * self.groups

    @property
    def threads(self) -> int:
        """Of a thread block; one warpgroup feeds."""
        return 128 * (self.groups + (2 if self.writes_codes else 1))

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a thread block: the pipeline, the sums that are handed over, and room to align."""
        handed_over = 4 * self.rows * COLUMNS if self.writes_codes else 0
        return self.stages * (self.rows + COLUMNS) * STAGE + handed_over + 1024


DENSE_VARIANTS = (Variant(2, 6), Variant(3, 5))
CODES_VARIANT = Variant(2, 5, writes_codes=True)
"""Its tiles of 128 rows hold whole blocks of every size."""


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


def _along_inner(codes: Tensor) -> Tensor:
    """Codes ``[rows, inner]``, the inner dimension contiguous: how wgmma reads 8-bit operands and TMA fetches them."""
    if codes.stride(1) == 1 and codes.stride(0) % ALIGNMENT == 0 and codes.data_ptr() % ALIGNMENT == 0:
        return codes
    if codes.stride(0) == 1:
        from planish_kernels.block_matmul.turn import turned

        return turned(codes.t())
    return codes.contiguous()


def hopper_source() -> str:
    """The text of ``hopper.cu`` behind what it needs, as one unit: includes would be no part of what is cached."""
    folder = files("planish_kernels.block_matmul")
    return "".join(f'#line 1 "{part}"\n{folder.joinpath(part).read_text()}' for part in PARTS)


def kernel_name(block: int, variant: Variant, is_int8: bool, out: str, stochastic: bool) -> str:
    """The C++ name of an instance; ``out`` is one of ``WRITTEN``, or ``CODES``."""
    values = (block, variant.groups, variant.stages, is_int8, out, stochastic)
    return f"block_matmul<{', '.join(str(v).lower() if isinstance(v, bool) else str(v) for v in values)}>"


@functools.cache
def _kernel(block: int, variant: Variant, is_int8: bool, out: str, stochastic: bool, index: int) -> CudaKernel:
    name = kernel_name(block, variant, is_int8, out, stochastic)
    return load_kernel(hopper_source(), name, device=torch.device("cuda", index), arch="sm_90a", name="hopper.cu")


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


def default_variant(block: int, quantizes: bool, m: int, n: int, processors: int) -> Variant:
    """The variant that should be fastest for an output ``[m, n]``: of those that can, the one that leaves least over.

    Args:
        block: side of a block.
        quantizes: whether the output is quantized.
        m, n: the output's shape.
        processors: of the GPU; each works on one tile at a time.
    """
    if quantizes:
        return CODES_VARIANT

    def rate(variant: Variant) -> float:
        rounds = -(-(-(-m // variant.rows) * -(-n // COLUMNS)) // processors)
        return _RATES[block][variant.groups] * m * n / (rounds * processors * variant.rows * COLUMNS)

    return max(DENSE_VARIANTS, key=rate)


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
            block, variant, is_int8, "CODES" if quantizes else WRITTEN[out.dtype], stochastic and quantizes, index
        )
        tiles = -(-m // variant.rows) * -(-n // COLUMNS)
        work = _Work(
            *a_scales.stride(), *b_scales.t().stride(), out.stride(0), m, n, k,
            0 if out_scales is None else out_scales.shape[1],
        )  # fmt: skip
        kernel.launch(
            (min(tiles, _processors(index)),), (variant.threads,),
            _map(a, variant.rows), _map(b, COLUMNS), a_scales, b_scales,
            None if bias is None else bias.to(torch.float32), out, out_scales, seed, offset, work,
            shared_bytes=variant.shared_bytes
        )  # fmt: skip
