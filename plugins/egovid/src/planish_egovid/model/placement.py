"""Placement: on which device and in which number format a model runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from planish.config import Config
from planish.errors import UnsupportedError
from pydantic import Field

from planish_egovid.model.source import require

if TYPE_CHECKING:
    import torch

DType = Literal["auto", "float32", "bfloat16", "float16"]


class Placement(Config):
    """Where a model runs. Base of the options of every model backend."""

    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="cpu, cuda or cuda:N; auto: a GPU where this machine has one. Name cuda to run on a cluster's GPUs "
        "from a machine that has none",
    )
    dtype: DType = Field("auto", description="format of weights and activations; auto: bfloat16 on a GPU, else float32")
    gpus: float = Field(
        1.0,
        gt=0,
        le=8,
        json_schema_extra={"decides_scores": False},
        description="GPUs that one worker takes; a fraction lets workers share one",
    )
    threads: int = Field(
        1,
        ge=1,
        le=256,
        description="processor cores that one worker takes where there is no GPU; scores may differ in the last bits "
        "from one number of threads to another",
    )

    def resolved_device(self) -> str:
        """Return ``"cpu"`` or a CUDA device of this process.

        Raises:
            UnsupportedError: torch is missing, or a GPU is asked for where there is none.
        """
        require("torch", "clip")
        import torch

        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        if self.device != "cpu":
            if not torch.cuda.is_available():
                raise UnsupportedError(
                    f"device is {self.device!r}, and torch {torch.__version__} sees no CUDA GPU in this process; "
                    "run it where there is one, or set device to cpu"
                )
            index = torch.device(self.device).index or 0
            if index >= torch.cuda.device_count():
                raise UnsupportedError(
                    f"device is {self.device!r}, and this process sees {torch.cuda.device_count()} GPUs, from cuda:0 on"
                )
        return self.device

    def wants_gpu(self) -> bool:
        """Return whether a worker needs a GPU, as far as the machine that plans the work can tell."""
        return self.device.startswith("cuda") or (self.device == "auto" and self.resolved_device() == "cuda")

    def resolved_dtype(self, device: str) -> torch.dtype:
        """Return the torch dtype to use on ``device``."""
        import torch

        if self.dtype == "auto":
            return torch.bfloat16 if device.startswith("cuda") else torch.float32
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    def resources(self) -> dict[str, Any]:
        """Return ``cpus`` and ``gpus`` of a :class:`~planish.interfaces.Stage` that runs the model."""
        if self.wants_gpu():
            return {"cpus": 1.0, "gpus": self.gpus}
        return {"cpus": float(self.threads), "gpus": 0.0}
