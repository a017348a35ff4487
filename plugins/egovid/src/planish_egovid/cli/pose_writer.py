"""PoseWriter: writing poses as a data filter, so that the engines of filters run it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from planish.config import Config as PluginConfig
from planish.errors import PlanishError
from planish.interfaces import Clip, DataFilter, Decision, Row
from pydantic import Field

from planish_egovid.kinematics.config import KinematicsConfig


class PoseWriterConfig(PluginConfig):
    """Where poses go, and how they are found."""

    out: str = Field(description="folder for poses")
    kinematics: KinematicsConfig = Field(KinematicsConfig(), description="how poses are found")


class PoseRow(Row):
    """What was written for a clip."""

    files: list[str] | None = Field(None, description="names of the files")
    folder: str | None = Field(None, description="folder of the files")
    reason: str | None = Field(None, description="why files are missing, or null if none is")


class PoseWriter(DataFilter):
    """Writes the poses of clips. Not registered: ``planish egovid poses`` is its only user."""

    name: ClassVar[str] = "egovid-poses"
    summary: ClassVar[str] = "writes the poses of clips as files"
    Config = PoseWriterConfig
    Policy = PluginConfig
    Columns = PoseRow
    config: PoseWriterConfig

    def score(self, clips: Sequence[Clip]) -> list[Row]:
        """Write the poses of each clip."""
        return [self._write(clip) for clip in clips]

    def decide(self, row: Row, policy: PluginConfig | None = None) -> Decision:
        """Keep what could be written."""
        return Decision(row.error is None, row.error or "")

    def _write(self, clip: Clip) -> Row:
        from planish_egovid.kinematics.annotate import annotate

        try:
            done = annotate(clip, self.config.out, self.config.kinematics)
        except (PlanishError, OSError) as error:
            return PoseRow(clip_id=clip.id, error=" ".join(str(error).split()))
        reason = done.columns.get("kinematics_reason")
        return PoseRow(clip_id=clip.id, files=list(done.files), folder=str(done.folder), reason=reason)
