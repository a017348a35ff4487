"""Block-scaled products against float64, in all layouts, dense and quantized on the way out."""

from itertools import product

import pytest
import torch
from planish_kernels.block_matmul import block_matmul, block_matmul_quantized
from planish_kernels.block_matmul.hopper import (
    CODES_VARIANT,
    DENSE_VARIANTS,
    WRITTEN,
    block_matmul_hopper,
    default_variant,
    hopper_source,
    kernel_name,
)
from planish_kernels.block_matmul.hopper_support import hopper_available
from planish_kernels.block_matmul.op import parts
from planish_kernels.block_matmul.self_test import product_error
from planish_kernels.formats import BlockFloat8, BlockInt8, Sparse24
from planish_kernels.matmul import matmul
from planish_kernels.runtime.capability import nvrtc_importable
from planish_kernels.runtime.nvrtc import compile_cubin
from planish_kernels.runtime.op import KernelUnavailable

SHAPES = [(64, 64, 64), (33, 100, 65), (1, 129, 7), (130, 32, 200)]
FLOAT32_SUMS = 1e-6
FLOAT8_SUMS = 5e-4
"""The tensor cores of a GPU add float8 products with some 13 bits, within an inner block."""


def tolerance(kind, device):
    return FLOAT8_SUMS if kind is BlockFloat8 and device.type == "cuda" else FLOAT32_SUMS


def operand(kind, rows, cols, block, seed, device, transposed=False, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shape = (cols, rows) if transposed else (rows, cols)
    dense = torch.randn(*shape, generator=generator).to(device, dtype)
    encoded = kind.encode(dense, block)
    return encoded.T if transposed else encoded


def exact(a, b, bias=None):
    total = a.decode().double() @ b.decode().double()
    return total if bias is None else total + bias.double()


def needs(impl):
    if impl == "cuda" and not (support := hopper_available()):
        pytest.skip(support.reason)


@pytest.mark.parametrize("kind", [BlockInt8, BlockFloat8])
@pytest.mark.parametrize("block", [32, 64, 128])
@pytest.mark.parametrize("layout", list(product((False, True), repeat=2)), ids=["NN", "NT", "TN", "TT"])
@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_products_in_every_layout(kind, block, layout, impl, kernel_device):
    device = kernel_device if impl == "triton" else torch.device("cpu")
    for m, k, n in SHAPES:
        a = operand(kind, m, k, block, m + k, device, layout[0])
        b = operand(kind, k, n, block, k + n, device, layout[1])
        bias = torch.randn(n, device=device)
        for given in (None, bias):
            found = block_matmul(a, b, given, impl=impl)
            assert found.dtype is torch.float32
            expected = exact(a, b, given)
            # Sums of k / block terms in float32, each of a product of two scales that was rounded once.
            assert torch.linalg.norm(found.double() - expected) < tolerance(kind, device) * torch.linalg.norm(expected)


@pytest.mark.parametrize("block", [32, 64, 128])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_a_quantized_product_is_the_quantized_exact_product(block, rounding, kernel_device):
    for m, k, n in SHAPES:
        a = operand(BlockInt8, m, k, block, 1, kernel_device)
        b = operand(BlockInt8, k, n, block, 2, kernel_device, transposed=True)
        bias = torch.full((n,), -40.0, device=kernel_device)
        found = block_matmul_quantized(a, b, bias, rounding, 5, 6, impl="triton")
        expected = BlockInt8.encode(exact(a, b, bias).float(), block, rounding, 5, 6, impl="reference")
        torch.testing.assert_close(found.scales, expected.scales, rtol=2**-15, atol=0)
        # Sums in another order may take a value over the edge between two codes, never further.
        difference = (found.codes.int() - expected.codes.int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 1e-2
        slow = block_matmul_quantized(a.to("cpu"), b.to("cpu"), bias.cpu(), rounding, 5, 6, impl="reference")
        assert (slow.codes.int() - found.codes.cpu().int()).abs().max() <= 1


def test_a_negative_bias_widens_the_scale_as_it_must():
    # The published kernel bounds the scale by the largest *signed* bias: values beyond it were clamped.
    a = operand(BlockInt8, 32, 32, 32, 1, torch.device("cpu"))
    b = operand(BlockInt8, 32, 32, 32, 2, torch.device("cpu"))
    bias = torch.full((32,), -1000.0)
    found = block_matmul_quantized(a, b, bias).decode().double()
    assert (found - exact(a, b, bias)).abs().max() <= 1100 / 127 / 2


def test_a_bias_outside_the_matrix_does_not_widen_the_scale(kernel_device):
    a = operand(BlockInt8, 8, 32, 32, 1, kernel_device)
    b = operand(BlockInt8, 32, 40, 32, 2, kernel_device)
    bias = torch.zeros(40, device=kernel_device)
    found = block_matmul_quantized(a, b, bias, impl="triton")
    slow = block_matmul_quantized(a, b, bias, impl="reference")
    torch.testing.assert_close(found.scales, slow.scales, rtol=2**-15, atol=0)


def test_the_largest_codes_do_not_overflow(kernel_device):
    codes = torch.full((128, 1024), 127, dtype=torch.int8, device=kernel_device)
    scales = torch.ones(1, 8, device=kernel_device)
    a = BlockInt8(codes, scales, 128)
    assert (block_matmul(a, a.T, impl="triton") == 127**2 * 1024).all()


def test_matmul_finds_the_reference_on_a_cpu_and_nests_in_sparsity():
    a, b = (operand(BlockInt8, 8, 64, 32, s, torch.device("cpu")) for s in (1, 2))
    torch.testing.assert_close(matmul(a, b.T), exact(a, b.T).float(), rtol=1e-5, atol=1e-5)
    weight = Sparse24.encode(torch.randn(48, 64))
    nested = weight.with_values(BlockInt8.encode(weight.values, 32))
    assert nested.nbytes < 0.35 * 4 * 48 * 64
    torch.testing.assert_close(matmul(torch.eye(64), nested.T), nested.decode().t())
    torch.testing.assert_close(nested.decode(), weight.decode(), atol=0.03, rtol=0)


def test_bad_input():
    a, b = (operand(BlockInt8, 8, 64, 32, s, torch.device("cpu")) for s in (1, 2))
    with pytest.raises(ValueError, match="a's columns must be as many as b's rows"):
        block_matmul(a, b)
    with pytest.raises(ValueError, match=r"blocks of 32, b is BlockInt8 with blocks of 64"):
        block_matmul(a, BlockInt8.encode(torch.randn(64, 8), 64))
    with pytest.raises(ValueError, match="b is BlockFloat8"):
        block_matmul(a, BlockFloat8.encode(torch.randn(64, 8)))
    with pytest.raises(ValueError, match=r"bias has shape \(3,\), expected \(8,\)"):
        block_matmul(a, b.T, torch.zeros(3))
    with pytest.raises(TypeError, match="Sparse24 is no block-scaled operand"):
        block_matmul(a, Sparse24.encode(torch.randn(64, 8)))
    with pytest.raises(ValueError, match=r"scales of shape \(1, 1\), blocks of 32 need scales of shape \(1, 2\)"):
        block_matmul(BlockInt8(a.codes, a.scales[:, :1], 32), b.T)
    with pytest.raises(ValueError, match="rounding='down'"):
        block_matmul_quantized(a, b.T, rounding="down")
    narrow = BlockInt8.encode(torch.randn(8, 64), 16)
    with pytest.raises(KernelUnavailable, match="32 deep"):
        block_matmul(narrow, narrow.T, impl="triton")


def test_opcheck():
    a, b = (operand(BlockInt8, 8, 64, 32, s, torch.device("cpu")) for s in (1, 2))
    given = (a.codes, a.scales, b.codes.t(), b.scales.t(), 32, torch.zeros(8))
    torch.library.opcheck(torch.ops.planish.block_matmul, (*given, torch.bfloat16, "auto"))
    zero = torch.tensor(0)
    torch.library.opcheck(torch.ops.planish.block_matmul_quantized, (*given, True, zero, zero, "auto"))


@pytest.mark.skipif(not nvrtc_importable(), reason=f"NVRTC: {nvrtc_importable().reason}")
def test_the_kernel_for_hopper_compiles(tmp_path, monkeypatch):
    monkeypatch.setenv("PLANISH_CACHE_DIR", str(tmp_path))
    names = [
        kernel_name(block, variant, is_int8, out, out == "CODES")
        for block, is_int8 in product((32, 64, 128), (False, True))
        for variant, outs in ((CODES_VARIANT, ("CODES",)), *((v, WRITTEN.values()) for v in DENSE_VARIANTS))
        for out in outs
    ]
    cubin = compile_cubin(hopper_source(), names, arch="sm_90a", name="hopper.cu")
    assert len(set(cubin.symbols.values())) == len(names)


@pytest.mark.parametrize("variant", [*DENSE_VARIANTS, CODES_VARIANT])
def test_variants_fit_a_processor(variant):
    # Static shared memory is some 1.5 KB: barriers, factors of a pipeline of blocks of 32, largest magnitudes.
    assert variant.shared_bytes + 1536 <= 227 * 1024
    assert variant.threads <= 512
    assert variant.rows % 128 == 0 or not variant.writes_codes


def test_what_is_there_for_hopper_can_be_asked_while_tracing():
    @torch.compile(fullgraph=True, backend="eager")
    def double(x):
        return x + x if hopper_available() else 2 * x

    torch.testing.assert_close(double(torch.ones(3)), torch.full((3,), 2.0))
    support = hopper_available()
    assert support.ok == (not support.reason)


@pytest.mark.gpu
@pytest.mark.parametrize("code", ["int8", "float8"])
def test_a_compiled_product_on_hopper(code, gpu):
    needs("cuda")
    kind = {"int8": BlockInt8, "float8": BlockFloat8}[code]
    x, w = torch.randn(256, 512, device=gpu), torch.randn(384, 512, device=gpu)

    def product(x, w):
        return matmul(kind.encode(x, 128), kind.encode(w, 128).T)

    compiled = torch.compile(product, fullgraph=True)
    assert torch.equal(compiled(x, w), product(x, w))


@pytest.mark.parametrize(("shape", "block", "quantizes", "groups"), [
    ((8192, 8192), 128, False, 3),  # 2752 tiles of 192 rows: 21 times 132, less 20
    ((4096, 4096), 128, False, 2),  # 704 tiles of 192 rows leave 88 processors idle at the end, 1024 of 128 rows 32
    ((8192, 4096), 128, False, 3),  # 11 rounds of 192 rows in place of 16 of 128, which are slower for each row
    ((2048, 1024), 128, False, 2),  # 88 tiles of 192 rows or 128 of 128: smaller ones are done sooner
    ((8192, 8192), 128, True, 2),  # a tile of 192 rows holds one block and a half, and its sums no second copy
    ((8192, 8192), 64, True, 2),
])  # fmt: skip
def test_tiles_for_hopper(shape, block, quantizes, groups):
    assert default_variant(block, quantizes, *shape, 132).groups == groups


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [BlockInt8, BlockFloat8])
@pytest.mark.parametrize("block", [32, 64, 128])
@pytest.mark.parametrize("layout", list(product((False, True), repeat=2)), ids=["NN", "NT", "TN", "TT"])
@pytest.mark.parametrize("impl", ["triton", "cuda"])
def test_products_at_size(kind, block, layout, impl, gpu):
    needs(impl)
    m, k, n = (1025, 2047, 3001) if impl == "triton" else (1025, 2064, 3001)
    a = operand(kind, m, k, block, 1, gpu, layout[0])
    b = operand(kind, k, n, block, 2, gpu, layout[1])
    bias = torch.randn(n, device=gpu)
    for out_dtype, rounded in ((torch.float32, 0.0), (torch.bfloat16, 2**-9), (torch.float16, 2**-12)):
        found = block_matmul(a, b, bias, out_dtype=out_dtype, impl=impl).double()
        expected = exact(a, b, bias)
        assert torch.linalg.norm(found - expected) < (tolerance(kind, gpu) + rounded) * torch.linalg.norm(expected)


@pytest.mark.gpu
@pytest.mark.parametrize("variant", DENSE_VARIANTS)
@pytest.mark.parametrize("block", [32, 64, 128])
@pytest.mark.parametrize("kind", [BlockInt8, BlockFloat8])
def test_every_variant_for_hopper(kind, block, variant, gpu):
    needs("cuda")
    # The last has several tiles for each processor.
    for m, k, n in ((1, 16, 8), (129, 144, 257), (1000, 1040, 776), (3000, 1040, 7000)):
        a, b = operand(kind, m, k, block, m, gpu), operand(kind, k, n, block, n, gpu, True)
        out = torch.full((m, n), torch.nan, device=gpu)
        unused = torch.zeros((), dtype=torch.int64, device=gpu)
        (a_codes, a_scales, _), (b_codes, b_scales, _) = parts(a), parts(b)
        block_matmul_hopper(
            a_codes, a_scales, b_codes, b_scales, block, None, out, None, False, unused, unused, variant
        )
        expected = exact(a, b)
        assert torch.linalg.norm(out.double() - expected) < tolerance(kind, gpu) * torch.linalg.norm(expected)


@pytest.mark.gpu
@pytest.mark.parametrize("block", [32, 128])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("impl", ["triton", "cuda"])
def test_a_block_of_a_product_that_is_not_finite_says_so(block, rounding, impl, gpu):
    needs(impl)
    a, b = (operand(BlockInt8, 300, 256, block, s, gpu) for s in (1, 2))
    a.scales[1, 0] = torch.nan
    found = block_matmul_quantized(a, b.T, None, rounding, 5, 6, impl=impl)
    assert found.scales[1].isnan().all()
    assert found.scales[[0, 2]].isfinite().all()
    assert not found.codes[block : 2 * block].any()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [BlockInt8, BlockFloat8])
@pytest.mark.parametrize("block", [32, 64, 128])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_codes_for_hopper_are_those_of_the_reference(kind, block, rounding, gpu):
    needs("cuda")
    # The last has several tiles for each processor.
    for m, k, n in ((1000, 1040, 776), (33, 64, 8), (70, 48, 130), (3000, 1040, 7000)):
        a, b = operand(kind, m, k, block, 1, gpu), operand(kind, k, n, block, 2, gpu, transposed=True)
        bias = torch.full((n,), -4.0, device=gpu)
        found = block_matmul_quantized(a, b, bias, rounding, 5, 6, impl="cuda")
        slow = block_matmul_quantized(a, b, bias, rounding, 5, 6, impl="reference")
        sums = FLOAT32_SUMS if kind is BlockInt8 else 2e-3
        torch.testing.assert_close(found.scales, slow.scales, rtol=2**-14 + sums, atol=0)
        differs = (found.codes.float() != slow.codes.float()).float().mean()
        assert differs < (1e-2 if kind is BlockInt8 else 5e-2), differs
        step = 1 if kind is BlockInt8 else 32  # of codes: float8 is up to 32 apart near 448
        assert (found.codes.float() - slow.codes.float()).abs().max() <= step


@pytest.mark.gpu
@pytest.mark.parametrize("block", [32, 64, 128])
@pytest.mark.parametrize("kind", [BlockInt8, BlockFloat8])
def test_hopper_proves_itself(kind, block, gpu):
    needs("cuda")
    assert product_error(kind.code_dtype, block, gpu) < tolerance(kind, gpu)


@pytest.mark.gpu
def test_not_a_number_shows_up_in_its_rows_for_hopper(gpu):
    needs("cuda")
    dense = torch.randn(256, 256, device=gpu)
    dense[3, 200] = torch.nan
    a, b = BlockInt8.encode(dense, 128), BlockInt8.encode(torch.randn(256, 256, device=gpu), 128)
    found = block_matmul(a, b.T, impl="cuda")
    assert found[:128].isnan().all()
    assert not found[128:].isnan().any()


@pytest.mark.gpu
def test_largest_codes_do_not_overflow_for_hopper(gpu):
    needs("cuda")
    codes = torch.full((128, 1024), 127, dtype=torch.int8, device=gpu)
    for block in (32, 64, 128):
        a = BlockInt8(codes, torch.ones(128 // block, 1024 // block, device=gpu), block)
        assert (block_matmul(a, a.T, impl="cuda") == 127**2 * 1024).all()
