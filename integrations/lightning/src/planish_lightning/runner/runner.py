"""LightningRunner: trains the baseline and the composed model of a recipe, and writes the report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from planish.api import applied, finish, resolve
from planish.atomic import write_text
from planish.checkpoint import save
from planish.config import validate
from planish.errors import PlanishError, WorkError
from planish.interfaces import Plan, Runner, RunOptions, RunResult
from planish.plugins.registry import Registry
from planish.recipe.compose import check_transforms, plan_all
from planish.recipe.schema import Recipe
from planish.report import ReportBuilder, read_report
from planish.vector_math import settle_vector_math
from torch import nn

from planish_lightning.callbacks import ApplyTransforms, Compose, TransformCallback
from planish_lightning.language import LitCausalLM
from planish_lightning.runner.checkpointing import Interrupted, RandomState, ResumeCheckpoint
from planish_lightning.runner.config import TrainerConfig
from planish_lightning.runner.interruption import Interruption
from planish_lightning.runner.kernel_uses import kernel_uses
from planish_lightning.runner.option_search import decide_open_options
from planish_lightning.runner.progress import RunProgress
from planish_lightning.runner.quiet import quiet
from planish_lightning.runner.recorder import Recorder
from planish_lightning.runner.run_state import RunState
from planish_lightning.runner.sparse_snapshot import SparseSnapshot
from planish_lightning.runner.workshop import Workshop
from planish_lightning.text_data import TextData
from planish_lightning.text_data.tokenizer import BpeTokenizer

BASELINE, COMPOSED = "baseline", "composed"


class LightningRunner(Runner):
    """Trains a causal language model on text, without and with the recipe's transforms.

    Both trainings start from the same weights and see the same batches in the same order. The report folder gets
    ``report.json`` and ``index.html``, ``model/`` (the finished model, for :func:`planish.load`), ``sparse/`` (the
    last validated model that had masks, for methods that end dense) and ``state/`` (what ``--resume`` needs). A new
    run in the same folder replaces these and touches nothing else there.
    """

    name: ClassVar[str] = "lightning"
    summary: ClassVar[str] = "trains language models with Lightning"
    Config: ClassVar[type[TrainerConfig]] = TrainerConfig
    Data: ClassVar[type[TextData]] = TextData

    config: TrainerConfig

    def plan(self, recipe: Recipe, registry: Registry, options: RunOptions) -> list[Plan]:
        """Return what each transform would do; reads no text (a BPE is taken to fill its ``vocab_size``).

        Raises:
            PlanishError: The model, a target or the composition is wrong.
        """
        workshop = self._workshop(recipe, registry, options)
        data = workshop.data.config
        model = workshop.model(256 if data.tokenizer == "bytes" else data.vocab_size)
        return plan_all(model, recipe.transforms, registry)

    def run(self, recipe: Recipe, registry: Registry, options: RunOptions) -> RunResult:
        """Run the recipe to its end.

        Raises:
            ConfigError, PluginError, CompositionError, DataError: The recipe or its text is wrong.
            UnsupportedError: Something cannot be had on this machine.
            CheckpointError: ``--resume`` finds nothing, or another recipe's run.
            WorkError: A file cannot be written, or the run was interrupted; what ``--resume`` needs is kept.
        """
        workshop = self._workshop(recipe, registry, options)
        check_transforms(recipe.transforms, registry)
        return _Run(workshop, options).execute()

    def _workshop(self, recipe: Recipe, registry: Registry, options: RunOptions) -> Workshop:
        data = validate(TextData, dict(recipe.data), where="data")
        return Workshop.of(recipe, self.config, data, registry, trust_code=options.trust_code)


class _Run:
    """One execution of a recipe."""

    def __init__(self, workshop: Workshop, options: RunOptions) -> None:
        self.workshop, self.options = workshop, options
        self.recipe, self.config = workshop.recipe, workshop.config
        self.folder = Path(self.recipe.report)
        self.is_zero = int(getattr(rank_zero_only, "rank", 0) or 0) == 0
        self.progress = RunProgress(shown=options.progress and self.is_zero)
        self.interruption = Interruption()
        self.warned: list[str] = []

    def execute(self) -> RunResult:
        """Train what is not trained yet, and write the report."""
        if not self.options.resume:
            self._check_first()
        self.state = RunState.begin(self.recipe, self.options, writes=self.is_zero)
        if self.state.status == "finished":
            return RunResult(self.folder, read_report(self.folder / "report.json").model_dump(mode="json"))
        builder = ReportBuilder.reopen if self.options.resume else ReportBuilder
        self.report = builder(self.folder, self.recipe)
        with quiet(self._warn), _threads(self.config.threads), self.progress, self.interruption:
            try:
                self._train_all()
            except Interrupted as error:
                self._stopped(f"{error} of the {self._now} run")
            except KeyboardInterrupt:
                self._stopped(f"interrupted during the {self._now} run")
            except Exception as error:
                if not isinstance(error, PlanishError) or isinstance(error, WorkError):
                    self._leave("failed", f"{type(error).__name__}: {error}")
                raise
        return RunResult(self.folder, self.report.report.model_dump(mode="json", exclude_none=True))

    def _check_first(self) -> None:
        """Find what is wrong with model, text and composition before anything is written or trained."""
        self.workshop.data.setup()
        batches = self.workshop.data.train_dataloader(), self.workshop.data.val_dataloader()
        del batches
        plan_all(self.workshop.model(), self.recipe.transforms, self.workshop.registry)

    def _train_all(self) -> None:
        wanted = [BASELINE] if self.options.baseline or not self.recipe.transforms else []
        wanted += [COMPOSED] if self.recipe.transforms else []
        self._now = wanted[0]
        self._write("running", page=False)
        if BASELINE in wanted and BASELINE not in self.state.done:
            self._train(BASELINE)
        if COMPOSED in wanted and COMPOSED not in self.state.done:
            self._now = COMPOSED
            self._decide()
            self._train(COMPOSED)
        self._write("finished")
        self.state.finish()

    def _decide(self) -> None:
        if self.state.transforms is None:
            specs, notes = decide_open_options(self.workshop, self.progress.part)
            self.state.transforms = [spec.model_dump(mode="json") for spec in specs]
            self.state.notes = notes
            self.state.save()

    def _train(self, variant: str) -> None:
        """Train one variant to its end, from its checkpoint if there is one."""
        specs = self.state.specs(self.recipe)
        last = variant == COMPOSED or not self.recipe.transforms
        title = "dense baseline" if variant == BASELINE else " + ".join(spec.use for spec in specs)
        self.report.variant(variant, title)
        for note in self.state.notes if variant == COMPOSED else ():
            self.report.note(note)
        lit = self.workshop.lit(self.workshop.model())
        transforms = self._observers() if variant == BASELINE else Compose(specs, registry=self.workshop.registry)
        self.progress.begin(title, self.config.max_steps)
        recorder = Recorder(
            self.report,
            variant,
            transforms,
            tokens_per_step=self.workshop.tokens_per_step,
            on_step=self.progress.step,
            on_validation=self.progress.validation,
        )
        callbacks: list[L.Callback] = [] if transforms is None else [transforms]
        callbacks.append(recorder)
        snapshot = None
        if isinstance(transforms, Compose):
            spec = self.workshop.model_spec(self.workshop.data.tokenizer.vocab_size)
            described = spec if spec.name is not None else None
            snapshot = SparseSnapshot(self.folder / "sparse", transforms, described, self.workshop.registry)
            callbacks.append(snapshot)
        checkpoint = self.state.checkpoint(variant)
        saving = ResumeCheckpoint(
            checkpoint,
            self.interruption,
            every_steps=self.config.checkpoint_every_steps,
            every_seconds=self.config.checkpoint_every_seconds,
            before=lambda trainer: self._before_saving(recorder, trainer),
            after=recorder.go_on,
        )
        trainer = self.workshop.trainer([*callbacks, _Described(self, lit), RandomState(), saving])
        try:
            trainer.fit(lit, datamodule=self.workshop.data, ckpt_path=checkpoint if checkpoint.exists() else None)
        except SystemExit as error:  # what Lightning makes of a second Ctrl-C
            raise KeyboardInterrupt from error
        recorder.summarize(lit.device)
        if snapshot is not None and snapshot.step is not None:
            self.report.summary(sparse_checkpoint_step=snapshot.step)
        self._conclude(variant, trainer, lit, is_last=last)
        self.state.done.append(variant)
        self._write("running", page=False)
        self.state.save()
        if self.is_zero:
            checkpoint.unlink(missing_ok=True)

    def _observers(self) -> TransformCallback | None:
        """Return what reports on the baseline what the transforms report on the composed model."""
        chosen = []
        for spec in self.recipe.transforms:
            observer = resolve(spec.use, spec.config, self.workshop.registry)[0].observer()
            if observer is not None:
                chosen.append((observer, spec.targets))
        return ApplyTransforms(chosen) if chosen else None

    def _conclude(self, variant: str, trainer: L.Trainer, lit: LitCausalLM, *, is_last: bool) -> None:
        """Finish the model, validate what is left, and save it if it is the one to keep."""
        series = self.report.report.variants[variant].series
        has_last = "val_loss" in series and series["val_loss"].steps[-1] >= self.config.max_steps
        trained = series["val_loss"].values[-1] if has_last else self._validate(lit)
        self.report.log(self.config.max_steps, val_loss=trained)
        final = trained
        if any(True for _ in applied(lit.model)):
            finish(lit.model)
            final = self._validate(lit)
        self.report.summary(val_loss=final, val_perplexity=math.exp(min(final, 700.0)))
        if final != trained:
            self.report.summary(val_loss_before_finish=trained)
            self.report.note(f"finishing the model changed its validation loss from {trained:.4f} to {final:.4f}")
        self.progress.validation(self.config.max_steps, final)
        if is_last and self.is_zero:
            self._save(lit.model)

    def _validate(self, lit: LitCausalLM) -> float:
        trainer = self.workshop.trainer([])
        found = trainer.validate(lit, datamodule=self.workshop.data, verbose=False)
        return float(found[0]["val/loss"])

    def _save(self, model: nn.Module) -> None:
        tokenizer = self.workshop.data.tokenizer
        spec = self.workshop.model_spec(tokenizer.vocab_size)
        described = spec if spec.name is not None else None
        folder = save(model, self.folder / "model", model_spec=described, registry=self.workshop.registry)
        if isinstance(tokenizer, BpeTokenizer):
            write_text(folder / "tokenizer.json", tokenizer.tokenizer.to_str())

    # ------------------------------------------------------------------ the report

    def describe(self, lit: LitCausalLM) -> None:
        """Put into the report what the transforms did, once they are applied; observers of a baseline do nothing."""
        if self._now == COMPOSED:
            self.report.plans([live.plan for live in applied(lit.model)])
            for live in applied(lit.model):
                for note in live.plan.notes:
                    self.report.note(note)
        self.report.modules(lit.model)
        data = self.workshop.data.config
        dtype = torch.bfloat16 if self.config.precision == "bf16-mixed" else torch.float32
        dtype = torch.float16 if self.config.precision == "16-mixed" else dtype
        self.report.kernels(kernel_uses(lit.model, data.batch_size * data.seq_len, dtype))

    def _before_saving(self, recorder: Recorder, trainer: L.Trainer) -> None:
        recorder.pause(trainer)
        self._write("running", page=False)

    def _write(self, status: Any, detail: str = "", *, page: bool = True) -> None:
        if self.is_zero:
            self.report.write(status, detail, page=page)

    def _warn(self, text: str) -> None:
        self.progress.say(f"note: {text}")
        if self.report.report.variants:
            self.report.note(text)

    def _stopped(self, what: str) -> NoReturn:
        self._leave("interrupted", what)
        raise WorkError(
            f"{what}; its state is kept in {self.state.path}: run the same command with --resume to continue"
        ) from None

    def _leave(self, status: Any, detail: str) -> None:
        try:
            self._write(status, detail)
        except (PlanishError, OSError):
            return  # the cause of stopping is told; it may be the very reason why this cannot be written


class _Described(L.Callback):
    """Describes the model in the report when its training starts, where the device is known."""

    def __init__(self, run: _Run, lit: LitCausalLM) -> None:
        self.run, self.lit = run, lit

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.run.describe(self.lit)


@contextmanager
def _threads(wanted: int | None) -> Iterator[None]:
    settle_vector_math()  # a resumed run ends with the same numbers
    before = torch.get_num_threads()
    if wanted is not None:
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)
