from __future__ import annotations

import math

import lightning as L
import lightning_samples as samples
import pytest
import torch
from planish import ConfigError, UnsupportedError
from planish_lightning import LitCausalLM, ReplaceAttention, Sparsify, TextDataModule
from planish_lightning.language import warmup_cosine

TINY = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "vocab_size": 256,
}


def tiny(registry, **options):
    torch.manual_seed(0)
    return LitCausalLM.from_plugin("llama", TINY, registry=registry, **options)


def data(corpus, **options):
    return TextDataModule(str(corpus), seq_len=16, batch_size=4, val_fraction=0.3, **options)


def trainer(**changed):
    arguments = {
        "accelerator": "cpu",
        "max_steps": 4,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        **changed,
    }
    return L.Trainer(**arguments)


def test_schedule():
    rates = [warmup_cosine(step, warmup=10, total=110, floor=0.1) for step in range(130)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[110:] == [0.1] * 20
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert warmup_cosine(0, warmup=0, total=5, floor=0.0) == 1.0


def test_learns_and_reports_perplexity(registry, corpus):
    lit = tiny(registry, lr=1e-2)
    run = trainer(max_steps=40)
    text = data(corpus)
    first = run.validate(lit, text, verbose=False)[0]
    run.fit(lit, text)
    last = run.validate(lit, text, verbose=False)[0]
    assert first["val/loss"] == pytest.approx(math.log(256), abs=0.3)
    assert last["val/loss"] < 3.5
    assert last["val/perplexity"] == pytest.approx(math.exp(last["val/loss"]), rel=1e-4)


def test_validation_loss_is_the_mean_over_tokens(registry, corpus):
    lit, text = tiny(registry), data(corpus)
    found = trainer().validate(lit, text, verbose=False)[0]["val/loss"]
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in text.val_dataloader():
            logits = lit.model(input_ids=batch["input_ids"]).logits[:, :-1].double()
            target = batch["labels"][:, 1:]
            total += float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum"))
            count += target.numel()
    assert found == pytest.approx(total / count, rel=1e-6)


def test_decay_goes_to_matrices_only(registry, corpus):
    lit = tiny(registry, lr=0.5, weight_decay=0.2, warmup_steps=3)
    run = trainer(max_steps=1)
    run.fit(lit, data(corpus))
    decayed, plain = run.optimizers[0].param_groups
    assert decayed["weight_decay"] == 0.2
    assert plain["weight_decay"] == 0.0
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in plain["params"]} == {1}
    assert decayed["betas"] == (0.9, 0.95)


def test_frozen_model_is_refused(registry, corpus):
    lit = tiny(registry)
    lit.model.requires_grad_(False)
    with pytest.raises(ConfigError, match="no trainable parameter"):
        trainer().fit(lit, data(corpus))


def test_compilation_comes_after_surgery(registry, corpus, monkeypatch):
    seen = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: seen.append(len(list(samples.layers(self)))))
    trainer(max_steps=1, callbacks=[Sparsify("half", registry=registry)]).fit(
        tiny(registry, compile=True), data(corpus)
    )
    assert seen == [7]  # four attention and three feed-forward linears; the head is left out


def test_mid_epoch_resume_through_a_lightning_checkpoint(registry, corpus, tmp_path):
    def fit(steps, ckpt=None):
        lit = tiny(registry, total_steps=14)
        run = trainer(max_steps=steps)
        run.fit(lit, TextDataModule(str(corpus), seq_len=32, batch_size=16, val_fraction=0.3), ckpt_path=ckpt)
        return lit, run

    whole, run = fit(14)
    assert run.num_training_batches == 8  # more than six: the checkpoint lies in the middle of an epoch
    _, run = fit(6)
    run.save_checkpoint(tmp_path / "a.ckpt")
    resumed, _ = fit(14, tmp_path / "a.ckpt")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


class TestReplaceAttention:
    def logits(self, lit):
        ids = torch.arange(24).reshape(2, 12)
        mask = torch.ones_like(ids)
        mask[0, :5] = 0
        with torch.no_grad():
            plain = lit.model(input_ids=ids).logits
            padded = lit.model(input_ids=ids, attention_mask=mask).logits[:, 5:]
            generated = lit.model.generate(ids[:1], max_new_tokens=5, do_sample=False)
        return plain, padded, generated

    def test_same_outputs_through_the_plugin(self, registry):
        lit = tiny(registry)
        lit.eval()
        before = self.logits(lit)
        own = lit.model.config._attn_implementation
        callback = ReplaceAttention("plain", registry=registry)
        calls = samples.PlainAttention.calls
        callback.setup(trainer(), lit, "fit")
        after = self.logits(lit)
        callback.teardown(trainer(), lit, "fit")
        assert samples.PlainAttention.calls > calls
        for one, two in zip(before, after):
            assert torch.allclose(one.float(), two.float(), atol=1e-5)
        assert lit.model.config._attn_implementation == own
        calls = samples.PlainAttention.calls
        self.logits(lit)
        assert samples.PlainAttention.calls == calls

    def test_the_dispatcher_chooses(self, registry, corpus):
        lit, calls = tiny(registry), samples.PlainAttention.calls
        trainer(max_steps=2, callbacks=[ReplaceAttention("auto", registry=registry)]).fit(lit, data(corpus))
        assert samples.PlainAttention.calls > calls

    def test_trains_to_the_same_weights(self, registry, corpus):
        models = []
        for callbacks in ([], [ReplaceAttention(samples.PlainAttention(), registry=registry)]):
            lit = tiny(registry)
            trainer(callbacks=callbacks).fit(lit, data(corpus))
            models.append(lit.model.model.layers[0].self_attn.q_proj.weight.detach())
        assert torch.allclose(*models, atol=1e-5)

    def test_refusals(self, registry):
        class Other(L.LightningModule):
            def __init__(self):
                super().__init__()
                self.model = torch.nn.Linear(2, 2)

        with pytest.raises(UnsupportedError, match="no Transformers model in Other"):
            ReplaceAttention("plain", registry=registry).setup(trainer(), Other(), "fit")
        with pytest.raises(ConfigError, match="no submodule 'modell'"):
            ReplaceAttention("plain", registry=registry, module="modell").setup(trainer(), Other(), "fit")
        lit = tiny(registry)
        callback = ReplaceAttention("plain", registry=registry)
        q = torch.zeros(1, 2, 3, 8)
        with pytest.raises(UnsupportedError, match="asks for softcap"):
            callback._attend(lit, q, q, q, None, softcap=30.0)
