"""CUDA C++ compiled at run time: NVRTC through ``cuda.core``, with the result on disk. Users need no CUDA toolkit.

::

    kernel = load_kernel(source, "scale<float>", arch="sm_90a")
    kernel.launch((blocks,), (256,), tensor, 2.0, n)     # on torch's current stream

``cuda.core`` is imported when something is first compiled.
"""

from __future__ import annotations

import base64
import ctypes
import functools
import hashlib
import importlib
import importlib.metadata
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from planish_kernels.runtime import driver
from planish_kernels.runtime.capability import cuda_capability, nvrtc_available, nvrtc_importable
from planish_kernels.runtime.disk_cache import cache_dir, read_cached, write_cached

#: Changes when the layout of a cached entry does.
_ENTRY_VERSION = 1


class CompileError(RuntimeError):
    """NVRTC refused the source. ``log`` is what it said, ``source`` what it was given."""

    def __init__(self, name: str, arch: str, log: str, source: str) -> None:
        self.name, self.arch, self.log, self.source = name, arch, log, source
        super().__init__(f"CUDA source {name!r} does not compile for {arch}:\n{log}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.arch, self.log, self.source)


@dataclass(frozen=True)
class Cubin:
    """Machine code for one architecture, with the mangled symbol of each kernel that was asked for."""

    code: bytes
    arch: str
    symbols: dict[str, str]


def device_arch(device: torch.device | None = None) -> str:
    """The architecture to compile for: ``sm_90a`` on Hopper (with ``wgmma`` and TMA), ``sm_80`` on an A100, …

    Raises:
        RuntimeError: the device is no CUDA device.
    """
    capability = cuda_capability(device)
    if capability is None:
        raise RuntimeError(f"device {device} is no CUDA device: name the architecture, for example arch='sm_90a'")
    major, minor = capability
    return f"sm_{major}{minor}{'a' if major >= 9 else ''}"


def compile_cubin(
    source: str,
    kernels: Sequence[str],
    *,
    arch: str,
    name: str = "kernel.cu",
    defines: dict[str, str | int] | None = None,
    include_path: Sequence[str] = (),
    fast_math: bool = False,
    std: str = "c++17",
) -> Cubin:
    """Compile CUDA C++ to machine code, or take it from the cache on disk. Needs NVRTC, but no GPU.

    Args:
        source: the whole translation unit.
        kernels: the kernels to keep, as C++ names: ``"scale"``, or ``"scale<float, 4>"`` to instantiate a template.
        arch: ``"sm_90a"`` and the like; see ``device_arch``.
        name: what the source is called in messages.
        defines: macros.
        include_path: folders for ``#include``, before those of the CUDA headers that are installed. What is in their
            files is not part of the cache's key: pass sources that change as ``source``.
        fast_math: allow the approximate intrinsics.
        std: the C++ standard.

    Raises:
        RuntimeError: NVRTC or ``cuda.core`` is not installed.
        CompileError: the source does not compile; carries the log.
        ValueError: ``kernels`` is empty.
    """
    if not kernels:
        raise ValueError(f"{name}: name at least one kernel, as in kernels=['scale<float>']")
    if not (support := nvrtc_importable()):
        raise RuntimeError(f"CUDA source {name!r} cannot be compiled: {support.reason}")
    options = {
        "arch": arch,
        "std": std,
        "use_fast_math": fast_math,
        "define_macro": sorted((key, str(value)) for key, value in (defines or {}).items()),
        "include_path": [*include_path, *_cuda_headers()],
    }
    identity = [_ENTRY_VERSION, source, sorted(kernels), options, _versions()]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    path = cache_dir("nvrtc") / f"{key}.json"
    if (stored := read_cached(path)) is not None:
        entry = json.loads(stored)
        return Cubin(base64.b64decode(entry["code"]), arch, entry["symbols"])
    cubin = _compile(source, tuple(kernels), name, arch, options)
    entry = {"name": name, "arch": arch, "symbols": cubin.symbols, "code": base64.b64encode(cubin.code).decode()}
    write_cached(path, json.dumps(entry).encode())
    return cubin


def _compile(source: str, kernels: tuple[str, ...], name: str, arch: str, options: dict[str, Any]) -> Cubin:
    core = _cuda_core()
    chosen = {option: value for option, value in options.items() if value}
    log = io.StringIO()
    try:
        program = core.Program(source, "c++", core.ProgramOptions(name=name, **chosen))
        compiled = program.compile("cubin", name_expressions=kernels, logs=log)
    except Exception as error:
        raise CompileError(name, arch, (log.getvalue() or str(error)).strip(" \n\0"), source) from error
    symbols = {_text(expression): _text(symbol) for expression, symbol in compiled.symbol_mapping.items()}
    return Cubin(bytes(compiled.code), arch, symbols)


class CudaKernel:
    """A kernel loaded into the CUDA context that torch uses on its device."""

    def __init__(self, cubin: Cubin, name: str, device: torch.device) -> None:
        self.name = name
        self.device = device
        with torch.cuda.device(device):
            torch.cuda.current_stream().synchronize()  # creates torch's context, which the kernel is loaded into
            self._function = driver.load_function(cubin.code, cubin.symbols[name])
        self._shared_bytes = 0

    def launch(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        *args: Tensor | int | float | ctypes.Structure | Any,
        shared_bytes: int = 0,
        cluster: Sequence[int] = (1,),
    ) -> None:
        """Launch on torch's current stream of the kernel's device.

        Args:
            grid: up to three sizes, in blocks.
            block: up to three sizes, in threads.
            args: tensors are passed as pointers; Python ints as 64-bit integers (``long long``), floats as ``double``,
                None as a null pointer; for another width pass a NumPy or ctypes scalar, such as ``numpy.int32(n)``.
                A ctypes structure is passed by value.
            shared_bytes: dynamic shared memory.
            cluster: up to three sizes, in blocks: a thread block cluster of Hopper.

        Raises:
            CudaDriverError: the driver refused the launch.
        """
        with torch.cuda.device(self.device):
            if shared_bytes > self._shared_bytes:
                driver.allow_shared_bytes(self._function, shared_bytes)
                self._shared_bytes = shared_bytes
            stream = torch.cuda.current_stream(self.device).cuda_stream
            arguments = [_argument(value) for value in args]
            driver.launch(self._function, grid, block, shared_bytes, stream, arguments, cluster)


def _argument(value: Any) -> Any:
    """A ctypes value of what the kernel takes."""
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, bool):
        return ctypes.c_bool(value)
    if isinstance(value, int):
        return ctypes.c_int64(value)
    if isinstance(value, float):
        return ctypes.c_double(value)
    if isinstance(value, numpy.generic):
        return numpy.ctypeslib.as_ctypes_type(value.dtype)(value.item())  # type: ignore[arg-type]
    return value


def load_kernel(source: str, kernel: str, *, device: torch.device | None = None, **options: Any) -> CudaKernel:
    """Compile (or take from the cache) and load one kernel; ``options`` are those of ``compile_cubin``.

    Kernels are kept for the life of the process: the same arguments return the same object.

    Raises:
        RuntimeError: no GPU, or NVRTC or ``cuda.core`` is not installed.
        CompileError: see ``compile_cubin``.
    """
    if not (support := nvrtc_available()):
        raise RuntimeError(f"kernel {kernel!r} cannot be loaded: {support.reason}")
    index = torch.cuda.current_device() if device is None or device.index is None else device.index
    place = torch.device("cuda", index)
    key = (source, kernel, index, json.dumps(options, sort_keys=True))
    if key not in _LOADED:
        options.setdefault("arch", device_arch(place))
        _LOADED[key] = CudaKernel(compile_cubin(source, [kernel], **options), kernel, place)
    return _LOADED[key]


_LOADED: dict[tuple[str, str, int, str], CudaKernel] = {}


@functools.cache
def _cuda_core() -> Any:
    core = importlib.import_module("cuda.core")
    # The names moved out of cuda.core.experimental in 0.5.
    return core if hasattr(core, "Program") else importlib.import_module("cuda.core.experimental")


@functools.cache
def _versions() -> list[str]:
    nvrtc = importlib.import_module("cuda.bindings.nvrtc")
    _, major, minor = nvrtc.nvrtcVersion()
    return [f"nvrtc {major}.{minor}", f"cuda-core {importlib.metadata.version('cuda-core')}"]


@functools.cache
def _cuda_headers() -> tuple[str, ...]:
    """The folder of ``cuda_fp16.h`` and its like, where a wheel or a toolkit brings them."""
    try:
        found = importlib.import_module("cuda.pathfinder").find_nvidia_header_directory("cudart")
    except Exception:
        # Older releases of cuda-bindings bring no path finder; sources without CUDA headers compile all the same.
        return ()
    return (str(found),) if found else ()


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
