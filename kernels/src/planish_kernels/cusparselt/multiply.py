"""``sparse @ dense`` on a packed buffer, and the library's own compressor: the raw calls, without dispatch."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from planish_kernels.cusparselt.algorithms import plan_for
from planish_kernels.cusparselt.layout import packed_numel
from planish_kernels.cusparselt.library import (
    DATA_TYPES,
    NO_TRANSPOSE,
    ORDER_ROW,
    SPARSITY_50_PERCENT,
    CuSparseLtError,
    Opaque,
    device_handle,
    library,
)
from planish_kernels.cusparselt.plan import Problem
from planish_kernels.runtime.support import YES, Support, no


def check_dense(dense: Tensor) -> Support:
    """Whether a dense operand ``[k, n]`` can be read where it lies: rows or columns contiguous, 16-byte aligned."""
    k, n = dense.shape
    lane = 16 // dense.dtype.itemsize
    if k % lane or n % lane:
        return no(f"the dense operand is {k} x {n}: cuSPARSELt needs multiples of {lane} for {dense.dtype}")
    return YES


def multiply(packed: Tensor, rows: int, cols: int, dense: Tensor, transposed: bool) -> Tensor:
    """``unpack(packed) @ dense``, ``[rows, cols] @ [cols, n]``, computed in float32.

    Args:
        packed: the buffer, on a CUDA device.
        rows, cols: its logical shape.
        dense: ``[cols, n]`` of the buffer's dtype; row-major or the transpose of a row-major matrix are read in place,
            anything else is copied first.
        transposed: whether to return the product as a contiguous ``[n, rows]`` instead of ``[rows, n]``.
    """
    n = dense.shape[1]
    dense_transposed = not dense.is_contiguous()
    if dense_transposed and not dense.t().is_contiguous():
        dense, dense_transposed = dense.contiguous(), False
    if dense.data_ptr() % 16:
        dense = dense.clone(memory_format=torch.preserve_format)
    problem = Problem(rows, n, cols, packed.dtype, packed.dtype, dense_transposed, transposed)
    out = torch.empty((n, rows) if transposed else (rows, n), dtype=packed.dtype, device=packed.device)
    with torch.cuda.device(packed.device):
        plan_for(problem, packed, dense, out).run(packed, dense, out)
    return out


def compress(dense: Tensor) -> Tensor:
    """The library's own packed buffer of a ``[rows, cols]`` matrix that is already 2:4 along its rows.

    Many times slower than the fused packers, and right on every GPU that the library knows: the fallback.
    """
    rows, cols = dense.shape
    dense = dense.contiguous()
    call, handle = library().call, device_handle(dense.device.index).address
    descriptor = Opaque()
    with torch.cuda.device(dense.device):
        call(
            "StructuredDescriptorInit",
            handle,
            descriptor.address,
            ctypes.c_int64(rows),
            ctypes.c_int64(cols),
            ctypes.c_int64(cols),
            ctypes.c_uint32(16),
            ctypes.c_int(DATA_TYPES[dense.dtype]),
            ctypes.c_int(ORDER_ROW),
            ctypes.c_int(SPARSITY_50_PERCENT),
        )
        size, scratch_size = ctypes.c_size_t(0), ctypes.c_size_t(0)
        call("SpMMACompressedSize2", handle, descriptor.address, ctypes.byref(size), ctypes.byref(scratch_size))
        packed = torch.empty(packed_numel(rows, cols, dense.dtype), dtype=dense.dtype, device=dense.device)
        if size.value != packed.nbytes:
            raise CuSparseLtError(
                f"cuSPARSELt packs {rows} x {cols} into {size.value} bytes, expected {packed.nbytes}: this version "
                "of it has another layout"
            )
        scratch = torch.empty(max(scratch_size.value, 1), dtype=torch.uint8, device=dense.device)
        call(
            "SpMMACompress2",
            handle,
            descriptor.address,
            ctypes.c_int(1),
            ctypes.c_int(NO_TRANSPOSE),
            ctypes.c_void_p(dense.data_ptr()),
            ctypes.c_void_p(packed.data_ptr()),
            ctypes.c_void_p(scratch.data_ptr()),
            ctypes.c_void_p(torch.cuda.current_stream().cuda_stream),
        )
    return packed
