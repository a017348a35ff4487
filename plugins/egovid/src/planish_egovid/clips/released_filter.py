"""ReleasedScores: the published scores as a data filter, so that they can be decided on anew without any video."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from planish.config import Config as PluginConfig
from planish.errors import DataError, PlanishError
from planish.interfaces import Clip, DataFilter, Decision, Row

from planish_egovid.clips.ids import ClipId
from planish_egovid.clips.released_csv import SCORES, ReleasedCsv, read_egovid_csv
from planish_egovid.filters import EgoVid
from planish_egovid.policy import decide, settled

BACKEND = "released"
"""What stands in ``motion_backend`` and the like: the values are the publishers', computed with their models."""


class ReleasedScoresConfig(PluginConfig):
    """There is nothing to choose: the scores are what they are."""


class ReleasedScores(DataFilter):
    """Reads the scores of a released table; its rows and its policy are those of the filter ``egovid``."""

    name: ClassVar[str] = "egovid-released"
    summary: ClassVar[str] = "the published scores of EgoVid-5M, read from its tables"
    Config = ReleasedScoresConfig
    Policy = EgoVid.Policy
    Columns = EgoVid.Columns
    presets = EgoVid.presets
    suffixes: ClassVar[tuple[str, ...]] = (".csv",)
    config: ReleasedScoresConfig

    def clips_of(self, path: Path) -> list[Clip]:
        """Return the clips of a table.

        Their file is the table; ``planish egovid import-csv`` makes clips of the videos.

        Raises:
            DataError: It cannot be read, or an id is wrong or occurs twice.
        """
        table = read_egovid_csv(path)
        found: list[Clip] = []
        seen: dict[str, int] = {}
        for row in table:
            parsed = row.clip_id
            key = str(ClipId(parsed.source, parsed.start, parsed.end))
            if key in seen:
                raise DataError(f"{path}, row {row.number}: clip {key!r} stands in row {seen[key]} already")
            seen[key] = row.number
            # The place alone, not the scores: there are millions of clips.
            place = {"offset": row.offset, "row": row.number}
            found.append(Clip(row.values["video_id"].strip(), str(path), text=row.values.get("name"), extra=place))
        return found

    def score(self, clips: Sequence[Clip]) -> list[Row]:
        """Return the published scores."""
        return [self._row(clip) for clip in clips]

    def decide(self, row: Row, policy: PluginConfig | None = None) -> Decision:
        """Decide as the filter ``egovid`` does."""
        return decide(row, self.Policy() if policy is None else policy, EgoVid.rules)

    def settle(self, policy: PluginConfig, rows: Iterable[Row]) -> PluginConfig:
        """Return ``policy`` with quantiles turned into numbers over ``rows``."""
        return settled(policy, rows, EgoVid.rules)

    def _row(self, clip: Clip) -> Row:
        offset = clip.extra.get("offset")
        try:
            if not isinstance(offset, int):
                raise DataError(
                    f"clip {clip.id!r} was not read from a released table; give the .csv file itself as PATH"
                )
            released = _table(clip.path, os.stat(clip.path).st_mtime_ns).row_at(offset, clip.extra.get("row", 0))
            values = released.values
            if str(values.get("video_id") or "").strip() != clip.id:
                raise DataError(f"{clip.path} does not have clip {clip.id!r} where it was; has the file changed?")
        except (PlanishError, OSError) as error:
            return self.Columns(clip_id=clip.id, error=" ".join(str(error).split()))
        row: dict[str, Any] = {name: values.get(name) for name in SCORES}
        frames, fps = values.get("frame_num"), values.get("fps")
        row |= {"fps": fps, "frames_expected": released.clip_id.frames, "frames_actual": frames}
        row["duration_s"] = frames / fps if frames and fps else None
        for column, score in (("motion_backend", "flow_mean"), ("ii_backend", "ii_sim")):
            row[column] = BACKEND if values.get(score) is not None else None
        return self.Columns(clip_id=clip.id, **row)


@lru_cache(maxsize=4)
def _table(path: str, changed: int) -> ReleasedCsv:
    return read_egovid_csv(path)
