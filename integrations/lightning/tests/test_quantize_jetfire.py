"""INT8 training within a Trainer: the quantizer that is published, through ``Quantize`` and ``Compose``."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import planish
import pytest
import torch
from planish.api import applied
from planish.errors import CompositionError
from planish.testing.tiny_transformer import TinyTransformer
from planish_lightning import Compose, Quantize
from torch import Tensor

pytest.importorskip("planish_jetfire", reason="planish-jetfire is not installed")

TOKENS = torch.randint(0, 64, (48, 16), generator=torch.Generator().manual_seed(1))


class Lit(L.LightningModule):
    """Language modelling; notes what stood in the model when the optimizer was built."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = TinyTransformer()
        self.seen: dict[str, str] = {}
        self.losses: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.model(input_ids=batch, labels=batch).loss
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.seen = {name: type(module).__name__ for name, module in self.model.named_modules()}
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader() -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(TOKENS, batch_size=4)


def trainer(folder: Path, *callbacks: L.Callback, **changed: object) -> L.Trainer:
    arguments = {
        "accelerator": "cpu", "max_steps": 10, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder, **changed,
    }  # fmt: skip
    return L.Trainer(callbacks=list(callbacks), **arguments)


def linears(model: torch.nn.Module) -> dict[str, str]:
    return {entry.name: entry.details.get("flow", "") for live in applied(model) for entry in live.plan.touched}


def test_surgery_comes_before_the_optimizer_and_the_model_learns(tmp_path: Path) -> None:
    lit = Lit()
    parameters = {id(parameter) for parameter in lit.model.parameters()}
    callback = Quantize("jetfire", flow="linear")
    run = trainer(tmp_path, callback, max_steps=24, max_epochs=2)
    run.fit(lit, loader())
    touched = linears(lit.model)
    assert touched
    assert {lit.seen[name] for name in touched} == {"BlockLinear"}, "replaced when the optimizer was built"
    optimized = {id(parameter) for group in run.optimizers[0].param_groups for parameter in group["params"]}
    assert optimized == parameters == {id(parameter) for parameter in lit.parameters()}
    assert lit.losses[-1] < lit.losses[0] - 0.1
    assert callback.steps == 24
    state = lit.model.get_submodule(next(iter(touched))).jetfire
    assert state.steps_done == 24, "the hooks were called"
    assert int(state.draws) > 0, "gradients were rounded stochastically"


def test_blocks_and_finishing(tmp_path: Path) -> None:
    lit = Lit()
    classes = {name: type(module) for name, module in lit.model.named_modules()}
    trainer(tmp_path, Quantize("jetfire", flow="block"), max_steps=2).fit(lit, loader())
    (live,) = applied(lit.model)
    assert "block" in {entry.details.get("flow") for entry in live.plan.touched}
    planish.finish(lit.model)
    assert {name: type(module) for name, module in lit.model.named_modules()} == classes


def test_quantized_steps_are_others_than_dense_ones_and_evaluation_is_dense(tmp_path: Path) -> None:
    runs = {}
    for name, callbacks in {"dense": (), "int8": (Quantize("jetfire", flow="linear"),)}.items():
        lit = Lit()
        run = trainer(tmp_path, *callbacks, max_steps=1)
        run.fit(lit, loader())
        runs[name] = lit
    assert runs["dense"].losses != runs["int8"].losses
    assert abs(runs["dense"].losses[0] - runs["int8"].losses[0]) < 0.05
    quantized, plain = runs["int8"].model.eval(), TinyTransformer().eval()
    keys = plain.state_dict().keys()
    plain.load_state_dict({key: value for key, value in quantized.state_dict().items() if key in keys})
    with torch.no_grad():
        ours, theirs = (model(input_ids=TOKENS[:2], labels=TOKENS[:2]).loss for model in (quantized, plain))
    assert torch.equal(ours, theirs)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = Lit()
    epochs = {"max_steps": -1, "max_epochs": 2}  # of 12 batches
    trainer(tmp_path, Quantize("jetfire"), **epochs).fit(whole, loader())
    first = Lit()
    run = trainer(tmp_path, Quantize("jetfire"), max_steps=-1, max_epochs=1)
    run.fit(first, loader())
    run.save_checkpoint(tmp_path / "half.ckpt")
    second = Lit()
    trainer(tmp_path, Quantize("jetfire"), **epochs).fit(
        second, loader(), ckpt_path=tmp_path / "half.ckpt", weights_only=False
    )
    assert len(second.losses) == 12
    assert first.losses + second.losses == whole.losses
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_composed_with_sparsity_in_the_right_order_only(tmp_path: Path) -> None:
    pytest.importorskip("planish_pretrain24", reason="planish-pretrain24 is not installed")
    sparse = {"use": "pretrain24", "config": {"mask_interval": 2, "decay": 1e-2, "dense_finish": 0.0}}
    lit = Lit()
    trainer(tmp_path, Compose([sparse, {"use": "jetfire"}])).fit(lit, loader())
    assert lit.losses[-1] < lit.losses[0]
    layers = [name for name, module in lit.model.named_modules() if "sparsity" in module._modules]
    assert layers
    assert {lit.seen[name] for name in layers} == {"EncodedLinear"}
    assert all(lit.model.get_submodule(name).jetfire.sparse_codes is not None for name in layers)
    other = Lit()
    with pytest.raises(CompositionError, match="put pretrain24 before jetfire"):
        trainer(tmp_path, Compose([{"use": "jetfire"}, sparse])).fit(other, loader())
    assert not list(applied(other.model))
