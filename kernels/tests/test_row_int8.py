"""INT8 by rows: quantization, scaling, the 2:4 weight in both orientations, and their products."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planish_kernels.cusparselt import layout
from planish_kernels.cusparselt.int8_self_test import TOLERANCE, int8_packing_error
from planish_kernels.formats import RowInt8, Sparse24
from planish_kernels.formats.row_int8 import why_not_packed
from planish_kernels.formats.sparse24 import two_largest
from planish_kernels.formats.sparse24_cusparselt import Sparse24CuSparseLt
from planish_kernels.mask24 import pack_mask, transposable_mask
from planish_kernels.matmul import explain_matmul, matmul
from planish_kernels.matmul.row_int8_cpu import exact_sums
from planish_kernels.philox import rounding_noise
from planish_kernels.row_pack24 import row_pack24
from planish_kernels.row_pack24.reference import quantized24
from planish_kernels.row_quantize import row_quantize
from planish_kernels.row_rescale import row_rescale

CPU = torch.device("cpu")
SMALLEST_SCALE = 2.0**-120


def numbers(rows: int, cols: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normal numbers whose rows differ in size by powers of ten."""
    generator = torch.Generator().manual_seed(seed)
    sizes = 10 ** torch.randint(-3, 4, (rows, 1), generator=generator).double()
    return (torch.randn(rows, cols, generator=generator, dtype=torch.float64) * sizes).to(dtype)


# ------------------------------------------------------------------ quantization


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 60), cols=st.integers(1, 200), seed=st.integers(0, 2**31), stochastic=st.booleans())
def test_an_entry_is_off_by_half_a_scale_or_less_than_one(rows: int, cols: int, seed: int, stochastic: bool) -> None:
    dense = numbers(rows, cols, seed)
    codes, scales = row_quantize(dense, "stochastic" if stochastic else "nearest", seed, 3)
    assert codes.dtype is torch.int8
    assert scales.shape == (rows,)
    assert codes.abs().max() <= 127
    error = (dense.double() / scales.double()[:, None] - codes.double()).abs()
    # The quotient is rounded to float32 before it is rounded to a code: 127 * 2^-24 at most.
    assert error.max() <= (1.0 if stochastic else 0.5) + 127 * 2**-24
    assert codes.abs().amax(1).min() >= (126 if stochastic else 127)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_quantizing_the_decoded_matrix_gives_the_same_codes_and_scales(rounding: str) -> None:
    encoded = RowInt8.encode(numbers(133, 70, 1))
    again = RowInt8.encode(encoded.decode(), rounding, seed=5)
    assert torch.equal(again.scales, encoded.scales)
    assert torch.equal(again.values, encoded.values)
    assert torch.equal(encoded.decode().double(), encoded.values.double() * encoded.scales.double()[:, None])


def test_an_outlier_stays_in_its_row() -> None:
    dense = torch.randn(20, 96, generator=torch.Generator().manual_seed(0))
    spiked = dense.clone()
    spiked[7, 50] *= 1000
    before, after = RowInt8.encode(dense).decode(), RowInt8.encode(spiked).decode()
    others = torch.arange(20) != 7
    assert torch.equal(before[others], after[others])
    assert not torch.equal(before[7], after[7])


def test_rows_of_zeros_and_rows_that_are_not_finite() -> None:
    dense = torch.randn(4, 33)
    dense[0], dense[1, 5], dense[2, 7] = 0.0, math.nan, -math.inf
    codes, scales = row_quantize(dense)
    assert scales[0] == SMALLEST_SCALE
    assert scales[1:3].isnan().all()
    assert not codes[:3].any()
    decoded = RowInt8(codes, scales).decode()
    assert not decoded[0].any()
    assert decoded[1:3].isnan().all()
    assert decoded[3].isfinite().all()


def test_stochastic_rounding_is_unbiased() -> None:
    dense = torch.randn(8, 64, generator=torch.Generator().manual_seed(3))
    draws = 4096
    scales = RowInt8.encode(dense).scales.double()[:, None]
    fraction = dense.double() / scales - (dense.double() / scales).floor()
    total = torch.zeros(8, 64, dtype=torch.float64)
    for offset in range(draws):
        total += RowInt8.encode(dense, "stochastic", 11, offset).decode().double()
    deviation = scales * (fraction * (1 - fraction)).sqrt()
    moves = fraction * (1 - fraction) > 1e-3
    z = ((total / draws - dense.double()) / (deviation / math.sqrt(draws)))[moves]
    # Some 500 independent normal numbers: the mean of |z| is 0.798 +- 0.027; 5 has a chance of 3e-4.
    assert abs(float(z.abs().mean()) - 0.798) < 0.11
    assert float(z.abs().max()) < 5


def test_draws_depend_on_seed_offset_and_place_alone() -> None:
    dense = numbers(30, 90, 2)
    first = row_quantize(dense, "stochastic", 1, 2)[0]
    strided = torch.stack((dense, dense), -1)[..., 0]
    assert torch.equal(first, row_quantize(strided, "stochastic", torch.tensor(1), torch.tensor(2))[0])
    assert not torch.equal(first, row_quantize(dense, "stochastic", 2, 2)[0])
    assert not torch.equal(first, row_quantize(dense, "stochastic", 1, 3)[0])
    scales = RowInt8.encode(dense).scales[:, None]
    noise = rounding_noise(torch.tensor(1), torch.tensor(2), 30, 90)
    assert torch.equal(first.float(), torch.round(dense / scales + noise))


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (33, 130), (5, 300)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_kernel_has_the_bits_of_the_reference(
    shape: tuple[int, int], dtype: torch.dtype, rounding: str, kernel_device: torch.device
) -> None:
    dense = numbers(*shape, 4, torch.float32).clamp(-6e4, 6e4).to(kernel_device, dtype)
    dense[0, 0] = math.nan if shape[0] > 3 else 0.0
    turned = dense.t().contiguous().t()
    for stored in (dense, turned):
        found = row_quantize(stored, rounding, 7, 9, impl="triton")
        expected = row_quantize(dense, rounding, 7, 9, impl="reference")
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1].nan_to_num(-1.0), expected[1].nan_to_num(-1.0))


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_rows_longer_than_a_tile(rounding: str, kernel_device: torch.device) -> None:
    from planish_kernels.row_quantize.triton import row_quantize_triton

    dense = numbers(3, 1000, 8).to(kernel_device)
    dense[1, 990] = 1e6
    zero = torch.zeros((), dtype=torch.int64, device=kernel_device)
    found = row_quantize_triton(dense, rounding == "stochastic", zero, zero, most_columns=256)
    for mine, theirs in zip(found, row_quantize(dense, rounding, impl="reference"), strict=True):
        assert torch.equal(mine, theirs)


def test_misfits_are_named() -> None:
    with pytest.raises(ValueError, match=r"expected \[rows, cols\]"):
        row_quantize(torch.randn(3))
    with pytest.raises(ValueError, match="a column at least"):
        row_quantize(torch.randn(3, 0))
    with pytest.raises(TypeError, match="floating-point"):
        row_quantize(torch.ones(2, 2, dtype=torch.int32))
    with pytest.raises(ValueError, match="rounding='up'"):
        row_quantize(torch.randn(2, 2), "up")
    with pytest.raises(ValueError, match=r"expected \[rows, cols\], \[rows\] and \[cols\]"):
        row_rescale(torch.ones(2, 3), torch.ones(3), torch.ones(2), torch.float32)
    with pytest.raises(TypeError, match=r"expected torch\.float32"):
        row_rescale(torch.ones(2, 3), torch.ones(2).double(), torch.ones(3), torch.float32)
    with pytest.raises(TypeError, match="out_dtype"):
        row_rescale(torch.ones(2, 3), torch.ones(2), torch.ones(3), torch.int32)
    with pytest.raises(ValueError, match="multiples of 64"):
        row_pack24(torch.randn(64, 32), torch.zeros(64, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="expected packed bits"):
        row_pack24(torch.randn(64, 64), torch.ones(64, 64, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"expected torch\.int8"):
        RowInt8.encode(torch.randn(2, 4)).with_values(torch.randn(2, 4))


@pytest.mark.parametrize("out_dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.int32, torch.bfloat16, torch.float32])
def test_rescaling(dtype: torch.dtype, out_dtype: torch.dtype, kernel_device: torch.device) -> None:
    generator = torch.Generator().manual_seed(2)
    product = torch.randint(-(2**20), 2**20, (13, 1100), generator=generator).to(kernel_device, dtype)
    rows, cols = (torch.rand(n, generator=generator).to(kernel_device) * 1e-3 for n in product.shape)
    found = row_rescale(product, rows, cols, out_dtype, impl="triton")
    assert found.dtype is out_dtype
    expected = product.double() * rows.double()[:, None] * cols.double()
    # Scaled in float32 by two factors, and rounded once.
    assert ((found.double() - expected).abs() <= torch.finfo(out_dtype).eps * expected.abs() + 1e-7).all()
    if out_dtype is torch.bfloat16 and kernel_device.type == "cpu":
        return  # the interpreter cuts float32 to bfloat16 instead of rounding it
    assert torch.equal(found, row_rescale(product, rows, cols, out_dtype, impl="reference"))


def test_operators_pass_opcheck_and_compile() -> None:
    dense, seed = torch.randn(5, 12), torch.tensor(3)
    torch.library.opcheck(torch.ops.planish.row_quantize, (dense, True, seed, seed, "auto"))
    torch.library.opcheck(torch.ops.planish.row_rescale, (dense, torch.rand(5), torch.rand(12), torch.bfloat16, "auto"))
    weight = torch.randn(64, 128)
    bits = pack_mask(transposable_mask(weight))
    for both_ways in (True, False):
        torch.library.opcheck(torch.ops.planish.row_pack24, (weight, bits, both_ways, "auto"))

    def product(x: torch.Tensor) -> torch.Tensor:
        forward, backward = RowInt8.encode24(weight, bits, both_ways=True)
        hidden = matmul(RowInt8.encode(x), forward.T)
        return matmul(RowInt8.encode(hidden, "stochastic", seed, seed), backward.T)

    torch._dynamo.reset()
    x = torch.randn(6, 128)
    torch.testing.assert_close(torch.compile(product, fullgraph=True, backend="aot_eager")(x), product(x))


# ------------------------------------------------------------------ the 2:4 weight


def bytes_of(packed: torch.Tensor) -> torch.Tensor:
    return packed.view(torch.uint8).cpu()


@pytest.mark.parametrize("shape", [(64, 64), (128, 192), (192, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_packer_writes_what_the_definition_says(
    shape: tuple[int, int], dtype: torch.dtype, kernel_device: torch.device
) -> None:
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(5)).to(kernel_device, dtype)
    weight = weight * torch.linspace(0.1, 3, shape[1], device=kernel_device, dtype=dtype)
    mask = transposable_mask(weight)
    weight[3, 5] = 0.0
    for stored in (weight, weight.t().contiguous().t()):
        by_rows, row_scales, by_cols, col_scales = row_pack24(stored, pack_mask(mask), impl="triton")
        codes, scales = quantized24(weight, mask)
        assert torch.equal(bytes_of(by_rows), bytes_of(layout.pack(codes, mask)))
        assert torch.equal(row_scales, scales)
        codes, scales = quantized24(weight.t(), mask.t())
        assert torch.equal(bytes_of(by_cols), bytes_of(layout.pack(codes, mask.t())))
        assert torch.equal(col_scales, scales)


def test_the_packer_of_one_orientation_and_of_masks_that_keep_fewer(kernel_device: torch.device) -> None:
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(6)).to(kernel_device)
    mask = two_largest(weight) & (weight > 0)
    weight[2, 9] = math.nan
    found = row_pack24(weight, pack_mask(mask), both_ways=False, impl="triton")
    expected = row_pack24(weight, pack_mask(mask), both_ways=False, impl="reference")
    assert [t.numel() for t in found] == [t.numel() for t in expected]
    assert torch.equal(bytes_of(found[0]), bytes_of(expected[0]))
    assert torch.equal(found[1].nan_to_num(-1.0), expected[1].nan_to_num(-1.0))


@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize("shape", [(8, 12), (36, 20), (64, 128)])
def test_the_encoded_weight_is_the_masked_one_quantized_by_rows(shape: tuple[int, int], both_ways: bool) -> None:
    weight = torch.randn(*shape)
    mask = transposable_mask(weight)
    forward, backward = RowInt8.encode24(weight, pack_mask(mask), both_ways=both_ways, dtype=torch.bfloat16)
    assert isinstance(forward.values, Sparse24)
    assert forward.dtype is torch.bfloat16
    masked = torch.where(mask, weight, 0)
    assert torch.equal(forward.values.decode(), RowInt8.encode(masked).values)
    assert torch.equal(forward.scales, RowInt8.encode(masked).scales)
    assert torch.equal(forward.values.dense_mask(), mask)
    assert (backward is not None) == both_ways
    if backward is not None:
        assert torch.equal(backward.values.decode(), RowInt8.encode(masked.t()).values)
        assert torch.equal(backward.values.dense_mask(), mask.t())


def test_sums_of_long_rows_are_exact() -> None:
    """All codes at their bounds: 5000 * 127^2 is beyond what float32 holds."""
    codes = torch.full((2, 5000), 127, dtype=torch.int8)
    codes[1, ::3] = -126
    expected = codes.to(torch.int64) @ codes.to(torch.int64).t()
    assert torch.equal(exact_sums(codes, codes).to(torch.int64), expected)
    short = codes[:, :1024]
    assert torch.equal(exact_sums(short, short).to(torch.int64), short.to(torch.int64) @ short.to(torch.int64).t())


def test_a_cpu_says_why_it_does_not_pack() -> None:
    assert "CUDA" in why_not_packed(64, 64, CPU)
    weight = torch.randn(64, 64)
    forward, _ = RowInt8.encode24(weight, pack_mask(transposable_mask(weight)), both_ways=False)
    chosen = next(row for row in explain_matmul(RowInt8.encode(torch.randn(3, 64)), forward.T) if row.chosen)
    assert chosen.kernel == "row_int8_sparse24/cpu"


# ------------------------------------------------------------------ the self-test


def _multiply(packed: torch.Tensor, rows: int, cols: int, codes: torch.Tensor, wide: bool) -> torch.Tensor:
    sums = codes.double() @ layout.unpack(packed, rows, cols).double().t()
    return sums.to(torch.int32) if wide else sums.to(torch.bfloat16)


def _pack(weight: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return row_pack24(weight, pack_mask(mask), impl="reference")


def test_the_self_test_accepts_the_definition() -> None:
    assert int8_packing_error(_pack, _multiply, CPU) < TOLERANCE


def test_the_self_test_rejects_metadata_of_16_bit_values() -> None:
    def wrong(weight: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        by_rows, scales, *rest = _pack(weight, mask)
        values, codes = layout.split(by_rows, *weight.shape)
        metadata = layout._permute_codes(codes, 2)
        return torch.cat((values.reshape(-1), metadata.view(torch.int8))), scales, *rest

    assert int8_packing_error(wrong, _multiply, CPU) > TOLERANCE


def test_the_self_test_rejects_wrong_scales_of_the_transpose_and_wrong_sums() -> None:
    def wrong(weight: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        by_rows, row_scales, by_cols, col_scales = _pack(weight, mask)
        return by_rows, row_scales, by_cols, col_scales.roll(1)

    assert int8_packing_error(wrong, _multiply, CPU) > TOLERANCE

    def off_by_one(*given: object) -> torch.Tensor:
        return _multiply(*given) + (1 if given[-1] else 0)

    assert int8_packing_error(_pack, off_by_one, CPU) == math.inf


# ------------------------------------------------------------------ on the device


def _needs_products(gpu: torch.device) -> None:
    reason = why_not_packed(64, 64, gpu)
    if reason:
        pytest.fail(reason) if torch.cuda.get_device_capability(gpu) == (9, 0) else pytest.skip(reason)


@pytest.mark.gpu
def test_self_tests_pass_on_the_device(gpu: torch.device) -> None:
    from planish_kernels.cusparselt.int8_self_test import INT8_MATMUL, INT8_PACKER
    from planish_kernels.runtime.self_test import run_self_test

    for name in (INT8_MATMUL, INT8_PACKER):
        result = run_self_test(name, gpu)
        assert result.ok, result.detail


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(16, 64, 64), (120, 192, 320), (1001, 1024, 512), (4096, 2048, 4096)])
def test_both_products_of_a_layer_on_the_device(
    shape: tuple[int, int, int], dtype: torch.dtype, gpu: torch.device
) -> None:
    _needs_products(gpu)
    tokens, out, inputs = shape
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(out, inputs, generator=generator).to(gpu)
    mask = transposable_mask(weight)
    forward, backward = RowInt8.encode24(weight, pack_mask(mask), both_ways=True, dtype=dtype)
    assert isinstance(forward.values, Sparse24CuSparseLt)
    masked = torch.where(mask, weight, 0)
    for operand, dense in ((forward, masked), (backward, masked.t())):
        codes, scales = row_quantize(dense, impl="reference")
        assert torch.equal(operand.values.decode(), codes)
        assert torch.equal(operand.scales, scales)
        x = torch.randn(tokens, dense.shape[1], generator=generator).to(gpu, dtype)
        left = RowInt8.encode(x, "stochastic", 3, 4)
        exact = (left.values.double() * left.scales.double()[:, None]) @ (codes.double() * scales.double()[:, None]).t()
        product = matmul(left, operand.T, impl="cusparselt")
        assert product.dtype is dtype
        error = float((product.double() - exact).norm() / exact.norm())
        assert error < {torch.bfloat16: 4e-3, torch.float16: 4e-4, torch.float32: 1e-6}[dtype]


@pytest.mark.gpu
def test_under_compile_and_in_a_graph_on_the_device(gpu: torch.device) -> None:
    _needs_products(gpu)
    weight = torch.randn(512, 256, device=gpu)
    operand, _ = RowInt8.encode24(weight, pack_mask(transposable_mask(weight)), both_ways=False, dtype=torch.bfloat16)
    x = torch.randn(256, 256, device=gpu, dtype=torch.bfloat16)

    def product(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(matmul(RowInt8.encode(x), operand.T))

    expected = product(x).double()
    compiled = torch.compile(product, fullgraph=True)(x).double()
    assert float((compiled - expected).norm() / expected.norm()) < 5e-3
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = product(x)
    x.copy_(torch.randn_like(x))
    captured.fill_(math.nan)
    graph.replay()
    torch.testing.assert_close(captured, product(x))


@pytest.mark.gpu
def test_packing_waits_for_no_device(gpu: torch.device) -> None:
    _needs_products(gpu)
    weight = torch.randn(256, 512, device=gpu)
    bits = pack_mask(transposable_mask(weight))
    RowInt8.encode24(weight, bits, both_ways=True)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        RowInt8.encode24(weight, bits, both_ways=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
