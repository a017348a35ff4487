"""Segments: stages of a filter that share a pool of workers, and how large the pools are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from planish.errors import UnsupportedError
from planish.interfaces.data_filter import Stage


@dataclass(frozen=True)
class Segment:
    """Stages that one pool of workers runs.

    Neighbouring stages without a GPU share a pool, so that nothing travels between them; a stage with a GPU has its
    own.

    Attributes:
        name: The stages' names, joined by ``+``.
        stages: Their indices in the filter.
        cpus: Processor cores that a worker reserves.
        gpus: GPUs that a worker reserves.
        batch_size: Clips that a worker takes at a time.
        workers: Workers in the pool at most.
        is_fixed: Whether the pool always has that many workers; otherwise it grows from one.
    """

    name: str
    stages: tuple[int, ...]
    cpus: float
    gpus: float
    batch_size: int
    workers: int = 1
    is_fixed: bool = True


def segments_of(stages: Sequence[Stage]) -> list[Segment]:
    """Return the stages of a filter, joined where one pool of workers can run them."""
    found: list[Segment] = []
    for index, stage in enumerate(stages):
        before = found[-1] if found else None
        if before is not None and before.gpus == 0 and stage.gpus == 0:
            found[-1] = replace(
                before,
                name=f"{before.name}+{stage.name}",
                stages=(*before.stages, index),
                cpus=max(before.cpus, stage.cpus),
                batch_size=max(before.batch_size, stage.batch_size),
            )
        else:
            found.append(Segment(stage.name, (index,), stage.cpus, stage.gpus, stage.batch_size))
    return found


def fit(segments: Sequence[Segment], *, cpus: float, gpus: float, workers: int | None) -> list[Segment]:
    """Return the segments with pools that fit the machine or cluster.

    Args:
        segments: From :func:`segments_of`.
        cpus: Processor cores that there are.
        gpus: GPUs that there are.
        workers: Workers of the stages without a GPU, in all; None for as many as there are cores.

    Raises:
        UnsupportedError: A stage asks for more GPUs than there are.
    """
    on_gpu = [s for s in segments if s.gpus > 0]
    needed = sum(s.gpus for s in on_gpu)
    if needed > gpus:
        names = ", ".join(f"{s.name} ({s.gpus:g} a worker)" for s in on_gpu)
        raise UnsupportedError(
            f"stages {names} ask for {needed:g} GPUs and this Ray has {gpus:g}; "
            "connect to a cluster with GPUs (address), or configure the filter to run its models on processors"
        )
    rounds = int(gpus // needed) if needed else 0
    left = max(cpus - sum(rounds * s.cpus for s in on_gpu), 1.0)
    on_cpu = [s for s in segments if s.gpus == 0]
    # One worker of each pool must fit at the same time: what waits for it could not move on otherwise. Where cores do
    # not suffice, the reservations shrink; the machine's own scheduler then shares its cores.
    scale = min(1.0, left / sum(s.cpus for s in on_cpu)) if on_cpu else 1.0
    made: list[Segment] = []
    for s in segments:
        if s.gpus > 0:
            made.append(replace(s, workers=rounds))
        else:
            most = workers if workers is not None else max(1, int(left // (s.cpus or 1.0)))
            # The reservations may not ask for more cores than there are, whatever number of workers was asked for.
            share = s.cpus * scale if len(on_cpu) > 1 else min(s.cpus, left / most)
            made.append(replace(s, cpus=_reservable(share), workers=most, is_fixed=len(on_cpu) == 1))
    return made


def _reservable(cpus: float) -> float:
    """Return a number of cores that Ray accepts: whole above one, four decimals below."""
    return float(int(cpus)) if cpus > 1 else int(cpus * 10_000) / 10_000
