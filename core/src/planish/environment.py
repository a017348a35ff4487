"""What a result was measured on: hardware, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Hardware(BaseModel):
    """The machine, as far as it matters to a measurement."""

    model_config = ConfigDict(frozen=True, extra="allow")

    gpu: str | None = Field(None, description="name of the first GPU, or null")
    gpus: int = Field(0, ge=0, description="number of visible GPUs")
    cpu: str = Field("", description="name of the processor")
    cores: int = Field(1, ge=1, description="processor cores that this process may use")


def hardware() -> Hardware:
    """Return what this process can compute on. Imports torch."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    name = torch.cuda.get_device_name(0) if gpus else None
    return Hardware(gpu=name, gpus=gpus, cpu=processor(), cores=cores())


def cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def processor() -> str:
    """Return the processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of Python, of torch and its companions, and of every planish distribution."""
    found = {"python": platform.python_version()}
    for name in ("torch", "triton", "lightning", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    ours = {str(d.metadata["Name"]): d.version for d in distributions() if d.metadata["Name"]}
    return found | {name: ours[name] for name in sorted(ours) if name == "planish" or name.startswith("planish-")}


@cache
def commit() -> str | None:
    """Return the git commit of planish's sources, with ``+changes`` where they differ from it; None outside git.

    The environment variable ``PLANISH_COMMIT`` says it for a copy of the sources that has no git folder.
    """
    here = str(Path(__file__).resolve().parent)
    head = _git(here, "rev-parse", "HEAD")
    if head is None or _git(here, "ls-files", "--error-unmatch", "errors.py") is None:
        return os.environ.get("PLANISH_COMMIT") or None
    changed = _git(here, "status", "--porcelain", "--untracked-files=no")
    return f"{head}+changes" if changed else head


def _git(folder: str, *arguments: str) -> str | None:
    try:
        done: Any = subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
