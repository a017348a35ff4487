"""AxisFilter and AxesFilter: data filters made of axes.

Deriving one takes a name, a summary and the axes; options, columns and policy follow from the axes::

    class Brightness(AxisFilter):
        name = "brightness"
        summary = "how bright clips are"
        axis = BrightnessAxis

    class MyPipeline(AxesFilter):
        name = "my-pipeline"
        summary = "motion and brightness, each clip decoded once"
        axis_types = (MotionAxis, BrightnessAxis)
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from planish.config import Config as PluginConfig
from planish.errors import DataError, PlanishError
from planish.interfaces import Clip, Decision, Illustration, Row, Stage, StagedFilter
from pydantic import BaseModel, Field, create_model

from planish_egovid.axis import Axis
from planish_egovid.clips.segmenter import Source, make_segmenter
from planish_egovid.filters.clip_columns import CLIP_RULES, ClipColumns
from planish_egovid.filters.config import ClipConfig, PipelineConfig
from planish_egovid.filters.decode_stage import DecodeStage
from planish_egovid.filters.early_exit import EarlyExit
from planish_egovid.filters.filmstrip import filmstrip, filmstrip_request
from planish_egovid.policy import PRESETS, Rule, decide, policy_model, settled
from planish_egovid.policy.policy_model import preset_values
from planish_egovid.video import ClipView, FrameRequest, VideoInfo, decode_clips, probe

M = TypeVar("M", bound=BaseModel)

BATCH_SIZE = 16
"""Clips that a worker decodes at a time."""

_log = logging.getLogger(__name__)
_warned: set[str] = set()


class _MadeOfAxes(StagedFilter):
    """What filters of one axis and of several have in common."""

    rules: ClassVar[tuple[Rule, ...]]
    """What the policy can ask, in the order in which reasons are given."""

    measured_axes: Sequence[Axis]
    """The axes that are measured, cheap ones first."""

    def _early_exit(self) -> EarlyExit | None:
        return None

    @cached_property
    def _decode(self) -> DecodeStage:
        config: Any = self.config
        return DecodeStage(self.measured_axes, config, self._early_exit())

    @cached_property
    def _stages(self) -> list[Stage]:
        stages = {"decode": Stage("decode", self._decode, batch_size=BATCH_SIZE)}
        for axis in self.measured_axes:
            _warn_without_backend(axis)
            stage = axis.stage()
            if stage is not None:
                stages.setdefault(stage.name, stage)  # axes that share a model give the same stage twice
        return list(stages.values())

    def stages(self) -> list[Stage]:
        """Return decoding, which measures all axes on processors, and what models the axes need beyond that.

        Raises:
            UnsupportedError: A backend that the options ask for is not installed.
        """
        return list(self._stages)

    def clips_of(self, path: Path) -> list[Clip]:
        """Return the clips that the option ``segment`` cuts a file into.

        Raises:
            DataError: The file cannot be read, or is shorter than a clip has to be.
        """
        config: Any = self.config
        if config.segment.method == "whole":
            return super().clips_of(path)
        clips = make_segmenter(config.segment).clips(Source.of(path, probe(path)))
        if not clips:
            raise DataError(f"'{path}' is too short for a clip of segment.method={config.segment.method}")
        return clips

    def decide(self, row: Row, policy: PluginConfig | None = None) -> Decision:
        """Reject a row with an error, or one that breaks a threshold; the first broken rule gives the reason."""
        return decide(row, self.Policy() if policy is None else policy, self.rules)

    def settle(self, policy: PluginConfig, rows: Iterable[Row]) -> PluginConfig:
        """Return ``policy`` with quantiles turned into numbers over ``rows``.

        Raises:
            ConfigError: The bounds of a metric come to lie the wrong way round.
        """
        return settled(policy, rows, self.rules)

    def illustrate(self, clip: Clip, row: Row) -> list[Illustration]:
        """Return a filmstrip and what the axes draw; nothing for a clip that cannot be decoded."""

        def requests(clip: Clip, video: VideoInfo, duration_s: float) -> list[FrameRequest]:
            return [*self._decode.requests(clip, video, duration_s), filmstrip_request(duration_s)]

        config: Any = self.config
        ((_, view),) = decode_clips([clip], requests, config)
        if not isinstance(view, ClipView):
            return []
        pictures = [filmstrip(view)]
        for axis in self.measured_axes:
            try:
                pictures += axis.illustrate(view, row)
            except PlanishError as error:
                _log.warning("no picture of %s for clip %s: %s", axis.name, clip.id, error)
        return pictures


class AxisFilter(_MadeOfAxes):
    """A data filter of one axis, whose options are the axis' own and the limits of decoding.

    Derived classes set ``name``, ``summary`` and ``axis``.
    """

    axis: ClassVar[type[Axis]]
    """What clips are scored by."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make ``Config``, ``Columns`` and ``Policy`` from the axis."""
        super().__init_subclass__(**kwargs)
        if "axis" in cls.__dict__:
            bases = (cls.axis.Config, ClipConfig)
            cls.Config = _part_of(cls, create_model("Config", __base__=bases, __module__=cls.__module__))
            cls.Config.__doc__ = f"How to measure {cls.axis.summary}."
            _complete(cls, [cls.axis])

    def __init__(self, config: Any = None, **options: Any) -> None:
        """Create the filter; see :class:`planish.interfaces.Plugin`."""
        super().__init__(config, **options)
        self.measured_axes = [self.axis(self.config)]


class AxesFilter(_MadeOfAxes):
    """A data filter of several axes that decodes each clip once.

    ``Config`` has one field for each axis, named after it, ``axes`` to choose among them, and ``early_exit``.
    Derived classes set ``name``, ``summary`` and ``axis_types``.
    """

    axis_types: ClassVar[tuple[type[Axis], ...]]
    """What clips are scored by, in the order of the columns and of the policy's reasons."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make ``Config``, ``Columns`` and ``Policy`` from the axes."""
        super().__init_subclass__(**kwargs)
        if "axis_types" in cls.__dict__:
            names = tuple(axis.name for axis in cls.axis_types)
            fields: dict[str, Any] = {
                "axes": (
                    tuple[Literal[names], ...],  # type: ignore[valid-type]
                    Field(names, description="axes to score by; others' columns are null"),
                )
            }
            fields |= {
                axis.name: (axis.Config, Field(axis.Config(), description=f"how to measure {axis.summary}"))
                for axis in cls.axis_types
            }
            made = create_model("Config", __base__=PipelineConfig, __module__=cls.__module__, **fields)
            cls.Config = _part_of(cls, made)
            cls.Config.__doc__ = "Which axes clips are scored by, and how each is measured."
            skipped = (list[str] | None, Field(None, description="axes left out by early_exit; null without it"))
            _complete(cls, cls.axis_types, skipped_axes=skipped)

    def __init__(self, config: Any = None, **options: Any) -> None:
        """Create the filter; see :class:`planish.interfaces.Plugin`."""
        super().__init__(config, **options)
        chosen: Any = self.config
        axes = [axis(getattr(chosen, axis.name)) for axis in self.axis_types if axis.name in chosen.axes]
        self.measured_axes = sorted(axes, key=lambda axis: axis.cost)
        self._early_exit()  # names an unknown metric at once

    def _early_exit(self) -> EarlyExit | None:
        config: Any = self.config
        exit_early = EarlyExit(self.rules, config.early_exit_thresholds)
        return exit_early if config.early_exit else None


def _complete(cls: type[_MadeOfAxes], axes: Sequence[type[Axis]], **further: Any) -> None:
    """Make columns, rules, policy and presets of a filter class from its axes."""
    fields: dict[str, Any] = dict(further)
    owner = dict.fromkeys((*ClipColumns.model_fields, *further), "every clip")
    for axis in axes:
        for column, field in axis.Columns.model_fields.items():
            if column in Row.model_fields:
                continue
            if column in owner:
                raise TypeError(f"{cls.__name__}: {owner[column]} and {axis.name} both have the column {column!r}")
            owner[column] = axis.name
            fields[column] = (field.annotation, field)
    columns = create_model("Columns", __base__=ClipColumns, __module__=cls.__module__, **fields)
    cls.Columns = _part_of(cls, columns)
    cls.Columns.__doc__ = f"Scores of a clip: {', '.join(axis.name for axis in axes)}."
    cls.rules = (*CLIP_RULES, *(rule for axis in axes for rule in axis.rules))
    cls.Policy = _part_of(cls, policy_model("Policy", cls.rules, cls.__module__))
    metrics = {rule.metric for rule in cls.rules}
    cls.presets = {
        name: preset_values(cls.rules, bounds) for name, bounds in PRESETS.items() if any(m in metrics for m in bounds)
    }


def _part_of(cls: type, made: type[M]) -> type[M]:
    """Let a made class be found as an attribute of its filter, so that its instances can be pickled."""
    made.__qualname__ = f"{cls.__qualname__}.{made.__name__}"
    return made


def _warn_without_backend(axis: Axis) -> None:
    if getattr(axis.config, "backend", None) == "none" and axis.name not in _warned:
        _warned.add(axis.name)
        _log.warning(
            "axis %s has no backend, so what a model would tell stays null; name one with %s.backend",
            axis.name,
            axis.name,
        )
