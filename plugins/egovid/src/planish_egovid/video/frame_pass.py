"""FramePass: one forward pass through a file that yields the frames on screen at given times."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from planish_egovid.video.errors import ClipDecodeError
from planish_egovid.video.video_file import FAILURES, FIRST_PACKETS, VideoFile

_SKIPS_EXACTLY = frozenset({"h264"})
"""Decoders that leave a frame out only if its bitstream says that no frame whatsoever is predicted from it."""


_NOTHING_READ = -(1 << 62)


class PassFailed(Exception):
    """The pass cannot be carried out in this way; another may work."""


class FramePass:
    """One forward pass through a file.

    In H.264, frames that nobody asked for and that no other frame needs are not decoded. Which frame is on screen at a
    time is known from the packets' time stamps, a few packets ahead of the decoder.

    Attributes:
        stamps: Presentation times of the packets read so far, rising, in ticks.
        ends: Presentation time -> end of that frame, in ticks.
        damage: Presentation time -> what FFmpeg said, for each frame at which the decoder found an error.
        cut_short: Why reading ended before ``stop``; empty if it did not. ``"end of file"`` if nothing was wrong.
        read_to: All packets that are shown before this tick have been read.
    """

    def __init__(
        self, file: VideoFile, targets: Sequence[int], start: int, stop: int, skip: bool = True, lead: int = 0
    ) -> None:
        """Plan a pass.

        Args:
            file: An open file.
            targets: Ticks, rising; each gets the frame that is on screen then.
            start: Tick from which frames are counted.
            stop: Tick at which reading ends.
            skip: Whether frames that nobody needs may be left out.
            lead: Ticks before the first target from which to decode already.
        """
        self._file = file
        self._targets = list(targets)
        self._start = start
        self._stop = stop
        self._skip = skip and file.info.timed and file.info.codec in _SKIPS_EXACTLY
        self._lead = lead
        self.stamps: list[int] = []
        self.ends: dict[int, int] = {}
        self.damage: dict[int, str] = {}
        self.cut_short = ""
        self.read_to = _NOTHING_READ

    def scan(self) -> None:
        """Read the packets without decoding anything."""
        for _ in self._packets():
            pass

    def frames(self) -> Iterator[tuple[Any, int, list[int]]]:
        """Yield decoded frames, when each is shown, and the targets at which it is on screen.

        Raises:
            PassFailed: Time stamps are out of order, or a needed frame did not come out, and another kind of pass may
                do better.
            ClipDecodeError: A frame has no time stamp.
        """
        self._file.forget()
        self._file.log.take()
        found = self._chosen_by_packet() if self._skip else self._chosen_by_output()
        for frame, shown, targets in found:
            if frame.is_corrupt:
                self.damage.setdefault(shown, "the decoder marked the frame as corrupt")
            yield frame, shown, targets

    # ---- reading

    def _packets(self) -> Iterator[tuple[Any, int]]:
        """Yield packets and their presentation times up to ``stop``."""
        first = self._targets[0] if self._targets else self._start
        packets = self._file.seek(max(first - self._lead, self._file.zero))
        beyond = counted = 0
        while True:
            try:
                packet = next(packets, None)
            except FAILURES as error:
                self.cut_short = self._file.log.reason(error)
                break
            if packet is None:
                self.cut_short = "end of file"
                break
            if not self._file.info.timed:
                shown = counted
                counted += 1
            elif packet.pts is None:
                raise ClipDecodeError(f"a packet of '{self._file.path}' has no presentation time")
            else:
                shown = packet.pts
            if not packet.is_discard:
                if shown in self.ends:
                    self.damage[shown] = "two frames have the same presentation time"
                insort(self.stamps, shown)
                length = packet.duration if packet.duration and self._file.info.timed else self._file.frame_ticks
                self.ends[shown] = shown + max(round(length), 1)
                if packet.is_corrupt:
                    self.damage[shown] = "the container marked the packet as corrupt"
            dts = packet.dts if self._file.info.timed else shown
            if dts is not None:
                if self._skip and (dts < self.read_to or shown < dts):
                    raise PassFailed("packets are out of order")
                self.read_to = max(self.read_to, dts)
            yield packet, shown
            beyond += shown >= self._stop
            if self.read_to >= self._stop or beyond >= FIRST_PACKETS:
                break
        self.read_to = self._stop

    def _decode(self, packet: Any, shown: int) -> list[Any]:
        """Return the frames that come out when a packet goes in, and note what FFmpeg says."""
        log = self._file.log
        log.take()
        try:
            frames = self._file.decode(packet)
        except FAILURES as error:
            self.damage[shown] = log.reason(error)
            return []
        if message := log.take():
            self.damage.setdefault(shown, message)
        return frames

    def _drain(self) -> list[Any]:
        try:
            frames = self._file.decode(None)
        except FAILURES:
            frames = []
        self._file.forget()
        return frames

    # ---- choosing by the packets' time stamps, which lets the decoder skip

    def _chosen_by_packet(self) -> Iterator[tuple[Any, int, list[int]]]:
        wanted: dict[int, list[int]] = {}
        remaining = len(self._targets)
        for packet, shown, targets in self._decided():
            if remaining == 0:
                continue  # read on to count the packets
            if targets:
                wanted[shown] = targets
                remaining -= len(targets)
            # Time stamps of packets that are not shown say nothing; those frames may be referred to.
            self._file.skip_unreferenced(not targets and not packet.is_discard)
            frames = self._decode(packet, shown)
            if remaining == 0:
                frames += self._drain()
            for frame in frames:
                if frame.pts in wanted:
                    yield frame, frame.pts, wanted.pop(frame.pts)
        self._file.skip_unreferenced(False)
        if remaining:
            for frame in self._drain():
                if frame.pts in wanted:
                    yield frame, frame.pts, wanted.pop(frame.pts)
        if wanted or remaining:
            raise PassFailed("not every frame came out")

    def _decided(self) -> Iterator[tuple[Any, int, list[int]]]:
        """Yield packets in decoding order with their targets, as soon as it is certain what these are."""
        waiting: deque[tuple[Any, int]] = deque()
        for packet, shown in self._packets():
            waiting.append((packet, shown))
            while waiting:
                following = self._following(waiting[0][1])
                # No later packet is shown before read_to, so none can come in between.
                if following is None or following > self.read_to:
                    break
                head, at = waiting.popleft()
                yield head, at, self._targets_in(head, at, following)
        for head, at in waiting:
            yield head, at, self._targets_in(head, at, self._following(at))

    def _following(self, shown: int) -> int | None:
        place = bisect_right(self.stamps, shown)
        return self.stamps[place] if place < len(self.stamps) else None

    def _targets_in(self, packet: Any, first: int, end: int | None) -> list[int]:
        if packet.is_discard:
            return []
        last = len(self._targets) if end is None else bisect_left(self._targets, end)
        return self._targets[bisect_left(self._targets, first) : last]

    # ---- choosing by what comes out of the decoder

    def _chosen_by_output(self) -> Iterator[tuple[Any, int, list[int]]]:
        held: tuple[Any, int] | None = None
        given = 0
        for frame, shown in self._outputs():
            if held is not None and shown <= held[1]:
                self.damage.setdefault(shown, "a frame came out of order")
                continue
            upto = bisect_left(self._targets, shown)
            if held is not None and (own := self._targets[self._from(held[1], given) : upto]):
                yield *held, own
            given = upto
            held = (frame, shown)
        if held is not None and (own := self._targets[self._from(held[1], given) :]):
            yield *held, own
        for _ in self._reader:
            pass
        self._file.forget()

    def _from(self, shown: int, given: int) -> int:
        """Return the first target that a frame is on screen at; at those before it no frame is."""
        return max(given, bisect_left(self._targets, shown))

    def _outputs(self) -> Iterator[tuple[Any, int]]:
        self._reader = self._packets()
        counted = 0
        last = self._targets[-1] if self._targets else self._start
        for packet, shown in self._reader:
            for frame in self._decode(packet, shown):
                at = frame.pts if self._file.info.timed else counted
                counted += 1
                if at is None:
                    raise ClipDecodeError(f"a frame of '{self._file.path}' has no presentation time")
                yield frame, at
                if at > last:
                    return
        for frame in self._drain():
            at = frame.pts if self._file.info.timed else counted
            counted += 1
            if at is not None:
                yield frame, at
