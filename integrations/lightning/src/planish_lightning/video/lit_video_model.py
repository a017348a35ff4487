"""LitVideoModel: a video-model plugin, ready to train by its own loss."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import lightning as L
import torch
from planish.errors import UnsupportedError
from planish.interfaces import Video, VideoModel, VideoRequest
from planish.interfaces.transform import Progress
from planish.plugins.manager import default_registry
from planish.plugins.registry import Registry
from torch import Tensor, nn

from planish_lightning.language.schedule import warmup_cosine


class LitVideoModel(L.LightningModule):
    """Trains a video model by :meth:`VideoModel.loss`; logs ``train/loss`` and ``val/loss``.

    Batches are mappings that the plugin's ``loss`` understands. The plugin's networks are submodules here, so that
    devices, checkpoints and planish callbacks reach them; those whose parameters are frozen stay frozen.
    """

    def __init__(
        self,
        video_model: str | VideoModel,
        options: Mapping[str, Any] | None = None,
        *,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.01,
        warmup_steps: int = 0,
        min_lr_ratio: float = 1.0,
        registry: Registry | None = None,
    ) -> None:
        """Create the module.

        Args:
            video_model: Name of an installed video-model plugin, or a video model.
            options: The plugin's options, for a name.
            lr: Peak learning rate of AdamW.
            betas: Of AdamW.
            weight_decay: Of AdamW, on parameters of two or more dimensions.
            warmup_steps: Optimizer steps of linear warm-up.
            min_lr_ratio: The cosine ends at ``lr * min_lr_ratio``; 1.0 for a constant rate.
            registry: Where the name is looked up; None for what is installed.

        Raises:
            PluginError: No video model has this name.
            UnsupportedError: It has no trainable parameter: the method is training-free.
        """
        super().__init__()
        self.save_hyperparameters(ignore=["video_model", "registry"])
        if isinstance(video_model, str):
            made: VideoModel = (registry or default_registry()).load(video_model, "video_model")(dict(options or {}))
        else:
            made = video_model
        self.video_model = made
        self.networks = nn.ModuleDict({_key(name): module for name, module in self.video_model.modules().items()})
        if not any(p.requires_grad for p in self.networks.parameters()):
            raise UnsupportedError(
                f"{self.video_model.name} has no trainable parameter; it is training-free: call generate() directly"
            )

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Return the plugin's loss."""
        loss = self.video_model.loss(batch)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=1)
        return loss

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Log the plugin's loss."""
        self.log("val/loss", self.video_model.loss(batch), prog_bar=True, sync_dist=True, batch_size=1)

    def generate(self, request: VideoRequest, progress: Progress | None = None) -> Video:
        """Make a video with the networks as they are, in evaluation mode and without gradients.

        Raises:
            DataError: The request lacks a condition, or has one that the model would ignore.
        """
        self.video_model.validate(request)
        modes = {module: module.training for module in self.networks.modules()}
        self.networks.eval()
        try:
            with torch.no_grad():
                return self.video_model.generate(request, progress)
        finally:
            for module, training in modes.items():
                module.training = training

    def configure_optimizers(self) -> Any:
        """Return AdamW and its schedule."""
        hp = self.hparams
        trained = [p for p in self.networks.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": hp["weight_decay"]},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=hp["lr"], betas=tuple(hp["betas"]))
        total = int(min(self.trainer.estimated_stepping_batches, 2**62))
        factor = partial(warmup_cosine, warmup=hp["warmup_steps"], total=total, floor=hp["min_lr_ratio"])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _key(name: str) -> str:
    return name.replace(".", "_")
