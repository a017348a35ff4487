"""What every format promises, and 2:4 sparsity in particular."""

import copy
import pickle
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planish_kernels.formats import Sparse24, Transposed, decode
from planish_kernels.formats.sparse24 import two_largest
from planish_kernels.mask24.bits import pack_mask

sys.path.append(str(Path(__file__).parent))
from scaled_int8 import ScaledInt8


def brute_force_mask(dense):
    """Two largest magnitudes of each four by sorting in Python; of equals the lower index."""
    mask = torch.zeros_like(dense, dtype=torch.bool)
    for r, row in enumerate(dense.tolist()):
        for g in range(0, len(row), 4):
            order = sorted(range(4), key=lambda i: (-abs(row[g + i]), i))
            for i in order[:2]:
                mask[r, g + i] = True
    return mask


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(0, 5), groups=st.integers(0, 6), seed=st.integers(0, 2**31), ties=st.booleans())
def test_the_default_mask_keeps_the_two_largest(rows, groups, seed, ties):
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(rows, 4 * groups, generator=generator)
    if ties:
        dense = dense.round()
    mask = brute_force_mask(dense)
    assert torch.equal(two_largest(dense), mask)
    encoded = Sparse24.encode(dense)
    assert encoded.shape == dense.shape
    assert torch.equal(encoded.decode(), dense * mask)
    assert torch.equal(encoded.dense_mask(), mask)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 5), groups=st.integers(1, 6), seed=st.integers(0, 2**31), dim=st.integers(0, 1))
def test_any_mask_with_at_most_two_of_four_is_exact(rows, groups, seed, dim):
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(rows, 4 * groups, generator=generator, dtype=torch.float64)
    # Keep a random subset of the two largest: groups with none, one and two.
    mask = two_largest(dense) & (torch.rand(dense.shape, generator=generator) < 0.6)
    if dim == 0:
        dense, mask = dense.t(), mask.t()
    encoded = Sparse24.encode(dense, mask, dim)
    assert encoded.shape == dense.shape
    assert isinstance(encoded, Transposed) == (dim == 0)
    assert torch.equal(encoded.decode(), torch.where(mask, dense, 0))


def test_a_group_with_one_entry_has_it_in_the_first_slot():
    dense = torch.tensor([[0.0, 0.0, 0.0, 7.0]])
    encoded = Sparse24.encode(dense, dense != 0)
    assert encoded.values.tolist() == [[7.0, 0.0]]
    assert encoded.mask.tolist() == [[0b1000]]


def test_nan_and_infinity_survive():
    dense = torch.tensor([[float("nan"), 1.0, float("-inf"), 2.0, 3.0, 1.0, 2.0, float("nan")]])
    decoded = Sparse24.encode(dense).decode()
    assert decoded.isnan().tolist() == [[True, False, False, False, False, False, False, True]]
    assert decoded[0, 2] == float("-inf")
    assert decoded[0, 1] == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int8])
def test_dtypes(dtype):
    dense = (torch.randn(8, 16) * 10).to(dtype)
    encoded = Sparse24.encode(dense)
    assert encoded.dtype is dtype
    assert encoded.decode().dtype is dtype
    assert torch.equal(encoded.decode(), dense * two_largest(dense))


def test_bytes_are_half_the_values_and_a_bit_a_weight():
    encoded = Sparse24.encode(torch.randn(64, 128, dtype=torch.bfloat16))
    assert encoded.nbytes == 64 * 128 + 64 * 128 // 8
    assert encoded.T.nbytes == encoded.nbytes


def test_the_transpose_is_a_view_and_its_own_inverse():
    encoded = Sparse24.encode(torch.randn(4, 8))
    assert encoded.T.shape == (8, 4)
    assert encoded.T.T is encoded
    assert torch.equal(encoded.T.decode(), encoded.decode().t())
    assert encoded.T.tensors()["base.values"] is encoded.values


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="size 6, Sparse24 needs a multiple of 4"):
        Sparse24.encode(torch.randn(4, 6))
    with pytest.raises(ValueError, match="size 6"):
        Sparse24.encode(torch.randn(6, 8), dim=0)
    mask = torch.zeros(2, 8, dtype=torch.bool)
    mask[1, 4:7] = True
    with pytest.raises(ValueError, match=r"row 1, entries 4 to 7 along dim keep 3 of 4"):
        Sparse24.encode(torch.randn(2, 8), mask)
    with pytest.raises(ValueError, match="mask has shape"):
        Sparse24.encode(torch.randn(2, 8), torch.zeros(2, 4, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"torch\.bool"):
        Sparse24.encode(torch.randn(2, 8), torch.zeros(2, 8))
    with pytest.raises(ValueError, match="flatten"):
        Sparse24.encode(torch.randn(2, 8, 4))
    with pytest.raises(ValueError, match="dim=2"):
        Sparse24.encode(torch.randn(2, 8), dim=2)
    with pytest.raises(ValueError, match="values have shape"):
        Sparse24.encode(torch.randn(2, 8)).with_values(torch.zeros(2, 8))


def test_encoding_detaches():
    dense = torch.randn(4, 8, requires_grad=True)
    assert not Sparse24.encode(dense).decode().requires_grad


def test_moving_copying_and_pickling():
    encoded = Sparse24.encode(torch.randn(4, 8))
    for other in (copy.deepcopy(encoded), pickle.loads(pickle.dumps(encoded)), encoded.to("cpu"), encoded.detach()):
        assert torch.equal(other.decode(), encoded.decode())
    assert encoded.to("cpu").values is encoded.values
    assert encoded.to("meta").device.type == "meta"
    assert encoded.T.to("meta").device.type == "meta"
    with pytest.raises(AttributeError):
        encoded.values = torch.zeros(4, 4)


def test_a_format_nests_in_another():
    dense = torch.randn(8, 16, dtype=torch.float64)
    sparse = Sparse24.encode(dense)
    nested = sparse.with_values(ScaledInt8.encode(sparse.values))
    assert nested.shape == dense.shape
    assert nested.dtype is torch.float64
    assert set(nested.tensors()) == {"values.codes", "values.scale", "mask"}
    assert nested.nbytes == 8 * 8 + 8 * 8 + 8 * 2
    # Exactly what the two formats mean together: the pattern of one, the values of the other.
    values = decode(nested.values)
    expected = Sparse24(values, sparse.mask).decode()
    assert torch.equal(nested.decode(), expected)
    assert (nested.decode() - sparse.decode()).abs().max() <= dense.abs().max() / 127
    assert nested.to("meta").device.type == "meta"
    assert torch.equal(nested.detach().T.decode(), expected.t())


def test_encode_and_decode_compile_without_a_break():
    def roundtrip(dense, mask):
        return Sparse24.encode(dense).decode() + Sparse24.encode(dense, mask, dim=0, trust_mask=True).decode()

    dense = torch.randn(8, 16)
    mask = two_largest(dense.t()).t()
    compiled = torch.compile(roundtrip, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(dense, mask), roundtrip(dense, mask))


def test_the_mask_is_stored_as_pack_mask_packs_it():
    dense = torch.randn(6, 20)
    assert torch.equal(Sparse24.encode(dense).mask, pack_mask(two_largest(dense)))
