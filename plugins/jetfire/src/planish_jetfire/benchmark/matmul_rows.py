"""Block-scaled matmuls of bfloat16 matrices' size, beside cuBLAS and what else a user could call."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from planish.benchmark import Measurement, Row, interleave
from planish_kernels.block_matmul import block_matmul, block_matmul_quantized
from planish_kernels.formats import BlockFloat8, BlockInt8
from planish_kernels.formats.block_scaled import BlockScaled
from torch import Tensor

FORMATS: Mapping[str, type[BlockScaled]] = {"int8": BlockInt8, "float8": BlockFloat8}
TARGETS = {("int8", 32): 1.0, ("int8", 128): 1.25, ("float8", 128): 1.4}
CEILING = 1.954e15
"""Operations a second of ``wgmma`` on int8 from shared memory alone, measured on an H200; float8 has the same rate."""
BUILT_IN = "torch._scaled_mm, 1x128 and 128x128"
Call = Callable[[], Any]


def dense_name(device: str) -> str:
    """What the plain product is called."""
    return "cuBLAS bfloat16" if device.startswith("cuda") else "torch bfloat16"


def matmul_rows(
    m: int, n: int, k: int, *, device: str, rounds: int, notes: list[str], blocks: tuple[int, ...] = (32, 64, 128)
) -> Iterator[Row]:
    """``[m, k] @ [n, k].T`` to bfloat16, all ways in turns."""
    on_gpu = device.startswith("cuda")
    left, right = (torch.randn(size, k, device=device, dtype=torch.bfloat16) for size in (m, n))
    work: dict[str, Call] = {}
    for code, form in FORMATS.items():
        for block in blocks:
            a, b = form.encode(left, block), form.encode(right, block)
            work[f"{code}/block{block}"] = _product(a, b)
            if block == 128:
                work[f"{code}/block128, quantized out"] = _quantized_product(a, b)
    ours = list(work)
    dense = dense_name(device)
    work[dense] = lambda: left @ right.t()
    for name, make in (("torch._int_mm, int32 out", _int_mm), (BUILT_IN, _scaled_mm), ("torchao int8", _torchao_int8)):
        try:
            if not on_gpu:
                raise RuntimeError("it is measured on GPUs alone")
            work[name] = make(left, right)
        except Exception as error:
            _note(notes, f"{name} was left out: {type(error).__name__}: {str(error)[:200]}")
    times = interleave(work, device=device, rounds=rounds, graph=on_gpu)
    peers = {name: times[name] for name in work if name not in ours}
    for name in ours:
        code, _, side = name.partition("/block")
        yield Row.compare(
            f"matmul/{m}x{n}x{k}/{name}",
            times[name],
            peers,
            against=dense,
            floor=_floor(m, n, k) if on_gpu else None,
            target=TARGETS.get((code, int(side))) if side.isdigit() else None,
            extra=_rate(m, n, k, times[name]),
        )


def layout_rows(m: int, n: int, k: int, *, device: str, rounds: int) -> Iterator[Row]:
    """The three products of a linear layer as they lie in memory, and on transposed copies.

    Tensor cores read 8-bit operands along the inner dimension. The forward product lies that way; the input gradient
    reads the weight across it, the weight gradient both operands.
    """
    on_gpu = device.startswith("cuda")
    for code, form in FORMATS.items():
        grad, weight, hidden = (
            form.encode(torch.randn(rows, cols, device=device, dtype=torch.bfloat16), 128)
            for rows, cols in ((m, n), (n, k), (m, k))
        )
        turned = {name: _turned(operand) for name, operand in (("g", grad), ("w", weight), ("h", hidden))}
        work = {
            "forward": _product(hidden, weight),
            "input_grad": lambda: block_matmul(grad, weight),  # noqa: B023
            "input_grad, weight turned": lambda: block_matmul(grad, turned["w"].T),  # noqa: B023
            "weight_grad": lambda: block_matmul(grad.T, hidden),  # noqa: B023
            "weight_grad, both turned": lambda: block_matmul(turned["g"], turned["h"].T),  # noqa: B023
            "turning codes [m, n]": lambda: _turned(grad),  # noqa: B023
        }
        times = interleave(work, device=device, rounds=rounds, graph=on_gpu)
        for name, took in times.items():
            if name != "forward":
                yield Row.compare(
                    f"layouts/{m}x{n}x{k}/{code}/block128/{name}",
                    took,
                    {"forward": times["forward"]},
                    against="forward",
                    extra={} if name.startswith("turning") else _rate(m, n, k, took),
                )


def _turned(operand: BlockScaled) -> BlockScaled:
    codes = operand.codes.view(torch.int8).t().contiguous().view(operand.codes.dtype)
    return type(operand)(codes, operand.scales.t().contiguous(), operand.block, operand.dtype)


def _product(a: BlockScaled, b: BlockScaled) -> Call:
    return lambda: block_matmul(a, b.T, out_dtype=torch.bfloat16)


def _quantized_product(a: BlockScaled, b: BlockScaled) -> Call:
    return lambda: block_matmul_quantized(a, b.T)


def _int_mm(left: Tensor, right: Tensor) -> Call:
    a, b = (tensor.clamp(-3, 3).mul(40).to(torch.int8) for tensor in (left, right))
    return lambda: torch._int_mm(a, b.t())


def _scaled_mm(left: Tensor, right: Tensor) -> Call:
    """The built-in product with scales for 1x128 of the left operand and 128x128 of the right one, checked."""
    m, k = left.shape
    tokens = left.float().view(m, k // 128, 128)
    left_scales = tokens.abs().amax(2) / 448
    a = (tokens / left_scales[..., None]).to(torch.float8_e4m3fn).view(m, k)
    weight = BlockFloat8.encode(right, 128)
    # The library wants the scales of rows to lie row after row.
    scale_a, scale_b = left_scales.t().contiguous().t(), weight.scales.t()

    def run() -> Tensor:
        return torch._scaled_mm(
            a, weight.codes.t(), scale_a=scale_a, scale_b=scale_b, out_dtype=torch.bfloat16, use_fast_accum=False
        )

    rows = slice(0, 256)
    exact = (a.float().view(m, k // 128, 128) * left_scales[..., None]).view(m, k)[rows] @ weight.decode().float().t()
    error = float((run()[rows].float() - exact).norm() / exact.norm())
    if not error < 1e-2:
        raise RuntimeError(f"its relative error is {error:.2g} with scales laid out like that")
    return run


def _torchao_int8(left: Tensor, right: Tensor) -> Call:
    """torchao's INT8 product with a scale for each row of either operand, on quantized operands."""
    scaled = importlib.import_module("torchao.prototype.quantized_training.int8_mm").scaled_int8_mm
    scales = [tensor.abs().amax(1).float() / 127 for tensor in (left, right)]
    a, b = (torch.round(t.float() / s[:, None]).to(torch.int8) for t, s in zip((left, right), scales, strict=True))
    return lambda: scaled(a, b.t(), scales[0].bfloat16(), scales[1].bfloat16())


def _floor(m: int, n: int, k: int) -> float:
    return 2e3 * m * n * k / CEILING


def _rate(m: int, n: int, k: int, took: Measurement) -> dict[str, float]:
    return {"tera_operations_per_second": 2e-9 * m * n * k / took.median}


def _note(notes: list[str], text: str) -> None:
    if text not in notes:
        notes.append(text)
