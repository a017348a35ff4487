"""Options of training: a recipe's ``trainer`` section."""

from __future__ import annotations

from typing import Literal

from planish.config import Config
from pydantic import Field, model_validator


class TrainerConfig(Config):
    """How long, how fast, on what."""

    max_steps: int = Field(300, ge=1, description="optimizer steps")
    lr: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    warmup_steps: int | None = Field(None, ge=0, description="of the learning rate; left out: a tenth of max_steps")
    min_lr_ratio: float = Field(0.1, ge=0, le=1, description="the cosine ends at lr times this")
    weight_decay: float = Field(0.1, ge=0, description="of AdamW, on parameters of two or more dimensions")
    betas: tuple[float, float] = Field((0.9, 0.95), description="of AdamW")
    clip: float | None = Field(1.0, gt=0, description="largest gradient norm; null does not clip")
    accumulate_grad_batches: int = Field(1, ge=1, description="batches per optimizer step")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(
        "32-true", description="of the computation; weights stay in float32"
    )
    accelerator: Literal["auto", "cpu", "cuda"] = Field("auto", description="'auto' takes a GPU where there is one")
    devices: int = Field(1, ge=1, description="how many, on this machine")
    strategy: Literal["auto", "ddp", "fsdp"] = Field("auto", description="how several devices share the work")
    val_interval: int = Field(50, ge=2, description="optimizer steps between validations")
    checkpoint_every_steps: int | None = Field(
        None, ge=1, description="optimizer steps between checkpoints for --resume; left out: by time alone"
    )
    checkpoint_every_seconds: float | None = Field(
        60.0, gt=0, description="seconds between checkpoints for --resume; null: by steps alone"
    )
    compile: bool = Field(False, description="torch.compile the models")
    threads: int | None = Field(None, ge=1, description="CPU threads; left out: torch's choice")

    @model_validator(mode="after")
    def _betas(self) -> TrainerConfig:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas lie in [0, 1), not {list(self.betas)}")
        return self

    @property
    def warmup(self) -> int:
        """Warm-up steps."""
        return self.max_steps // 10 if self.warmup_steps is None else self.warmup_steps
