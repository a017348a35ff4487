"""Cuts: where the picture changes at once to something that cannot be followed there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planish_egovid.consistency.appearance import Appearance
from planish_egovid.flow.track import FlowTrack

_AROUND = 3
"""Pairs to either side that a pair's flow is compared with."""
_LEAST_FOLLOWED = 0.2
"""Where less than this share of pixels can be followed anyway, appearance decides."""


@dataclass(frozen=True)
class Cuts:
    """Evidence for cuts.

    Attributes:
        times_s: float64 [frames - 1], times of the first frame after each change.
        scores: float64 [frames - 1], 0 to 1: the share of the flow that is lost there, times the share of the change of
            appearance that neighbouring frames do not explain.
    """

    times_s: NDArray[np.float64]
    scores: NDArray[np.float64]

    def above(self, score: float) -> list[float]:
        """Return the times of cuts: changes that reach ``score``, in seconds from the clip's start."""
        return [float(time) for time in self.times_s[self.scores >= score]]


def find_cuts(appearance: Appearance, track: FlowTrack) -> Cuts:
    """Return the evidence for a cut between any two neighbouring frames.

    Two independent witnesses must agree. Optical flow between frames 4/30 s apart fails in cuts, but in very fast turns
    and sudden light as well; appearance jumps from one frame to the next in cuts and after dropped frames, but not in
    turns, however fast. A change after the last frame that flow was sampled at has no second witness and scores 0.
    """
    lost = flow_lost(track.valid_frac)
    times = appearance.times_s[1:]
    pair = np.searchsorted(track.times_s, times - 1e-6, side="right") - 1
    seen = (pair >= 0) & (pair < len(lost))
    scores = np.zeros(len(times))
    scores[seen] = appearance.unexplained()[seen] * lost[pair[seen]]
    return Cuts(times, scores)


def flow_lost(valid_frac: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the flow that each pair loses against its neighbours, 0 to 1.

    Args:
        valid_frac: float64 [pairs], share of pixels that can be followed.
    """
    lost = np.zeros(len(valid_frac))
    for i, valid in enumerate(valid_frac):
        around = np.concatenate([valid_frac[max(0, i - _AROUND) : i], valid_frac[i + 1 : i + 1 + _AROUND]])
        usual = max(float(np.median(around)) if len(around) else 1.0, _LEAST_FOLLOWED)
        lost[i] = max(0.0, 1.0 - float(valid) / usual)
    return lost


def repeated_share(track: FlowTrack, levels: float) -> float | None:
    """Return the share of sampled frames that repeat the one before; None if there are no two frames.

    Args:
        track: Flow of the clip, for its analysed frames.
        levels: Mean absolute difference in grey levels up to which a frame repeats another.
    """
    if not len(track):
        return None
    repeats = 0
    for first, second in zip(track.images[:-1], track.images[1:], strict=True):
        difference = np.maximum(first, second) - np.minimum(first, second)
        repeats += float(difference.mean()) <= levels
    return repeats / len(track)
