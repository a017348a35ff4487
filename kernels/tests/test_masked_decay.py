"""Masked decay: backends against float64, places that must not change, strides, the switch for CUDA graphs."""

from __future__ import annotations

import pytest
import torch
from planish_kernels.mask24 import pack_mask
from planish_kernels.masked_decay import masked_decay_
from planish_kernels.runtime.op import KernelUnavailable
from torch import Tensor


def case(rows: int, cols: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows * cols)
    grad = torch.randn(rows, cols, generator=generator).to(dtype)
    weight = torch.randn(rows, cols, generator=generator).to(dtype)
    return grad, weight, torch.rand(rows, cols, generator=generator) < 0.5


@pytest.mark.parametrize("shape", [(1, 1), (3, 63), (5, 1000), (4, 2049)])
@pytest.mark.parametrize(
    ("grad_dtype", "weight_dtype"),
    [
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.float32),
    ],
)
@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_against_float64(
    shape: tuple[int, int], grad_dtype: torch.dtype, weight_dtype: torch.dtype, impl: str, kernel_device: torch.device
) -> None:
    grad, weight, mask = case(*shape, torch.float32)
    grad, weight = grad.to(grad_dtype), weight.to(weight_dtype)
    expected = grad.double() + 0.37 * ((~mask) * weight.double())
    device = kernel_device if impl == "triton" else torch.device("cpu")
    ours = grad.clone().to(device)
    back = masked_decay_(ours, weight.to(device), pack_mask(mask).to(device), 0.37, impl=impl)
    assert back is ours
    # The interpreter truncates to bfloat16 where the GPU rounds.
    unit = {torch.float32: 2**-23, torch.float16: 2**-11, torch.bfloat16: 2**-7}[grad_dtype]
    bound = unit * (grad.double().abs() + 0.37 * weight.double().abs())
    assert ((ours.cpu().double() - expected).abs() <= bound).all()
    assert torch.equal(ours.cpu()[mask], grad[mask])


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_kept_places_ignore_the_weight(impl: str, kernel_device: torch.device) -> None:
    device = kernel_device if impl == "triton" else torch.device("cpu")
    grad, weight, mask = case(7, 21, torch.float32)
    weight[mask] = torch.nan
    ours = masked_decay_(grad.clone().to(device), weight.to(device), pack_mask(mask).to(device), 1.0, impl=impl).cpu()
    assert torch.equal(ours[mask], grad[mask])
    assert torch.isfinite(ours).all()


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_strides_and_memory_around(impl: str, kernel_device: torch.device) -> None:
    device = kernel_device if impl == "triton" else torch.device("cpu")
    grad, weight, mask = case(12, 20, torch.float32)
    expected = grad + 0.5 * (~mask) * weight
    buffer = torch.full((22, 14), 9.0, device=device)
    view = buffer[1:21, 1:13].t()
    view.copy_(grad)
    masked_decay_(view, weight.t().contiguous().t().to(device), pack_mask(mask).to(device), 0.5, impl=impl)
    torch.testing.assert_close(view.cpu(), expected)
    buffer[1:21, 1:13] = 9.0
    assert (buffer == 9.0).all()


@pytest.mark.parametrize("impl", ["reference", "triton"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_active_switches_it(impl: str, dtype: torch.dtype, kernel_device: torch.device) -> None:
    device = kernel_device if impl == "triton" else torch.device("cpu")
    grad, weight, mask = case(4, 12, torch.float32)
    bits = pack_mask(mask).to(device)
    for value in (0, 1):
        active = torch.tensor(value, dtype=dtype, device=device)
        ours = masked_decay_(grad.clone().to(device), weight.to(device), bits, 0.5, active=active, impl=impl).cpu()
        torch.testing.assert_close(ours, grad + value * 0.5 * (~mask) * weight)


def test_float64_stays_float64() -> None:
    grad, weight, mask = case(4, 12, torch.float64)
    ours = masked_decay_(grad.clone(), weight, pack_mask(mask), 0.1)
    torch.testing.assert_close(ours, grad + 0.1 * ((~mask) * weight), rtol=1e-15, atol=1e-15)


def test_bad_input() -> None:
    grad, weight, mask = case(4, 12, torch.float32)
    bits = pack_mask(mask)
    with pytest.raises(ValueError, match="decay=-1"):
        masked_decay_(grad, weight, bits, -1.0)
    with pytest.raises(ValueError, match="decay=nan"):
        masked_decay_(grad, weight, bits, float("nan"))
    with pytest.raises(ValueError, match="same"):
        masked_decay_(grad[:2], weight, bits, 0.1)
    with pytest.raises(ValueError, match="pack_mask"):
        masked_decay_(grad, weight, mask, 0.1)
    with pytest.raises(ValueError, match="0-d"):
        masked_decay_(grad, weight, bits, 0.1, active=torch.ones(1))
    with pytest.raises(KernelUnavailable):
        masked_decay_(grad.double(), weight, bits, 0.1, impl="triton")


def test_opcheck_and_compile() -> None:
    grad, weight, mask = case(4, 12, torch.float32)
    bits = pack_mask(mask)
    torch.library.opcheck(torch.ops.planish.masked_decay_, (grad.clone(), weight, bits, 0.1, None, "auto"))
    torch.library.opcheck(torch.ops.planish.masked_decay_, (grad.clone(), weight, bits, 0.1, torch.tensor(1), "auto"))

    def step(grad: Tensor) -> Tensor:
        return masked_decay_(grad * 2, weight, bits, 0.1) + 1

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(grad), step(grad))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_large_on_gpu(dtype: torch.dtype, gpu: torch.device) -> None:
    grad = torch.randn(4095, 16381, device=gpu).to(dtype)
    weight, mask = torch.randn_like(grad), torch.rand(grad.shape, device=gpu) < 0.5
    bits = pack_mask(mask)
    expected = masked_decay_(grad.clone(), weight, bits, 0.01, impl="reference")
    unit = {torch.float32: 2**-22, torch.float16: 2**-10, torch.bfloat16: 2**-7}[dtype]
    torch.testing.assert_close(masked_decay_(grad, weight, bits, 0.01), expected, rtol=unit, atol=unit * 1e-2)
