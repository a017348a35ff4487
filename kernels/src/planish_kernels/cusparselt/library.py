"""The C interface of NVIDIA cuSPARSELt, through ctypes.

PyTorch's CUDA builds bring the library (distribution ``nvidia-cusparselt-cu*``), and call it through
``torch._cslt_sparse_mm``, which plans anew at every call: some 0.5 ms of host time. This binding exists so that a plan
is made once for a shape. Only the entry points that are needed are bound.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path
from typing import Any

import torch

#: Bytes given to each of the library's opaque structures. Version 0.8 needs 512, versions before 0.7 up to 11 KiB.
_OPAQUE_BYTES = 16384

#: ``cudaDataType`` of the dtypes that structured sparsity supports on Hopper.
DATA_TYPES = {
    torch.float16: 2,
    torch.bfloat16: 14,
    torch.int8: 3,
    torch.int32: 10,
    torch.float32: 0,
}
ORDER_COLUMN, ORDER_ROW = 1, 2
NO_TRANSPOSE, TRANSPOSE = 0, 1
COMPUTE_INT32, COMPUTE_FLOAT32 = 0, 2
SPARSITY_50_PERCENT = 0
ALGORITHM_DEFAULT = 0

ALGORITHM_ID = 0
ALGORITHM_MAX_ID = 1

_ENTRY_POINTS = (
    "cusparseLtInit",
    "cusparseLtGetProperty",
    "cusparseLtDenseDescriptorInit",
    "cusparseLtStructuredDescriptorInit",
    "cusparseLtMatmulDescriptorInit",
    "cusparseLtMatmulAlgSelectionInit",
    "cusparseLtMatmulAlgSetAttribute",
    "cusparseLtMatmulAlgGetAttribute",
    "cusparseLtMatmulPlanInit",
    "cusparseLtMatmulPlanDestroy",
    "cusparseLtMatmulGetWorkspace",
    "cusparseLtMatmul",
    "cusparseLtSpMMACompressedSize2",
    "cusparseLtSpMMACompress2",
)


class CuSparseLtError(RuntimeError):
    """cuSPARSELt is absent, or one of its functions returned an error status."""


class Opaque:
    """Storage for one of the library's opaque structures, aligned to 64 bytes and never moved."""

    __slots__ = ("_storage", "address")

    def __init__(self) -> None:
        self._storage = ctypes.create_string_buffer(_OPAQUE_BYTES + 64)
        start = ctypes.addressof(self._storage)
        self.address = ctypes.c_void_p((start + 63) & ~63)


class Library:
    """The loaded shared library; every call checks the returned status and raises `CuSparseLtError`."""

    def __init__(self, handle: ctypes.CDLL) -> None:
        self._functions: dict[str, Any] = {}
        for name in _ENTRY_POINTS:
            function = getattr(handle, name, None)
            if function is None:
                raise CuSparseLtError(f"this libcusparseLt has no {name}; cuSPARSELt 0.6 or newer is needed")
            function.restype = ctypes.c_int
            self._functions[name] = function
        # The hot call takes plain integers for its pointers: without argument types ctypes would cut them to 32 bits.
        self._functions["cusparseLtMatmul"].argtypes = [ctypes.c_void_p] * 10 + [ctypes.c_int32]
        self._message = handle.cusparseLtGetErrorString
        self._message.restype = ctypes.c_char_p
        self.version = (self._property(0), self._property(1), self._property(2))

    def call(self, name: str, *arguments: Any) -> None:
        """Call ``cusparseLt<name>``; integers wider than ``int`` and pointers must come as ctypes objects."""
        status = self._functions["cusparseLt" + name](*arguments)
        if status:
            text = self._message(ctypes.c_int(status))
            raise CuSparseLtError(f"cusparseLt{name} failed: {text.decode() if text else status}")

    def function(self, name: str) -> Any:
        """The raw ctypes function, for the one call that is on the hot path."""
        return self._functions[name]

    def raise_for(self, name: str, status: int) -> None:
        """Raise if ``status``, returned by the raw function ``name``, is an error."""
        if status:
            text = self._message(ctypes.c_int(status))
            raise CuSparseLtError(f"cusparseLt{name} failed: {text.decode() if text else status}")

    def _property(self, which: int) -> int:
        value = ctypes.c_int(-1)
        status = self._functions["cusparseLtGetProperty"](ctypes.c_int(which), ctypes.byref(value))
        if status:
            raise CuSparseLtError(f"cusparseLtGetProperty({which}) returned status {status}")
        return value.value


@functools.cache
def library() -> Library:
    """Load libcusparseLt: the copy that PyTorch uses, if it has one. `CuSparseLtError` says where it was sought."""
    tried = []
    for candidate in ("libcusparseLt.so.0", *_bundled(), "libcusparseLt.so"):
        try:
            return Library(ctypes.CDLL(str(candidate)))
        except OSError as error:
            tried.append(f"{candidate} ({error})")
    raise CuSparseLtError(
        "libcusparseLt was not found; a CUDA build of PyTorch brings it, or `pip install nvidia-cusparselt-cu13`. "
        "Tried: " + "; ".join(tried)
    )


def _bundled() -> list[Path]:
    """Paths of the copies that pip distributions have put beside PyTorch."""
    spec = importlib.util.find_spec("nvidia")
    roots = list(spec.submodule_search_locations or []) if spec else []
    return [path for root in roots for path in sorted(Path(root).glob("cusparselt/lib/libcusparseLt.so*"))]


@functools.cache
def device_handle(device_index: int) -> Opaque:
    """An initialised library handle for one CUDA device."""
    handle = Opaque()
    with torch.cuda.device(device_index):
        torch.cuda.current_stream()  # makes the primary context current before the library asks for it
        library().call("Init", handle.address)
    return handle
