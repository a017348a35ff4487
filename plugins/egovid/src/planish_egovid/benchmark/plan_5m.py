"""What cleaning so many clips takes: cores, GPUs, hours and bytes, from measured rates.

The model of cost is plain: clips are independent, so that the work is their number over a rate; processors decode and
measure, GPUs run models on what processors hand over, and the slower of the two sets the pace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planish.benchmark import BenchmarkResult, Row
from planish.errors import ConfigError, DataError

AXES = "motion, consistency, clarity"
"""Row of ``planish bench egovid`` that stands for scoring on processors without a model."""
CLIP_FRAME_BYTES = 224 * 224 * 3
PUBLISHED_GPU_HOURS = 5e6 * (1 / 5000 + 1 / 3000 + 1.5 / 10000 + 1.5 / 10000)
"""GPU hours for five million clips at the rates in comments of EgoVid's scripts: CLIP, flow, DOVER and EgoVideo."""


@dataclass(frozen=True)
class Rates:
    """What was measured.

    Attributes:
        core: Clips a second that one core decodes and measures, in one process.
        scaling: Throughput of many processes over that of as many single ones.
        engine: Throughput of the engine over that of plain processes.
        models: Name -> clips a second that one GPU gives.
        sources: Where each figure comes from.
    """

    core: float
    scaling: float = 1.0
    engine: float = 1.0
    models: tuple[tuple[str, float], ...] = ()
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that rates are above 0.

        Raises:
            ConfigError: One is not.
        """
        named = [("core", self.core), ("scaling", self.scaling), ("engine", self.engine), *self.models]
        for name, value in named:
            if not value > 0:
                raise ConfigError(f"rate {name!r} is {value}; expected more than 0")

    @property
    def core_in_pool(self) -> float:
        """Clips a second that one core gives among many, under the engine."""
        return self.core * self.scaling * self.engine


@dataclass(frozen=True)
class Sizes:
    """Bytes of a clip on its way.

    Attributes:
        video: Of the clip's share of its file, read once.
        handed_over: Of the frames that a model looks at, from processors to GPU.
        row: Of the stored scores.
    """

    video: float = 3.5e12 / 5e6
    handed_over: float = 4 * CLIP_FRAME_BYTES
    row: float = 400.0


@dataclass(frozen=True)
class Plan:
    """What it takes.

    Attributes:
        clips: Number of clips.
        cores: Processor cores.
        gpus: GPUs.
        core_hours: Work of processors.
        gpu_hours: Model -> work of GPUs.
        hours: Wall time.
        bound_by: What sets the pace.
        gpus_to_keep_up: GPUs with which they would not be what sets the pace.
        read_bytes: Video read.
        read_bytes_per_s: While it runs.
        handed_over_bytes: Frames that travel to GPUs.
        stored_bytes: Scores.
    """

    clips: int
    cores: int
    gpus: int
    core_hours: float
    gpu_hours: dict[str, float]
    hours: float
    bound_by: Literal["processors", "GPUs"]
    gpus_to_keep_up: float
    read_bytes: float
    read_bytes_per_s: float
    handed_over_bytes: float
    stored_bytes: float


def plan(clips: int, rates: Rates, *, cores: int, gpus: int = 0, sizes: Sizes | None = None) -> Plan:
    """Return what it takes to score clips.

    Raises:
        ConfigError: A number is out of bounds, or there are models and no GPU to run them.
    """
    sizes = sizes or Sizes()
    for name, value, least in (("clips", clips, 1), ("cores", cores, 1), ("gpus", gpus, 0)):
        if value < least:
            raise ConfigError(f"{name} is {value}; expected {least} or more")
    if rates.models and not gpus:
        raise ConfigError("gpus is 0 and there are models; give GPUs, or leave the models out")
    core_hours = clips / rates.core_in_pool / 3600
    gpu_hours = {name: clips / rate / 3600 for name, rate in rates.models}
    on_processors = core_hours / cores
    on_gpus = sum(gpu_hours.values()) / gpus if gpus else 0.0
    hours = max(on_processors, on_gpus)
    return Plan(
        clips=clips,
        cores=cores,
        gpus=gpus,
        core_hours=core_hours,
        gpu_hours=gpu_hours,
        hours=hours,
        bound_by="processors" if on_processors >= on_gpus else "GPUs",
        gpus_to_keep_up=sum(gpu_hours.values()) / on_processors,
        read_bytes=clips * sizes.video,
        read_bytes_per_s=clips * sizes.video / (hours * 3600),
        handed_over_bytes=clips * sizes.handed_over if rates.models else 0.0,
        stored_bytes=clips * sizes.row,
    )


def rates_of(result: BenchmarkResult, *, axes: str = AXES, engine: str = "local") -> Rates:
    """Return the rates that a result of ``planish bench egovid`` holds.

    Args:
        result: The result.
        axes: Row of the scoring rate: the part of its case before the first ``/``.
        engine: ``"local"``, or ``"ray"`` to count what Ray costs.

    Raises:
        DataError: The benchmark failed its oracle, or has no such row.
    """
    if not result.oracle_passed:
        raise DataError(f"the result of {result.benchmark} failed its oracle; its rates mean nothing")
    scored = _row(result, f"{axes}/")
    sources = [f"{scored.ours.median:.3g} clips/s a core: {scored.case}"]
    scaling = ray = 1.0
    pool = _row(result, "2 processes", needed=False)
    if pool is not None and pool.gain is not None:
        scaling = pool.gain / 2
        sources.append(f"{scaling:.3g} of linear: {pool.case} against {pool.against}")
    if engine == "ray":
        on_ray = _row(result, "Ray, 2 workers")
        if on_ray.gain is None:
            raise DataError(f"row {on_ray.case!r} has no gain; measure again")
        ray = on_ray.gain
        sources.append(f"{ray:.3g} of the pool: {on_ray.case} against {on_ray.against}")
    return Rates(scored.ours.median, scaling, ray, sources=tuple(sources))


def model_rates(result: BenchmarkResult, names: list[str]) -> list[tuple[str, float, str]]:
    """Return name, clips a second a GPU and row of each model that a result of ``planish bench egovid-models`` holds.

    Args:
        result: The result.
        names: Beginnings of cases; the fastest row of each counts.

    Raises:
        DataError: The benchmark failed its oracle, or has no such row.
    """
    if not result.oracle_passed:
        raise DataError(f"the result of {result.benchmark} failed its oracle; its rates mean nothing")
    found = []
    for name in names:
        rows = [row for row in result.rows if row.case.lower().startswith(name.lower()) and row.unit == "clips/s"]
        if not rows:
            raise DataError(_no_row(result, name))
        best = max(rows, key=lambda row: row.ours.median)
        found.append((name, best.ours.median, best.case))
    return found


def _row(result: BenchmarkResult, beginning: str, *, needed: bool = True) -> Row:
    for row in result.rows:
        if row.case.startswith(beginning):
            return row
    if needed:
        raise DataError(_no_row(result, beginning))
    return None  # type: ignore[return-value]


def _no_row(result: BenchmarkResult, beginning: str) -> str:
    cases = ", ".join(repr(row.case) for row in result.rows[:12])
    return f"the result of {result.benchmark} has no row that begins with {beginning!r}; it has {cases or 'none'}"
