"""The clips of the cleaning experiment: rendered, spoilt in known ways, and written as files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from planish.atomic import write_bytes
from planish.errors import ConfigError, DataError
from planish.interfaces import Clip

from planish_egovid.testing import Camera, write_video
from planish_egovid.testing.corrupted_mix import FPS, FRAMES, OTHER_ROOM, corrupted_mix
from planish_egovid.video import ClipView, FrameRequest, decode_clips

HELD_OUT_FROM = 5000
"""Number of the first held-out clip: no clip of the mix, nor what is spliced into one, shows a room with its seed."""
_GOOD = "good"


@dataclass(frozen=True)
class MixSpec:
    """Which clips there are, and how they are written.

    Attributes:
        clips: Clips to train on, numbered from 0.
        held_out: Clips without a fault, of other rooms, to measure on.
        spoilt: Share of the clips to train on that have a fault.
        seed: Of all of them.
        width: Pixels.
        height: Pixels.
        crf: Constant rate factor of the files.
    """

    clips: int = 720
    held_out: int = 96
    spoilt: float = 0.5
    seed: int = 2
    width: int = 96
    height: int = 54
    crf: int = 16

    def __post_init__(self) -> None:
        most = HELD_OUT_FROM - OTHER_ROOM
        if not 0 < self.clips <= most or not 0 < self.held_out <= most:
            raise ConfigError(f"clips is {self.clips} and held_out {self.held_out}; expected 1 to {most} of each")

    @property
    def folder(self) -> str:
        """Name of a folder that holds clips made alike; how many there are makes no other folder."""
        return f"room-{self.width}x{self.height}-crf{self.crf}-seed{self.seed}-spoilt{self.spoilt:g}"


@dataclass(frozen=True)
class KnownClip:
    """A file and what is known of it.

    Attributes:
        path: The file.
        fault: What is wrong with it, a key of :data:`planish_egovid.testing.corrupted_mix.FAULTS`; None if nothing.
    """

    path: Path
    fault: str | None

    @property
    def clip(self) -> Clip:
        """The clip to score: the whole file, with the file's name as its id."""
        return Clip(self.path.stem, str(self.path))


def known_clips(
    spec: MixSpec, folder: Path, *, jobs: int = 1, say: Callable[[str], None] = lambda line: None
) -> tuple[list[KnownClip], list[KnownClip]]:
    """Return the clips to train on and the held-out ones, rendering those that ``folder`` lacks.

    Args:
        spec: Which clips.
        folder: Keeps the files, for this run and the next.
        jobs: Processes that render.
        say: Told how many are rendered.

    Raises:
        WorkError: The folder cannot be written.
    """
    home = folder / spec.folder
    have = {path.name[:4]: path for path in sorted(home.glob("[0-9]*.mp4"))}
    mixed = range(spec.clips)
    clean = range(HELD_OUT_FROM, HELD_OUT_FROM + spec.held_out)
    missing = [number for number in (*mixed, *clean) if f"{number:04d}" not in have]
    if missing:
        say(f"rendering {len(missing)} clips of {spec.width}x{spec.height} pixels into {home}")
        for path in _mapped(partial(_render, spec, home), missing, jobs):
            have[path.name[:4]] = path
    return [_known(have[f"{number:04d}"]) for number in mixed], [_known(have[f"{number:04d}"]) for number in clean]


def windows_source(clips: Sequence[KnownClip], side: int, stride: int) -> NDArray[np.uint8]:
    """Return the middle squares of every ``stride``-th frame of clips, uint8 [clips, frames, side, side, 3].

    Frames are decoded by the same decoder as the pipeline's.

    Raises:
        DataError: A file cannot be decoded.
    """
    times = tuple(frame / FPS for frame in range(0, FRAMES, stride))
    request = FrameRequest(times, pixels="rgb", size=side, fit="cover")
    decoded = []
    for known in clips:
        ((_, view),) = decode_clips([known.clip], lambda *_: [request])
        if not isinstance(view, ClipView):
            raise DataError(f"cannot decode {known.path}: {view}; delete it, and it is rendered again")
        decoded.append(view.frames(request).images)
    return np.stack(decoded)


def _known(path: Path) -> KnownClip:
    fault = path.stem.partition("-")[2]
    return KnownClip(path, None if fault == _GOOD else fault)


def _render(spec: MixSpec, home: Path, number: int) -> Path:
    spoilt = spec.spoilt if number < HELD_OUT_FROM else 0.0
    camera = Camera(spec.width, spec.height)
    (made,) = corrupted_mix(1, seed=spec.seed, spoilt=spoilt, camera=camera, first=number)
    file = BytesIO()
    write_video(file, made.frames, fps=FPS, crf=spec.crf)
    path = home / f"{made.name}.mp4"
    write_bytes(path, file.getvalue())
    return path


def _mapped(render: Callable[[int], Path], numbers: Sequence[int], jobs: int) -> Iterable[Path]:
    if jobs <= 1:
        yield from map(render, numbers)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(render, numbers, chunksize=4)
