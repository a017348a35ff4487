from __future__ import annotations

import json

import planish
import pytest
import torch
from planish import CheckpointError, ConfigError
from planish_lightning.models.transformers_source import TransformersSource

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SOURCE = TransformersSource()


@pytest.mark.parametrize(
    ("name", "config", "cls"),
    [
        ("llama", {**SMALL, "vocab_size": 50}, "LlamaForCausalLM"),
        ("gpt2", {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 50, "n_positions": 32}, "GPT2LMHeadModel"),
        ("bert", {**SMALL, "vocab_size": 50}, "BertLMHeadModel"),
        ("BertForMaskedLM", {**SMALL, "vocab_size": 50}, "BertForMaskedLM"),
    ],
)
def test_builds_and_describes(name, config, cls):
    torch.manual_seed(0)
    model = SOURCE.build(name, config)
    assert type(model).__name__ == cls
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    described = SOURCE.describe(model)
    assert described is not None
    assert described[0] == name
    again = SOURCE.build(*described)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    json.dumps(described)


def test_encoders_built_as_language_models_are_causal():
    model = SOURCE.build("bert", {**SMALL, "vocab_size": 50}).eval()
    ids = torch.arange(8)[None]
    changed = ids.clone()
    changed[0, -1] = 40
    with torch.no_grad():
        one, two = model(input_ids=ids).logits, model(input_ids=changed).logits
    assert torch.allclose(one[:, :-1], two[:, :-1], atol=1e-6)
    assert not torch.allclose(one[:, -1], two[:, -1])


def test_seed_fixes_the_weights():
    models = []
    for _ in range(2):
        torch.manual_seed(5)
        models.append(SOURCE.build("llama", {**SMALL, "vocab_size": 50}))
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters()))


def test_wrong_keys_and_values():
    with pytest.raises(ConfigError, match=r"config.hidden_sizes: unknown for 'llama'; did you mean 'hidden_size'"):
        SOURCE.build("llama", {"hidden_sizes": 3})
    with pytest.raises(ConfigError, match=r"model.name: Transformers has no 'LlamaForCausalML'; did you mean"):
        SOURCE.build("LlamaForCausalML", {})
    with pytest.raises(ConfigError, match="'llama' cannot be built from") as caught:
        SOURCE.build("llama", {"hidden_size": "wide"})
    assert "\n" not in str(caught.value)


def test_opens_what_transformers_saved(tmp_path):
    model = SOURCE.build("gpt2", {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 50, "n_positions": 32})
    model.save_pretrained(tmp_path)
    assert SOURCE.reads(tmp_path)
    opened = SOURCE.open(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), opened.parameters()))


def test_damaged_folders(tmp_path):
    assert not SOURCE.reads(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    assert not SOURCE.reads(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}))
    assert SOURCE.reads(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be opened"):
        SOURCE.open(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")  # pickles are code, and are not read
    with pytest.raises(CheckpointError, match="safetensors"):
        SOURCE.open(tmp_path)


def test_lacking_tensors(tmp_path):
    from safetensors.torch import load_file, save_file

    SOURCE.build("llama", {**SMALL, "vocab_size": 50}).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors of LlamaForCausalLM .'model.norm.weight'"):
        SOURCE.open(tmp_path)


def test_planish_saves_and_loads_it(tmp_path, registry):
    model = SOURCE.build("llama", {**SMALL, "vocab_size": 50})
    planish.save(model, tmp_path / "m", registry=registry)
    loaded = planish.load(tmp_path / "m", registry=registry)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters()))


def test_other_models_are_not_described():
    assert SOURCE.describe(torch.nn.Linear(2, 2)) is None
