"""The packers: fused kernel against the layout's definition, in the interpreter and on the GPU."""

import pytest
import torch
from planish_kernels.cusparselt import layout, mvue_pack, pack_
from planish_kernels.formats import Sparse24, decode
from planish_kernels.formats.sparse24 import two_largest
from planish_kernels.formats.sparse24_cusparselt import Sparse24CuSparseLt
from planish_kernels.mask24 import pack_mask, transposable_mask
from planish_kernels.mvue24 import mvue24, mvue24_pack
from planish_kernels.runtime.op import KernelUnavailable
from planish_kernels.soft_threshold24 import soft_threshold24

SHAPES = [(64, 64), (128, 192), (192, 64)]


def normal(*shape: int, dtype: torch.dtype, device: torch.device, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def buffer(rows: int, cols: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.full((layout.packed_numel(rows, cols, dtype),), torch.nan, dtype=dtype, device=device)


def bytes_of(packed: torch.Tensor) -> torch.Tensor:
    return packed.view(torch.uint8).cpu()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_masked_weight_in_both_orientations(
    shape: tuple[int, int], dtype: torch.dtype, kernel_device: torch.device
) -> None:
    # The interpreter cuts float32 to bfloat16 instead of rounding it; on the GPU it is rounded.
    interpreted = dtype is torch.float32 and kernel_device.type == "cpu"
    out = torch.float16 if interpreted or dtype is torch.float16 else torch.bfloat16
    weight = normal(*shape, dtype=dtype, device=kernel_device)
    mask = transposable_mask(weight)
    by_rows, by_cols = (buffer(*size, out, kernel_device) for size in (shape, shape[::-1]))
    pack_(weight, by_rows, by_cols, mask=pack_mask(mask), impl="triton")
    assert torch.equal(bytes_of(by_rows), bytes_of(layout.pack(weight.to(out), mask)))
    assert torch.equal(bytes_of(by_cols), bytes_of(layout.pack(weight.to(out).t(), mask.t())))


def test_a_mask_may_keep_fewer_than_two(kernel_device: torch.device) -> None:
    weight = normal(64, 128, dtype=torch.float16, device=kernel_device)
    mask = two_largest(weight) & (normal(64, 128, dtype=torch.float32, device=kernel_device, seed=1) > 0)
    packed = buffer(64, 128, torch.float16, kernel_device)
    pack_(weight, packed, mask=pack_mask(mask), impl="triton")
    assert torch.equal(bytes_of(packed), bytes_of(layout.pack(weight, mask)))


@pytest.mark.parametrize("shape", SHAPES)
def test_two_largest(shape: tuple[int, int], kernel_device: torch.device) -> None:
    weight = normal(*shape, dtype=torch.float16, device=kernel_device)
    weight[::3] = weight[::3].round()  # many ties
    weight[1, 2], weight[2, 5] = torch.nan, torch.inf
    packed = buffer(*shape, torch.float16, kernel_device)
    pack_(weight, packed, impl="triton")
    half = weight.numel() // 2
    expected = layout.pack(weight, two_largest(weight))
    torch.testing.assert_close(packed[:half], expected[:half], rtol=0, atol=0, equal_nan=True)
    assert torch.equal(bytes_of(packed[half:]), bytes_of(expected[half:]))


def test_soft_threshold(kernel_device: torch.device) -> None:
    weight = normal(64, 192, dtype=torch.float32, device=kernel_device)
    scale = torch.tensor(1.482, device=kernel_device)
    packed = buffer(64, 192, torch.float16, kernel_device)
    pack_(weight, packed, scale=scale, impl="triton")
    expected = soft_threshold24(weight, scale, impl="reference").half()
    torch.testing.assert_close(layout.unpack(packed, 64, 192), expected, rtol=2e-3, atol=1e-6)


def test_a_transposed_weight_is_packed_like_a_copy_of_it(kernel_device: torch.device) -> None:
    weight = normal(128, 64, dtype=torch.float16, device=kernel_device).t()
    packed, expected = (buffer(64, 128, torch.float16, kernel_device) for _ in range(2))
    pack_(weight, packed, impl="triton")
    pack_(weight, expected, impl="reference")
    assert torch.equal(bytes_of(packed), bytes_of(expected))


@pytest.mark.parametrize(("tokens", "channels"), [(64, 64), (128, 192), (60, 64), (131, 128)])
def test_estimated_gradient(tokens: int, channels: int, kernel_device: torch.device) -> None:
    """The same draws as the dense estimator, token for token; the padding is zero."""
    grad = normal(tokens, channels, dtype=torch.float16, device=kernel_device)
    packed = mvue_pack(grad, 5, 9, impl="triton")
    padded = tokens + -tokens % 64
    dense = layout.unpack(packed, channels, padded)
    assert torch.equal(dense[:, :tokens].t(), mvue24(grad, 5, 9, impl="reference"))
    assert not dense[:, tokens:].any()
    values, bits = mvue24_pack(grad, 5, 9, impl="reference")
    assert torch.equal(dense[:, : values.shape[1] * 2], Sparse24(values, bits).decode())


def test_every_shape_of_group_survives(kernel_device: torch.device) -> None:
    """One to four nonzeros in every position; those with at most two come back unchanged."""
    patterns = torch.tensor([[(n >> i) & 1 for i in range(4)] for n in range(16)]).float()
    scales = torch.tensor([3.0, -1.0, 0.25, 7.0])
    grad = (patterns * scales).reshape(64, 1).expand(64, 64).contiguous().to(kernel_device, torch.float16)
    dense = layout.unpack(mvue_pack(grad, 1, 2, impl="triton"), 64, 64).t()
    few = (patterns.sum(1) <= 2).repeat_interleave(4)
    assert torch.equal(dense[few].cpu(), grad[few].cpu())
    assert torch.equal(dense, mvue24(grad, 1, 2, impl="reference"))


def test_not_finite_gradients_show(kernel_device: torch.device) -> None:
    grad = normal(64, 64, dtype=torch.float16, device=kernel_device)
    grad[5, 7], grad[9, 3] = torch.nan, torch.inf
    dense = layout.unpack(mvue_pack(grad, 1, 2, impl="triton"), 64, 64).t()
    expected = torch.zeros(16, 64, dtype=torch.bool)
    expected[1, 7] = expected[2, 3] = True
    assert torch.equal(dense.isnan().reshape(16, 4, 64).sum(1).cpu(), expected * 2)


def test_compiles_without_a_break(kernel_device: torch.device) -> None:
    weight = normal(64, 64, dtype=torch.float16, device=kernel_device)
    bits = pack_mask(transposable_mask(weight))
    one, two = (buffer(64, 64, torch.float16, kernel_device) for _ in range(2))

    def both(weight: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
        pack_(weight, one, two, mask=bits, impl="reference")
        return mvue_pack(weight, seed, seed, impl="reference") + one[0]

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")(weight, torch.tensor(3, device=kernel_device))
    assert torch.equal(bytes_of(one), bytes_of(layout.pack(weight, transposable_mask(weight))))
    assert torch.equal(compiled, both(weight, torch.tensor(3, device=kernel_device)))


def test_opcheck() -> None:
    grad = torch.randn(64, 64, dtype=torch.bfloat16)
    seed = torch.tensor(3)
    torch.library.opcheck(torch.ops.planish.sparse24_mvue_pack, (grad, seed, seed, "reference"))
    packed = torch.zeros(layout.packed_numel(64, 64, torch.bfloat16), dtype=torch.bfloat16)
    torch.library.opcheck(torch.ops.planish.sparse24_pack_, (grad, None, None, packed, None, "reference"))


@pytest.mark.parametrize("dtype", layout.DTYPES)
def test_format_keeps_what_sparse24_keeps(dtype: torch.dtype) -> None:
    dense = torch.randint(-99, 99, (64, 128), generator=torch.Generator().manual_seed(0)).to(dtype)
    encoded = Sparse24CuSparseLt.encode(dense)
    assert torch.equal(encoded.decode(), decode(Sparse24.encode(dense)))
    assert encoded.shape == dense.shape
    assert encoded.dtype == dtype
    assert encoded.nbytes == dense.numel() * dtype.itemsize // 2 + dense.numel() // 8
    transposed = Sparse24CuSparseLt.encode(dense, dim=0)
    assert torch.equal(transposed.decode(), decode(Sparse24.encode(dense, dim=0)))


def test_format_of_a_gradient_is_filled_up_to_64_tokens() -> None:
    grad = torch.randn(70, 64, dtype=torch.bfloat16)
    encoded = Sparse24CuSparseLt.encode_gradient(grad, 3, 4)
    assert encoded.shape == (128, 64)
    assert torch.equal(encoded.decode()[:70], mvue24(grad, 3, 4))


def test_bad_input_says_what_would_be_accepted() -> None:
    weight = torch.randn(64, 64)
    packed = torch.empty(layout.packed_numel(64, 64, torch.bfloat16), dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="multiples of 64"):
        pack_(torch.randn(64, 60), packed)
    with pytest.raises(ValueError, match="by_cols needs a mask"):
        pack_(weight, None, packed)
    with pytest.raises(ValueError, match="by_rows has shape"):
        pack_(weight, packed[1:])
    with pytest.raises(ValueError, match="packed bits"):
        pack_(weight, packed, mask=torch.ones(64, 64, dtype=torch.bool))
    with pytest.raises(ValueError, match="both given"):
        pack_(weight, packed, mask=torch.ones(64, 8, dtype=torch.uint8), scale=torch.tensor(1.0))
    with pytest.raises(ValueError, match="bfloat16 or float16"):
        mvue_pack(weight.to(torch.int8), 1, 1)
    with pytest.raises(ValueError, match="multiples of 64"):
        mvue_pack(torch.randn(64, 63).half(), 1, 1)
    with pytest.raises(ValueError, match="not 2:4"):
        Sparse24CuSparseLt.encode(weight.half(), torch.ones(64, 64, dtype=torch.bool))
    with pytest.raises(ValueError, match="float64"):
        Sparse24CuSparseLt.encode(weight.double())
    if not torch.cuda.is_available():
        with pytest.raises(KernelUnavailable):
            pack_(weight, packed, impl="cusparselt")


def test_a_buffer_of_an_unknown_layout_is_not_guessed_at() -> None:
    packed = Sparse24CuSparseLt.encode(torch.randn(64, 64, dtype=torch.float16)).packed
    with pytest.raises(ValueError, match="layout is not known"):
        Sparse24CuSparseLt(packed, 64, 64, "library").decode()
