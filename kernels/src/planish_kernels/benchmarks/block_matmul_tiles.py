"""Tiles that the block-scaled matmul kernel is tried with, and their times on a GPU."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch

from planish_kernels.benchmarks.stream_timing import GraphedCalls
from planish_kernels.block_matmul.op import parts
from planish_kernels.block_matmul.triton import Tile, block_matmul_triton
from planish_kernels.formats.format import Format
from planish_kernels.philox.scalar import as_scalar

SHARED_BYTES = 220_000
"""Of a Hopper SM, less what the compiler takes for itself."""
_SHAPES = ((128, 128, 8), (128, 64, 4), (64, 128, 4), (64, 256, 8), (128, 256, 16), (256, 128, 16))
"""Rows, columns, warps: at most 64 sums a thread, beside as many products; 128 do not fit into the registers."""


def candidates(block: int) -> Iterator[Tile]:
    """Tiles worth trying: what holds whole blocks, and whose pipeline fits the shared memory."""
    for rows, cols, warps in _SHAPES:
        if rows % block or cols % block:
            continue
        for stages in (3, 4, 6):
            if stages * (rows + cols) * block <= SHARED_BYTES:
                yield Tile(rows, cols, warps, stages)


def sweep(a: Format, b: Format, notes: list[str], *, out_dtype: torch.dtype = torch.bfloat16) -> list[dict[str, Any]]:
    """Milliseconds of ``a @ b`` for each tile that runs, the fastest first; each is printed when it has been timed."""
    (a_codes, a_scales, left), (b_codes, b_scales, _) = parts(a), parts(b)
    out = torch.empty((a.shape[0], b.shape[1]), dtype=out_dtype, device=a.device)
    zero = as_scalar("seed", 0, out.device)
    found: list[dict[str, Any]] = []
    for tile in candidates(left.block):
        run = functools.partial(
            block_matmul_triton,
            a_codes,
            a_scales,
            b_codes,
            b_scales,
            left.block,
            None,
            out,
            None,
            False,
            zero,
            zero,
            tile,
        )
        took = _milliseconds(run, notes, f"{a_codes.dtype}, block {left.block}, {tile}")
        if took is not None:
            found.append({"rows": tile.rows, "cols": tile.cols, "warps": tile.warps, "stages": tile.stages, "ms": took})
            print(f"  {a_codes.dtype}, block {left.block}, {tile}: {took:.4f} ms", flush=True)
    return sorted(found, key=lambda entry: entry["ms"])


def _milliseconds(run: functools.partial[None], notes: list[str], what: str) -> float | None:
    try:
        calls = GraphedCalls([run])
        calls.milliseconds(2)
        return min(calls.milliseconds(5) for _ in range(3))
    except Exception as error:  # too much shared memory, or too many registers: the compiler says so
        notes.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
        return None
