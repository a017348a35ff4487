"""The few calls of the CUDA driver that compiled kernels need, through ctypes: load, launch, describe a tensor to TMA.

Everything works on the current CUDA context, which is torch's once it has touched the device.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

from torch import Tensor

_MAX_DYNAMIC_SHARED_BYTES = 8
_CLUSTER_DIMENSION = 4
_UINT8, _SWIZZLE_128_BYTES, _PROMOTE_256_BYTES = 0, 3, 3
_FREE_SHARED_BYTES = 48 * 1024
"""A block gets so many bytes of dynamic shared memory without asking."""


class CudaDriverError(RuntimeError):
    """The driver refused a call. Carries its name and ``status``."""

    def __init__(self, call: str, status: int, said: str) -> None:
        self.call, self.status, self.said = call, status, said
        super().__init__(f"{call} failed with {said} ({status})")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.call, self.status, self.said)


class TensorMap(ctypes.Structure):
    """A ``CUtensorMap``: pass it to a kernel by value, as a ``const __grid_constant__`` parameter."""

    _fields_ = (("words", ctypes.c_uint64 * 16),)


@functools.cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _call(name: str, *args: Any) -> None:
    status = int(getattr(_driver(), name)(*args))
    if status:
        said = ctypes.c_char_p()
        _driver().cuGetErrorName(ctypes.c_int(status), ctypes.byref(said))
        raise CudaDriverError(name, status, (said.value or b"an unknown error").decode())


def load_function(code: bytes, symbol: str) -> ctypes.c_void_p:
    """The kernel of that mangled name out of machine code, loaded into the current context for the process' life.

    Raises:
        CudaDriverError: the code is for another GPU, or holds no such kernel.
    """
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    _call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(code))
    _call("cuModuleGetFunction", ctypes.byref(function), module, symbol.encode())
    return function


def allow_shared_bytes(function: ctypes.c_void_p, count: int) -> None:
    """Let a kernel be launched with ``count`` bytes of dynamic shared memory.

    Raises:
        CudaDriverError: this GPU has not so many.
    """
    if count > _FREE_SHARED_BYTES:
        _call("cuFuncSetAttribute", function, ctypes.c_int(_MAX_DYNAMIC_SHARED_BYTES), ctypes.c_int(count))


class _LaunchAttribute(ctypes.Structure):
    _fields_ = (("id", ctypes.c_uint), ("pad", ctypes.c_char * 4), ("value", ctypes.c_uint * 16))


class _LaunchConfig(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_LaunchAttribute)),
        ("attribute_count", ctypes.c_uint),
    )


def launch(
    function: ctypes.c_void_p,
    grid: Sequence[int],
    block: Sequence[int],
    shared_bytes: int,
    stream: int,
    arguments: Sequence[Any],
    cluster: Sequence[int] = (1,),
) -> None:
    """Launch a kernel; ``arguments`` are ctypes values, in the order and of the types of its parameters.

    Raises:
        CudaDriverError: the launch was refused.
    """
    pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(value) for value in arguments))
    attribute = _LaunchAttribute(id=_CLUSTER_DIMENSION)
    attribute.value[:3] = _three(cluster)
    is_clustered = max(cluster) > 1
    config = _LaunchConfig(
        (ctypes.c_uint * 3)(*_three(grid)), (ctypes.c_uint * 3)(*_three(block)), shared_bytes, stream,
        ctypes.pointer(attribute) if is_clustered else None, int(is_clustered),
    )  # fmt: skip
    _call("cuLaunchKernelEx", ctypes.byref(config), function, pointers, None)


def _three(sizes: Sequence[int]) -> tuple[int, ...]:
    return (*sizes, 1, 1)[:3]


def byte_tensor_map(matrix: Tensor, box_rows: int, box_cols: int) -> TensorMap:
    """A matrix of one-byte elements as TMA reads it: boxes, swizzled over 128 bytes, zeros outside the matrix.

    Args:
        matrix: ``[rows, cols]``, ``stride(1) == 1``, ``stride(0)`` and its address multiples of 16.
        box_rows: rows of a box, at most 256.
        box_cols: bytes of its rows, at most 128.

    Raises:
        CudaDriverError: a size or an alignment does not fit.
    """
    tensor_map = TensorMap()
    # The driver wants the map itself on a multiple of 64 bytes: encode it in an aligned place, and copy.
    room = ctypes.create_string_buffer(128 + 64)
    aligned = ctypes.addressof(room) + -ctypes.addressof(room) % 64
    rows, cols = matrix.shape
    _call(
        "cuTensorMapEncodeTiled",
        ctypes.c_void_p(aligned),
        ctypes.c_int(_UINT8),
        ctypes.c_uint32(2),
        ctypes.c_void_p(matrix.data_ptr()),
        (ctypes.c_uint64 * 2)(cols, rows),
        (ctypes.c_uint64 * 1)(matrix.stride(0)),
        (ctypes.c_uint32 * 2)(box_cols, box_rows),
        (ctypes.c_uint32 * 2)(1, 1),
        ctypes.c_int(0),
        ctypes.c_int(_SWIZZLE_128_BYTES),
        ctypes.c_int(_PROMOTE_256_BYTES),
        ctypes.c_int(0),
    )
    ctypes.memmove(ctypes.byref(tensor_map), aligned, 128)
    return tensor_map
