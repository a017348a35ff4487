"""The packed layout against what cuSPARSELt 0.8.0 wrote on an H200, and against itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planish_kernels.cusparselt import layout
from planish_kernels.formats.sparse24 import Sparse24, two_largest

RECORDED = np.load(Path(__file__).parent / "data" / "cusparselt_0_8_h200.npz")


@pytest.mark.parametrize(("rows", "cols"), [(128, 128), (192, 320)])
def test_reads_a_buffer_of_the_library(rows: int, cols: int) -> None:
    """The recorded matrices keep zero, one or two random entries of each group."""
    dense = torch.from_numpy(RECORDED[f"case_{rows}x{cols}_dense"]).view(torch.bfloat16)
    packed = torch.from_numpy(RECORDED[f"case_{rows}x{cols}_comp"]).view(torch.bfloat16)
    assert torch.equal(layout.unpack(packed, rows, cols), dense)


@pytest.mark.parametrize(("rows", "cols"), [(128, 128), (192, 320)])
def test_writes_the_same_bytes_as_the_library(rows: int, cols: int) -> None:
    dense = torch.from_numpy(RECORDED[f"case_{rows}x{cols}_dense"]).view(torch.bfloat16)
    recorded = torch.from_numpy(RECORDED[f"case_{rows}x{cols}_comp"]).view(torch.bfloat16)
    packed = layout.pack(dense, dense != 0)
    half = dense.numel() // 2
    assert torch.equal(packed[:half], recorded[:half])  # by value: the library keeps the sign of a zero
    assert torch.equal(packed[half:].view(torch.uint8), recorded[half:].view(torch.uint8))


@pytest.mark.parametrize(("name", "rows", "cols", "itemsize"), [("int8", 128, 128, 1), ("bfloat16", 192, 320, 2)])
def test_every_metadata_bit_is_where_the_library_puts_it(name: str, rows: int, cols: int, itemsize: int) -> None:
    """``_bit`` and ``_group``: for every bit of the library's metadata, which bit of which group's code it is."""
    bit = torch.from_numpy(RECORDED[f"{name}_{rows}x{cols}_bit"]).long()
    group = torch.from_numpy(RECORDED[f"{name}_{rows}x{cols}_group"].astype(np.int64))
    codes = torch.randint(0, 16, (rows, cols // 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    metadata = layout._permute_codes(codes, itemsize)
    bits = ((metadata.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8)) & 1).reshape(-1)
    assert torch.equal(bits.long(), (codes.reshape(-1).long()[group] >> bit) & 1)


@settings(max_examples=20, deadline=None)
@given(
    blocks=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dtype=st.sampled_from(layout.DTYPES),
    seed=st.integers(0, 2**31),
)
def test_round_trip(blocks: tuple[int, int], dtype: torch.dtype, seed: int) -> None:
    rows, cols = blocks[0] * 64, blocks[1] * 64
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randint(-99, 99, (rows, cols), generator=generator).to(dtype)
    dense = torch.where(torch.rand(rows, cols, generator=generator) < 0.4, 0, dense)
    mask = two_largest(dense.float()) & (dense != 0)
    packed = layout.pack(dense, mask)
    assert packed.shape == (layout.packed_numel(rows, cols, dtype),)
    assert packed.nbytes == rows * cols * dtype.itemsize // 2 + rows * cols // 8
    assert torch.equal(layout.unpack(packed, rows, cols), dense * mask)


def test_a_wrong_permutation_is_told_apart() -> None:
    """Negative control of the round trip: codes in plain row-major order decode to something else."""
    dense = Sparse24.random(128, 128, dtype=torch.bfloat16, device=torch.device("cpu"), seed=3).decode()
    packed = layout.pack(dense, dense != 0)
    values, codes = layout.split(packed, 128, 128)
    row_major = (codes.reshape(-1, 2)[:, 0] | (codes.reshape(-1, 2)[:, 1] << 4)).view(torch.bfloat16)
    assert not torch.equal(layout.unpack(torch.cat((values.reshape(-1), row_major)), 128, 128), dense)


@pytest.mark.parametrize(
    ("rows", "cols", "dtype", "says"),
    [
        (63, 64, torch.bfloat16, "multiples of 64"),
        (64, 96, torch.float16, "multiples of 64"),
        (0, 64, torch.float16, "multiples of 64"),
        (64, 64, torch.float32, "float32"),
    ],
)
def test_what_cannot_be_packed_says_why(rows: int, cols: int, dtype: torch.dtype, says: str) -> None:
    support = layout.check_shape(rows, cols, dtype)
    assert not support
    assert says in support.reason
