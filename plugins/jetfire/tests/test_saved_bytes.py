"""What is saved for backward: bytes beside those of the same block in bfloat16, and of which kind."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from planish.testing.tiny_transformer import TinyBlock
from planish_jetfire import Jetfire, saved_bytes, saved_tensors
from torch import Tensor, nn

transformers = pytest.importorskip("transformers")

WIDTH, LENGTH, HEADS = 128, 128, 4
PAPER = 0.69  # 1 / 1.49, and a little for scales and statistics


def _gpt2() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.GPT2Config(n_layer=1, n_head=HEADS, n_embd=WIDTH, resid_pdrop=0.0, attn_pdrop=0.0)
    return transformers.GPT2Model(config).h[0], {}


def _llama() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.LlamaConfig(
        hidden_size=WIDTH, intermediate_size=352, num_hidden_layers=1, num_attention_heads=HEADS, num_key_value_heads=2
    )
    model = transformers.LlamaModel(config)
    positions = torch.arange(LENGTH).unsqueeze(0)
    rotation = model.rotary_emb(torch.zeros(1, LENGTH, WIDTH, dtype=torch.bfloat16), positions)
    return model.layers[0], {"position_embeddings": rotation}


def _vit() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=HEADS, intermediate_size=4 * WIDTH
    )
    model = transformers.ViTModel(config)
    return next(m for m in model.modules() if type(m).__name__ == "ViTLayer"), {}


BLOCKS: dict[str, Callable[[], tuple[nn.Module, dict[str, Any]]]] = {"gpt2": _gpt2, "llama": _llama, "vit": _vit}


def _saved(block: nn.Module, arguments: dict[str, Any]) -> int:
    hidden = torch.randn(2, LENGTH, WIDTH, dtype=torch.bfloat16).requires_grad_()
    own = [*block.parameters(), *block.buffers(), *arguments.get("position_embeddings", ())]
    return saved_bytes(lambda: block(hidden, **arguments), exclude=own)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_saves_what_the_paper_says(name: str, start: Callable) -> None:
    block, arguments = BLOCKS[name]()
    block = block.to(torch.bfloat16).train()
    dense = _saved(block, arguments)
    start(block, flow="block")
    assert _saved(block, arguments) <= PAPER * dense


def test_recomputing_the_activation_saves_more(start: Callable) -> None:
    block, arguments = _gpt2()
    block = block.to(torch.bfloat16).train()
    dense = _saved(block, arguments)
    start(block, flow="block", recompute_activation=True)
    assert _saved(block, arguments) <= 0.57 * dense


def test_floats_that_are_saved_are_those_of_the_attention_scales_and_statistics(start: Callable) -> None:
    block = TinyBlock(64, 128, 2, True).to(torch.bfloat16).train()
    start(block, flow="block")
    hidden = torch.randn(2, 32, 64, dtype=torch.bfloat16).requires_grad_()
    found = saved_tensors(lambda: block(hidden), exclude=[*block.parameters(), *block.buffers()])
    in_blocks = [shape for dtype, shape, _ in found.tensors if dtype is torch.int8]
    # Hidden state, normed, what the attention gave, sum, normed sum; gate, up, their product.
    assert sorted(in_blocks) == sorted([(64, 64)] * 5 + [(64, 128)] * 3)
    wide = [(dtype, shape) for dtype, shape, _ in found.tensors if dtype is not torch.int8]
    scales = [(torch.float32, (2, 2))] * 5 + [(torch.float32, (2, 4))] * 3
    statistics = [(torch.float32, (2, 64))] * 2
    for one in scales + statistics:
        wide.remove(one)
    # What is left is the attention's: queries, keys, values and its output, and on a CPU log-sum-exps.
    largest = sorted((shape for dtype, shape in wide if dtype is torch.bfloat16), key=lambda s: torch.Size(s).numel())
    assert len(largest) == 4
    assert all(torch.Size(shape).numel() == 2 * 32 * 64 for shape in largest)
    assert all(torch.Size(shape).numel() <= 2 * 2 * 32 for dtype, shape in wide if dtype is not torch.bfloat16)


def test_storages_are_counted_once_and_whole() -> None:
    base = torch.randn(8, 8, requires_grad=True)

    def forward() -> Tensor:
        wide = base.exp()  # saves its result
        return (wide[:, :2] * wide[:, 2:4]).sum()  # saves two views of it

    assert saved_bytes(forward) == 8 * 8 * 4
    assert saved_bytes(forward, exclude=[base]) == 8 * 8 * 4
    linear = nn.Linear(8, 8)
    counted = saved_tensors(lambda: linear(base), exclude=linear.parameters())
    assert counted.by_dtype() == {torch.float32: 8 * 8 * 4}


def test_the_linear_flow_saves_as_the_dense_model(start: Callable) -> None:
    block = TinyBlock(64, 128, 2, True).train()
    hidden = torch.randn(2, 32, 64).requires_grad_()
    other = copy.deepcopy(block)
    start(other, flow="linear")
    dense = saved_bytes(lambda: block(hidden), exclude=block.parameters())
    assert saved_bytes(lambda: other(hidden), exclude=[*other.parameters(), *other.buffers()]) == dense
    assert Jetfire({"flow": "linear"}).config.flow == "linear"
