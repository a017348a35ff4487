"""RunRecord: what ``run.json`` says of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planish.atomic import write_text
from planish.errors import DataError
from planish.filtering.identity import FilterIdentity

NAME = "run.json"


class RunRecord(BaseModel):
    """What was scored, by what, and how it went. The policy is not part of it: see ``policy.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    format: Literal["planish-filter-run/1"] = Field("planish-filter-run/1", description="what this file is")
    filter: str = Field(description="name of the data filter")
    distribution: str = Field(description="distribution that brought the filter")
    version: str = Field(description="version of that distribution")
    metric_version: int = Field(description="the filter's metric version")
    params: dict[str, Any] = Field(description="the filter's options, all of them")
    params_hash: str = Field(description="SHA-256 of the options as canonical JSON")
    engine: str = Field(description="name of the engine")
    engine_params: dict[str, Any] = Field(description="the engine's options")
    sources: list[str] = Field(default_factory=list, description="the files, folders and manifests that were given")
    unreadable: list[str] = Field(default_factory=list, description="folders that could not be looked into")
    started: str = Field(description="when the latest run began, UTC, ISO 8601")
    state: Literal["running", "interrupted", "finished"] = Field(description="how the latest run ended")
    clips: int = Field(0, description="clips of the latest run")
    errors: int = Field(0, description="clips of the latest run whose row has an error")
    scored: int = Field(0, description="clips scored, over all runs of the same filter and options")
    wall_s: float = Field(0.0, description="seconds of scoring, over the same runs")

    @property
    def clips_per_s(self) -> float | None:
        """Clips scored a second, over all runs of the same filter and options; None before the first."""
        return self.scored / self.wall_s if self.scored and self.wall_s > 0 else None

    @property
    def identity(self) -> FilterIdentity:
        """What the scores belong to."""
        return FilterIdentity(self.filter, self.metric_version, self.params_hash, self.distribution, self.version)

    def write(self, folder: Path) -> None:
        """Write ``run.json`` as a whole.

        Raises:
            WorkError: The folder cannot be written.
        """
        write_text(folder / NAME, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Read ``run.json``.

        Raises:
            DataError: There is none, or it is none of ours.
        """
        path = folder / NAME
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise DataError(
                f"{folder} is no output of 'planish filter': it has no {NAME}; name the folder that --out named"
            ) from None
        except (NotADirectoryError, PermissionError, OSError) as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise DataError(f"{path} is no record of a filter run ({where}: {first['msg'].lower()})") from None
