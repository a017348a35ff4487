"""DecodeStage: from clips to columns, every clip decoded once for all of its axes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from planish.errors import DataError
from planish.interfaces import Clip, ClipWork

from planish_egovid.axis import Axis
from planish_egovid.filters.clip_columns import clip_values
from planish_egovid.filters.early_exit import EarlyExit
from planish_egovid.flow.one_thread import one_thread
from planish_egovid.video.config import DecodeConfig
from planish_egovid.video.decode import decode_clips
from planish_egovid.video.request import FrameRequest, VideoInfo
from planish_egovid.video.view import ClipView

_log = logging.getLogger(__name__)


class DecodeStage:
    """Decodes clips and measures every axis on them."""

    def __init__(self, axes: Sequence[Axis], limits: DecodeConfig, early_exit: EarlyExit | None = None) -> None:
        """Measure ``axes``, in this order.

        Args:
            axes: Cheap ones first.
            limits: Of decoding.
            early_exit: When to leave out the remaining axes; None for never.
        """
        self._axes = axes
        self._limits = limits
        self._early_exit = early_exit

    def __call__(self, works: list[ClipWork]) -> list[ClipWork]:
        """Fill in the works of a batch. Clips of one file share one opening of it."""
        by_file: dict[tuple[str, str], list[ClipWork]] = {}
        for work in works:
            by_file.setdefault((work.clip.path, repr(work.clip.extra.get("stream"))), []).append(work)
        for of_file in by_file.values():
            works_of: dict[int, list[ClipWork]] = {}
            for work in of_file:
                works_of.setdefault(id(work.clip), []).append(work)
            with one_thread():
                for clip, found in decode_clips([work.clip for work in of_file], self.requests, self._limits):
                    work = works_of[id(clip)].pop()
                    if isinstance(found, ClipView):
                        self._measure(work, found)
                    else:
                        work.error = _reason(found)
        return works

    def requests(self, clip: Clip, video: VideoInfo, duration_s: float) -> list[FrameRequest]:
        """Return what all axes want of a clip."""
        return [request for axis in self._axes for request in axis.requests(clip, video, duration_s)]

    def _measure(self, work: ClipWork, view: ClipView) -> None:
        work.values.update(clip_values(view))
        for place, axis in enumerate(self._axes):
            try:
                work.values.update(_plain(axis.measure(view)))
            except Exception as error:
                work.error = f"{axis.name}: {_reason(error)}"
                return
            if self._early_exit is not None and (rest := self._axes[place + 1 :]):
                work.values["skipped_axes"] = []
                if self._early_exit.rejects(work.values):
                    work.values["skipped_axes"] = [later.name for later in rest]
                    break
        work.payload = view.payload


def _reason(error: Exception) -> str:
    """Return an error as one line; one that nobody foresaw is logged with its traceback."""
    said = " ".join(str(error).split())
    if isinstance(error, DataError):
        return said
    if not isinstance(error, MemoryError):
        _log.error("an unforeseen error while a clip was scored", exc_info=error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as stored: a number that is none is missing."""
    return {
        column: None if isinstance(value, float) and not math.isfinite(value) else value
        for column, value in values.items()
    }
