"""LocalEngine: the cores of this machine."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field

from planish.config import Config as PluginConfig
from planish.filtering.scoring import score_group
from planish.filtering.threads import limited_threads
from planish.filtering.worker_pool import WorkerPool
from planish.interfaces.data_filter import Clip, Row
from planish.interfaces.engine import FilterEngine, FilterJob


class LocalEngine(FilterEngine):
    """Processes on this machine, one for each core. A clip that kills or blocks its process costs one row."""

    name = "local"
    summary = "processes on this machine"

    class Config(PluginConfig):
        """Processes and their limits."""

        workers: int | None = Field(None, ge=1, description="worker processes; null: one for each available core")
        timeout_s: float = Field(600.0, gt=0, description="seconds that one clip may take, loading of models included")
        threads: int = Field(1, ge=1, description="threads of numerical libraries in each worker")
        in_process: bool = Field(
            False, description="score in this very process, for debugging; a clip that kills it ends the run"
        )

    def run(self, job: FilterJob, clips: Iterable[Sequence[Clip]]) -> Iterator[Sequence[Row]]:
        """Yield the rows of all clips as they come; see :meth:`planish.interfaces.FilterEngine.run`."""
        config: Any = self.config
        if config.in_process:
            yield from _in_process(job, clips, config.threads)
            return
        pool = WorkerPool(
            job, workers=config.workers or available_cores(), timeout_s=config.timeout_s, threads=config.threads
        )
        yield from pool.run(clips)


def available_cores() -> int:
    """Return how many cores this process may use: its affinity, and the quota of its control group."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no such control group, or the quota reads "max"
        return cores


def _in_process(job: FilterJob, clips: Iterable[Sequence[Clip]], threads: int) -> Iterator[Sequence[Row]]:
    data_filter = job.build()
    if find_spec("cv2") is not None:
        importlib.import_module("cv2")  # so that its threads are limited from the first clip on
    for group in clips:
        with limited_threads(threads):
            rows = score_group(data_filter, group)
        yield rows
