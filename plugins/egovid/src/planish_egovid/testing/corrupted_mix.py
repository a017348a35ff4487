"""A mix of good and spoilt clips with known labels, to measure a filter's precision and recall on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planish_egovid.testing import corruptions
from planish_egovid.testing.camera import Camera
from planish_egovid.testing.clip import render_clip
from planish_egovid.testing.hand import Hand
from planish_egovid.testing.head_motion import HeadMotion, Swing
from planish_egovid.testing.room import Room

FPS, FRAMES = 30.0, 120
OTHER_ROOM = 1000
"""What is added to a room's seed for the room that a clip is cut to."""


@dataclass(frozen=True)
class LabelledClip:
    """A clip of four seconds at 30 frames a second.

    Attributes:
        name: Unique within the mix.
        fault: What is wrong with it: a key of :data:`FAULTS`, or None.
        frames: uint8 [120, height, width, 3], RGB.
    """

    name: str
    fault: str | None
    frames: NDArray[np.uint8]


Spoil = Callable[[np.random.Generator, NDArray[np.uint8], "_Scene"], NDArray[np.uint8]]


@dataclass(frozen=True)
class _Scene:
    motion: HeadMotion
    room: Room
    camera: Camera
    hand: Hand | None

    def render(self) -> NDArray[np.uint8]:
        return render_clip(
            self.motion, frames=FRAMES, fps=FPS, room=self.room, camera=self.camera, hand=self.hand
        ).frames


def _still(random: np.random.Generator, frames: NDArray[np.uint8], scene: _Scene) -> NDArray[np.uint8]:
    return replace(scene, motion=replace(HeadMotion.still(), start_m=scene.motion.start_m), hand=None).render()


def _spinning(random: np.random.Generator, frames: NDArray[np.uint8], scene: _Scene) -> NDArray[np.uint8]:
    return replace(scene, motion=HeadMotion.spinning(random.uniform(80, 130) * random.choice([-1, 1]))).render()


def _shuffled(random: np.random.Generator, frames: NDArray[np.uint8], scene: _Scene) -> NDArray[np.uint8]:
    count = int(random.integers(40, 100))
    start = int(random.integers(0, FRAMES - count + 1))
    return corruptions.shuffle_segment(frames, start, count, seed=int(random.integers(1000)))


def _frozen(random: np.random.Generator, frames: NDArray[np.uint8], scene: _Scene) -> NDArray[np.uint8]:
    count = int(random.integers(40, 80))
    return corruptions.freeze(frames, int(random.integers(0, FRAMES - count)), count)


def _cut(random: np.random.Generator, frames: NDArray[np.uint8], scene: _Scene) -> NDArray[np.uint8]:
    other = replace(scene, room=Room(scene.room.seed + OTHER_ROOM)).render()
    return corruptions.hard_cut(frames, other, int(random.integers(12, FRAMES - 12)))


FAULTS: dict[str, Spoil] = {
    "still": _still,
    "spinning": _spinning,
    "shuffled": _shuffled,
    "frozen": _frozen,
    "cut": _cut,
    "blurred": lambda random, frames, scene: corruptions.gaussian_blur(frames, random.uniform(2.5, 5)),
    "noisy": lambda random, frames, scene: corruptions.noise(frames, random.uniform(35, 60)),
    "compressed": lambda random, frames, scene: corruptions.compress(frames, int(random.integers(47, 52))),
    "overexposed": lambda random, frames, scene: corruptions.exposure_jump(
        frames, 0, random.uniform(300, 400) / float(frames.mean())
    ),
    "letterboxed": lambda random, frames, scene: corruptions.letterbox(frames, random.uniform(0.25, 0.6)),
}
"""Fault -> how a clip gets it, strongly enough to be useless for training."""


def corrupted_mix(
    count: int, *, seed: int = 0, spoilt: float = 0.5, camera: Camera | None = None, first: int = 0
) -> Iterator[LabelledClip]:
    """Yield clips of rooms, the good ones as different as heads, rooms and light are.

    Good ones come with heads that look around slowly or quickly, walk or stand, with and without a hand, with some
    noise, blur, compression and exposure of their own.

    Args:
        count: Number of clips.
        seed: Of everything.
        spoilt: Share of clips with a fault; faults take turns.
        camera: By default 256 by 144 pixels and 90 degrees.
        first: Number of the first clip. A clip depends on its number, not on which others are made with it; its room
            is the one with its number as seed.
    """
    faults = list(FAULTS)
    for index in range(first, first + count):
        random = np.random.default_rng([seed, index, 19])
        scene = _scene(random, camera or Camera(256, 144), index)
        bad = int((index + 1) * spoilt) > int(index * spoilt)
        fault = faults[int(index * spoilt) % len(faults)] if bad else None
        frames = _as_recorded(random, scene.render())
        if fault is not None:
            frames = FAULTS[fault](random, frames, scene)
        yield LabelledClip(f"{index:04d}-{fault or 'good'}", fault, frames)


def _scene(random: np.random.Generator, camera: Camera, index: int) -> _Scene:
    factor = random.uniform(0.08, 0.2)
    motion = HeadMotion(
        yaw_deg=Swing(20 * factor, random.uniform(0.3, 0.5), random.uniform(0, 2 * np.pi)),
        pitch_deg=Swing(5 * factor, random.uniform(0.4, 0.8), random.uniform(0, 2 * np.pi)),
        roll_deg=Swing(3 * factor, random.uniform(0.8, 1.2), random.uniform(0, 2 * np.pi)),
        start_m=(random.uniform(-1, 1), random.uniform(-0.3, 0.3), random.uniform(-2.5, -1)),
        velocity_m_s=(random.uniform(-0.1, 0.1), 0.0, random.uniform(0.15, 0.35)),
        bob_m=Swing(random.uniform(0.0, 0.01), 2.0),
    )
    hand = Hand(seed=index) if random.random() < 0.3 else None
    return _Scene(motion, Room(index), camera, hand)


def _as_recorded(random: np.random.Generator, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return frames with what any camera adds: a little blur, noise and gain."""
    blurred = corruptions.gaussian_blur(frames, random.uniform(0.0, 0.6))
    exposed = corruptions.exposure_jump(blurred, 0, random.uniform(0.6, 1.2))
    return corruptions.noise(exposed, random.uniform(0.5, 4.0), seed=int(random.integers(1000)))
