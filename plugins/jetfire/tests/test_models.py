"""Real architectures: what is taken, training, evaluation, finishing, generation."""

import copy
from collections.abc import Callable
from typing import Any

import planish
import pytest
import torch
import torch._dynamo.testing
from planish_jetfire import Jetfire
from torch import nn

transformers = pytest.importorskip("transformers")


def _gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        n_layer=2, n_head=4, n_embd=64, vocab_size=256, n_positions=32, resid_pdrop=0.0, embd_pdrop=0.0, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def _llama(layers: int = 2) -> nn.Module:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=256, hidden_size=64, intermediate_size=176, num_hidden_layers=layers, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=32,
        )
    )  # fmt: skip


def _bert() -> nn.Module:
    return transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=256, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.1,
        )
    )  # fmt: skip


def _vit() -> nn.Module:
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, image_size=32,
            patch_size=8,
        )
    )  # fmt: skip


MODELS: dict[str, Callable[[], nn.Module]] = {"gpt2": _gpt2, "llama": _llama, "bert": _bert, "vit": _vit}
LINEARS = {"gpt2": 4, "llama": 7, "bert": 6, "vit": 6}


def _inputs(name: str) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(7)
    if name == "vit":
        return {"pixel_values": torch.randn(4, 3, 32, 32, generator=generator), "labels": torch.tensor([0, 1, 0, 1])}
    tokens = torch.randint(0, 256, (4, 24), generator=generator)
    mask = torch.ones_like(tokens)
    mask[0, 20:] = 0
    return {"input_ids": tokens, "labels": tokens, "attention_mask": mask}


@pytest.mark.parametrize("name", MODELS)
def test_blocks_compute_as_one_train_and_finish_into_the_original_classes(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().train()
    dense = copy.deepcopy(model)
    classes = {n: type(m) for n, m in model.named_modules()}
    parameters = dict(model.named_parameters())
    live = planish.apply(model, Jetfire())
    blocks = [entry for entry in live.plan.touched if entry.details["flow"] == "block"]
    assert len(blocks) == 2 * (1 + LINEARS[name])
    assert {n for n in model.state_dict() if ".jetfire." not in n} == set(dense.state_dict())
    inputs = _inputs(name)
    losses: list[list[float]] = []
    for trained in (dense, model):
        torch.manual_seed(1)
        optimizer = torch.optim.AdamW(trained.parameters(), lr=3e-3)
        losses.append([])
        for step in range(8):
            loss = trained(**inputs).loss
            loss.backward()
            if trained is model:
                live.on_gradients(step)
            optimizer.step()
            optimizer.zero_grad()
            if trained is model:
                live.on_step(step + 1)
            losses[-1].append(loss.item())
    exact, found = losses
    assert found[-1] < found[0] - 0.3
    assert abs(found[-1] - exact[-1]) < 0.03 * exact[0]
    assert found != exact
    model.eval()
    with torch.no_grad():
        before = model(**inputs).logits
    planish.finish(model)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, before)
    assert {n: type(m) for n, m in model.named_modules()} == classes
    assert all(parameters[n] is p for n, p in model.named_parameters())
    assert list(model.state_dict()) == list(dense.state_dict())


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_generation_with_a_cache_is_that_of_the_dense_model(name: str) -> None:
    model = MODELS[name]().eval()
    prompt = torch.arange(4).view(1, -1)
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(prompt, **options)
    planish.apply(model, Jetfire())
    assert torch.equal(model.generate(prompt, **options), expected)


def test_states_of_a_block_in_training_are_reported_as_in_the_dense_model() -> None:
    model = _llama().train()
    inputs = {"input_ids": torch.arange(24).view(2, 12)}
    dense = model(**inputs, output_hidden_states=True).hidden_states
    planish.apply(model, Jetfire())
    found = model(**inputs, output_hidden_states=True).hidden_states
    assert len(found) == len(dense)
    for mine, theirs in zip(found, dense, strict=True):
        assert float((mine - theirs).detach().norm() / theirs.detach().norm()) < 0.05


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_activation_checkpointing_gives_the_same_gradients(name: str) -> None:
    inputs = _inputs(name)
    grads = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model = MODELS[name]()
        if name == "bert":
            model.config.attention_probs_dropout_prob = 0.0
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
        planish.apply(model, Jetfire({"flow": "block"}))
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
        model(**inputs).loss.backward()
        grads.append({n: p.grad for n, p in model.named_parameters()})
    for key, expected in grads[0].items():
        assert torch.equal(grads[1][key], expected), key


def test_autocast_computes_as_the_dense_model_does() -> None:
    torch.manual_seed(0)
    model = _llama().train()
    inputs = _inputs("llama")
    with torch.autocast("cpu", torch.bfloat16):
        dense = model(**inputs)
    planish.apply(model, Jetfire({"flow": "block"}))
    seen: list[torch.dtype] = []
    attention = model.model.layers[0].self_attn
    handle = attention.register_forward_hook(lambda module, args, output: seen.append(args and args[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        found = model(**inputs)
    handle.remove()
    assert found.logits.dtype is dense.logits.dtype
    assert abs(found.loss.item() - dense.loss.item()) < 0.02
    found.loss.backward()
    assert all(p.grad.dtype is torch.float32 and torch.isfinite(p.grad).all() for p in model.parameters())
    assert len(seen) == 1


def test_a_compiled_model_trains_as_the_eager_one_in_two_graphs() -> None:
    """One graph that quantizes weights, before the first step is done; then one that reads what the hooks quantized."""
    inputs, losses = _inputs("llama"), []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = _llama(layers=1).train()
        live = planish.apply(model, Jetfire({"flow": "block"}))
        live.on_train_start(4)
        torch._dynamo.reset()
        counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
        called = torch.compile(model, fullgraph=True, backend=counter) if compiled else model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses.append([])
        for step in range(3):
            loss = called(**inputs).loss
            loss.backward()
            live.on_gradients(step)
            optimizer.step()
            optimizer.zero_grad()
            live.on_step(step + 1)
            losses[-1].append(loss.item())
    assert counter.frame_count == 2
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), rtol=1e-4, atol=1e-4)
