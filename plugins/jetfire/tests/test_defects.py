"""What the released code of the paper does wrong, as far as the flow between operators is concerned.

The operators' own share (means over part of a row, sums that truncate, zero blocks, scales that are rounded after they
were used, noise that repeats from tile to tile, statistics without eps) is held in the tests of the kernels.
"""

from collections.abc import Callable

import torch
from planish.testing.tiny_transformer import TinyAttention, TinyBlock
from planish_kernels.formats.block_int8 import BlockInt8
from torch import Tensor, nn


def rounded(x: Tensor) -> Tensor:
    return BlockInt8.encode(x.detach().reshape(-1, x.shape[-1]), 32).decode().view(x.shape)


class _Watching(TinyAttention):
    """Keeps what it computes with, and the gradients of that."""

    def forward(self, hidden: Tensor) -> Tensor:
        self.seen = [proj(hidden) for proj in (self.q_proj, self.k_proj, self.v_proj)]
        for one in self.seen:
            one.retain_grad()
        q, k, v = (one.unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in self.seen)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)
        mixed.retain_grad()
        self.mixed = mixed
        return self.o_proj(mixed)


def _watched_block(start: Callable, **options: object) -> TinyBlock:
    block = TinyBlock(32, 64, 2, True)
    block.attn.__class__ = _Watching
    with torch.no_grad():
        block.attn_norm.weight.add_(torch.randn(32) * 0.3)
        block.attn_norm.bias.add_(torch.randn(32) * 0.3)
    start(block, flow="block", **options)
    return block


def test_queries_keys_and_values_come_straight_from_the_accumulators(start: Callable) -> None:
    """Defect 7: they were rounded to INT8 and decoded again."""
    block, hidden = _watched_block(start), torch.randn(2, 16, 32)
    block(hidden)
    x = rounded(hidden)
    normed = rounded(nn.functional.layer_norm(x, (32,), block.attn_norm.weight, block.attn_norm.bias))
    for layer, found in zip((block.attn.q_proj, block.attn.k_proj, block.attn.v_proj), block.attn.seen, strict=True):
        exact = normed.double() @ rounded(layer.weight).double().t()
        assert float((found.double() - exact).detach().norm() / exact.norm()) < 1e-5
        found = found.detach()
        assert float((rounded(found) - found).norm() / found.norm()) > 1e-3, "in blocks they would be others"


def test_the_gradient_of_what_the_attention_gave_is_not_rounded(start: Callable) -> None:
    """Defect 7, backward: the gradient goes into the attention's own 16-bit code."""
    block, hidden = _watched_block(start), torch.randn(2, 16, 32)
    block(hidden).square().sum().backward()
    grad = block.attn.mixed.grad
    assert float((rounded(grad) - grad).norm() / grad.norm()) > 1e-3


def test_a_norms_bias_takes_part(start: Callable) -> None:
    """Defect 9: it was ignored."""
    block, hidden = _watched_block(start), torch.randn(2, 16, 32)
    before = block(hidden)
    with torch.no_grad():
        block.attn_norm.bias.add_(1)
        block.mlp_norm.bias.add_(1)
    after = block(hidden)
    assert not torch.allclose(before, after, atol=0.1)
    after.square().sum().backward()
    assert block.attn_norm.bias.grad.abs().min() > 0
    assert block.mlp_norm.bias.grad.abs().min() > 0


def test_a_linears_bias_is_added_before_the_scale_is_taken(start: Callable) -> None:
    """Defect 9: a large negative bias would be cut off at the scale of the product alone."""
    block = TinyBlock(32, 64, 2, False)
    with torch.no_grad():
        block.mlp.fc2.bias.fill_(-50.0)
    hidden = torch.randn(2, 16, 32)
    dense = block(hidden)
    start(block, flow="block")
    found = block(hidden)
    assert float((found - dense).detach().abs().max()) < 50 / 127


def test_shapes_need_be_no_multiples(start: Callable) -> None:
    """Defect 9: tokens and features had to be multiples of 128."""
    block = TinyBlock(36, 44, 2, True)
    hidden = torch.randn(3, 5, 36)
    dense = block(hidden)
    start(block, flow="block", min_features=4)
    found = block(hidden)
    assert float((found - dense).detach().norm() / dense.detach().norm()) < 0.03
    found.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in block.parameters())


def test_no_tensor_in_blocks_crosses_autograd(start: Callable) -> None:
    """Defect 10: INT8 gradients were passed on disguised as float8."""
    block, hidden = _watched_block(start), torch.randn(2, 16, 32, requires_grad=True)
    output = block(hidden)
    pending, seen = [output.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for meta in getattr(node, "_input_metadata", []):
            assert meta.dtype.is_floating_point
            assert meta.dtype.itemsize >= 2
        pending += [parent for parent, _ in node.next_functions]
    names = [type(node).__name__ for node in seen]
    assert sum("Projections" in name or "Rest" in name for name in names) == 2


def test_evaluation_is_dense(start: Callable) -> None:
    """Defect 9: it ran quantized."""
    block, hidden = TinyBlock(32, 64, 2, True), torch.randn(2, 16, 32)
    dense = block(hidden)
    start(block, flow="block")
    assert not torch.equal(block(hidden), dense)
    assert torch.equal(block.eval()(hidden), dense)
