"""A block's output and gradients against float64 autograd through its own quantized forward pass."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from planish_jetfire.structure import TransformerBlock, find_blocks
from planish_kernels.formats.block_int8 import BlockInt8
from torch import Tensor, nn

DRAWS = 256


def rounded(x: Tensor, block: int = 32) -> Tensor:
    """``x`` as its blocks decode, with a gradient as if it were ``x``; [..., features]."""
    flat = x.detach().reshape(-1, x.shape[-1]).float()
    return x + (BlockInt8.encode(flat, block).decode().double().view(x.shape) - x).detach()


def reference(block: nn.Module, structure: TransformerBlock, hidden: Tensor, keep: bool) -> Tensor:
    """What the block computes in the quantized flow, in float64, differentiable."""
    part = block.get_submodule

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, rounded(part(name).weight), getattr(part(name), "bias", None))

    def norm(which: int, x: Tensor) -> Tensor:
        module, kind = part(structure.norms[which]), structure.norm_kinds[which]
        if kind.kind == "rms":
            return F.rms_norm(x, x.shape[-1:], module.weight, kind.eps)
        return F.layer_norm(x, x.shape[-1:], module.weight, module.bias, kind.eps)

    def stream(x: Tensor) -> Tensor:
        return x if keep else rounded(x)

    pre = structure.is_pre_norm
    x = rounded(hidden)
    normed = rounded(norm(0, x)) if pre else x
    projected = torch.cat([linear(name, normed) for name in structure.projections], -1)
    q, k, v = (one.unflatten(-1, (2, -1)).transpose(1, 2) for one in projected.chunk(3, -1))
    attended = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)
    half = stream(hidden) + rounded(linear(structure.out, rounded(attended)))
    if pre:
        normed, half = rounded(norm(1, rounded(half))), stream(half)
    else:
        half = norm(0, half) if keep else rounded(norm(0, rounded(half)))
        normed = rounded(half)
    widened = [rounded(linear(name, normed)) for name in structure.expand]
    act = {"gelu": F.gelu, "silu": F.silu}[structure.activation]
    activated = rounded(act(widened[0]) * widened[1] if len(widened) == 2 else act(widened[0]))
    total = half + rounded(linear(structure.contract, activated))
    if pre:
        return stream(total)
    return norm(1, total) if keep else rounded(norm(1, rounded(total)))


@pytest.mark.parametrize("residual", ["dual", "int8"])
def test_gradients_are_those_of_the_quantized_forward_pass_on_average(
    block: nn.Module, start: Callable, residual: str
) -> None:
    (structure,) = find_blocks(block)
    if residual == "int8" and len(structure.expand) == 1 and structure.is_pre_norm:
        pytest.skip("the sums are those of the gated block")
    hidden, upstream = torch.randn(2, 32, 32), torch.randn(2, 32, 32)
    twin = {name: p.detach().double().requires_grad_() for name, p in block.named_parameters()}
    wide = hidden.double().requires_grad_()

    expected = torch.func.functional_call(_Holder(block, structure, residual == "dual"), twin, (wide,))
    expected.backward(upstream.double())

    start(block, flow="block", residual=residual)
    hidden.requires_grad_()
    output = block(hidden)
    assert float((output.detach() - expected.detach()).norm() / expected.detach().norm()) < 5e-3
    for _ in range(DRAWS):
        output.backward(upstream, retain_graph=True)
    for name, parameter in block.named_parameters():
        found, truth = parameter.grad.double() / DRAWS, twin[name].grad
        assert torch.cosine_similarity(found.flatten(), truth.flatten(), 0) > 0.999, name
        assert float((found - truth).norm() / truth.norm()) < 0.04, name
    assert torch.cosine_similarity(hidden.grad.double().flatten(), wide.grad.flatten(), 0) > 0.999


class _Holder(nn.Module):
    """The parameters of a block under their own names, with the reference as ``forward``."""

    def __init__(self, block: nn.Module, structure: TransformerBlock, keep: bool) -> None:
        super().__init__()
        self._modules = dict(block._modules)
        self.structure, self.keep = structure, keep

    def forward(self, x: Tensor) -> Tensor:
        return reference(self, self.structure, x, self.keep)


def test_the_output_is_near_the_dense_one(block: nn.Module, start: Callable) -> None:
    hidden = torch.randn(2, 19, 32)
    dense = block(hidden)
    start(block, flow="block")
    assert float((block(hidden) - dense).detach().norm() / dense.detach().norm()) < 0.03
    block.eval()
    assert torch.equal(block(hidden), dense), "evaluation is dense, bit by bit"


@pytest.mark.parametrize("code", ["int8", "float8"])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_every_block_size_and_code(start: Callable, size: int, code: str) -> None:
    from planish.testing.tiny_transformer import TinyBlock

    block, hidden = TinyBlock(48, 80, 2, True), torch.randn(3, 7, 48)
    dense = block(hidden)
    dense.square().sum().backward()
    expected = {name: p.grad.clone() for name, p in block.named_parameters()}
    block.zero_grad()
    start(block, flow="block", block=size, code=code)
    output = block(hidden)
    output.square().sum().backward()
    assert float((output - dense).detach().norm() / dense.detach().norm()) < 0.06
    for name, parameter in block.named_parameters():
        assert torch.cosine_similarity(parameter.grad.flatten(), expected[name].flatten(), 0) > 0.97, name


def test_recomputing_the_activation_changes_nothing(block: nn.Module, start: Callable) -> None:
    import copy

    other = copy.deepcopy(block)
    start(block, flow="block")
    start(other, flow="block", recompute_activation=True)
    hidden = torch.randn(2, 16, 32)
    for one in (block, other):
        one(hidden).square().sum().backward()
    for mine, theirs in zip(block.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


def test_frozen_parameters_get_no_gradient(start: Callable) -> None:
    from planish.testing.tiny_transformer import TinyBlock

    block = TinyBlock(32, 64, 2, False)
    for name, parameter in block.named_parameters():
        parameter.requires_grad_("fc1" in name)
    start(block, flow="block")
    block(torch.randn(2, 8, 32)).square().sum().backward()
    with_grad = {name for name, p in block.named_parameters() if p.grad is not None}
    assert with_grad == {"mlp.fc1.weight", "mlp.fc1.bias"}
