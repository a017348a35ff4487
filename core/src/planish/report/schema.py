"""The contents of ``report.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planish.environment import Hardware
from planish.errors import DataError

FORMAT_VERSION = 1

Status = Literal["running", "interrupted", "failed", "finished"]


class _Part(BaseModel):
    # A loss that diverged is NaN or infinite: JSON has no such numbers, so they are written as strings.
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings", validate_assignment=True)


class Series(_Part):
    """One metric over optimizer steps; ``steps`` rise."""

    steps: list[int] = Field(default_factory=list, description="optimizer steps done when the value was taken")
    values: list[float] = Field(default_factory=list, description="the metric's values")

    def put(self, step: int, value: float) -> None:
        """Add a value; one that stands at the same step is replaced."""
        at = len(self.steps)
        while at and self.steps[at - 1] > step:
            at -= 1
        if at and self.steps[at - 1] == step:
            self.values[at - 1] = value
        else:
            self.steps.insert(at, step)
            self.values.insert(at, value)

    def cut(self, step: int) -> None:
        """Forget the values after ``step``."""
        while self.steps and self.steps[-1] > step:
            self.steps.pop()
            self.values.pop()


class Summary(_Part):
    """How a variant came out. A figure that was not measured is null."""

    model_config = ConfigDict(extra="allow", ser_json_inf_nan="strings", validate_assignment=True)

    steps: int | None = Field(None, description="optimizer steps done")
    train_loss: float | None = Field(None, description="last training loss")
    val_loss: float | None = Field(None, description="final mean validation loss, in nats a token")
    val_perplexity: float | None = Field(None, description="exp(val_loss)")
    tokens_per_s: float | None = Field(None, description="training tokens a second")
    step_ms_p20: float | None = Field(None, description="20th percentile of an optimizer step's time, in milliseconds")
    step_ms_p50: float | None = Field(None, description="median of an optimizer step's time, in milliseconds")
    step_ms_p80: float | None = Field(None, description="80th percentile of an optimizer step's time, in milliseconds")
    train_s: float | None = Field(None, description="wall-clock seconds of training")
    peak_memory_bytes: int | None = Field(None, description="peak of device memory, or of the process's on a CPU")
    parameters: int | None = Field(None, description="number of parameters, each tied one once")


class ModuleBytes(_Part):
    """What one module itself holds, its children apart."""

    name: str = Field(description="qualified name")
    kind: str = Field(description="class name")
    parameters: int = Field(ge=0, description="bytes of parameters")
    buffers: int = Field(ge=0, description="bytes of buffers")


class KernelUse(_Part):
    """Which kernel one operation of a module runs on."""

    module: str = Field(description="qualified name")
    operation: str = Field(description="such as forward, input_grad, weight_grad")
    kernel: str = Field(description="name of the kernel that ran")
    fallback: str | None = Field(None, description="why no faster kernel ran, or null where this is the intended one")


class Variant(_Part):
    """One of the models that a run trains, such as baseline and composed."""

    name: str
    title: str = Field("", description="what a reader calls it")
    series: dict[str, Series] = Field(default_factory=dict, description="metrics over steps, by name")
    summary: Summary = Field(default_factory=Summary)
    plans: list[dict[str, Any]] = Field(default_factory=list, description="the plans carried out (Plan.to_dict)")
    kernels: list[KernelUse] = Field(default_factory=list)
    modules: list[ModuleBytes] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list, description="remarks, such as what fell back and why")


class Report(_Part):
    """A run: what was asked, on what it ran, and how each variant came out."""

    format_version: int = FORMAT_VERSION
    title: str
    status: Status = "running"
    detail: str = Field("", description="why the run is not finished, in a sentence")
    created: str = Field(description="start of the run, ISO 8601 in UTC")
    updated: str = Field(description="when this file was written, ISO 8601 in UTC")
    command: str = ""
    commit: str | None = None
    recipe: dict[str, Any] = Field(description="the resolved recipe")
    hardware: Hardware = Field(default_factory=Hardware)
    versions: dict[str, str] = Field(default_factory=dict)
    variants: dict[str, Variant] = Field(default_factory=dict, description="in the order of training")


def read_report(path: Path) -> Report:
    """Return the report in a ``report.json``.

    Raises:
        DataError: The file is missing, damaged, or written by a newer planish.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read report {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        report = Report.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise DataError(f"{path} is no report of this planish: {where}: {first['msg']}; run the recipe again") from None
    if report.format_version > FORMAT_VERSION:
        raise DataError(
            f"{path} has format version {report.format_version}, this planish reads up to {FORMAT_VERSION}; "
            "update planish"
        )
    return report
