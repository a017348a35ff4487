"""The self-test tells right packings from wrong ones: on a CPU with the definition as multiplier, and on the GPU."""

import pytest
import torch
from planish_kernels.cusparselt import layout
from planish_kernels.cusparselt.self_test import MATMUL, PACKERS, TOLERANCE, packing_error
from planish_kernels.runtime.self_test import run_self_test
from torch import Tensor

CPU = torch.device("cpu")


def multiply(packed: Tensor, rows: int, cols: int, dense: Tensor) -> Tensor:
    return layout.unpack(packed, rows, cols).double() @ dense.double()


def right(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return layout.pack(weight, mask), layout.pack(weight.t(), mask.t())


def test_accepts_the_right_layout() -> None:
    assert packing_error(right, multiply, CPU) < 1e-12


def test_rejects_codes_in_row_major_order() -> None:
    def wrong(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        buffers = []
        for packed, (rows, cols) in zip(right(weight, mask), (weight.shape, weight.t().shape), strict=True):
            values, codes = layout.split(packed, rows, cols)
            pairs = codes.reshape(-1, 2)
            buffers.append(torch.cat((values.reshape(-1), (pairs[:, 0] | (pairs[:, 1] << 4)).view(weight.dtype))))
        return buffers[0], buffers[1]

    assert packing_error(wrong, multiply, CPU) > 0.3


def test_rejects_a_wrong_transpose_alone() -> None:
    def wrong(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        by_rows, by_cols = right(weight, mask)
        half = weight.numel() // 2
        return by_rows, torch.cat((by_cols[:half], by_cols[half:].roll(4)))

    assert packing_error(wrong, multiply, CPU) > 0.3


def test_rejects_two_rows_exchanged_in_one_block() -> None:
    """The smallest mistake in a permutation: rows that are eight apart swapped."""

    def wrong(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        by_rows, by_cols = right(weight, mask)
        metadata = by_rows[weight.numel() // 2 :].view(torch.uint8)
        metadata[:512] = (metadata[:512] >> 4) | (metadata[:512] << 4)
        return by_rows, by_cols

    assert packing_error(wrong, multiply, CPU) > TOLERANCE


@pytest.mark.gpu
@pytest.mark.parametrize("name", [MATMUL, PACKERS])
def test_passes_on_the_device(name: str, gpu: torch.device) -> None:
    result = run_self_test(name, gpu)
    assert result.ok, result.detail


@pytest.mark.gpu
def test_rejects_the_ampere_layout_on_the_device(gpu: torch.device) -> None:
    """torch's tile kernel packs for Ampere; on Hopper its product is silently wrong."""
    if torch.cuda.get_device_capability(gpu) != (9, 0):
        pytest.skip("the trap is one of compute capability 9.0")
    from planish_kernels.cusparselt.multiply import multiply as on_device

    def ampere(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        masked = weight * mask
        packed, _, packed_t, _, _ = torch._sparse_semi_structured_tile(
            masked, "largest_abs_values_greedy", use_cutlass=False
        )
        return packed.reshape(-1), packed_t.reshape(-1)

    error = packing_error(ampere, lambda p, r, c, d: on_device(p, r, c, d, False), gpu)
    assert error > 0.3
