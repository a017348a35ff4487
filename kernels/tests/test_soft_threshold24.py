"""S-STE soft thresholding: continuity (with hard thresholding as the control), 2:4, its scale, its gradient."""

from __future__ import annotations

import pytest
import torch
from planish_kernels.mask24 import rowwise_mask
from planish_kernels.runtime.op import KernelUnavailable
from planish_kernels.soft_threshold24 import minimum_mse_scale, soft_threshold24
from torch import Tensor

ONE = torch.tensor(1.0)


def by_sorting(weight: Tensor) -> Tensor:
    """The definition, group by group, in Python."""
    rows = []
    for row in weight.double().tolist():
        out: list[float] = []
        for start in range(0, len(row), 4):
            group = row[start : start + 4]
            threshold = sorted(abs(a) for a in group)[1]
            out += [(1 if a > 0 else -1) * max(abs(a) - threshold, 0.0) for a in group]
        rows.append(out)
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(1, 4), (3, 60), (2, 4100)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_against_the_definition(
    shape: tuple[int, int], dtype: torch.dtype, impl: str, kernel_device: torch.device
) -> None:
    generator = torch.Generator().manual_seed(shape[1])
    device = kernel_device if impl == "triton" else torch.device("cpu")
    beta = torch.tensor(1.5)
    for weight in (torch.randn(shape, generator=generator), torch.randint(-3, 4, shape, generator=generator)):
        weight = weight.to(dtype)
        ours = soft_threshold24(weight.to(device), beta.to(device), impl=impl).cpu()
        assert ours.dtype is dtype
        unit = {torch.float32: 2**-22, torch.float16: 2**-11, torch.bfloat16: 2**-7}[dtype]
        expected = 1.5 * by_sorting(weight)
        assert ((ours.double() - expected).abs() <= unit * expected.abs()).all()
        assert ((ours.view(shape[0], -1, 4) == 0).sum(-1) >= 2).all()
        if dtype is not torch.bfloat16 or device.type == "cuda":  # the interpreter truncates to bfloat16
            assert torch.equal(ours, soft_threshold24(weight, beta, impl="reference"))


def largest_jump(shrink: torch.nn.Module | object, pairs: int) -> float:
    """Largest ``|S(a + d) - S(a)| / |d|`` in the maximum norm, over random groups with near and exact ties."""
    generator = torch.Generator().manual_seed(11)
    a = torch.randint(-4, 5, (pairs, 4), generator=generator).double() / 4
    a[: pairs // 2] = torch.randn(pairs // 2, 4, generator=generator, dtype=torch.float64)
    size = 10.0 ** -torch.randint(1, 7, (pairs, 1), generator=generator)
    d = (torch.rand(pairs, 4, generator=generator, dtype=torch.float64) - 0.5) * size
    change = (shrink(a + d) - shrink(a)).abs().amax(1)  # type: ignore[operator]
    return float((change / d.abs().amax(1)).max())


def test_continuous_where_hard_thresholding_is_not() -> None:
    assert largest_jump(lambda a: soft_threshold24(a, ONE), 100_000) <= 2 + 1e-6
    assert largest_jump(lambda a: a * rowwise_mask(a), 100_000) > 1000


def test_odd_and_positively_homogeneous() -> None:
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(soft_threshold24(-weight, ONE), -soft_threshold24(weight, ONE))
    assert torch.equal(soft_threshold24(4 * weight, ONE), 4 * soft_threshold24(weight, ONE))


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_scale_minimises_the_error(impl: str, kernel_device: torch.device) -> None:
    device = kernel_device if impl == "triton" else torch.device("cpu")
    weight = torch.randn(12, 6000, generator=torch.Generator().manual_seed(0))
    beta = minimum_mse_scale(weight.to(device), impl=impl)
    assert beta.dtype is torch.float32
    assert beta.shape == ()
    weight = weight.double()
    shrunk = by_sorting(weight)
    exact = (weight * shrunk).sum() / shrunk.square().sum()
    torch.testing.assert_close(beta.cpu().double(), exact, rtol=1e-6, atol=0)

    def error(scale: float) -> float:
        return float((weight - scale * float(beta) * shrunk).square().sum())

    assert error(1.0) < min(error(0.99), error(1.01))


def test_scale_and_error_of_normal_weights() -> None:
    weight = torch.randn(2048, 2048, generator=torch.Generator().manual_seed(0))
    beta = minimum_mse_scale(weight)
    assert abs(float(beta) - 1.482) < 0.005
    error = (weight - soft_threshold24(weight, beta)).square().mean() / weight.square().mean()
    assert abs(float(error) - 0.257) < 0.003


def test_scale_of_weights_without_magnitude_differences_is_one() -> None:
    for impl in ("reference", "triton"):
        if impl == "triton" and torch.cuda.is_available():
            continue
        assert float(minimum_mse_scale(torch.ones(4, 8), impl=impl)) == 1.0


def test_gradient_passes_unscaled() -> None:
    weight = torch.randn(4, 8, requires_grad=True)
    beta = torch.tensor(1.5, requires_grad=True)
    grad = torch.randn(4, 8)
    soft_threshold24(weight, beta).backward(grad)
    assert weight.grad is not None
    assert torch.equal(weight.grad, grad)
    assert beta.grad is None


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_nan_spreads_over_its_group_and_infinity_stays(impl: str, kernel_device: torch.device) -> None:
    device = kernel_device if impl == "triton" else torch.device("cpu")
    weight = torch.arange(1.0, 13.0).view(1, 12)
    weight[0, 2] = torch.nan
    weight[0, 7] = -torch.inf
    ours = soft_threshold24(weight.to(device), ONE.to(device), impl=impl).cpu()[0]
    assert ours[:4].isnan().all()
    assert ours[4:].tolist() == [0, 0, 1, -torch.inf, 0, 0, 1, 2]


def test_strides(kernel_device: torch.device) -> None:
    base = torch.randn(40, 72, generator=torch.Generator().manual_seed(1))
    there = base.to(kernel_device)
    beta = ONE.to(kernel_device)
    for weight, ours in ((base.t(), there.t()), (base[3:9, 8:44], there[3:9, 8:44]), (base[:, ::2], there[:, ::2])):
        expected = by_sorting(weight).float()
        torch.testing.assert_close(soft_threshold24(ours, beta, impl="triton").cpu(), expected)
        torch.testing.assert_close(soft_threshold24(weight, ONE, impl="reference"), expected)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"6 columns.*multiple of 4"):
        soft_threshold24(torch.zeros(4, 6), ONE)
    with pytest.raises(ValueError, match="0-d"):
        soft_threshold24(torch.zeros(4, 4), torch.ones(1))
    with pytest.raises(TypeError, match="floating"):
        minimum_mse_scale(torch.zeros(4, 4, dtype=torch.int32))
    with pytest.raises(KernelUnavailable, match="float64"):
        minimum_mse_scale(torch.zeros(4, 4, dtype=torch.float64), impl="triton")


def test_opcheck_and_compile() -> None:
    weight = torch.randn(4, 8, requires_grad=True)
    torch.library.opcheck(torch.ops.planish.soft_threshold24, (weight, ONE, "auto"))
    torch.library.opcheck(torch.ops.planish.minimum_mse_scale, (weight.detach(), "auto"))

    def shrink(weight: Tensor) -> Tensor:
        return soft_threshold24(weight, minimum_mse_scale(weight)) * 2

    compiled = torch.compile(shrink, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(weight), shrink(weight))
    (grad,) = torch.autograd.grad(compiled(weight).sum(), weight)
    assert torch.equal(grad, torch.full_like(weight, 2))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_large_on_gpu(dtype: torch.dtype, gpu: torch.device) -> None:
    weight = torch.randn(4095, 16380, device=gpu).to(dtype)
    beta = minimum_mse_scale(weight)
    torch.testing.assert_close(beta, minimum_mse_scale(weight, impl="reference"), rtol=1e-6, atol=0)
    ours = soft_threshold24(weight, beta)
    assert torch.equal(ours, soft_threshold24(weight, beta, impl="reference"))
