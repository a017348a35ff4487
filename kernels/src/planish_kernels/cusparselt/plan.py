"""A matmul plan: made once for a shape (0.6 ms), then run at some 25 µs of host time a call.

A plan computes ``out = sparse [m, k] @ dense [k, n]`` where ``sparse`` is a packed buffer. ``dense`` and ``out`` may
each lie row-major or transposed in memory; nothing is copied.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass

import torch
from torch import Tensor

from planish_kernels.cusparselt.library import (
    ALGORITHM_DEFAULT,
    ALGORITHM_ID,
    ALGORITHM_MAX_ID,
    COMPUTE_FLOAT32,
    COMPUTE_INT32,
    DATA_TYPES,
    NO_TRANSPOSE,
    ORDER_COLUMN,
    ORDER_ROW,
    SPARSITY_50_PERCENT,
    TRANSPOSE,
    CuSparseLtError,
    Opaque,
    device_handle,
    library,
)

_ALIGNMENT = 16


@dataclass(frozen=True)
class Problem:
    """What a plan is made for.

    Attributes:
        m, n, k: ``sparse [m, k] @ dense [k, n]``.
        dtype: of both operands; ``out_dtype`` of the product.
        dense_transposed: the dense operand lies in memory as a contiguous ``[n, k]``.
        out_transposed: the product lies in memory as a contiguous ``[n, m]``.
    """

    m: int
    n: int
    k: int
    dtype: torch.dtype
    out_dtype: torch.dtype
    dense_transposed: bool
    out_transposed: bool


class Plan:
    """A cuSPARSELt plan for one `Problem` on one device, with one of the library's ``algorithms`` (0: its default)."""

    def __init__(self, problem: Problem, device_index: int, algorithm: int = 0) -> None:
        self.problem = problem
        self.device_index = device_index
        self._lock = threading.Lock()
        self._library = library()
        self._handle = device_handle(device_index)
        self._sparse, self._dense, self._out = Opaque(), Opaque(), Opaque()
        self._matmul, self._selection, self._plan = Opaque(), Opaque(), Opaque()
        self._alpha, self._beta = ctypes.c_float(1.0), ctypes.c_float(0.0)
        self._describe()
        call = self._library.call
        call(
            "MatmulAlgSelectionInit",
            self._handle.address,
            self._selection.address,
            self._matmul.address,
            ctypes.c_int(ALGORITHM_DEFAULT),
        )
        self.algorithms = self._get(ALGORITHM_MAX_ID)
        self.algorithm = algorithm
        self._set(ALGORITHM_ID, self._checked(algorithm))
        call("MatmulPlanInit", self._handle.address, self._plan.address, self._matmul.address, self._selection.address)
        self._measure_workspace()
        self._run = self._library.function("cusparseLtMatmul")

    def run(self, sparse: Tensor, dense: Tensor, out: Tensor) -> None:
        """Multiply on the current stream; ``sparse`` is the packed buffer. The caller checks shapes and strides."""
        stream = ctypes.c_void_p(torch.cuda.current_stream(self.device_index).cuda_stream)
        workspace = self._workspace(sparse)
        with self._lock:
            status = self._run(
                self._handle.address,
                self._plan.address,
                ctypes.byref(self._alpha),
                sparse.data_ptr(),
                dense.data_ptr(),
                ctypes.byref(self._beta),
                out.data_ptr(),
                out.data_ptr(),
                workspace.data_ptr() if workspace is not None else None,
                ctypes.byref(stream),
                1,
            )
        self._library.raise_for("Matmul", status)

    def _describe(self) -> None:
        problem = self.problem
        if problem.dtype not in DATA_TYPES or problem.out_dtype not in DATA_TYPES:
            raise CuSparseLtError(f"no cuSPARSELt data type for {problem.dtype} -> {problem.out_dtype}")
        m, n, k = problem.m, problem.n, problem.k
        value, result = DATA_TYPES[problem.dtype], DATA_TYPES[problem.out_dtype]
        call, handle = self._library.call, self._handle.address
        sixteen = ctypes.c_uint32(_ALIGNMENT)
        call(
            "StructuredDescriptorInit",
            handle,
            self._sparse.address,
            ctypes.c_int64(m),
            ctypes.c_int64(k),
            ctypes.c_int64(k),
            sixteen,
            ctypes.c_int(value),
            ctypes.c_int(ORDER_ROW),
            ctypes.c_int(SPARSITY_50_PERCENT),
        )
        rows, cols = (n, k) if problem.dense_transposed else (k, n)
        call(
            "DenseDescriptorInit",
            handle,
            self._dense.address,
            ctypes.c_int64(rows),
            ctypes.c_int64(cols),
            ctypes.c_int64(cols),
            sixteen,
            ctypes.c_int(value),
            ctypes.c_int(ORDER_ROW),
        )
        call(
            "DenseDescriptorInit",
            handle,
            self._out.address,
            ctypes.c_int64(m),
            ctypes.c_int64(n),
            ctypes.c_int64(m if problem.out_transposed else n),
            sixteen,
            ctypes.c_int(result),
            ctypes.c_int(ORDER_COLUMN if problem.out_transposed else ORDER_ROW),
        )
        call(
            "MatmulDescriptorInit",
            handle,
            self._matmul.address,
            ctypes.c_int(NO_TRANSPOSE),
            ctypes.c_int(TRANSPOSE if problem.dense_transposed else NO_TRANSPOSE),
            self._sparse.address,
            self._dense.address,
            self._out.address,
            self._out.address,
            ctypes.c_int(COMPUTE_INT32 if problem.dtype == torch.int8 else COMPUTE_FLOAT32),
        )

    def _checked(self, algorithm: int) -> int:
        if not 0 <= algorithm < self.algorithms:
            known = f"the library has 0 to {self.algorithms - 1} for {self.problem}"
            raise CuSparseLtError(f"algorithm {algorithm}: {known}")
        return algorithm

    def _set(self, attribute: int, value: int) -> None:
        data = ctypes.c_int(value)
        self._library.call(
            "MatmulAlgSetAttribute",
            self._handle.address,
            self._selection.address,
            ctypes.c_int(attribute),
            ctypes.byref(data),
            ctypes.c_size_t(4),
        )

    def _get(self, attribute: int) -> int:
        data = ctypes.c_int(0)
        self._library.call(
            "MatmulAlgGetAttribute",
            self._handle.address,
            self._selection.address,
            ctypes.c_int(attribute),
            ctypes.byref(data),
            ctypes.c_size_t(4),
        )
        return data.value

    def _measure_workspace(self) -> None:
        size = ctypes.c_size_t(0)
        self._library.call("MatmulGetWorkspace", self._handle.address, self._plan.address, ctypes.byref(size))
        self.workspace_bytes = size.value

    def _workspace(self, like: Tensor) -> Tensor | None:
        """Scratch memory of the current stream's allocator pool; None where the plan needs none."""
        if not self.workspace_bytes:
            return None
        return torch.empty(self.workspace_bytes, dtype=torch.uint8, device=like.device)

    def __del__(self) -> None:
        plan = getattr(self, "_plan", None)
        if plan is not None and getattr(self, "workspace_bytes", None) is not None:
            self._library.function("cusparseLtMatmulPlanDestroy")(plan.address)
