"""Decoding clips: every frame once, whoever asks for it, one open file for all clips of it."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from planish.interfaces import Clip

from planish_egovid.video.config import DecodeConfig
from planish_egovid.video.errors import ClipDecodeError, ClipRangeError, NoVideoStreamError
from planish_egovid.video.frame_pass import FramePass, PassFailed
from planish_egovid.video.picture import Look, Pictures
from planish_egovid.video.request import FrameRequest, Frames, VideoInfo
from planish_egovid.video.video_file import VideoFile
from planish_egovid.video.view import ClipView, FrameTally

Requests = Callable[[Clip, VideoInfo, float], Sequence[FrameRequest]]
"""``(clip, video, duration_s) -> requests``: what is wanted of a clip."""

RETRY_LEAD_S = 10.0
"""How much earlier decoding starts when a frame did not come out: streams that refresh bit by bit need a run-up."""
_MISSING_FRAMES = 0.75
"""A stream that ends this many frames early is truncated."""
_GAPS = 0.05
"""Share of its frames that an otherwise even stream may lack without being incomplete."""


def decode_clips(
    clips: Sequence[Clip], requests: Requests, config: DecodeConfig | None = None
) -> Iterator[tuple[Clip, ClipView | Exception]]:
    """Yield each clip of one file with its frames, or with why it has none.

    The file is opened once and read forwards; clips that overlap share their frames. A clip's frames do not depend on
    which other clips are read with it.

    Args:
        clips: Clips of the same ``path`` and the same ``extra["stream"]``; they come back in order of their start.
        requests: What is wanted of a clip.
        config: Limits.
    """
    if not clips:
        return
    settings = config or DecodeConfig()
    try:
        file = VideoFile(clips[0].path, _stream_of(clips[0]), settings)
        file.__enter__()
    except Exception as error:
        yield from ((clip, error) for clip in clips)
        return
    try:
        jobs: list[_Job] = []
        for clip in clips:
            try:
                jobs.append(_Job.plan(clip, file, requests, settings))
            except Exception as error:
                yield clip, error
        jobs.sort(key=lambda job: (job.start, job.stop))
        for run in _runs(jobs, file):
            yield from _decode_run(file, run)
    finally:
        file.__exit__(None, None, None)


def _stream_of(clip: Clip) -> int | None:
    stream = clip.extra.get("stream")
    if stream is None:
        return None
    try:
        return int(stream)
    except (TypeError, ValueError):
        raise NoVideoStreamError(f"stream={stream!r} is no index of a stream; expected a number such as 0") from None


@dataclass
class _Job:
    """A clip on its way: what is wanted, and what there is of it so far."""

    clip: Clip
    start: int
    stop: int
    duration_s: float
    requests: list[FrameRequest]
    tolerates_damage: bool
    looks: dict[int, set[Look]]
    shown: dict[int, int] = field(default_factory=dict)
    images: dict[tuple[Look, int], NDArray[np.uint8]] = field(default_factory=dict)

    @classmethod
    def plan(cls, clip: Clip, file: VideoFile, requests: Requests, config: DecodeConfig) -> _Job:
        start_s, end_s = _span(clip, file, config)
        duration_s = end_s - start_s
        wanted = list(dict.fromkeys(requests(clip, file.info, duration_s)))
        job = cls(clip, file.boundary(start_s), file.boundary(end_s), duration_s, wanted, config.damaged == "score", {})
        for request in wanted:
            for tick in job.ticks(request, file):
                job.looks.setdefault(tick, set()).add(Look.of(request))
        return job

    def ticks(self, request: FrameRequest, file: VideoFile) -> list[int]:
        """Return the ticks of a request's times, inside the clip."""
        last = max(self.stop - 1, self.start)
        return [min(max(file.tick(self.clip.start_s + t), self.start), last) for t in request.times_s]

    def take(self, frame: Any, shown: int, ticks: Sequence[int], converted: _Converted) -> None:
        """Keep what this clip wants of a frame."""
        for tick in ticks:
            for look in self.looks.get(tick, ()):
                self.shown[tick] = shown
                self.images[look, shown] = converted(frame, look)

    def view(self, file: VideoFile, pictures: Pictures, done: FramePass) -> ClipView:
        """Return the clip with its frames.

        Raises:
            ClipDecodeError: The file ends before the clip does, or a wanted frame is damaged beyond recognition.
        """
        inside = done.stamps[bisect_left(done.stamps, self.start) : bisect_left(done.stamps, self.stop)]
        expected = max(round(self.duration_s * file.info.fps), 1)
        damage = {at: said for at, said in done.damage.items() if self.start <= at < self.stop}
        tally = FrameTally(expected, len(inside), len(damage))
        self._require_end(file, done, tally)
        self._require_frames(file, done, damage, tally)
        if not file.is_indexed:
            _require_no_gaps(inside)
        uneven = _is_uneven(inside)
        decoded = {request: self._frames(request, file, pictures) for request in self.requests}
        return ClipView(self.clip, replace(file.info, variable_rate=uneven), self.duration_s, decoded, tally)

    def _require_end(self, file: VideoFile, done: FramePass, tally: FrameTally) -> None:
        upto = bisect_left(done.stamps, self.stop)
        end = done.ends[done.stamps[upto - 1]] if upto else file.zero
        if self.stop - end >= _MISSING_FRAMES * file.frame_ticks:
            expected = max(tally.expected, tally.actual + 1)
            why = "" if done.cut_short in ("", "end of file") else f" ({done.cut_short})"
            raise ClipDecodeError(f"truncated: {tally.actual}/{expected} frames{why}")

    def _require_frames(self, file: VideoFile, done: FramePass, damage: dict[int, str], tally: FrameTally) -> None:
        lost = 0
        for tick in self.looks:
            shown = self.shown.get(tick)
            due = done.stamps[max(bisect_right(done.stamps, tick), 1) - 1] if done.stamps else tick
            lost += shown is None or due - shown >= _MISSING_FRAMES * file.frame_ticks
        if lost:
            why = next(iter(damage.values()), "the decoder gave none")
            raise DamagedFrames(f"damaged: {lost} of {len(self.looks)} frames cannot be decoded ({why})")
        if damage and not self.tolerates_damage:
            raise ClipDecodeError(
                f"damaged: {len(damage)} of {tally.actual} frames have errors ({next(iter(damage.values()))})"
            )

    def _frames(self, request: FrameRequest, file: VideoFile, pictures: Pictures) -> Frames:
        look = Look.of(request)
        shown = [self.shown[tick] for tick in self.ticks(request, file)]
        images = [self.images[look, at] for at in shown]
        stacked = np.stack(images) if images else np.zeros((0, *pictures.shape(look)), np.uint8)
        times = np.array([file.seconds(at) - self.clip.start_s for at in shown], np.float64)
        return Frames(stacked, times, pictures.scale(look))


class DamagedFrames(ClipDecodeError):
    """Wanted frames did not come out of the decoder."""


class _Converted:
    """The pictures of the newest frame, for clips that share it."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._frame: Any = None
        self._images: dict[Look, NDArray[np.uint8]] = {}

    def __call__(self, frame: Any, look: Look) -> NDArray[np.uint8]:
        if frame is not self._frame:
            self._frame, self._images = frame, {}
        if look not in self._images:
            self._images[look] = self._pictures.convert(frame, look)
        return self._images[look]


def _span(clip: Clip, file: VideoFile, config: DecodeConfig) -> tuple[float, float]:
    """Return a clip's start and end in seconds.

    Raises:
        ClipRangeError: They are no span of the file, or a longer one than is allowed.
    """
    start, end, length = clip.start_s, clip.end_s, file.info.duration_s
    if not (math.isfinite(start) and start >= 0):
        raise ClipRangeError(f"start_s={start} is no time in a file; expected 0 or more seconds")
    if end is not None and not end > start:
        raise ClipRangeError(f"end_s={end} is not after start_s={start}")
    frame_s = 1 / file.info.fps
    if end is None:
        end = length if length is not None and file.duration_is_exact else None
        if end is None or end - start <= config.max_clip_s:
            end = end if end is not None else _measured_end(file, start + config.max_clip_s)
        if end <= start:
            raise ClipRangeError(f"start_s={start} is at or after the end of the file at {end:.3f} s")
    elif length is not None and end > length + frame_s:
        raise ClipRangeError(f"end_s={end} is after the end of the file at {length:.3f} s")
    if not end - start <= config.max_clip_s:
        raise ClipRangeError(
            f"the clip lasts {end - start:.6g} s, longer than max_clip_s={config.max_clip_s:g}; cut it into clips first"
        )
    return start, end if length is None or not file.duration_is_exact else min(end, max(length, start + frame_s))


def _measured_end(file: VideoFile, enough: float) -> float:
    """Return where a stream of unknown length ends in seconds, by reading its packets; or a time after ``enough``."""
    limit = file.tick(enough + 1)
    found = FramePass(file, (), file.zero, limit, skip=False)
    found.scan()
    return file.seconds(max(found.ends.values(), default=file.zero))


def _runs(jobs: Sequence[_Job], file: VideoFile) -> Iterator[list[_Job]]:
    """Yield groups of clips that follow each other so closely that seeking between them gains nothing."""
    near = round(1 / float(file.time_base))
    run: list[_Job] = []
    end = 0
    for job in jobs:
        if run and job.start > end + near:
            yield run
            run = []
        end = max(end, job.stop) if run else job.stop
        run.append(job)
    if run:
        yield run


def _decode_run(file: VideoFile, run: Sequence[_Job]) -> Iterator[tuple[Clip, ClipView | Exception]]:
    """Decode neighbouring clips in one pass. Should anything be amiss, each is decoded alone, as if it were so."""
    waiting = list(run)
    if len(run) > 1:
        try:
            for job, view in _one_pass(file, run, skip=True):
                waiting.remove(job)
                yield job.clip, view
        except Exception:  # whatever it is, it is found again, and told, with the clip that it concerns
            waiting = [replace(job, shown={}, images={}) for job in waiting]
    for job in waiting:
        yield job.clip, _alone(file, job)


def _alone(file: VideoFile, job: _Job) -> ClipView | Exception:
    lead = round(RETRY_LEAD_S / float(file.time_base))
    ways = [(True, 0), (False, 0), (False, lead)]
    failure: Exception = ClipDecodeError("no frame")
    for skip, run_up in ways if job.start > file.zero else ways[:2]:
        fresh = replace(job, shown={}, images={})
        try:
            (_, view), *_ = list(_one_pass(file, [fresh], skip=skip, lead=run_up))
            return view
        except (PassFailed, DamagedFrames) as error:
            failure = error
        except Exception as error:
            return error
    return failure


def _one_pass(file: VideoFile, jobs: Sequence[_Job], *, skip: bool, lead: int = 0) -> Iterator[tuple[_Job, ClipView]]:
    """Decode clips together and yield each as soon as it is complete.

    Raises:
        PassFailed: The pass did not work in this way, or clips were decoded together and a frame is damaged.
        ClipDecodeError: The clip is no good.
    """
    pictures = Pictures(file)
    converted = _Converted(pictures)
    targets = sorted({tick for job in jobs for tick in job.looks})
    start, stop = min(job.start for job in jobs), max(job.stop for job in jobs)
    done = FramePass(file, targets, start, stop, skip, lead)
    open_jobs = list(jobs)
    together = len(jobs) > 1
    for frame, shown, ticks in done.frames():
        for job in open_jobs:
            job.take(frame, shown, ticks, converted)
        for job in [j for j in open_jobs if j.stop <= shown and j.stop <= done.read_to]:
            if together and done.damage:
                raise PassFailed("damaged; each clip is decoded alone")
            open_jobs.remove(job)
            yield job, job.view(file, pictures, done)
    if together and done.damage:
        raise PassFailed("damaged; each clip is decoded alone")
    for job in open_jobs:
        yield job, job.view(file, pictures, done)


def _require_no_gaps(stamps: Sequence[int]) -> None:
    """Refuse an even stream with gaps: where a container has no index, lost frames leave no other trace."""
    gaps = [b - a for a, b in pairwise(stamps)]
    usual = median(gaps) if gaps else 0
    even = sum(abs(gap - usual) <= 0.1 * usual + 1 for gap in gaps)
    lost = sum(max(round(gap / usual) - 1, 0) for gap in gaps) if usual else 0
    if even >= 0.8 * len(gaps) and lost > _GAPS * (len(stamps) + lost):
        raise ClipDecodeError(f"incomplete: {len(stamps)}/{len(stamps) + lost} frames; there are gaps between them")


def _is_uneven(stamps: Sequence[int]) -> bool:
    gaps = [b - a for a, b in pairwise(stamps)]
    if len(gaps) < 2:
        return False
    usual = median(gaps)
    return max(abs(gap - usual) for gap in gaps) > 0.1 * usual + 1
