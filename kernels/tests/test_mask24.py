"""2:4 masks: every backend against exhaustive search, ties, shapes, strides, values that are not finite."""

from __future__ import annotations

import importlib
import inspect
import itertools

import pytest
import torch
from planish_kernels.mask24 import (
    flip_count,
    pack_mask,
    rowwise_mask,
    rowwise_mask_bits,
    transposable_mask,
    transposable_mask_bits,
    unpack_mask,
)
from planish_kernels.mask24.patterns import ROW_PATTERNS, transposable_patterns
from planish_kernels.runtime.op import KernelUnavailable
from torch import Tensor

SHAPES = [(4, 4), (8, 12), (64, 68), (12, 2052), (44, 8)]


def is_transposable(mask: Tensor) -> bool:
    rows, cols = mask.shape
    blocks = mask.view(rows // 4, 4, cols // 4, 4)
    return bool((blocks.sum(1) == 2).all() and (blocks.sum(3) == 2).all())


def brute_force(block: Tensor) -> Tensor:
    """The rule in words, over all 6^4 choices of rows: independent of the pattern table."""
    best, winner = -1.0, None
    for rows in itertools.product(ROW_PATTERNS, repeat=4):
        pattern = torch.tensor(rows, dtype=torch.bool)
        if not (pattern.sum(0) == 2).all():
            continue
        score = float(block.double().abs()[pattern].sum())
        if score > best:
            best, winner = score, pattern
    assert winner is not None
    return winner


def test_there_are_ninety_patterns_in_lexicographic_order() -> None:
    patterns = transposable_patterns()
    assert patterns.shape == (90, 4, 4)
    assert (patterns.sum(1) == 2).all()
    assert (patterns.sum(2) == 2).all()
    order = [tuple(ROW_PATTERNS.index(tuple(int(x) for x in row)) for row in pattern) for pattern in patterns]
    assert order == sorted(set(order))


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_transposable_equals_brute_force(impl: str) -> None:
    generator = torch.Generator().manual_seed(3)
    blocks = [torch.randint(-3, 4, (4, 4), generator=generator).float() for _ in range(12)]
    blocks += [torch.randn(4, 4, generator=generator) for _ in range(6)] + [torch.zeros(4, 4), torch.ones(4, 4)]
    for block in blocks:
        assert torch.equal(transposable_mask(block, impl=impl), brute_force(block)), block


@pytest.mark.parametrize("levels", [2, 3, 9, 200])
def test_cpu_equals_reference_where_sums_are_exact(levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    weight = torch.randint(-levels, levels + 1, (400, 404), generator=generator).float()
    assert torch.equal(transposable_mask(weight, impl="cpu"), transposable_mask(weight, impl="reference"))


@pytest.mark.parametrize("scale", [1e-42, 1.0, 1e37])
def test_float32_sums_retain_the_optimum(scale: float) -> None:
    weight = torch.randn(512, 512, generator=torch.Generator().manual_seed(0)) * scale
    magnitudes = weight.abs().double()
    kept = magnitudes * transposable_mask(weight, impl="cpu")
    best = magnitudes * transposable_mask(weight, impl="reference")
    per_block = [t.view(128, 4, 128, 4).sum((1, 3)) for t in (kept, best)]
    assert (per_block[0] >= per_block[1] * (1 - 2**-21)).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_triton_equals_cpu(shape: tuple[int, int], dtype: torch.dtype, kernel_device: torch.device) -> None:
    generator = torch.Generator().manual_seed(1)
    for weight in (torch.randn(shape, generator=generator), torch.randint(-2, 3, shape, generator=generator)):
        weight = weight.to(dtype)
        expected = transposable_mask(weight, impl="cpu")
        there = weight.to(kernel_device)
        assert torch.equal(transposable_mask(there, impl="triton").cpu(), expected)
        bits = transposable_mask_bits(there, impl="triton").cpu()
        assert torch.equal(bits, pack_mask(expected))
        assert torch.equal(bits, transposable_mask_bits(weight, impl="cpu"))


def test_strides(kernel_device: torch.device) -> None:
    base = torch.randn(40, 72, generator=torch.Generator().manual_seed(1))
    for weight in (base.t(), base[4:20, 8:44], base[::2, ::2], base[:8, :1].expand(8, 8)):
        expected = transposable_mask(weight.contiguous(), impl="reference")
        assert torch.equal(transposable_mask(weight, impl="cpu"), expected)
        there = base.to(kernel_device).as_strided(weight.shape, weight.stride(), weight.storage_offset())
        assert torch.equal(transposable_mask(there, impl="triton").cpu(), expected)
        expected = rowwise_mask(weight, impl="reference")
        assert torch.equal(rowwise_mask(there, impl="triton").cpu(), expected)


def not_finite() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randint(0, 4, (64, 64), generator=generator).float()
    weight[torch.rand(64, 64, generator=generator) < 0.2] = torch.nan
    weight[torch.rand(64, 64, generator=generator) < 0.05] = -torch.inf
    weight[:8] = torch.nan
    return weight


def interpreter_spreads_nan() -> bool:
    """Whether this Triton's interpreter has ``maximum`` return NaN where the device ignores it (seen in 3.6)."""
    return "np.fmax" not in inspect.getsource(importlib.import_module("triton.runtime.interpreter"))


def test_not_finite_weights_still_give_valid_masks(kernel_device: torch.device) -> None:
    if kernel_device.type == "cpu" and interpreter_spreads_nan():
        pytest.skip("this Triton's interpreter takes the maximum of NaN and a number for NaN, which no GPU does")
    weight = not_finite()
    only_nan = torch.where(weight.isinf(), 7.0, weight)
    first = transposable_patterns()[0]
    reference = transposable_mask(only_nan, impl="reference")
    assert torch.equal(reference[:4, :4], first)
    for impl, device in (("cpu", torch.device("cpu")), ("triton", kernel_device)):
        assert torch.equal(transposable_mask(only_nan.to(device), impl=impl).cpu(), reference)
        assert is_transposable(transposable_mask(weight.to(device), impl=impl))
    lone = torch.ones(4, 4)
    lone[2, 3] = torch.inf
    lone[0, 0] = torch.nan
    for impl, device in (("cpu", torch.device("cpu")), ("triton", kernel_device), ("reference", torch.device("cpu"))):
        mask = transposable_mask(lone.to(device), impl=impl)
        assert mask[2, 3]
        assert not mask[0, 0]
    assert torch.equal(
        rowwise_mask(weight.to(kernel_device), impl="triton").cpu(), rowwise_mask(weight, impl="reference")
    )
    assert torch.equal(rowwise_mask(weight, impl="cpu"), rowwise_mask(weight, impl="reference"))
    assert (rowwise_mask(weight).view(64, 16, 4).sum(-1) == 2).all()


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_idempotent_on_masked_weights(impl: str) -> None:
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(2))
    mask = transposable_mask(weight, impl=impl)
    assert is_transposable(mask)
    assert torch.equal(transposable_mask(weight * mask, impl=impl), mask)


def test_transpose_retains_the_same_sum() -> None:
    weight = torch.randn(128, 64, generator=torch.Generator().manual_seed(2)).double()
    there = (weight.abs() * transposable_mask(weight)).sum()
    back = (weight.t().abs() * transposable_mask(weight.t())).sum()
    torch.testing.assert_close(there, back, rtol=1e-12, atol=0)


def test_retained_fraction_of_normal_weights() -> None:
    weight = torch.randn(2048, 2048, generator=torch.Generator().manual_seed(0))
    total = weight.abs().sum()
    assert abs(float((weight.abs() * transposable_mask(weight)).sum() / total) - 0.702) < 0.003
    assert abs(float((weight.abs() * rowwise_mask(weight)).sum() / total) - 0.7445) < 0.003


def test_rowwise_equals_sorting(kernel_device: torch.device) -> None:
    generator = torch.Generator().manual_seed(4)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for weight in (torch.randn(9, 100, generator=generator), torch.randint(-2, 3, (9, 2052), generator=generator)):
            weight = weight.to(dtype)
            rows, cols = weight.shape
            order = weight.abs().float().view(rows, -1, 4).argsort(dim=-1, descending=True, stable=True)
            expected = torch.zeros(rows, cols // 4, 4, dtype=torch.bool).scatter(-1, order[..., :2], True)
            expected = expected.view(rows, cols)
            assert torch.equal(rowwise_mask(weight, impl="reference"), expected)
            assert torch.equal(rowwise_mask(weight, impl="cpu"), expected)
            assert torch.equal(rowwise_mask_bits(weight, impl="cpu"), pack_mask(expected))
            there = weight.to(kernel_device)
            assert torch.equal(rowwise_mask(there, impl="triton").cpu(), expected)
            assert torch.equal(rowwise_mask_bits(there, impl="triton").cpu(), pack_mask(expected))


@pytest.mark.parametrize("cols", [4, 8, 36, 4100])
def test_flip_count(cols: int, kernel_device: torch.device) -> None:
    generator = torch.Generator().manual_seed(cols)
    mask = torch.rand(33, cols, generator=generator) < 0.5
    other = torch.rand(33, cols, generator=generator) < 0.5
    bits, other_bits = pack_mask(mask), pack_mask(other)
    expected = int((mask ^ other).sum())
    count = flip_count(bits, other_bits, impl="reference")
    assert count.dtype is torch.int64
    assert count.shape == ()
    assert int(count) == expected
    assert int(flip_count(bits.to(kernel_device), other_bits.to(kernel_device), impl="triton")) == expected
    assert int(flip_count(bits, bits)) == 0
    assert int(flip_count(pack_mask(mask), pack_mask(~mask))) == mask.numel()


def test_empty() -> None:
    for shape in ((0, 8), (8, 0)):
        assert transposable_mask(torch.zeros(shape)).shape == shape
        assert rowwise_mask(torch.zeros(shape)).shape == shape


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"6 columns.*multiple of 4"):
        transposable_mask(torch.zeros(8, 6))
    with pytest.raises(ValueError, match=r"6 rows.*multiple of 4"):
        transposable_mask_bits(torch.zeros(6, 8))
    with pytest.raises(ValueError, match=r"7 columns.*multiple of 4"):
        rowwise_mask(torch.zeros(6, 7))
    with pytest.raises(ValueError, match="two dimensions"):
        rowwise_mask_bits(torch.zeros(2, 4, 4))
    with pytest.raises(TypeError, match="floating"):
        transposable_mask(torch.zeros(4, 4, dtype=torch.int64))
    with pytest.raises(KernelUnavailable, match="float64"):
        transposable_mask(torch.zeros(4, 4, dtype=torch.float64), impl="cpu")
    with pytest.raises(ValueError, match="packed masks of one weight"):
        flip_count(torch.zeros(2, 2, dtype=torch.uint8), torch.zeros(2, 3, dtype=torch.uint8))
    with pytest.raises(TypeError, match="uint8"):
        flip_count(torch.zeros(2, 2), torch.zeros(2, 2))


def test_opcheck() -> None:
    weight = torch.randn(8, 12)
    bits = pack_mask(weight > 0)
    for packed in (False, True):
        torch.library.opcheck(torch.ops.planish.transposable_mask, (weight, packed, "auto"))
        torch.library.opcheck(torch.ops.planish.rowwise_mask, (weight, packed, "auto"))
    torch.library.opcheck(torch.ops.planish.flip_count, (bits, bits, "auto"))


def test_compiles_without_graph_breaks() -> None:
    def flips(weight: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
        new = transposable_mask_bits(weight)
        return new, flip_count(new, bits) + rowwise_mask(weight).sum()

    weight = torch.randn(8, 12)
    bits = pack_mask(weight > 0)
    compiled = torch.compile(flips, fullgraph=True, backend="aot_eager")
    for got, expected in zip(compiled(weight, bits), flips(weight, bits), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_large_on_gpu(dtype: torch.dtype, gpu: torch.device) -> None:
    weight = torch.randn(4096, 16380, device=gpu).to(dtype)
    bits = transposable_mask_bits(weight)
    assert torch.equal(bits.cpu(), transposable_mask_bits(weight.cpu(), impl="cpu"))
    assert torch.equal(unpack_mask(bits, 16380), transposable_mask(weight))
    assert torch.equal(rowwise_mask(weight), rowwise_mask(weight, impl="reference"))
    assert int(flip_count(bits, ~bits)) == bits.numel() * 8


@pytest.mark.gpu
def test_addresses_past_two_to_the_31(gpu: torch.device) -> None:
    weight = torch.randn(65536 + 8, 32768, device=gpu, dtype=torch.bfloat16)
    bits = transposable_mask_bits(weight)
    assert torch.equal(bits[-8:].cpu(), transposable_mask_bits(weight[-8:].cpu(), impl="cpu"))
