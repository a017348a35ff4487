"""Compiles Triton kernels for Hopper and Ampere on a machine without a GPU: ``python compile_kernels.py``; prints JSON.

The interpreter runs what the compiler refuses (branches that return different types, say). A process of its own, since
tests switch the interpreter on.
"""

import json
import os
import sys
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)

from planish_kernels.block_activation import triton as activation
from planish_kernels.block_add import triton as add
from planish_kernels.block_dropout import triton as dropout
from planish_kernels.block_matmul import triton as matmul
from planish_kernels.block_norm import triton as norm
from planish_kernels.block_quantize import triton as quantize
from planish_kernels.block_quantize.tile import chunk_rows, chunk_warps, tile_warps
from planish_kernels.correlation_lookup import triton as lookup
from planish_kernels.row_pack24 import triton as row_pack24
from planish_kernels.row_quantize import triton as row_quantize
from planish_kernels.row_rescale import triton as row_rescale
from triton import compile as compile_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

HOPPER, AMPERE = GPUTarget("cuda", 90, 32), GPUTarget("cuda", 80, 32)
BYTES = {torch_name: triton_name for torch_name, triton_name in (("int8", "*i8"), ("float8", "*fp8e4nv"))}
RANDOM = {"seed", "offset", "next_offset"}
FLOATS = {"dropped", "kept", "eps"}
SIXTEEN_BIT = {"dense", "residual", "total", "weight", "bias"}
ONE = {"stride_col", "residual_stride_col", "a_stride_col", "b_stride_row"}
"""Strides that are 1 for the row-major and transposed operands of a training step."""


def kernels(code: str, block: int) -> dict[str, tuple[Any, dict[str, Any], int]]:
    """Kernel, constants and warps by name."""
    form = {"LARGEST": 127.0 if code == "int8" else 448.0, "IS_INT8": code == "int8"}
    tile = {"BLOCK": block, "ACROSS": max(1, 128 // block)}
    rows = {"BLOCK": block, "ROWS": norm.ROWS, "COLUMNS": norm.COLUMNS, "IS_WHOLE": code == "int8"}
    products = {"BLOCK": block, "BLOCK_M": 128, "BLOCK_N": 128, "GROUP_M": 8, "HAS_BIAS": True, **form}
    # Matrices that tiles divide, and others.
    whole = {**tile, "IS_WHOLE": code == "int8", **form}
    drawn, warps = {**whole, "STOCHASTIC": True}, tile_warps(block)
    twice, few = {**drawn, "CHUNK": chunk_rows(block)}, chunk_warps(block, chunk_rows(block))
    return {
        "quantize": (quantize._quantize_kernel, twice, few),
        "activation": (activation._forward_kernel, {**whole, "ACTIVATION": "gelu", "IS_GATED": False}, warps),
        "gated backward": (activation._backward_kernel, {**twice, "ACTIVATION": "silu", "IS_GATED": True}, few),
        "backward": (
            activation._backward_kernel,
            {**drawn, "CHUNK": block, "ACTIVATION": "gelu", "IS_GATED": False},
            warps,
        ),
        "statistics": (norm.statistics_kernel, {**rows, "IS_RMS": False}, 4),
        "norm": (norm._forward_kernel, {**whole, "HAS_WEIGHT": True, "HAS_BIAS": False}, warps),
        "norm backward rows": (norm.backward_rows_kernel, {**rows, "IS_RMS": False, "HAS_WEIGHT": False}, 4),
        "norm backward": (norm._backward_kernel, {**twice, "HAS_WEIGHT": True, "HAS_BIAS": True}, few),
        "add": (add._add_kernel, {**drawn, "IS_RMS": True}, warps),
        "add combine": (add._combine_kernel, {"IS_RMS": False, "WIDTH": 128, "ROWS": 32, "TILES": 32}, 4),
        "dropout": (dropout._dropout_kernel, {**tile, "STREAM": 1 << 32}, warps),
        "matmul": (matmul._matmul_kernel, {**products, "QUANTIZES": False, "STOCHASTIC": False}, 8),
        "matmul, quantized": (matmul._matmul_kernel, {**products, "QUANTIZES": True, "STOCHASTIC": True}, 8),
    }


def row_kernels() -> dict[str, tuple[Any, dict[str, Any], int]]:
    """Kernels of INT8 rows: kernel, constants and warps by name."""
    drawn = {"ROWS": 1, "STOCHASTIC": True}
    tile = {"BY_COLS": True, "ROWS": row_pack24._ROWS, "COLS": row_pack24._COLS}
    return {
        "rows quantized": (row_quantize._quantize_kernel, {**drawn, "COLS": 4096, "IS_WHOLE": True}, 4),
        "long rows quantized": (row_quantize._quantize_kernel, {**drawn, "COLS": 8192, "IS_WHOLE": False}, 8),
        "rows rescaled": (row_rescale._rescale_kernel, {"ROWS": 4, "COLS": 1024}, 4),
        "largest of rows and columns": (row_pack24._largest_kernel, tile, 4),
        "rows packed 2:4": (row_pack24._pack_kernel, tile, 4),
    }


def lookup_kernels() -> dict[str, tuple[Any, dict[str, Any], int]]:
    """Lookups of correlations: kernel, constants and warps by name."""
    window = {"RADIUS": 4, "POSITIONS": lookup.POSITIONS, "LANES": 128}
    return {"correlations looked up": (lookup._lookup_kernel, window, lookup.WARPS)}


ROW_TYPES = {
    "codes": "*i8", "scales": "*fp32", "row_scales": "*fp32", "col_scales": "*fp32", "dense": "*bf16",
    "product": "*bf16", "out": "*bf16", "weight": "*fp32", "bits": "*u8", "row_largest": "*i32", "col_largest": "*i32",
    "row_values": "*i16", "col_values": "*i16", "row_metadata": "*i64", "col_metadata": "*i64", "seed": "*i64",
    "offset": "*i64",
}  # fmt: skip
"""Types of what the kernels of INT8 rows take, as in a training step."""
LOOKUP_TYPES = {"volume": "*fp32", "coords": "*fp32", "out": "*bf16", "shrink": "fp32"}


def compiled(
    kernel: Any, constants: dict[str, Any], warps: int, code: str, target: GPUTarget = HOPPER
) -> dict[str, int]:
    """What became of one kernel: tensor core instructions and lines of its PTX, bytes of machine code."""
    signature: dict[str, str] = {}
    values: dict[tuple[int], Any] = {}
    attributes: dict[tuple[int], Any] = {}
    for place, name in enumerate(kernel.arg_names):
        if name in constants or name in ONE:
            signature[name], values[(place,)] = "constexpr", constants.get(name, 1)
            continue
        if "row_" in kernel.fn.__module__:
            signature[name] = ROW_TYPES.get(name, "i32")
        elif kernel is lookup._lookup_kernel:
            signature[name] = LOOKUP_TYPES.get(name, "i32")
        elif "codes" in name or (name == "out" and constants["QUANTIZES"]):
            signature[name] = "*i8" if kernel is dropout._dropout_kernel else BYTES[code]
        elif name in RANDOM:
            signature[name] = "*i64"
        elif name in FLOATS:
            signature[name] = "fp32"
        elif name in SIXTEEN_BIT or name == "out":
            signature[name] = "*bf16"
        elif name.endswith(("scales", "statistics", "means", "squares", "grad_weight", "grad_bias")):
            signature[name] = "*fp32"
        else:
            signature[name] = "i32"
        if signature[name] != "fp32":
            attributes[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=attributes)
    found = compile_kernel(source, target=target, options={"num_warps": warps, "num_stages": 3})
    ptx = found.asm["ptx"]
    return {
        "wgmma": ptx.count("wgmma.mma_async"), "lines": ptx.count("\n"), "machine_code": len(found.asm["cubin"]),
    }  # fmt: skip


def main() -> None:
    """Compile everything; a kernel that does not compile is reported with the compiler's words."""
    outcome: dict[str, Any] = {}
    wanted = {name: (*what, "int8") for name, what in (row_kernels() | lookup_kernels()).items()}
    for code, block in (("int8", 32), ("float8", 128)):
        wanted |= {f"{name}, {code}, block {block}": (*what, code) for name, what in kernels(code, block).items()}
    # What is written in PTX must not ask for more than the oldest GPU that is served has. Float8 came later.
    wanted |= {f"{name}, on Ampere": (*what, "int8", AMPERE) for name, what in kernels("int8", 128).items()}
    for name, what in wanted.items():
        try:
            outcome[name] = compiled(*what)
        except Exception as error:
            causes = []
            cause: BaseException | None = error
            while cause is not None:
                causes.append(f"{type(cause).__name__}: {cause}")
                cause = cause.__cause__
            outcome[name] = causes[-1]
    json.dump(outcome, sys.stdout)


if __name__ == "__main__":
    main()
