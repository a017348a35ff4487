"""Clips around narrations, after the rule of EgoClip."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from planish.errors import ConfigError, DataError
from planish.interfaces import Clip

from planish_egovid.clips.segmenter import Narration, Source

_log = logging.getLogger(__name__)


class NarrationSegmenter:
    """Makes a clip of each narration.

    The rule ``"egoclip"`` is that of EgoClip (Lin et al., "Egocentric Video-Language Pretraining", arXiv 2206.01670):
    from t - β/2α to t + β/2α, where β is the mean gap between the video's narrations and α the mean of β
    over all videos. Its clips last about a second; ``min_frames`` then widens them around their middle to what
    generators are trained on. How EgoVid-5M was cut is not published.
    """

    def __init__(
        self,
        policy: Literal["egoclip", "fixed", "midpoint"] = "egoclip",
        *,
        mean_gap_s: float | None = None,
        length_s: float = 4.0,
        min_frames: int = 120,
        max_s: float = 10.0,
    ) -> None:
        """Create the segmenter.

        Args:
            policy: ``"egoclip"``; ``"fixed"``: ``length_s`` with the narration in the middle; ``"midpoint"``: from half
                way to the narration before to half way to the one after.
            mean_gap_s: α in seconds, see :func:`mean_gap`; ``"egoclip"`` needs it.
            length_s: Seconds of a clip, for ``"fixed"``.
            min_frames: Shortest clip; shorter ones are widened around their middle, moved inside the video if need be.
            max_s: Longest clip in seconds; longer ones are narrowed around their middle.

        Raises:
            ConfigError: A value is out of bounds.
        """
        if policy not in ("egoclip", "fixed", "midpoint"):
            raise ConfigError(f"policy is {policy!r}; expected egoclip, fixed or midpoint")
        for name, value in (
            ("mean_gap_s", mean_gap_s), ("length_s", length_s), ("min_frames", min_frames), ("max_s", max_s)
        ):  # fmt: skip
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}; expected more than 0")
        self._policy, self._mean_gap_s, self._length_s = policy, mean_gap_s, length_s
        self._min_frames, self._max_s = min_frames, max_s

    def clips(self, source: Source) -> list[Clip]:
        """Return a clip for each narration within the video; of several with the same frames, the first.

        Raises:
            ConfigError: The policy is ``"egoclip"`` and there is no ``mean_gap_s``.
            DataError: The time of a narration is no number, or ``max_s`` is shorter than ``min_frames``.
        """
        longest = math.floor(Fraction(self._max_s) * source.fps)
        if longest < self._min_frames:
            raise DataError(
                f"{source.path}: max_s {self._max_s:g} is {longest} frames at {float(source.fps):g} fps, below "
                f"min_frames {self._min_frames}; raise one or lower the other"
            )
        ordered = sorted(source.narrations, key=lambda narration: narration.time_s)
        bad = [narration for narration in ordered if not math.isfinite(narration.time_s)]
        if bad:
            raise DataError(f"{source.path}: narration {bad[0].text!r} is at {bad[0].time_s} s; expected a number")
        if source.frames < self._min_frames:
            _log.warning(
                "%s has %d frames, below min_frames %d: no clips", source.path, source.frames, self._min_frames
            )
            return []
        duration = source.frames / source.fps
        inside = [narration for narration in ordered if 0 <= Fraction(narration.time_s) < duration]
        if len(inside) < len(ordered):
            _log.warning("%s: %d narrations lie outside the video", source.path, len(ordered) - len(inside))
        found: dict[tuple[int, int], Clip] = {}
        for narration, (low, high) in zip(inside, self._spans(inside, source), strict=True):
            span = snap(low, high, source, least=self._min_frames, most=longest)
            if span not in found:
                found[span] = source.clip(*span, narration.text, narration.extra)
        return [found[span] for span in sorted(found)]

    def _spans(self, narrations: Sequence[Narration], source: Source) -> list[tuple[float, float]]:
        times = [narration.time_s for narration in narrations]
        if self._policy == "midpoint":
            halves = [(a + b) / 2 for a, b in pairwise(times)]
            return list(zip([0.0, *halves], [*halves, float(source.frames / source.fps)], strict=True)) if times else []
        if self._policy == "fixed":
            half = self._length_s / 2
        else:
            if self._mean_gap_s is None:
                raise ConfigError(
                    "mean_gap_s is missing: the egoclip rule needs the mean gap over all videos; mean_gap() gives it"
                )
            own = gap(times)
            half = (self._mean_gap_s if own is None else own) / (2 * self._mean_gap_s)
        return [(time - half, time + half) for time in times]


def gap(times_s: Sequence[float]) -> float | None:
    """Return the mean gap between a video's narrations in seconds: β; None without two at distinct times."""
    if len(times_s) < 2 or max(times_s) == min(times_s):
        return None
    return (max(times_s) - min(times_s)) / (len(times_s) - 1)


def mean_gap(videos: Iterable[Sequence[Narration]] | Mapping[str, Sequence[Narration]]) -> float:
    """Return the mean over videos of the mean gap between their narrations in seconds: α.

    Raises:
        DataError: No video has two narrations.
    """
    each = videos.values() if isinstance(videos, Mapping) else videos
    gaps = [own for own in (gap([n.time_s for n in narrations]) for narrations in each) if own is not None]
    if not gaps:
        raise DataError("no video has two narrations at distinct times; give mean_gap_s, or take policy fixed")
    return math.fsum(gaps) / len(gaps)


def snap(low_s: float, high_s: float, source: Source, *, least: int, most: int) -> tuple[int, int]:
    """Return a span of seconds as frames: of ``least`` to ``most`` frames, around the same middle, within the video.

    Args:
        low_s: Start in seconds; may lie before the video.
        high_s: End in seconds; may lie behind it.
        source: The video, of ``least`` frames or more.
        least: Fewest frames.
        most: Most frames.
    """
    middle = (Fraction(low_s) + Fraction(high_s)) / 2 * source.fps
    wanted = math.floor((Fraction(high_s) - Fraction(low_s)) * source.fps + Fraction(1, 2))
    length = min(max(wanted, least), most, source.frames)
    start = math.floor(middle - Fraction(length, 2) + Fraction(1, 2))
    start = min(max(start, 0), source.frames - length)
    return start, start + length
