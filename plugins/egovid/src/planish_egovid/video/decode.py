"""Decoding clips: every frame once, whoever asks for it, one open file for all clips of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from planish.interfaces import Clip

from planish_egovid.video.clip_job import ClipJob, DamagedFrames, Requests, SharedPictures
from planish_egovid.video.config import DecodeConfig
from planish_egovid.video.errors import ClipDecodeError, NoVideoStreamError
from planish_egovid.video.frame_pass import FramePass, PassFailed
from planish_egovid.video.picture import Pictures
from planish_egovid.video.video_file import VideoFile
from planish_egovid.video.view import ClipView

RETRY_LEAD_S = 10.0
"""How much earlier decoding starts when a frame did not come out: streams that refresh bit by bit need a run-up."""


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
        jobs: list[ClipJob] = []
        for clip in clips:
            try:
                jobs.append(ClipJob.plan(clip, file, requests, settings))
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


def _runs(jobs: Sequence[ClipJob], file: VideoFile) -> Iterator[list[ClipJob]]:
    """Yield groups of clips that follow each other so closely that seeking between them gains nothing."""
    near = round(1 / float(file.time_base))
    run: list[ClipJob] = []
    end = 0
    for job in jobs:
        if run and job.start > end + near:
            yield run
            run = []
        end = max(end, job.stop) if run else job.stop
        run.append(job)
    if run:
        yield run


def _decode_run(file: VideoFile, run: Sequence[ClipJob]) -> Iterator[tuple[Clip, ClipView | Exception]]:
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


def _alone(file: VideoFile, job: ClipJob) -> ClipView | Exception:
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


def _one_pass(
    file: VideoFile, jobs: Sequence[ClipJob], *, skip: bool, lead: int = 0
) -> Iterator[tuple[ClipJob, ClipView]]:
    """Decode clips together and yield each as soon as it is complete.

    Raises:
        PassFailed: The pass did not work in this way, or clips were decoded together and a frame is damaged.
        ClipDecodeError: The clip is no good.
    """
    pictures = Pictures(file)
    converted = SharedPictures(pictures)
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
