"""LitCausalLM: any causal language model of the Hugging Face convention, ready to train."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import lightning as L
import torch
from planish.errors import ConfigError
from planish.plugins.manager import default_registry
from planish.plugins.registry import Registry
from planish.recipe.model import build_named
from torch import Tensor, nn

from planish_lightning.language.schedule import warmup_cosine


class LitCausalLM(L.LightningModule):
    """Trains a causal language model: AdamW, linear warm-up and a cosine, validation perplexity.

    Batches are mappings with ``input_ids`` and ``labels``, both int64 [batch, length]; the model shifts the labels.
    Weight decay goes to parameters of two or more dimensions only. Logs ``train/loss``, ``val/loss`` (mean over all
    predicted tokens, in nats) and ``val/perplexity``.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.1,
        warmup_steps: int = 0,
        total_steps: int | None = None,
        min_lr_ratio: float = 0.1,
        compile: bool = False,
    ) -> None:
        """Create the module.

        Args:
            model: Called as ``model(input_ids=…, labels=…, use_cache=False)``; returns an object with ``loss``.
            lr: Peak learning rate.
            betas: Of AdamW.
            weight_decay: Of AdamW, decoupled.
            warmup_steps: Optimizer steps of linear warm-up.
            total_steps: Length of the schedule in optimizer steps; None for what the Trainer will do.
            min_lr_ratio: The cosine ends at ``lr * min_lr_ratio``.
            compile: Whether to ``torch.compile`` the model, in place, after callbacks have changed it.
        """
        super().__init__()
        self.save_hyperparameters(ignore=["model"])
        self.model = model
        self._is_compiled = False

    @classmethod
    def from_plugin(
        cls, name: str, config: Mapping[str, Any] | None = None, *, registry: Registry | None = None, **options: Any
    ) -> LitCausalLM:
        """Build the model by the name of a language-model plugin or an architecture (``"llama"``), and wrap it.

        Raises:
            ConfigError: Nobody knows the name, or a hyper-parameter is wrong.
        """
        return cls(build_named(name, config or {}, registry or default_registry()), **options)

    def configure_model(self) -> None:
        """Compile where that was asked for; callbacks have changed the model by now."""
        if self.hparams["compile"] and not self._is_compiled:
            self.model.compile()
            self._is_compiled = True

    def forward(self, **inputs: Any) -> Any:
        """Call the model."""
        return self.model(**inputs)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Return the mean next-token cross-entropy in nats."""
        loss: Tensor = self.model(input_ids=batch["input_ids"], labels=batch["labels"], use_cache=False).loss
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch["input_ids"]))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin the sums over tokens."""
        self._nll = torch.zeros((), dtype=torch.float64, device=self.device)
        self._tokens = torch.zeros((), dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Add the batch's cross-entropy, weighted by its number of predicted tokens."""
        loss = self.model(input_ids=batch["input_ids"], labels=batch["labels"], use_cache=False).loss
        predicted = (batch["labels"][:, 1:] != -100).sum()
        self._nll += loss.double() * predicted
        self._tokens += predicted

    def on_validation_epoch_end(self) -> None:
        """Log loss and perplexity over all ranks' tokens."""
        nll = self.trainer.strategy.reduce(self._nll, reduce_op="sum")
        tokens = self.trainer.strategy.reduce(self._tokens, reduce_op="sum")
        loss = torch.as_tensor(nll) / torch.as_tensor(tokens)
        self.log("val/loss", loss.float(), prog_bar=True)
        self.log("val/perplexity", loss.exp().float())

    def configure_optimizers(self) -> Any:
        """Return AdamW with two groups and the schedule, stepped once per optimizer step."""
        hp = self.hparams
        trained = [p for p in self.model.parameters() if p.requires_grad]
        if not trained:
            raise ConfigError("LitCausalLM: the model has no trainable parameter; set requires_grad on some")
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": hp["weight_decay"]},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        optimizer = torch.optim.AdamW(groups, lr=hp["lr"], betas=tuple(hp["betas"]))
        total = hp["total_steps"] or self.trainer.estimated_stepping_batches
        factor = partial(warmup_cosine, warmup=hp["warmup_steps"], total=int(total), floor=hp["min_lr_ratio"])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
