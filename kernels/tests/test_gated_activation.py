"""SwiGLU and GEGLU: values and gradients against torch in float64, every layout, every rank."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from planish_kernels.gated_activation import geglu, swiglu
from planish_kernels.gated_activation.op import ACTIVATIONS
from planish_kernels.runtime.op import KernelUnavailable
from torch import Tensor

ROW, COLUMN = "row", "column"


def ours(activation: str, x: Tensor, gate: Tensor | None = None, **options: object) -> Tensor:
    if activation == "silu":
        return swiglu(x, gate, **options)  # type: ignore[arg-type]
    return geglu(x, gate, approximate="tanh" if activation == "gelu_tanh" else "none", **options)  # type: ignore[arg-type]


TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda gate: F.gelu(gate, approximate="tanh"),
}
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float64: 1e-13}


def leaf(values: Tensor, dtype: torch.dtype, layout: str, device: torch.device) -> Tensor:
    values = values.to(device, dtype)
    if layout == COLUMN:
        flat = values.reshape(-1, values.shape[-1]).t().contiguous()
        values = flat.t().view(values.shape)
    return values.detach().requires_grad_()


def check(
    activation: str, shape: tuple[int, ...], dtype: torch.dtype, layouts: tuple[str, str, str], impl: str, packed: bool,
    device: torch.device, gate_first: bool = False,
) -> None:  # fmt: skip
    generator = torch.Generator().manual_seed(sum(shape))
    x, gate, grad = (3 * torch.randn(shape, generator=generator) for _ in range(3))
    x_exact, gate_exact = (v.to(dtype).double().requires_grad_() for v in (x, gate))
    grad_output = leaf(grad, dtype, layouts[2], device).detach()
    expected = TORCH[activation](gate_exact) * x_exact
    expected.backward(grad_output.cpu().double())
    if packed:
        both = leaf(torch.cat((gate, x) if gate_first else (x, gate), -1), dtype, layouts[0], device)
        out = ours(activation, both, gate_first=gate_first, impl=impl)
        out.backward(grad_output)
        assert both.grad is not None
        assert both.grad.stride() == both.stride()
        halves = both.grad.chunk(2, -1)
        grads = halves[::-1] if gate_first else halves
    else:
        leaves = leaf(x, dtype, layouts[0], device), leaf(gate, dtype, layouts[1], device)
        out = ours(activation, *leaves, impl=impl)
        out.backward(grad_output)
        grads = tuple(t.grad for t in leaves)
    assert out.dtype is dtype
    assert out.shape == shape
    is_column_major = layouts[0] == COLUMN and shape[-1] > 1 and out.numel() > shape[-1]
    assert out.flatten(0, -2).stride(0) == (1 if is_column_major else shape[-1]) if len(shape) > 1 else True
    tolerance = TOLERANCE[dtype]
    pairs = ((out, expected), (grads[0], x_exact.grad), (grads[1], gate_exact.grad))
    for got, exact in pairs:
        torch.testing.assert_close(got.cpu().double(), exact.detach(), rtol=tolerance, atol=4 * tolerance)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_triton_against_torch(activation: str, packed: bool, dtype: torch.dtype, kernel_device: torch.device) -> None:
    check(activation, (33, 257), dtype, (ROW, ROW, ROW), "triton", packed, kernel_device)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_reference_against_torch(activation: str, packed: bool, dtype: torch.dtype) -> None:
    check(activation, (33, 257), dtype, (ROW, COLUMN, ROW), "reference", packed, torch.device("cpu"))


@pytest.mark.parametrize("x_layout", [ROW, COLUMN])
@pytest.mark.parametrize("gate_layout", [ROW, COLUMN])
@pytest.mark.parametrize("grad_layout", [ROW, COLUMN])
def test_layouts(x_layout: str, gate_layout: str, grad_layout: str, kernel_device: torch.device) -> None:
    layouts = (x_layout, gate_layout, grad_layout)
    check("silu", (2, 9, 40), torch.float32, layouts, "triton", False, kernel_device)
    check("gelu", (18, 40), torch.float32, layouts, "triton", True, kernel_device, gate_first=gate_layout == COLUMN)


@pytest.mark.parametrize("shape", [(7,), (1, 1), (2, 3, 4, 5), (1, 2049), (300, 3)])
def test_ranks_and_odd_shapes(shape: tuple[int, ...], kernel_device: torch.device) -> None:
    for impl, device in (("triton", kernel_device), ("reference", torch.device("cpu"))):
        for packed in (False, True):
            check("silu", shape, torch.float32, (ROW, ROW, ROW), impl, packed, device)


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_expanded_gradient_and_sliced_inputs(impl: str, kernel_device: torch.device) -> None:
    device = kernel_device if impl == "triton" else torch.device("cpu")
    base = torch.randn(20, 90, generator=torch.Generator().manual_seed(0)).to(device)
    x, gate = base[::2, 1:31].detach().requires_grad_(), base[1::2, 40:70].detach().requires_grad_()
    swiglu(x, gate, impl=impl).sum().backward()
    exact = [t.detach().double().requires_grad_() for t in (x, gate)]
    (F.silu(exact[1]) * exact[0]).sum().backward()
    for got, expected in zip((x, gate), exact, strict=True):
        assert got.grad is not None
        assert expected.grad is not None
        torch.testing.assert_close(got.grad.double(), expected.grad, rtol=2e-6, atol=8e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_extreme_gates_are_finite(activation: str, kernel_device: torch.device) -> None:
    for impl, device in (("triton", kernel_device), ("reference", torch.device("cpu"))):
        values = torch.tensor([[-1e4, -100.0, -30.0, -0.0, 0.0, 30.0, 100.0, 1e4]], device=device)
        gate = values.requires_grad_()
        out = ours(activation, torch.ones_like(gate), gate, impl=impl)
        out.sum().backward()
        assert gate.grad is not None
        expected = torch.tensor([[0.0, 0, 0, 0.5, 0.5, 1, 1, 1]])
        torch.testing.assert_close(gate.grad.cpu(), expected, rtol=1e-6, atol=1e-10)
        torch.testing.assert_close(out.detach().cpu()[:, 3:], values.detach().cpu()[:, 3:])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradcheck(activation: str) -> None:
    x, gate = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    torch.autograd.gradcheck(lambda x, gate: ours(activation, x, gate), (x, gate))
    torch.autograd.gradcheck(lambda both: ours(activation, both, gate_first=True), (torch.cat((gate, x), -1),))


def test_empty() -> None:
    assert swiglu(torch.zeros(0, 8)).shape == (0, 4)
    assert swiglu(torch.zeros(3, 0), torch.zeros(3, 0)).shape == (3, 0)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="last dimension 7"):
        swiglu(torch.zeros(2, 7))
    with pytest.raises(ValueError, match="gate is"):
        swiglu(torch.zeros(2, 8), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="gate is"):
        geglu(torch.zeros(2, 8), torch.zeros(2, 8, dtype=torch.float64))
    with pytest.raises(ValueError, match="gate_first"):
        swiglu(torch.zeros(2, 8), torch.zeros(2, 8), gate_first=True)
    with pytest.raises(ValueError, match="'sigmoid'"):
        geglu(torch.zeros(2, 8), approximate="sigmoid")
    with pytest.raises(TypeError, match="floating"):
        swiglu(torch.zeros(2, 8, dtype=torch.int64))
    with pytest.raises(KernelUnavailable, match="float64"):
        swiglu(torch.zeros(2, 8, dtype=torch.float64), impl="triton")


def test_opcheck() -> None:
    x, gate = torch.randn(3, 2, 4, requires_grad=True), torch.randn(3, 2, 4, requires_grad=True)
    torch.library.opcheck(torch.ops.planish.gated_activation, (x, gate, "silu", "auto"))
    torch.library.opcheck(torch.ops.planish.gated_activation_packed, (x, False, "gelu", "auto"))
    column = torch.randn(4, 6).t().requires_grad_()
    torch.library.opcheck(torch.ops.planish.gated_activation, (column, column, "gelu_tanh", "auto"))


def test_compiles_without_graph_breaks() -> None:
    def feed(x: Tensor, gate: Tensor) -> Tensor:
        return swiglu(x * 2, gate) + geglu(torch.cat((x, gate), -1), approximate="tanh")

    compiled = torch.compile(feed, fullgraph=True, backend="aot_eager")
    for layout in (ROW, COLUMN):
        leaves = [leaf(torch.randn(6, 4), torch.float32, layout, torch.device("cpu")) for _ in range(2)]
        expected = torch.autograd.grad(feed(*leaves).square().sum(), leaves)
        got = torch.autograd.grad(compiled(*leaves).square().sum(), leaves)
        torch.testing.assert_close(got, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", [ROW, COLUMN])
def test_large_on_gpu(activation: str, dtype: torch.dtype, layout: str, gpu: torch.device) -> None:
    check(activation, (2, 1023, 2049), dtype, (layout, ROW, layout), "auto", False, gpu)
    check(activation, (2, 1023, 2049), dtype, (layout, ROW, layout), "auto", True, gpu)
