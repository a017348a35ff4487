"""The small products and sums that the parts of a block share."""

import pytest
import torch
from planish_jetfire.flow.arithmetic import column_sums, dense, side_by_side
from planish_kernels.formats.block_float8 import BlockFloat8
from planish_kernels.formats.block_int8 import BlockInt8


@pytest.mark.parametrize("shape", [(64, 96), (64, 33), (7, 96), (1, 1)])
@pytest.mark.parametrize("form", [BlockInt8, BlockFloat8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dense_is_what_it_decodes_to(shape: tuple[int, int], form: type, dtype: torch.dtype) -> None:
    quantized = form.encode(torch.randn(*shape, dtype=dtype), 32)
    found = dense(quantized)
    assert found.dtype is dtype
    assert torch.equal(found, quantized.decode())


@pytest.mark.parametrize("shape", [(64, 96), (64, 33), (71, 40), (1, 1)])
@pytest.mark.parametrize("form", [BlockInt8, BlockFloat8])
def test_column_sums_are_those_of_the_dense_matrix(shape: tuple[int, int], form: type) -> None:
    quantized = form.encode(torch.randn(*shape), 32)
    expected = quantized.decode().double().sum(0)
    torch.testing.assert_close(column_sums(quantized, torch.float64), expected, rtol=1e-5, atol=1e-5)


def test_matrices_stand_side_by_side_where_blocks_allow_it() -> None:
    parts = [torch.randn(40, width) for width in (32, 64, 17)]
    joined = side_by_side([BlockInt8.encode(part, 32) for part in parts])
    assert joined is not None
    whole = BlockInt8.encode(torch.cat(parts, 1), 32)
    assert torch.equal(joined.codes, whole.codes)
    assert torch.equal(joined.scales, whole.scales)
    assert side_by_side([BlockInt8.encode(part, 32) for part in parts[::-1]]) is None
