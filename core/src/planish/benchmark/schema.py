"""The one shape of every benchmark's result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from planish.atomic import write_text
from planish.environment import Hardware, commit, hardware, versions
from planish.errors import DataError


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Measurement(_Part):
    """A figure taken many times."""

    median: float = Field(description="half of the samples lie below")
    p20: float = Field(description="20th percentile")
    p80: float = Field(description="80th percentile")

    @classmethod
    def of(cls, samples: Iterable[float]) -> Measurement:
        """Return the median and the 20th and 80th percentiles of at least one sample."""
        values = sorted(samples)
        if len(values) == 1:
            return cls(median=values[0], p20=values[0], p80=values[0])
        tenths = quantiles(values, n=10, method="inclusive")
        return cls(median=tenths[4], p20=tenths[1], p80=tenths[7])


class Row(_Part):
    """One case: ours beside its peers."""

    case: str = Field(description="what was measured, such as block_matmul/hopper/4096x4096x4096")
    metric: str = Field(description="such as time, memory, val_loss")
    unit: str = Field(description="of all figures of the row")
    better: Literal["lower", "higher"]
    ours: Measurement
    peers: dict[str, Measurement] = Field(default_factory=dict, description="what a user would pick instead, by name")
    floor: float | None = Field(None, description="the physical limit, in the same unit")
    gain: float | None = Field(None, description="ours against the named peer; above 1 when ours is better")
    against: str | None = Field(None, description="the peer that gain refers to")
    target: float | None = Field(None, description="the gain that was asked for")
    extra: dict[str, Any] = Field(default_factory=dict, description="what else belongs to the row, such as its curve")

    @model_validator(mode="after")
    def _names_its_peer(self) -> Row:
        if self.against is not None and self.against not in self.peers:
            raise ValueError(f"against names {self.against!r}, which is none of the peers {sorted(self.peers)}")
        if self.gain is not None and self.against is None:
            raise ValueError("gain is given and against is not; say which peer it refers to")
        return self

    @classmethod
    def compare(
        cls,
        case: str,
        ours: Measurement,
        peers: Mapping[str, Measurement],
        *,
        against: str,
        metric: str = "time",
        unit: str = "ms",
        better: Literal["lower", "higher"] = "lower",
        floor: float | None = None,
        target: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Row:
        """Return the row of a comparison, with the gain of ``ours`` against the peer ``against``, of medians.

        Raises:
            ValueError: ``against`` is none of the peers.
        """
        gain = None
        if against in peers and ours.median and peers[against].median:
            ratio = peers[against].median / ours.median
            gain = ratio if better == "lower" else 1 / ratio
        return cls(
            case=case,
            metric=metric,
            unit=unit,
            better=better,
            ours=ours,
            peers=dict(peers),
            floor=floor,
            gain=gain,
            against=against,
            target=target,
            extra=dict(extra or {}),
        )


class BenchmarkResult(_Part):
    """What a benchmark program writes."""

    benchmark: str
    created: str = Field(description="ISO 8601 in UTC")
    commit: str | None
    hardware: Hardware
    versions: dict[str, str]
    command: str
    oracle_passed: bool = Field(description="whether every operator agreed with its oracle on this machine")
    rows: list[Row]
    notes: list[str] = Field(default_factory=list, description="remarks, such as why a result falls short")

    @model_validator(mode="after")
    def _no_gain_of_a_wrong_result(self) -> BenchmarkResult:
        stated = [row.case for row in self.rows if row.gain is not None]
        if stated and not self.oracle_passed:
            raise ValueError(f"the oracle failed, and a gain is stated for {stated[0]}; a wrong result has no speed")
        return self


def collect(
    benchmark: str, rows: Iterable[Row], *, oracle_passed: bool, command: str = "", notes: Iterable[str] = ()
) -> BenchmarkResult:
    """Return the result of a benchmark on this machine, now.

    Where the oracle did not pass, the rows keep their times and lose their gains: a wrong result has no speed-up.
    """
    kept = [row if oracle_passed else row.model_copy(update={"gain": None}) for row in rows]
    return BenchmarkResult(
        benchmark=benchmark,
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        commit=commit(),
        hardware=hardware(),
        versions=versions(),
        command=command or f"planish bench {benchmark}",
        oracle_passed=oracle_passed,
        rows=kept,
        notes=list(notes),
    )


def write_result(result: BenchmarkResult, path: Path) -> None:
    """Write a result as JSON, as a whole or not at all.

    Raises:
        WorkError: The folder cannot be written, or the disk is full.
    """
    write_text(path, result.model_dump_json(indent=1) + "\n")


def read_result(path: Path) -> BenchmarkResult:
    """Return the result in a file.

    Raises:
        DataError: The file is missing or is no benchmark result.
    """
    try:
        return BenchmarkResult.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read benchmark result {path}: {getattr(error, 'strerror', None) or error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise DataError(f"{path} is no benchmark result: {where}: {first['msg']}; run planish bench again") from None
