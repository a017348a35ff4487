"""Appearance: how much the picture changes from frame to frame, seen in thumbnails of every frame.

Between neighbouring frames even a fast head turn changes the picture little by little, while a cut, a dropped stretch
or a shuffled one changes it at once. That is why thumbnails of all frames tell what frames 4/30 s apart cannot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planish_egovid.consistency.histograms import colour_and_light, overlap
from planish_egovid.video.request import FrameRequest, Frames, VideoInfo

THUMBNAIL = 32
"""Longer side of a thumbnail in pixels."""
_HIGHEST_FPS = 45.0
"""Above this, every second, third, … frame is looked at: what matters is about 30 a second."""
_DARK = 8.0
"""Grey levels added to a frame's mean brightness, so that black frames divide by something."""
_CLIPPED = (4.0, 248.0)
"""Grey levels between which a thumbnail's pixel tells brightness; beyond, the sensor or the coder has cut it off."""
_FEWEST_TELLING = 0.1
"""Share of pixels that must tell for the others to be left out."""
NEIGHBOURS = 3
"""Changes to either side that a change is compared with."""
_STILL = 0.01
"""A change below this, relative to the frame's brightness, is coding noise."""
_SAME_COLOURS = 0.02
"""A change of colours below this is the same place, seen a moment later."""
WINDOW = 12
"""Frames over which order is judged: 0.4 s at 30 frames a second."""
_MOVING = 0.03
"""In a window whose typical change is below this, order cannot be told and does not matter."""


def thumbnail_request(video: VideoInfo, duration_s: float) -> FrameRequest:
    """Return the request for thumbnails of every frame, or of about 30 a second where there are more."""
    fps = video.fps if video.fps > 0 else 30.0
    step = max(1, round(fps / 30.0)) if fps > _HIGHEST_FPS else 1
    count = max(1, int(np.ceil((duration_s * fps - 0.5) / step - 1e-6)))
    return FrameRequest(tuple((k * step + 0.5) / fps for k in range(count)), "rgb", THUMBNAIL)


@dataclass(frozen=True)
class Appearance:
    """What thumbnails show of a clip.

    Attributes:
        times_s: float64 [frames], presentation times, strictly rising.
        thumbnails: float32 [frames, height, width, 3], RGB, 0 to 255.
        stops: float64 [frames], binary logarithm of each one's mean brightness.
        changes: float64 [frames - 1], difference of neighbours, see :func:`difference`.
        colours: float64 [frames, 16, 16], histograms of colour.
        lights: float64 [frames, 16], histograms of brightness around the mean.
    """

    times_s: NDArray[np.float64]
    thumbnails: NDArray[np.float32]
    stops: NDArray[np.float64]
    changes: NDArray[np.float64]
    colours: NDArray[np.float64]
    lights: NDArray[np.float64]

    @classmethod
    def of(cls, frames: Frames) -> Appearance:
        """Return the appearance of RGB thumbnails, a frame that was asked for twice counted once."""
        shown = np.concatenate([[True], np.diff(frames.times_s) > 1e-6])[: len(frames.times_s)]
        thumbnails = frames.images[shown].astype(np.float32)
        colours, lights = colour_and_light(thumbnails)
        return cls(
            times_s=frames.times_s[shown],
            thumbnails=thumbnails,
            stops=np.log2(thumbnails.mean(axis=(1, 2, 3), dtype=np.float64) + _DARK),
            changes=difference(thumbnails[:-1], thumbnails[1:]),
            colours=colours,
            lights=lights,
        )

    def unexplained(self) -> NDArray[np.float64]:
        """Return the share of each change that its neighbours do not explain, float64 [frames - 1], 0 to 1.

        The larger of two: of the change of the picture, and of that of its colours. The first is small where things
        move quickly anyway, the second between places of the same colours.
        """
        colour_changes = 1.0 - overlap(self.colours[:-1], self.colours[1:])
        return np.maximum(standing_out(self.changes, _STILL), standing_out(colour_changes, _SAME_COLOURS))

    def window_order(self) -> NDArray[np.float64]:
        """Return how far frames lead on in each window of twelve, float64 [windows]; NaN where little moves.

        The change over two frames relative to the larger one of the two changes that it is made of: near 2 for steady
        motion, 1 where each frame is as far from the next one as from the one after it, and below 1 where motion goes
        back and forth, as in frames out of order.
        """
        if len(self.changes) < WINDOW + 1:
            return np.full(0, np.nan)
        over_two = difference(self.thumbnails[:-2], self.thumbnails[2:])
        larger = np.maximum(self.changes[:-1], self.changes[1:])
        led = np.lib.stride_tricks.sliding_window_view(over_two, WINDOW).sum(axis=1)
        of = np.lib.stride_tricks.sliding_window_view(larger, WINDOW)
        moving = np.median(of, axis=1) > _MOVING
        return np.where(moving, led / np.maximum(of.sum(axis=1), 1e-12), np.nan)

    def similarity(self, times_s: tuple[float, ...]) -> list[float]:
        """Return how alike the colours of the first frame and of those on screen at ``times_s`` are, 0 to 1.

        The Bhattacharyya coefficient of their histograms of colour and of brightness around the mean, in that order
        multiplied. Times after the last frame are left out.
        """
        step = float(np.median(np.diff(self.times_s))) if len(self.times_s) > 1 else 0.0
        inside = [time for time in times_s if time < self.times_s[-1] + step]
        at = np.maximum(np.searchsorted(self.times_s, np.asarray(inside) + 1e-6, side="right") - 1, 0)
        found = [overlap(all_of[np.zeros_like(at)], all_of[at]) for all_of in (self.colours, self.lights)]
        return [float(value) for value in found[0] * found[1]]


def standing_out(changes: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Return the share of each change beyond the largest one within three to either side, float64 [changes], 0 to 1.

    0 in a steady turn and in the onset of one; near 1 for a change that stands alone.

    Args:
        changes: float64 [changes].
        least: What neighbours are taken to change by at least: below is coding noise.
    """
    share = np.zeros(len(changes))
    for i, change in enumerate(changes):
        around = np.concatenate([changes[max(0, i - NEIGHBOURS) : i], changes[i + 1 : i + 1 + NEIGHBOURS]])
        usual = max(float(around.max(initial=0.0)), least)
        share[i] = max(0.0, 1.0 - usual / change) if change > 0 else 0.0
    return share


def difference(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how different pairs of thumbnails are, whatever their exposure, float64 [pairs].

    Root mean square difference after the gain between the two is taken out, relative to their brightness, over pixels
    that are clipped in neither.

    Args:
        first: float32 [pairs, height, width, 3].
        second: The same shape.
    """
    if not len(first):
        return np.zeros(0)
    one, two = (images.reshape(len(images), -1).astype(np.float64) for images in (first, second))
    low, high = _CLIPPED
    telling = (np.minimum(one, two) > low) & (np.maximum(one, two) < high)
    telling[telling.mean(axis=1) < _FEWEST_TELLING] = True
    count = telling.sum(axis=1)
    brightness = [np.where(telling, pixels, 0).sum(axis=1) / count + _DARK for pixels in (one, two)]
    relative = one / brightness[0][:, None] - two / brightness[1][:, None]
    return np.asarray(np.sqrt(np.where(telling, relative * relative, 0).sum(axis=1) / count), np.float64)
