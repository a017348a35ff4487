"""The oracle over the whole table of matmul kernels, and how one of them is chosen."""

import os
import sys
import warnings
from pathlib import Path

import pytest
import torch
from planish_kernels.formats import BlockFloat8, BlockInt8, RowInt8, Sparse24, decode
from planish_kernels.formats.sparse24_cusparselt import Sparse24CuSparseLt
from planish_kernels.matmul import MatmulKernel, Pattern, explain_matmul, matmul, matmul_kernels, register_matmul
from planish_kernels.matmul import dispatch as dispatch_module
from planish_kernels.matmul import table as table_module
from planish_kernels.matmul.pattern import DENSE, pattern_of
from planish_kernels.runtime.op import FallbackWarning, KernelUnavailable
from planish_kernels.runtime.support import YES, no

sys.path.append(str(Path(__file__).parent))
from scaled_int8 import ScaledInt8

# m, k, n: odd ones, one row, groups of four alone, multiples that kernels ask for.
SHAPES = [(1, 64, 64), (63, 100, 33), (5, 4, 2), (130, 68, 1), (64, 128, 256), (256, 512, 128)]
GPU_SHAPES = [*SHAPES, (1000, 2048, 2049), (2048, 4096, 1024), (4096, 1024, 4096)]
EVERY_PATTERN = [
    DENSE,
    Pattern(Sparse24),
    Pattern(Sparse24, transposed=True),
    Pattern(ScaledInt8),
    Pattern(Sparse24, values=ScaledInt8),
    Pattern(Sparse24, transposed=True, values=ScaledInt8),
    Pattern(BlockInt8),
    Pattern(Sparse24, values=BlockInt8),
    Pattern(RowInt8),
    Pattern(RowInt8, values=Sparse24),
    Pattern(RowInt8, transposed=True, values=Sparse24CuSparseLt),
]


def random_operand(pattern, rows, cols, dtype, device, seed):
    """A random operand of this type; a dense one has its columns contiguous for odd seeds."""
    if pattern.format in (None, torch.Tensor):
        numbers = torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        dense = numbers.to(device, dtype)
        return dense.t().contiguous().t() if seed % 2 else dense
    if pattern.transposed:
        base = Pattern(pattern.format, values=pattern.values)
        return random_operand(base, cols, rows, dtype, device, seed).T
    operand = pattern.format.random(rows, cols, dtype=dtype, device=device, seed=seed)
    if pattern.values is not None:
        operand = operand.with_values(pattern.values.encode(operand.values))
    return operand


def rounding_bound(a, b, out_dtype):
    """What a product may be off by: its own rounding, and the accumulation's in float32 (float64 for float64)."""
    magnitude = a.abs() @ b.abs()
    accumulator = torch.float64 if out_dtype is torch.float64 else torch.float32
    return 2 * torch.finfo(out_dtype).eps * magnitude + 4 * a.shape[1] * torch.finfo(accumulator).eps * magnitude


def check_kernel(kernel, left, right, shapes, device):
    tried = 0
    declined = set()
    for shape in shapes:
        for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            if kernel.backend == "triton" and device.type == "cpu" and dtype is torch.bfloat16:
                continue  # Triton's interpreter multiplies bfloat16 wrongly
            m, k, n = shape
            seed = int.from_bytes(os.urandom(4))
            try:
                a = random_operand(left, m, k, dtype, device, seed)
                b = random_operand(right, k, n, dtype, device, seed // 2 + 1)
            except ValueError as not_in_format:
                declined.add(str(not_in_format))
                continue
            support = kernel.supports(a, b)
            if not support:
                declined.add(support.reason)
                continue
            for out_dtype in (None, torch.float32) if dtype.itemsize == 2 else (None,):
                product = kernel.run(a, b, out_dtype)
                expected_dtype = dtype if out_dtype is None else out_dtype
                assert product.dtype is expected_dtype
                assert product.shape == (m, n)
                exact_a, exact_b = decode(a).double(), decode(b).double()
                error = (product.double() - exact_a @ exact_b).abs()
                # The reference rounds once; a kernel may write its operands' dtype and convert.
                rounded_to = expected_dtype if kernel.backend == "reference" else dtype
                bound = rounding_bound(exact_a, exact_b, rounded_to)
                if kernel.left.format is BlockFloat8 and device.type == "cuda":
                    # Tensor cores add float8 products with some 13 bits.
                    bound += 2**-12 * (exact_a.abs() @ exact_b.abs())
                # NaN (a poisoned output that was not written) is not below any bound.
                assert bool((error <= bound).all()), (kernel.name, shape, dtype, out_dtype, seed, error.max())
            tried += 1
    assert tried, f"{kernel.name} takes {left} @ {right} and declined every shape: {sorted(declined)}"


def pairs(kernel):
    lefts = EVERY_PATTERN if kernel.left.format is None else [kernel.left]
    rights = EVERY_PATTERN if kernel.right.format is None else [kernel.right]
    return [(left, right) for left in lefts for right in rights]


EVERY_KERNEL = [
    pytest.param(kernel, left, right, id=f"{kernel.name}: {left} @ {right}")
    for kernel in matmul_kernels()
    for left, right in pairs(kernel)
]


@pytest.mark.parametrize(("kernel", "left", "right"), EVERY_KERNEL)
def test_every_kernel_equals_the_decoded_product(kernel, left, right):
    if not kernel.available():
        pytest.skip(kernel.available().reason)
    if kernel.backend in ("cuda", "cusparselt") or (kernel.backend == "triton" and torch.cuda.is_available()):
        pytest.skip(f"{kernel.backend} runs on a GPU: the test marked gpu covers it")
    check_kernel(kernel, left, right, SHAPES, torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.parametrize(("kernel", "left", "right"), EVERY_KERNEL)
def test_every_kernel_equals_the_decoded_product_on_the_gpu(kernel, left, right, gpu):
    if kernel.backend == "cpu":
        pytest.skip("a CPU kernel")
    if not kernel.available():
        pytest.skip(kernel.available().reason)
    # The reference decodes and calls torch's product: one large shape tells as much as three, for each of many pairs.
    shapes = [*SHAPES, GPU_SHAPES[-1]] if kernel.backend == "reference" else GPU_SHAPES
    check_kernel(kernel, left, right, shapes, gpu)


@pytest.fixture
def own_table(monkeypatch):
    monkeypatch.setattr(table_module, "_KERNELS", list(table_module._KERNELS))
    monkeypatch.setattr(dispatch_module, "_WARNED", set())
    monkeypatch.delenv("PLANISH_BACKEND", raising=False)


def wrong_product(a, b, out_dtype):
    return torch.full((a.shape[0], b.shape[1]), 42.0, dtype=a.dtype)


def square_only(a, b):
    return YES if a.shape[0] == a.shape[1] else no(f"a is {tuple(a.shape)}, this kernel takes square ones")


@pytest.fixture
def sparse_kernel(own_table):
    """A kernel for (dense, Sparse24.T), square ones only, whose answer is recognisable."""
    right = Pattern(Sparse24, transposed=True)
    return register_matmul(MatmulKernel("sparse/cpu", "cpu", DENSE, right, wrong_product, supports=square_only))


def test_the_oracle_catches_a_wrong_kernel(sparse_kernel):
    with pytest.raises(AssertionError):
        check_kernel(sparse_kernel, DENSE, sparse_kernel.right, [(8, 8, 8)], torch.device("cpu"))
    with pytest.raises(AssertionError, match="declined every shape"):
        check_kernel(sparse_kernel, DENSE, sparse_kernel.right, [(8, 16, 8)], torch.device("cpu"))


def test_a_kernel_for_the_pair_is_preferred(sparse_kernel):
    x, w = torch.randn(8, 8), Sparse24.encode(torch.randn(4, 8))
    assert (matmul(x, w.T) == 42).all()
    torch.testing.assert_close(matmul(x, w.T, impl="reference"), x @ w.decode().t())
    chosen = {row.kernel: (row.chosen, row.reason) for row in explain_matmul(x, w.T)}
    assert chosen["sparse/cpu"] == (True, "the first that takes this pair")
    assert chosen["decode and multiply"] == (False, "a faster kernel was chosen")
    assert "it takes dense @ dense, not dense @ Sparse24.T" in chosen["dense"][1]


def test_a_declined_pair_falls_back_with_one_warning(sparse_kernel):
    x, w = torch.randn(4, 8), Sparse24.encode(torch.randn(4, 8))
    with pytest.warns(FallbackWarning, match=r"sparse/cpu declined \(a is \(4, 8\).*running 'decode and multiply'"):
        product = matmul(x, w.T)
    torch.testing.assert_close(product, x @ w.decode().t())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matmul(x, w.T)
        matmul(w, w.T)  # another pair of types is no business of that kernel
    with pytest.raises(KernelUnavailable, match="takes square ones"):
        matmul(x, w.T, impl="sparse/cpu")
    with pytest.raises(KernelUnavailable, match="takes no dense @ dense"):
        matmul(x, x.t(), impl="cpu")
    with pytest.raises(ValueError, match="names no matmul kernel and no backend"):
        matmul(x, w.T, impl="fpga")


def test_the_environment_forces_the_reference(sparse_kernel, monkeypatch):
    x, w = torch.randn(8, 8), Sparse24.encode(torch.randn(4, 8))
    monkeypatch.setenv("PLANISH_BACKEND", "reference")
    torch.testing.assert_close(matmul(x, w.T), x @ w.decode().t())
    monkeypatch.setenv("PLANISH_BACKEND", "cpu")
    assert (matmul(x, w.T) == 42).all()
    torch.testing.assert_close(matmul(w, x), w.decode() @ x)


def test_selection_compiles_without_a_break_and_warns_there_too(sparse_kernel):
    w = Sparse24.encode(torch.randn(4, 8))

    def product(x, values, mask):
        return matmul(x, Sparse24(values, mask).T)

    compiled = torch.compile(product, fullgraph=True, backend="aot_eager")
    assert (compiled(torch.randn(8, 8), w.values, w.mask) == 42).all()
    x = torch.randn(4, 8)
    with pytest.warns(FallbackWarning, match="sparse/cpu declined"):
        torch.testing.assert_close(compiled(x, w.values, w.mask), x @ w.decode().t())


def test_a_registered_name_is_unique_and_its_backend_known(sparse_kernel):
    with pytest.raises(ValueError, match="registered already"):
        register_matmul(sparse_kernel)
    with pytest.raises(ValueError, match="is no backend"):
        register_matmul(MatmulKernel("x", "tpu", DENSE, DENSE, wrong_product))


def test_patterns_tell_nested_and_transposed_formats_apart():
    sparse = Sparse24.encode(torch.randn(4, 8))
    nested = sparse.with_values(ScaledInt8.encode(sparse.values))
    for operand in (sparse, sparse.T, nested, nested.T, torch.randn(2, 2)):
        matching = [pattern for pattern in EVERY_PATTERN if pattern.matches(operand)]
        assert matching == [pattern_of(operand)]
        assert Pattern().matches(operand)
    assert [str(pattern) for pattern in EVERY_PATTERN[4:6]] == ["Sparse24[ScaledInt8]", "Sparse24[ScaledInt8].T"]


def test_misfits_are_named():
    x = torch.randn(4, 8)
    w = Sparse24.encode(torch.randn(4, 8))
    with pytest.raises(ValueError, match=r"a's columns must be as many as b's rows"):
        matmul(x, w)
    with pytest.raises(ValueError, match=r"a is torch.float64, b is torch.float32"):
        matmul(x.double(), w.T)
    with pytest.raises(ValueError, match="a is on meta"):
        matmul(x.to("meta"), w.T)
    with pytest.raises(TypeError, match="a is a list"):
        matmul([[1.0]], x)
    with pytest.raises(ValueError, match="two matrices"):
        matmul(x[None], w.T)


def test_a_product_of_dense_tensors_is_differentiable():
    a, b = torch.randn(3, 4, dtype=torch.float64, requires_grad=True), torch.randn(4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(matmul, (a, b))
