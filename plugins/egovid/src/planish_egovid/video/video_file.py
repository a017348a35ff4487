"""VideoFile: one opened file, its best video stream, and its clock."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import av.error
from av.stream import Discard

from planish_egovid.video.config import DecodeConfig
from planish_egovid.video.container import open_container
from planish_egovid.video.errors import ClipDecodeError, NoVideoStreamError
from planish_egovid.video.ffmpeg_log import FFmpegLog
from planish_egovid.video.orientation import orientation_of
from planish_egovid.video.request import VideoInfo
from planish_egovid.video.stream_info import frame_rate, pixel_aspect, stated_duration, transfer_name, video_stream

FIRST_PACKETS = 17
"""Packets looked at when a file is opened: as many as the deepest reordering of H.264, and one."""

_INDEXED = frozenset({"mov", "mp4", "avi"})

MAX_REFUSALS = 1000
"""How often in a row a demuxer may put us off."""

FAILURES = (av.error.FFmpegError, OSError, ValueError, OverflowError)
"""What PyAV raises for files that are no good."""


class VideoFile:
    """One opened video file. Use it as a context manager.

    Time 0 is the first frame that is shown, whatever the stream's own clock says then.

    Attributes:
        path: The file.
        info: What the stream is.
        orientation: How its frames are turned upright.
        stored_size: Width and height of the frames as decoded.
        duration_is_exact: Whether ``info.duration_s`` is the video stream's own.
        is_indexed: Whether the container lists all its frames, so that gaps between them are meant.
        zero: Presentation time of the first frame, in ticks.
        time_base: Seconds a tick.
        log: FFmpeg's messages.
    """

    def __init__(self, path: str | Path, stream: int | None = None, config: DecodeConfig | None = None) -> None:
        """Describe the file; it is opened on entering.

        Args:
            path: The file.
            stream: Index of the video stream in its container; None for the one that FFmpeg deems best.
            config: Limits.
        """
        self.path = Path(path)
        self.log = FFmpegLog()
        self._wanted_stream = stream
        self._config = config or DecodeConfig()
        self._container: Any = None

    def __enter__(self) -> VideoFile:
        """Open the file and find out what it is.

        Raises:
            ClipDecodeError: It cannot be opened, nothing in it decodes, or it is beyond the limits.
            NoVideoStreamError: It holds no moving pictures.
        """
        self.log.__enter__()
        try:
            self._open()
            self._examine()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        if self._container is not None:
            self._container.close()
            self._container = None
        self.log.__exit__(kind, error, trace)

    # ---- the clock

    def tick(self, seconds: float) -> int:
        """Return the last tick that counts as ``seconds``: a frame that starts then is on screen."""
        return self.zero + math.floor((seconds + self._rounding_s) / float(self.time_base))

    def boundary(self, seconds: float) -> int:
        """Return the first tick that counts as ``seconds``: a frame that starts then is not before it."""
        return self.zero + math.ceil((seconds - self._rounding_s) / float(self.time_base))

    @property
    def _rounding_s(self) -> float:
        """How far a frame's time may be off: containers round it to ticks, and users to some decimal."""
        return min(max(float(self.time_base), 1e-6), 0.001, 0.1 / self.info.fps)

    def seconds(self, tick: int) -> float:
        """Return seconds from the first frame."""
        return float((tick - self.zero) * self.time_base)

    @property
    def frame_ticks(self) -> float:
        """Average ticks a frame."""
        return 1 / (self.info.fps * float(self.time_base))

    # ---- packets and frames

    def rewind(self) -> Iterator[Any]:
        """Return the packets of the stream from the beginning."""
        if self.info.timed:
            try:
                self._container.seek(self.zero, stream=self._stream)
                packets = self._demux()
                first = next(packets, None)
            except FAILURES:
                first = None
            if first is not None and (first.pts, first.dts) == self._first_stamps:
                return _put_back(first, packets)
        self._open()  # what cannot be sought is opened again
        return self._demux()

    def seek(self, tick: int) -> Iterator[Any]:
        """Return the packets from a keyframe on that is shown at ``tick`` or before."""
        if self.info.timed:
            second = round(1 / self.time_base)
            for back in (0, second, 10 * second):
                if tick - back <= self.zero:
                    break
                try:
                    self._container.seek(tick - back, stream=self._stream)
                    packets = self._demux()
                    first = next((p for p in packets if p.is_keyframe and not p.is_discard), None)
                except FAILURES:
                    break
                # Frames that follow a keyframe in the file but are shown before it may need what precedes it.
                if first is not None and first.pts is not None and first.pts <= tick:
                    return _put_back(first, packets)
        return self.rewind()

    def decode(self, packet: Any) -> list[Any]:
        """Return the frames that the decoder gives for a packet; None for the ones it still holds."""
        frames: list[Any] = self._stream.codec_context.decode(packet)
        return frames

    def forget(self) -> None:
        """Drop what the decoder holds, so that another place can be decoded."""
        self._stream.codec_context.flush_buffers()

    def skip_unreferenced(self, skip: bool) -> None:
        """Let the decoder leave out frames that no other frame is predicted from, until told otherwise."""
        self._stream.codec_context.skip_frame = "NONREF" if skip else "DEFAULT"

    # ---- opening

    def _open(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None
        if not self.path.is_file():
            what = "is a folder" if self.path.is_dir() else "is no file" if self.path.exists() else "does not exist"
            raise ClipDecodeError(f"'{self.path}' {what}")
        try:
            self._container = open_container(self.path)
            self._stream = video_stream(self._container, self._wanted_stream)
        except FAILURES as error:
            if isinstance(error, NoVideoStreamError | ClipDecodeError):
                raise
            raise ClipDecodeError(f"'{self.path}' cannot be opened: {self.log.reason(error)}") from None
        for other in self._container.streams:
            if other.index != self._stream.index:
                other.discard = Discard.all
        context = self._stream.codec_context
        context.thread_count, context.thread_type = 1, "NONE"
        # Decoders count their padding, too; what is beyond the limit proper is refused with the first frame.
        context.options = {"max_pixels": str(2 * self._config.max_pixels + (1 << 16))}

    def _examine(self) -> None:
        """Decode the first frame: only it knows its orientation, and whether the decoder can do anything."""
        context = self._stream.codec_context
        self._refuse_size(context.width, context.height)
        fps = frame_rate(self._stream)
        aspect = pixel_aspect(self._stream)
        packets = self._first_packets()
        frame = self._first_frame(packets)
        self._refuse_size(frame.width, frame.height)
        # Fragmented files have no list of all frames; they state none.
        self.is_indexed = bool(_INDEXED & set(self._container.format.name.split(","))) and self._stream.frames > 0
        timed = all(packet.pts is not None for packet in packets)
        self.time_base = Fraction(self._stream.time_base) if timed else 1 / Fraction(fps)
        self.zero = self._zero(frame, packets[0]) if timed else 0
        self._first_stamps = (packets[0].pts, packets[0].dts)
        self.orientation = orientation_of(frame)
        self.stored_size = (frame.width, frame.height)
        width, height = max(round(frame.width * aspect), 1), frame.height
        if self.orientation.swaps_sides:
            width, height = height, width
        start_s = float(self.zero * self.time_base)
        duration_s, self.duration_is_exact = stated_duration(self._container, self._stream, start_s)
        self.info = VideoInfo(
            width=width,
            height=height,
            fps=fps,
            frames=self._stream.frames or None,
            duration_s=duration_s,
            rotation=self.orientation.rotation,
            codec=str(context.name),
            pixel_format=str(frame.format.name),
            mirrored=self.orientation.mirrored,
            transfer=transfer_name(frame),
            timed=timed,
        )

    def _first_packets(self) -> list[Any]:
        packets: list[Any] = []
        try:
            for packet in islice(self._demux(), FIRST_PACKETS):
                packets.append(packet)
        except FAILURES as error:
            if not packets:
                raise ClipDecodeError(f"'{self.path}' cannot be read: {self.log.reason(error)}") from None
        return packets

    def _first_frame(self, packets: list[Any]) -> Any:
        reason = "it holds no frame"
        for packet in packets:
            for part in (packet, None):  # None asks for the frame at once instead of after the frames that follow
                try:
                    frames = self.decode(part)
                except FAILURES as error:
                    reason, frames = self.log.reason(error), []
                if frames:
                    self.forget()
                    self.log.take()
                    return frames[0]
            self.forget()
        said = self.log.take()
        raise ClipDecodeError(f"no frame of '{self.path}' can be decoded: {said or reason}")

    def _zero(self, frame: Any, packet: Any) -> int:
        """Return when the first shown frame is shown."""
        if packet.is_discard and self._stream.start_time is not None:  # an edit list starts inside a group of pictures
            return int(self._stream.start_time)
        return int(packet.pts if packet.is_keyframe else frame.pts)

    def _refuse_size(self, width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise ClipDecodeError(f"'{self.path}' states frames of {width} x {height} pixels")
        if width * height > self._config.max_pixels:
            raise ClipDecodeError(
                f"frames of {width} x {height} pixels are beyond max_pixels={self._config.max_pixels} ('{self.path}')"
            )

    def _demux(self) -> Iterator[Any]:
        """Yield the stream's packets without the empty one that PyAV ends with."""
        refused = 0
        while True:
            try:
                for packet in self._container.demux(self._stream):
                    refused = 0
                    if packet.size:
                        yield packet
                return
            except (
                BlockingIOError,
                IndexError,
            ):  # the demuxer asks to be asked again; a stream that was not there before
                refused += 1
                if refused > MAX_REFUSALS:
                    raise


def _put_back(first: Any, packets: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from packets


def probe(path: str | Path, stream: int | None = None) -> VideoInfo:
    """Return what a video file is.

    Raises:
        ClipDecodeError: It cannot be read.
        NoVideoStreamError: It holds no moving pictures.
    """
    with VideoFile(path, stream) as file:
        return file.info
