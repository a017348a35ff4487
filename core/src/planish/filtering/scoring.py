"""Scoring one group of clips so that each clip gets exactly one row, whatever the filter does short of dying."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from planish.errors import ConfigError, PluginError, UnsupportedError
from planish.interfaces.data_filter import Clip, DataFilter, Row

FATAL = (ConfigError, PluginError, UnsupportedError)
"""Errors that are about a filter and not about a clip, such as a model that cannot be loaded: they end the run."""

_log = logging.getLogger(__name__)


def score_group(data_filter: DataFilter, clips: Sequence[Clip]) -> list[Row]:
    """Return one row a clip, in order.

    A filter that raises, or that returns other rows than one a clip, breaks its contract: the clips are then scored one
    by one, and the one that it fails on gets an error row. Engines call this instead of ``DataFilter.score``.

    Raises:
        ConfigError, PluginError, UnsupportedError: As the filter raised it; every other clip would fail alike.
    """
    try:
        rows = data_filter.score(clips)
        _check(data_filter, clips, rows)
    except FATAL:
        raise
    except Exception as error:
        if len(clips) > 1:
            return [row for clip in clips for row in score_group(data_filter, [clip])]
        said = " ".join(str(error).split())
        _log.debug("%s failed on clip %s", data_filter.name, clips[0].id, exc_info=error)
        return [error_row(data_filter, clips[0], f"{type(error).__name__}{': ' if said else ''}{said}")]
    return rows


def error_row(data_filter: DataFilter, clip: Clip, error: str) -> Row:
    """Return the row of a clip that could not be scored."""
    return data_filter.Columns(clip_id=clip.id, error=error)


def _check(data_filter: DataFilter, clips: Sequence[Clip], rows: object) -> None:
    if not isinstance(rows, list) or len(rows) != len(clips):
        found = f"{len(rows)} rows" if isinstance(rows, list) else f"a {type(rows).__name__}"
        raise RuntimeError(f"{data_filter.name} returned {found} for {len(clips)} clips")
    for clip, row in zip(clips, rows, strict=True):
        if not isinstance(row, data_filter.Columns):
            raise RuntimeError(f"{data_filter.name} returned a {type(row).__name__} where its Columns are expected")
        if row.clip_id != clip.id:
            raise RuntimeError(f"{data_filter.name} returned the row of {row.clip_id!r} for clip {clip.id!r}")
