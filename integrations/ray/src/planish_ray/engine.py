"""RayEngine: scores clips with the stages of a filter on Ray Data."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

from planish.config import Config
from planish.errors import WorkError
from planish.filtering.scoring import error_row
from planish.interfaces.data_filter import Clip, DataFilter, Row
from planish.interfaces.engine import FilterEngine, FilterJob
from pydantic import Field

from planish_ray.execution import Execution
from planish_ray.packs import Pack, Packs
from planish_ray.segment import fit, segments_of
from planish_ray.session import ray_session

LOGS = "/tmp/ray/session_latest/logs/ray-data"
_log = logging.getLogger(__name__)
ATTEMPTS = 2
"""How many executions of Ray Data may lose a pack before its clips are given up."""


class RayEngineConfig(Config):
    """Where Ray is, and how much of it to use."""

    address: str | None = Field(
        None, description="cluster to connect to, such as auto or ray://head:10001; null: RAY_ADDRESS, or this machine"
    )
    workers: int | None = Field(
        None, ge=1, description="workers of the stages without a GPU, at most; null: one for each core of the cluster"
    )
    num_gpus: int | None = Field(
        None, ge=0, description="GPUs that a Ray started here offers; null: those of this machine; no use with address"
    )
    batch_size: int | None = Field(
        None, ge=1, description="clips that travel together; null: what the filter's first stage takes at a time"
    )
    timeout_s: float | None = Field(600.0, gt=0, description="seconds that one clip may take; null: no limit")
    max_in_flight: int | None = Field(
        None, ge=1, description="clips between being read and being scored, at most; null: enough to keep workers busy"
    )


class RayEngine(FilterEngine):
    """Runs the stages of a filter in Ray Data's actor pools, on this machine or on a cluster."""

    name = "ray"
    summary = "Ray Data: streaming, actor pools, per-stage resources"
    Config = RayEngineConfig
    config: RayEngineConfig

    def run(self, job: FilterJob, clips: Iterable[Sequence[Clip]]) -> Iterator[Sequence[Row]]:
        """Yield the rows of all clips, in any order, as they come.

        Args:
            job: The filter. Its class must be importable on the machines of the cluster, in the same version.
            clips: Groups of clips; files must have the same paths on all machines.

        Raises:
            UnsupportedError: Ray is not installed, or a stage asks for more GPUs than there are.
            ConfigError: ``max_in_flight`` is too small for the batches of the filter's stages.
            WorkError: Ray cannot be started or reached, the filter cannot be built on its machines, or executions
                fail without a single result.
        """
        data_filter = job.build()
        with ray_session(self.config.address, cpus=self.config.workers, gpus=self.config.num_gpus) as ray:
            have = ray.cluster_resources()
            stages = data_filter.stages()
            segments = fit(
                segments_of(stages),
                cpus=have.get("CPU", 0.0),
                gpus=have.get("GPU", 0.0),
                workers=self.config.workers,
            )
            execution = Execution(
                data_filter, segments, timeout_s=self.config.timeout_s, max_in_flight=self.config.max_in_flight
            )
            packs = Packs(clips, self.config.batch_size or stages[0].batch_size, spread=segments[0].workers)
            yield from _run(execution, packs, data_filter)


def _run(execution: Execution, packs: Packs, data_filter: DataFilter) -> Iterator[Sequence[Row]]:
    fruitless = 0
    while packs.more():
        arrived = 0
        failure: Exception | None = None
        lost: dict[int, Pack] = {}
        try:
            for rows in execution.run(packs, lost):
                arrived += 1
                yield rows
        except execution.errors as error:
            failure = error
        if not lost and failure is None:
            continue
        why = "a machine or a Ray worker was lost" if failure is None else " ".join(str(failure).split())[:300]
        fruitless = 0 if arrived else fruitless + 1
        if fruitless >= ATTEMPTS:
            raise WorkError(f"Ray gave no result in {fruitless} executions: {why}; see {LOGS}") from failure
        _log.warning(
            "%d clips did not come back from Ray and are tried again: %s; see %s",
            sum(map(len, lost.values())),
            why,
            LOGS,
        )
        for pack in lost.values():
            if pack.attempts + 1 < ATTEMPTS:
                packs.give_back(pack)
            else:
                said = f"lost on Ray {ATTEMPTS} times: {why}"
                yield [error_row(data_filter, clip, said) for clip in pack.clips]
