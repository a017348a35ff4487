"""Block quantization: bounds, exactness, unbiased rounding, and the bits of the kernel against those of torch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planish_kernels.block_quantize import block_quantize, block_quantize_joined
from planish_kernels.block_quantize.reference import SMALLEST_SCALE
from planish_kernels.formats import BlockFloat8, BlockInt8
from planish_kernels.philox import rounding_noise
from planish_kernels.runtime.op import KernelUnavailable

FORMATS = [BlockInt8, BlockFloat8]
BLOCKS = [16, 32, 64, 128]


def spread(encoded):
    rows, cols = encoded.shape
    return encoded.scales.repeat_interleave(encoded.block, 0)[:rows].repeat_interleave(encoded.block, 1)[:, :cols]


def numbers(rows, cols, seed, dtype=torch.float32):
    """Normal numbers whose rows and columns differ in size by powers of ten."""
    generator = torch.Generator().manual_seed(seed)
    sizes = 10 ** torch.randint(-3, 4, (rows, 1), generator=generator).double()
    sizes = sizes * 10 ** torch.randint(-2, 3, (1, cols), generator=generator).double()
    return (torch.randn(rows, cols, generator=generator, dtype=torch.float64) * sizes).to(dtype)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 150), cols=st.integers(1, 150), block=st.sampled_from(BLOCKS), seed=st.integers(0, 2**31),
    stochastic=st.booleans(),
)  # fmt: skip
def test_an_int8_entry_is_off_by_half_a_scale_or_less_than_one(rows, cols, block, seed, stochastic):
    dense = numbers(rows, cols, seed)
    encoded = BlockInt8.encode(dense, block, "stochastic" if stochastic else "nearest", seed, 3)
    assert encoded.codes.abs().max() <= 127
    error = (dense.double() - encoded.codes.double() * spread(encoded).double()).abs() / spread(encoded).double()
    # The quotient is rounded to float32 before it is rounded to a code: 127 * 2^-24 at most.
    assert error.max() <= (1.0 if stochastic else 0.5) + 127 * 2**-24
    # Each block that is not tiny has a code of the largest size (stochastically it may be one less).
    assert all(
        tile.abs().max() >= (126 if stochastic else 127)
        for strip in encoded.codes.split(block, 0)
        for tile in strip.split(block, 1)
    )


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_quantizing_the_decoded_matrix_gives_the_same_codes_and_scales(kind, block, rounding):
    encoded = kind.encode(numbers(133, 70, block), block)
    again = kind.encode(encoded.decode(), block, rounding, seed=5)
    assert torch.equal(again.scales, encoded.scales)
    assert torch.equal(again.codes.float(), encoded.codes.float())


@pytest.mark.parametrize("kind", FORMATS)
def test_decoding_is_exact_in_float32(kind):
    encoded = kind.encode(numbers(70, 45, 1), 32)
    assert torch.equal(encoded.decode().double(), encoded.codes.double() * spread(encoded).double())


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("block", BLOCKS)
def test_the_transpose_has_the_transposed_codes_and_scales(kind, block):
    dense = numbers(100, 65, block)
    encoded, turned = kind.encode(dense, block), kind.encode(dense.t(), block)
    assert torch.equal(turned.codes.float(), encoded.codes.t().float())
    assert torch.equal(turned.scales, encoded.scales.t())


def test_powers_of_two_change_the_scales_alone():
    dense = numbers(64, 96, 7)
    encoded, doubled = BlockInt8.encode(dense), BlockInt8.encode(dense * 2.0**9)
    assert torch.equal(encoded.codes, doubled.codes)
    assert torch.equal(encoded.scales * 2.0**9, doubled.scales)


def test_an_outlier_stays_in_its_block():
    dense = torch.randn(96, 96, generator=torch.Generator().manual_seed(0))
    spiked = dense.clone()
    spiked[40, 50] *= 1000
    before, after = BlockInt8.encode(dense).decode(), BlockInt8.encode(spiked).decode()
    outside = torch.ones(96, 96, dtype=torch.bool)
    outside[32:64, 32:64] = False
    assert torch.equal(before[outside], after[outside])
    inside = ~outside
    inside[40, 50] = False
    assert (after - dense)[inside].abs().mean() > 20 * (before - dense)[inside].abs().mean()


@pytest.mark.parametrize("kind", FORMATS)
def test_stochastic_rounding_is_unbiased_and_differs_from_place_to_place(kind):
    dense = torch.randn(64, 64, generator=torch.Generator().manual_seed(3))
    draws = 4096
    total, squares = torch.zeros(64, 64, dtype=torch.float64), torch.zeros(64, 64, dtype=torch.float64)
    left, right = [], []
    for offset in range(draws):
        error = kind.encode(dense, 32, "stochastic", 11, offset).decode().double() - dense.double()
        total += error
        squares += error.square()
        left.append(error[:32, :32].flatten()[:64])
        right.append(error[32:, 32:].flatten()[:64])
    # Each entry takes one of two values: its variance is known from the draws, none where it is exactly a code.
    deviation = (squares / draws - (total / draws).square()).clamp_min(0).sqrt()
    moves = deviation > 1e-3 * deviation.max()
    z = (total / draws)[moves] / (deviation[moves] / math.sqrt(draws))
    # 4096 nearly independent normal numbers: the mean of |z| is 0.798 +- 0.0094, the largest stays below 5.5.
    assert abs(float(z.abs().mean()) - 0.798) < 0.04
    assert float(z.abs().max()) < 5.5
    a, b = torch.stack(left), torch.stack(right)
    a, b = a - a.mean(0), b - b.mean(0)
    correlation = (a * b).mean() / (a.square().mean() * b.square().mean()).sqrt()
    assert abs(float(correlation)) < 0.02


def test_draws_depend_on_seed_offset_and_place_alone():
    dense = numbers(70, 90, 2)
    first = block_quantize(dense, rounding="stochastic", seed=1, offset=2)
    assert torch.equal(first[0], block_quantize(dense, rounding="stochastic", seed=1, offset=2)[0])
    strided = torch.stack((dense, dense), -1)[..., 0]
    assert torch.equal(first[0], block_quantize(strided, rounding="stochastic", seed=torch.tensor(1), offset=2)[0])
    assert not torch.equal(first[0], block_quantize(dense, rounding="stochastic", seed=2, offset=2)[0])
    assert not torch.equal(first[0], block_quantize(dense, rounding="stochastic", seed=1, offset=3)[0])
    noise = rounding_noise(torch.tensor(1), torch.tensor(2), 70, 90)
    assert noise.shape == (70, 90)
    assert -0.5 < float(noise.min()) < -0.49
    assert 0.49 < float(noise.max()) < 0.5


@pytest.mark.parametrize("kind", FORMATS)
def test_blocks_of_zeros_constants_and_specks(kind):
    dense = torch.zeros(32, 128)
    dense[:, 32:64] = 3.0
    dense[:, 64:96] = 1e-44
    dense[0, 96] = 1e38
    encoded = kind.encode(dense)
    assert encoded.scales[0, 0] == SMALLEST_SCALE
    assert encoded.scales[0, 2] == SMALLEST_SCALE
    assert torch.equal(encoded.decode()[:, :32], dense[:, :32])
    torch.testing.assert_close(encoded.decode()[:, 32:64], dense[:, 32:64], rtol=2**-16, atol=0)
    assert not encoded.decode()[:, 64:96].any()
    torch.testing.assert_close(encoded.decode()[0, 96], dense[0, 96], rtol=2**-16, atol=0)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_a_block_that_is_not_finite_decodes_to_nan(value, impl, kernel_device):
    dense = torch.randn(64, 64)
    dense[5, 40] = value
    device = kernel_device if impl == "triton" else torch.device("cpu")
    encoded = BlockInt8.encode(dense.to(device), impl=impl)
    decoded = encoded.decode().cpu()
    assert decoded[:32, 32:].isnan().all()
    assert torch.equal(decoded[:, :32], BlockInt8.encode(dense[:, :32]).decode())
    assert not encoded.codes[:32, 32:].any()


@pytest.mark.parametrize("code_dtype", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize(("shape", "block"), [((70, 200), 16), ((33, 130), 32), ((128, 129), 64), ((1, 1), 128)])
def test_the_kernel_gives_the_same_bits(code_dtype, rounding, shape, block, kernel_device):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        dense = numbers(*shape, seed=block).clamp(-6e4, 6e4).to(dtype)
        for source in (dense, dense.t().contiguous().t()):
            expected = block_quantize(source, code_dtype, block, rounding, 3, 2**40 + 1, impl="reference")
            found = block_quantize(source.to(kernel_device), code_dtype, block, rounding, 3, 2**40 + 1, impl="triton")
            assert torch.equal(found[1].cpu(), expected[1])
            assert torch.equal(found[0].cpu().float(), expected[0].float())


def test_empty():
    codes, scales = block_quantize(torch.zeros(0, 40))
    assert codes.shape == (0, 40)
    assert scales.shape == (0, 2)


def test_bad_input():
    x = torch.randn(4, 4)
    with pytest.raises(ValueError, match="block=48, expected one of 16, 32, 64, 128"):
        block_quantize(x, block=48)
    with pytest.raises(TypeError, match=r"torch.int64, expected a floating-point"):
        block_quantize(torch.ones(4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"\(4,\), expected \[rows, cols\]"):
        block_quantize(x[0])
    with pytest.raises(TypeError, match=r"code_dtype=torch.int16"):
        block_quantize(x, torch.int16)
    with pytest.raises(ValueError, match="rounding='up'"):
        block_quantize(x, rounding="up")
    with pytest.raises(ValueError, match="64 bits"):
        block_quantize(x, seed=2**70)
    with pytest.raises(KernelUnavailable, match="float64"):
        block_quantize(x.double(), impl="triton")


def test_opcheck_and_compile():
    x, zero = torch.randn(40, 33), torch.tensor(0)
    torch.library.opcheck(torch.ops.planish.block_quantize, ([x], 0, torch.int8, 32, True, zero, zero, "auto"))
    out = torch.empty(40, 33, dtype=torch.int8), torch.empty(2, 2)
    torch.library.opcheck(torch.ops.planish.block_quantize_into, ([x], 0, 32, True, zero, zero, *out, "auto"))
    compiled = torch.compile(
        lambda x: BlockInt8.encode(x * 2, 32, "stochastic", 1, 2).decode(), fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(x), BlockInt8.encode(x * 2, 32, "stochastic", 1, 2).decode())


@pytest.mark.gpu
@pytest.mark.parametrize("code_dtype", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_the_kernel_gives_the_same_bits_at_size(code_dtype, block, rounding, gpu):
    dense = numbers(2047, 4099, block).to(gpu, torch.bfloat16)
    expected = block_quantize(dense, code_dtype, block, rounding, 3, 4, impl="reference")
    found = block_quantize(dense, code_dtype, block, rounding, 3, 4, impl="triton")
    assert torch.equal(found[1], expected[1])
    assert torch.equal(found[0].float(), expected[0].float())


@pytest.mark.parametrize("impl", ["reference", "triton"])
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("dim", "sizes", "other"), [(0, (64, 32, 45), 70), (1, (64, 32, 45), 70), (1, (96, 128), 64)])
def test_joined_parts_are_those_of_the_joined_matrix(kind, dim, sizes, other, impl, kernel_device):
    parts = [numbers(*((size, other) if dim == 0 else (other, size)), seed=size) for size in sizes]
    parts = [part.to(kernel_device) if impl == "triton" else part for part in parts]
    joined = kind.encode_joined(parts, dim, 32, impl=impl)
    whole = kind.encode(torch.cat(parts, dim), 32, impl=impl)
    assert torch.equal(joined.codes.float(), whole.codes.float())
    assert torch.equal(joined.scales, whole.scales)
    assert (joined.block, joined.dtype) == (32, torch.float32)


@pytest.mark.parametrize("impl", ["reference", "triton"])
@pytest.mark.parametrize("dim", [0, 1])
def test_each_part_is_drawn_under_an_offset_of_its_own(dim, impl, kernel_device):
    parts = [numbers(64, 64, seed).to(kernel_device if impl == "triton" else "cpu") for seed in range(3)]
    joined = BlockInt8.encode_joined(parts, dim, 32, "stochastic", 5, 7, impl=impl)
    apart = [BlockInt8.encode(part, 32, "stochastic", 5, 7 + i, impl=impl) for i, part in enumerate(parts)]
    assert torch.equal(joined.codes, torch.cat([part.codes for part in apart], dim))


def test_joined_parts_are_written_where_they_are_asked_for():
    parts = [numbers(64, 40, 1), numbers(20, 40, 2)]
    expected = block_quantize_joined(parts, 0)
    codes, scales = torch.zeros(84, 40, dtype=torch.int8), torch.zeros(3, 2)
    found = block_quantize_joined(parts, 0, out=(codes, scales))
    assert found[0] is codes
    assert found[1] is scales
    assert torch.equal(codes, expected[0])
    assert torch.equal(scales, expected[1])


@pytest.mark.parametrize(
    ("parts", "dim", "out", "message"),
    [
        ([], 0, None, "parts is empty"),
        ([torch.ones(32, 8)], 2, None, "dim=2"),
        ([torch.ones(32, 8), torch.ones(32, 9)], 0, None, r"part 1 is .*\(32, 9\).* dimension 1 must agree"),
        ([torch.ones(32, 8), torch.ones(32, 8).half()], 0, None, "part 1 is torch.float16"),
        ([torch.ones(30, 8), torch.ones(32, 8)], 0, None, "part 0 has 30 entries along dimension 0"),
        ([torch.ones(32, 8)], 0, (torch.ones(32, 9).char(), torch.ones(1, 1)), r"codes are .*\(32, 9\)"),
        ([torch.ones(32, 8)], 0, (torch.ones(32, 8).char(), torch.ones(1, 1).half()), "scales are torch.float16"),
        ([torch.ones(32, 8)], 0, (torch.ones(8, 32).char().t(), torch.ones(1, 1)), "contiguous"),
    ],
)
def test_parts_that_cannot_be_joined_are_refused(parts, dim, out, message):
    with pytest.raises(ValueError, match=message):
        block_quantize_joined(parts, dim, out=out)
