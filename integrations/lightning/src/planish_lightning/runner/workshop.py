"""What all trainings of one run share: how model, data and Trainer are made from the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from planish.errors import ConfigError, UnsupportedError
from planish.plugins.registry import Registry
from planish.recipe.model import build_model
from planish.recipe.schema import ModelSpec, Recipe
from torch import nn

from planish_lightning.language import LitCausalLM
from planish_lightning.runner.checkpointing import AtomicCheckpointIO
from planish_lightning.runner.config import TrainerConfig
from planish_lightning.text_data import TextData, TextDataModule


@dataclass
class Workshop:
    """Makes the pieces of a training; every training of a run gets equal ones.

    Attributes:
        recipe: The recipe.
        config: Its ``trainer`` section.
        data: Its data, read at first use.
        registry: Where plugins are looked up.
        trust_code: Whether the recipe may run ``module:factory``.
    """

    recipe: Recipe
    config: TrainerConfig
    data: TextDataModule
    registry: Registry
    trust_code: bool = False

    @classmethod
    def of(
        cls, recipe: Recipe, config: TrainerConfig, data: TextData, registry: Registry, *, trust_code: bool
    ) -> Workshop:
        """Return the workshop of a recipe; checks what needs no model and no data.

        Raises:
            UnsupportedError: The accelerator, the precision or the number of devices cannot be had here.
        """
        on_cuda = config.accelerator == "cuda" or (config.accelerator == "auto" and torch.cuda.is_available())
        if config.accelerator == "cuda" and not torch.cuda.is_available():
            raise UnsupportedError("trainer.accelerator: 'cuda' is asked for and there is no CUDA GPU; use 'auto'")
        if not on_cuda and config.precision == "16-mixed":
            raise UnsupportedError("trainer.precision: '16-mixed' needs a GPU; use 'bf16-mixed' or '32-true'")
        if on_cuda and config.devices > torch.cuda.device_count():
            raise UnsupportedError(f"trainer.devices: {config.devices} asked for, {torch.cuda.device_count()} here")
        batches = config.max_steps * config.accumulate_grad_batches
        module = TextDataModule(config=data, seed=recipe.seed, batches_per_epoch=batches)
        return cls(recipe, config, module, registry, trust_code)

    @property
    def tokens_per_step(self) -> int:
        """Tokens of an optimizer step, over all devices."""
        batch = self.data.config.batch_size * self.data.config.seq_len
        return batch * self.config.accumulate_grad_batches * self.config.devices

    def model_spec(self, vocab_size: int) -> ModelSpec:
        """Return the recipe's model with ``vocab_size`` filled in where the recipe leaves it open.

        Raises:
            ConfigError: The recipe's own ``vocab_size`` is smaller than the tokenizer's.
        """
        spec = self.recipe.model
        if spec.name is None:
            return spec
        given = spec.config.get("vocab_size", vocab_size)
        if isinstance(given, int) and given < vocab_size:
            raise ConfigError(
                f"model.config.vocab_size: {given} is less than the {vocab_size} symbols of data.tokenizer "
                f"{self.data.config.tokenizer!r}; leave it out"
            )
        return spec.model_copy(update={"config": {**spec.config, "vocab_size": given}})

    def model(self, vocab_size: int | None = None) -> nn.Module:
        """Return a new model, the same at each call; the seed of everything that follows is set by the way.

        Args:
            vocab_size: Number of symbols; None for that of the data's tokenizer.

        Raises:
            ConfigError: The model does not take sequences of ``data.seq_len`` or the tokenizer's symbols.
        """
        size = self.data.tokenizer.vocab_size if vocab_size is None else vocab_size
        L.seed_everything(self.recipe.seed, verbose=False)
        model = build_model(self.model_spec(size), self.registry, trust_code=self.trust_code).float()
        self._check(model, size)
        return model

    def _check(self, model: nn.Module, vocab_size: int) -> None:
        config = getattr(model, "config", None)
        longest = getattr(config, "max_position_embeddings", None)
        if isinstance(longest, int) and longest < self.data.config.seq_len:
            raise ConfigError(
                f"data.seq_len: {self.data.config.seq_len} tokens, and the model takes {longest}; shorten seq_len or "
                "raise the model's number of positions"
            )
        own = getattr(config, "vocab_size", None)
        if isinstance(own, int) and own < vocab_size:
            raise ConfigError(
                f"data.tokenizer: {self.data.config.tokenizer!r} has {vocab_size} symbols, and the model {own}; choose "
                "a tokenizer that fits the model"
            )

    def lit(self, model: nn.Module) -> LitCausalLM:
        """Return the model, ready to train under the recipe's schedule."""
        config = self.config
        return LitCausalLM(
            model,
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            warmup_steps=config.warmup,
            total_steps=config.max_steps,
            min_lr_ratio=config.min_lr_ratio,
            compile=config.compile,
        )

    def trainer(self, callbacks: Sequence[L.Callback], **changed: Any) -> L.Trainer:
        """Return a Trainer that logs nowhere and writes nothing but what the callbacks write.

        Args:
            callbacks: In their order.
            changed: Arguments of the Trainer that differ from the recipe's.
        """
        config = self.config
        arguments: Mapping[str, Any] = {
            "accelerator": config.accelerator,
            "devices": config.devices,
            "strategy": config.strategy,
            "precision": config.precision,
            "max_steps": config.max_steps,
            "max_epochs": -1,
            "accumulate_grad_batches": config.accumulate_grad_batches,
            "gradient_clip_val": config.clip,
            "val_check_interval": config.val_interval * config.accumulate_grad_batches,
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            "plugins": [AtomicCheckpointIO()],
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **changed,
        }
        return L.Trainer(callbacks=list(callbacks), **arguments)
