from __future__ import annotations

from pathlib import Path

import lightning as L
import lightning_samples as samples
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import FSDPStrategy
from planish import CheckpointError, CompositionError, ConfigError, DataError, PluginError, UnsupportedError
from planish.api import applied
from planish_lightning import Compose, Quantize, Sparsify
from planish_lightning.callbacks.method_tap import tap
from torch import nn
from torch.nn import functional as F

DATA = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))


class Lit(L.LightningModule):
    def __init__(self, manual: bool = False, optimizers: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        self.automatic_optimization = not manual
        self.optimizers_wanted = optimizers

    def training_step(self, batch, batch_idx):
        loss = self.model(batch).square().mean()
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            nn.utils.clip_grad_norm_(self.parameters(), 1e-3)
            optimizer.step()
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val", self.model(batch).square().mean())

    test_step = validation_step

    def configure_optimizers(self):
        made = [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(self.optimizers_wanted)]
        return made if len(made) > 1 else made[0]


def loader(batch=8):
    return torch.utils.data.DataLoader(DATA, batch_size=batch)


def trainer(tmp_path: Path, callbacks, **changed):
    arguments = {
        "accelerator": "cpu",
        "max_steps": 8,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": tmp_path,
        **changed,
    }
    return L.Trainer(callbacks=callbacks, **arguments)


class Spy(L.Callback):
    """Notes what the surgery must come before, and the gradients that the optimizer sees."""

    def __init__(self):
        self.optimized = self.gradients = None

    def on_fit_start(self, trainer, pl_module):
        self.optimized = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}


def test_surgery_comes_before_the_optimizer_and_the_model_learns(tmp_path, registry):
    lit, spy = Lit(), Spy()
    callback = Sparsify("half", registry=registry, interval=2)
    before = float(lit.model(DATA).square().mean())
    trainer(tmp_path, [callback, spy]).fit(lit, loader())
    assert [type(m) for m in samples.layers(lit.model)] == [samples.MaskedLinear] * 2
    assert spy.optimized == {id(p) for p in lit.parameters()}
    assert float(lit.model(DATA).square().mean()) < before
    for name, mask in callback.masks.items():
        assert mask.reshape(-1, 4).sum(1).eq(2).all(), name
    assert callback.steps == 8
    assert all(int(layer.last_step) == int(layer.gradients_seen) == 8 for layer in samples.layers(lit.model))
    assert lit.trainer.callback_metrics["half/flips"] == callback.metrics["half/flips"]


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_gradients_change_after_clipping(tmp_path, registry, clip):
    """With a tiny clip the gradient that the optimizer sees is the decay alone, unless that was clipped with it."""
    lit = Lit()
    callback = Sparsify("half", registry=registry, decay=1.0, interval=100)
    callback.setup(trainer(tmp_path, []), lit, "fit")  # to see the masks that training starts from
    layer = samples.layers(lit.model)[0]
    start, mask = layer.weight.detach().clone(), layer.mask.clone()
    trainer(tmp_path, [callback], max_steps=1, gradient_clip_val=clip).fit(lit, loader())
    pruned = (start - layer.weight.detach())[~mask]
    expected = 0.1 * start[~mask]
    assert torch.allclose(pruned, expected, atol=2e-4 if clip else 0.05)
    if clip:
        assert (pruned.abs() > 1e-3).float().mean() > 0.5  # far more than the clipped norm lets through


def test_accumulation_counts_optimizer_steps(tmp_path, registry):
    lit, callback = Lit(), Sparsify("half", registry=registry)
    trainer(tmp_path, [callback], accumulate_grad_batches=4, max_steps=3).fit(lit, loader(4))
    layer = samples.layers(lit.model)[0]
    assert callback.steps == int(layer.last_step) == int(layer.gradients_seen) == 3


def test_accumulation_equals_the_larger_batch(tmp_path, registry):
    weights = []
    for batch, accumulate in ((16, 1), (4, 4)):
        lit = Lit()
        callback = Sparsify("half", registry=registry, decay=0.1)
        trainer(tmp_path, [callback], accumulate_grad_batches=accumulate, max_steps=4).fit(lit, loader(batch))
        weights.append(lit.model[0].weight.detach())
    assert torch.allclose(*weights, atol=1e-6)


@pytest.mark.parametrize("precision", ["bf16-mixed", "scaled"])
def test_mixed_precision_sees_unscaled_gradients(tmp_path, registry, precision):
    lit = Lit()
    callback = Sparsify("half", registry=registry, decay=1.0, interval=100)
    callback.setup(trainer(tmp_path, []), lit, "fit")
    layer = samples.layers(lit.model)[0]
    start, mask = layer.weight.detach().clone(), layer.mask.clone()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    how = (
        {"precision": "bf16-mixed"}
        if precision == "bf16-mixed"
        else {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}
    )
    trainer(tmp_path, [callback], max_steps=1, gradient_clip_val=1e-3, **how).fit(lit, loader())
    assert torch.allclose((start - layer.weight.detach())[~mask], 0.1 * start[~mask], atol=3e-4)
    assert callback.steps == 1


def test_manual_optimization(tmp_path, registry):
    lit = Lit(manual=True)
    callback = Sparsify("half", registry=registry, decay=1.0, interval=100)
    callback.setup(trainer(tmp_path, []), lit, "fit")
    layer = samples.layers(lit.model)[0]
    start, mask = layer.weight.detach().clone(), layer.mask.clone()
    run = trainer(tmp_path, [callback], max_steps=1)
    run.fit(lit, loader())
    assert torch.allclose((start - layer.weight.detach())[~mask], 0.1 * start[~mask], atol=2e-4)
    assert callback.steps == int(layer.last_step) == int(layer.gradients_seen) == 1
    assert not run.optimizers[0]._optimizer_step_pre_hooks
    assert "half/flips" in run.callback_metrics


def test_manual_optimization_with_two_optimizers_is_refused(tmp_path, registry):
    with pytest.raises(UnsupportedError, match="manually with 2 optimizers"):
        trainer(tmp_path, [Sparsify("half", registry=registry)]).fit(Lit(manual=True, optimizers=2), loader())


def test_the_module_is_left_as_it_was(tmp_path, registry):
    lit = Lit()
    before = dict(lit.__dict__)
    run = trainer(tmp_path, [Sparsify("half", registry=registry), Compose([], registry=registry)])
    run.fit(lit, loader())
    assert "configure_gradient_clipping" not in lit.__dict__
    assert "on_load_checkpoint" not in lit.__dict__
    assert set(lit.__dict__) - set(before) <= {"_trainer", "_hparams"}


def test_the_module_is_left_as_it_was_after_an_error(tmp_path, registry):
    class Failing(Lit):
        def training_step(self, batch, batch_idx):
            raise ValueError("broken step")

    lit = Failing()
    with pytest.raises(ValueError, match="broken step"):
        trainer(tmp_path, [Sparsify("half", registry=registry)]).fit(lit, loader())
    assert "configure_gradient_clipping" not in lit.__dict__


def test_taps_share_a_wrapper_and_go_in_any_order():
    lit, seen = Lit(), []
    first = tap(lit, "training_step", before=lambda *a: seen.append("a"))
    second = tap(lit, "training_step", after=lambda *a: seen.append("b"))
    lit.training_step(DATA, 0)
    first()
    lit.training_step(DATA, 0)
    second()
    lit.training_step(DATA, 0)
    assert seen == ["a", "b", "b"]
    assert "training_step" not in lit.__dict__
    assert "_planish_taps" not in lit.__dict__


def test_own_clipping_is_kept(tmp_path, registry):
    calls = []

    class Own(Lit):
        def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
            calls.append(gradient_clip_val)

    lit, callback = Own(), Sparsify("half", registry=registry)
    trainer(tmp_path, [callback], gradient_clip_val=0.5, max_steps=2).fit(lit, loader())
    assert calls == [0.5, 0.5]
    assert int(samples.layers(lit.model)[0].gradients_seen) == 2


class TestCheckpoints:
    def fit(self, tmp_path, registry, steps, ckpt=None, lit=None, **options):
        callback = Compose([{"use": "half", "config": {"decay": 0.1, **options}}], registry=registry)
        lit = lit or Lit()
        run = trainer(tmp_path, [callback], max_steps=steps)
        run.fit(lit, loader(64), ckpt_path=ckpt)  # one batch an epoch: nothing hangs on the loader's position
        return lit, callback, run

    def test_resume_is_exact(self, tmp_path, registry):
        whole, _, _ = self.fit(tmp_path, registry, 16)
        _, _, run = self.fit(tmp_path, registry, 8)
        run.save_checkpoint(tmp_path / "a.ckpt")
        resumed, callback, _ = self.fit(tmp_path, registry, 16, tmp_path / "a.ckpt")
        assert callback.steps == 16
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, resumed.state_dict()[name]), name

    def test_checkpoint_saved_before_on_step_is_caught_up(self, tmp_path, registry):
        class Early(L.Callback):
            def on_train_batch_end(self, trainer, *_):
                if trainer.global_step == 6:
                    trainer.save_checkpoint(tmp_path / "early.ckpt")

        callback = Compose([{"use": "half", "config": {"decay": 0.1}}], registry=registry)
        trainer(tmp_path, [Early(), callback]).fit(Lit(), loader())
        resumed, callback, _ = self.fit(tmp_path, registry, 12, tmp_path / "early.ckpt")
        assert callback.steps == 12
        assert all(int(layer.last_step) == 12 for layer in samples.layers(resumed.model))

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ([{"use": "half", "config": {"decay": 0.2}}], r"transform 1 .half. had decay = 0.1, this run has 0.2"),
            ([{"use": "half", "targets": ["0"], "config": {"decay": 0.1}}], "changes '2' only in the checkpoint"),
            ([{"use": "rounded"}], "saved with half, this run applies rounded"),
        ],
    )
    def test_another_recipe_is_refused(self, tmp_path, registry, other, message):
        _, _, run = self.fit(tmp_path, registry, 2)
        run.save_checkpoint(tmp_path / "a.ckpt")
        with pytest.raises(CheckpointError, match=message):
            trainer(tmp_path, [Compose(other, registry=registry)]).fit(Lit(), loader(), ckpt_path=tmp_path / "a.ckpt")

    def test_a_checkpoint_without_planish_is_refused(self, tmp_path, registry):
        run = trainer(tmp_path, [], max_steps=2)
        run.fit(Lit(), loader())
        run.save_checkpoint(tmp_path / "plain.ckpt")
        with pytest.raises(CheckpointError, match="saved without planish, and this run applies half"):
            self.fit(tmp_path, registry, 4, tmp_path / "plain.ckpt")

    def test_testing_a_checkpoint_rebuilds_the_surgery(self, tmp_path, registry):
        lit, _, run = self.fit(tmp_path, registry, 8)
        run.save_checkpoint(tmp_path / "a.ckpt")
        fresh = Lit()
        callback = Compose([{"use": "half", "config": {"decay": 0.1}}], registry=registry)
        found = trainer(tmp_path, [callback]).test(fresh, loader(64), ckpt_path=tmp_path / "a.ckpt", verbose=False)
        assert found[0]["val"] == pytest.approx(float(lit.model(DATA).square().mean()))
        assert torch.equal(fresh.model[0].mask, lit.model[0].mask)

    def test_a_second_run_with_the_same_callback_changes_nothing_twice(self, tmp_path, registry):
        lit, callback, _ = self.fit(tmp_path, registry, 4)
        trainer(tmp_path, [callback]).validate(lit, loader(), verbose=False)
        assert len(list(applied(lit.model))) == 1


class TestWhichModel:
    def test_the_only_child_with_parameters(self, registry):
        callback = Sparsify("half", registry=registry)
        lit = Lit()
        assert callback.model(lit) is lit.model
        lit.loss = nn.CrossEntropyLoss()
        assert callback.model(lit) is lit.model
        lit.other = nn.Linear(4, 4)
        assert callback.model(lit) is lit
        named = Sparsify("half", registry=registry, module="other")
        assert named.model(lit) is lit.other
        with pytest.raises(ConfigError, match="no submodule 'modell'; it has 'model'"):
            Sparsify("half", registry=registry, module="modell").model(Lit())

    def test_a_model_built_too_late_is_refused(self, tmp_path, registry):
        class Late(Lit):
            def __init__(self):
                L.LightningModule.__init__(self)

            def configure_model(self):
                self.model = nn.Linear(8, 8)

        with pytest.raises(UnsupportedError, match="build the model in __init__"):
            trainer(tmp_path, [Sparsify("half", registry=registry)]).fit(Late(), loader())


class TestRefusals:
    def test_unknown_names_and_options(self, registry):
        with pytest.raises(PluginError, match="did you mean 'half'"):
            Sparsify("halv", registry=registry)
        with pytest.raises(PluginError, match="no sparsifier named 'ranged'"):
            Sparsify("ranged", registry=registry)
        with pytest.raises(PluginError, match="is no sparsifier"):
            Sparsify(samples.Ranged(), registry=registry)
        with pytest.raises(ConfigError, match=r"half.decayy: unknown field; did you mean 'decay'"):
            Sparsify("half", registry=registry, decayy=1)
        with pytest.raises(ConfigError, match=r"transforms\[1\].usee: unknown field"):
            Compose(["half", {"usee": "x"}])
        with pytest.raises(ConfigError, match="at least 1"):
            Sparsify("half", registry=registry, compare_masks_every=0)

    def test_claims_are_checked_before_anything_changes(self, tmp_path, registry):
        lit = Lit()
        with pytest.raises(CompositionError, match=r"half.*rounded.*both change weight.mask of '0'"):
            trainer(tmp_path, [Compose(["half", "rounded"], registry=registry)]).fit(lit, loader())
        assert not samples.layers(lit.model)

    def test_an_open_option_is_refused(self, tmp_path, registry):
        with pytest.raises(ConfigError, match="left to be found by trial runs"):
            trainer(tmp_path, [Sparsify("half", registry=registry, search=True)]).fit(Lit(), loader())

    def test_an_endless_run_is_refused(self, tmp_path, registry):
        with pytest.raises(ConfigError, match="give it max_steps or max_epochs"):
            trainer(tmp_path, [Sparsify("half", registry=registry)], max_steps=-1, max_epochs=-1).fit(Lit(), loader())

    def test_fsdp_where_it_is_not_claimed(self, tmp_path, registry):
        class Run:
            strategy = object.__new__(FSDPStrategy)

        for name, message in (("half", "it claims ddp; choose strategy='ddp'"), ("single-device", "single device")):
            lit = Lit()
            with pytest.raises(UnsupportedError, match=message):
                Sparsify(name, registry=registry).setup(Run(), lit, "fit")
            assert not samples.layers(lit.model)


def test_naming_nothing_changes_nothing(tmp_path):
    """Installing the package adds no callback to a Trainer."""
    import importlib.metadata

    groups = {ep.group for ep in importlib.metadata.distribution("planish-lightning").entry_points}
    assert groups == {"planish"}
    run = trainer(tmp_path, [])
    assert not [c for c in run.callbacks if type(c).__module__.startswith("planish")]


class TestQuantize:
    def inputs(self):
        return Quantize("ranged", calibration_batches=3, registry=samples.registry())

    def test_a_training_quantizer_is_driven(self, tmp_path, registry):
        lit, callback = Lit(), Quantize("rounded", registry=registry)
        trainer(tmp_path, [callback]).fit(lit, loader())
        assert callback.steps == 8
        assert samples.layers(lit.model)

    def test_fit_trains_plain_and_quantizes_at_the_end(self, tmp_path, registry):
        class Saves(L.Callback):
            def on_train_end(self, trainer, pl_module):
                trainer.save_checkpoint(tmp_path / "plain.ckpt")

        lit = Lit()
        trainer(tmp_path, [self.inputs(), Saves()]).fit(lit, loader(), loader())
        saved = torch.load(tmp_path / "plain.ckpt")
        assert set(saved["state_dict"]) == set(Lit().state_dict())
        assert "planish" not in saved
        first = lit.model[0]
        assert isinstance(first, samples.RangedLinear)
        assert not first.is_measuring
        assert float(first.range) == float(DATA[:24].abs().max())
        assert next(iter(applied(lit.model))).finished

    @pytest.mark.parametrize("verb", ["validate", "test"])
    def test_calibrates_what_is_evaluated_after_its_checkpoint(self, tmp_path, verb):
        run = trainer(tmp_path, [])
        trained = Lit()
        run.fit(trained, loader())
        run.save_checkpoint(tmp_path / "plain.ckpt")

        class Data(L.LightningDataModule):
            def train_dataloader(self):
                return loader()

            val_dataloader = test_dataloader = train_dataloader

        lit, callback = Lit(), self.inputs()
        evaluate = getattr(trainer(tmp_path, [callback]), verb)
        evaluate(lit, datamodule=Data(), ckpt_path=tmp_path / "plain.ckpt", verbose=False)
        assert float(lit.model[0].range) == float(DATA[:24].abs().max())
        assert torch.equal(lit.model[0].weight, trained.model[0].weight)
        assert len(list(applied(lit.model))) == 1

    def test_nothing_to_calibrate_on(self, tmp_path):
        with pytest.raises(DataError, match="nothing to calibrate on"):
            trainer(tmp_path, [self.inputs()]).test(Lit(), loader(), verbose=False)

    def test_given_batches_and_inputs(self, tmp_path, registry):
        pairs = [(DATA[:8] * 3, torch.zeros(8))]
        callback = Quantize("ranged", calibration=pairs, to_inputs=lambda b: {"input": b[0]}, registry=registry)
        lit = Lit()
        trainer(tmp_path, [callback]).test(lit, loader(), verbose=False)
        assert float(lit.model[0].range) == float((DATA[:8] * 3).abs().max())

    def test_refusals(self, registry):
        with pytest.raises(ConfigError, match="calibration_batches is 0"):
            Quantize("ranged", calibration_batches=0, registry=registry)
        with pytest.raises(PluginError, match="no quantizer named 'half'"):
            Quantize("half", registry=registry)
        with pytest.raises(PluginError, match="is no quantizer"):
            Quantize(samples.Half(), registry=registry)


def test_masked_forward_is_what_trains():
    layer = samples.MaskedLinear(nn.Linear(8, 4))
    assert torch.equal(layer(DATA), F.linear(DATA, layer.weight * layer.mask, layer.bias))
