"""Real architectures: what is taken, training, finishing, saving."""

from typing import Any

import planish
import pytest
import torch
from planish_kernels.nn import EncodedLinear
from planish_pretrain24 import Pretrain24
from planish_pretrain24.state import layers
from torch import nn

transformers = pytest.importorskip("transformers")


def _gpt2() -> nn.Module:
    config = transformers.GPT2Config(n_layer=2, n_head=4, n_embd=64, vocab_size=256, n_positions=32)
    return transformers.GPT2LMHeadModel(config)


def _llama() -> nn.Module:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=32,
        )
    )  # fmt: skip


def _bert() -> nn.Module:
    return transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=256, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, intermediate_size=128
        )
    )


def _vit() -> nn.Module:
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=128,
            image_size=32,
            patch_size=8,
        )
    )


MODELS = {"gpt2": _gpt2, "llama": _llama, "bert": _bert, "vit": _vit}
TAKEN = {
    "gpt2": {"c_fc", "c_proj"},
    "llama": {"gate_proj", "up_proj", "down_proj"},
    "bert": {"dense"},
    "vit": {"fc1", "fc2"},
}


@pytest.mark.parametrize("name", MODELS)
def test_the_feed_forward_linears_are_taken_and_nothing_else(name: str) -> None:
    model = MODELS[name]()
    plan = planish.plan(model, Pretrain24())
    blocks = 2 if name in ("gpt2", "llama") else 1
    assert len(plan.touched) == blocks * (3 if name == "llama" else 2)
    assert {entry.name.rpartition(".")[2] for entry in plan.touched} == TAKEN[name]
    assert not any("attn" in entry.name or "attention" in entry.name for entry in plan.touched)
    assert all(entry.reason for entry in plan.modules)
    linears = {n for n, m in model.named_modules() if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"}
    assert linears <= {entry.name for entry in plan.modules}


def _train(model: nn.Module, steps: int, **options: Any) -> list[float]:
    model.train()
    live = planish.apply(model, "pretrain24", mask_interval=2, decay=1e-2, **options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    live.on_train_start(steps)
    losses = []
    generator = torch.Generator().manual_seed(7)
    tokens = torch.randint(0, 256, (4, 24), generator=generator)
    for step in range(steps):
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        live.on_gradients(step)
        optimizer.step()
        optimizer.zero_grad()
        live.on_step(step + 1)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("method", ["fst", "sste"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_it_trains_and_finishes_into_the_original_classes(name: str, method: str, tmp_path) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    classes = {n: type(m) for n, m in model.named_modules()}
    parameters = dict(model.named_parameters())
    losses = _train(model, 12, method=method, dense_finish=0.0)
    assert losses[-1] < losses[0] - 0.5
    assert sum(isinstance(m, EncodedLinear) for m in model.modules()) == len(TAKEN[name]) * 2
    model.eval()
    tokens = torch.arange(24).view(1, -1)
    with torch.no_grad():
        before = model(input_ids=tokens).logits
    planish.finish(model)
    with torch.no_grad():
        after = model(input_ids=tokens).logits
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert {n: type(m) for n, m in model.named_modules()} == classes
    assert all(parameters[n] is p for n, p in model.named_parameters())
    assert not any("sparsity" in key for key in model.state_dict())
    masks = planish.api.resolve("pretrain24", {})[0].masks(model)
    assert len(masks) == len(TAKEN[name]) * 2
    for key, mask in masks.items():
        along_inputs = mask.t() if name == "gpt2" else mask
        assert ((along_inputs.reshape(along_inputs.shape[0], -1, 4).sum(-1)) <= 2).all(), key
        if method == "fst":
            assert ((along_inputs.t().reshape(along_inputs.shape[1], -1, 4).sum(-1)) <= 2).all(), key
    planish.save(model, tmp_path / "finished")
    again = planish.load(tmp_path / "finished", MODELS[name]()).eval()
    with torch.no_grad():
        assert torch.equal(again(input_ids=tokens).logits, after)


def test_the_dense_finish_leaves_dense_weights() -> None:
    torch.manual_seed(0)
    model = _llama()
    _train(model, 6, dense_finish=0.5)
    weights = {name: layer.weight.detach().clone() for name, layer, _ in layers(model)}
    assert planish.api.resolve("pretrain24", {})[0].density(model) == 1.0
    planish.finish(model)
    for name, weight in weights.items():
        assert torch.equal(model.get_parameter(f"{name}.weight"), weight)
        assert (weight != 0).float().mean() > 0.99


def test_conv1d_masks_lie_as_its_weight() -> None:
    model = _gpt2()
    live = planish.apply(model, "pretrain24")
    masks = live.transform.masks(model)
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        assert mask.shape == weight.shape
        blocks = weight.detach().abs().view(weight.shape[0] // 4, 4, -1, 4).transpose(1, 2)
        kept = mask.view(weight.shape[0] // 4, 4, -1, 4).transpose(1, 2)
        assert (kept.sum(-1) == 2).all()
        assert (blocks * kept).sum() > 0.68 * blocks.sum()


def test_generation_works_in_the_sparse_phase() -> None:
    model = _llama()
    planish.apply(model, "pretrain24")
    out = model.generate(torch.ones(1, 4, dtype=torch.long), max_new_tokens=3, do_sample=False)
    assert out.shape[1] <= 7
