"""INT8 training and 2:4 sparsity on one model: the sparse weight is what is quantized."""

from __future__ import annotations

import pytest
import torch
from planish.api import applied, finish
from planish.errors import CompositionError
from planish.recipe.compose import compose
from planish.recipe.schema import TransformSpec
from planish_kernels.formats.block_int8 import BlockInt8
from torch import nn

transformers = pytest.importorskip("transformers")

SPARSE = {
    "use": "pretrain24",
    "targets": ["*.mlp.*"],
    "config": {"mask_interval": 2, "decay": 1e-2, "dense_finish": 0.0},
}
INT8 = {"use": "jetfire"}


def llama() -> nn.Module:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=32,
        )
    )  # fmt: skip


def composed(model: nn.Module, *specs: dict) -> list:
    return compose(model, [TransformSpec.model_validate(spec) for spec in specs])


def train(model: nn.Module, live: list, steps: int, length: int = 23) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    tokens = torch.randint(0, 64, (4, length), generator=torch.Generator().manual_seed(1))
    for one in live:
        one.on_train_start(steps)
    losses = []
    for step in range(steps):
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        for one in live:
            one.on_gradients(step)
        optimizer.step()
        optimizer.zero_grad()
        for one in live:
            one.on_step(step + 1)
        losses.append(loss.item())
    return losses


def test_sparse_then_int8_trains_and_finishes() -> None:
    model = llama().train()
    classes = {name: type(module) for name, module in model.named_modules()}
    live = composed(model, SPARSE, INT8)
    flows = {entry.name: entry.details["flow"] for entry in live[1].plan.touched}
    assert set(flows.values()) == {"linear"}, "a block whose feed-forward linears are sparse cannot compute as one"
    assert len(flows) == 14
    losses = train(model, live, 10)
    assert losses[-1] < losses[0] - 0.5
    assert len(list(applied(model))) == 2
    finish(model)
    assert {name: type(module) for name, module in model.named_modules()} == classes
    weight = model.model.layers[0].mlp.up_proj.weight
    assert ((weight != 0).view(-1, 4).sum(1) <= 2).all()


def test_the_operand_is_the_sparse_weight_in_blocks() -> None:
    model = llama().train()
    composed(model, SPARSE, INT8)
    layer = model.model.layers[0].mlp.up_proj
    weight = layer.weight.detach()
    operand = layer.encoders.forward.right.encode(weight, contraction=1)
    masked = weight.masked_fill(layer.sparsity.dropped(), 0)
    assert isinstance(operand, BlockInt8)
    assert torch.equal(operand.decode(), BlockInt8.encode(masked).decode())
    model.eval()
    assert torch.equal(layer.encoders.forward.right.encode(weight, contraction=1), masked), (
        "evaluation is not quantized"
    )


def test_the_other_order_is_refused_with_the_way_out() -> None:
    model = llama()
    with pytest.raises(CompositionError, match="put pretrain24 before that transform"):
        composed(model, INT8, SPARSE)
