"""Masks at one bit a weight."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planish_kernels.mask24.bits import pack_mask, unpack_mask


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(0, 9), cols=st.integers(0, 40), seed=st.integers(0, 2**31))
def test_unpacking_inverts_packing_and_bits_lie_lowest_first(rows, cols, seed):
    mask = torch.rand(rows, cols, generator=torch.Generator().manual_seed(seed)) < 0.5
    bits = pack_mask(mask)
    assert bits.shape == (rows, (cols + 7) // 8)
    assert bits.dtype is torch.uint8
    assert torch.equal(unpack_mask(bits, cols), mask)
    for r in range(rows):
        whole = int.from_bytes(bytes(bits[r].tolist()), "little")
        assert whole == sum(1 << c for c in range(cols) if mask[r, c])


def test_a_transposed_mask_packs_without_being_contiguous():
    mask = torch.rand(12, 24) < 0.5
    assert torch.equal(unpack_mask(pack_mask(mask.t()), 12), mask.t())


def test_misuse_is_named():
    with pytest.raises(TypeError, match=r"torch\.bool"):
        pack_mask(torch.ones(4, 8))
    with pytest.raises(ValueError, match="two dimensions"):
        pack_mask(torch.ones(8, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\[rows, 2\]"):
        unpack_mask(torch.zeros(4, 3, dtype=torch.uint8), 12)
    with pytest.raises(TypeError, match=r"torch\.uint8"):
        unpack_mask(torch.zeros(4, 3, dtype=torch.int32), 24)
