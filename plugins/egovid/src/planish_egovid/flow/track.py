"""FlowTrack: the optical flow between neighbouring sampled frames of a clip, computed once for all axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from planish.config import Config
from pydantic import Field

from planish_egovid.flow.dis import DisFlow, Preset
from planish_egovid.flow.prewarp import Aligner, aligned_flow, inverse
from planish_egovid.flow.return_check import ReturnCheck
from planish_egovid.video.request import FrameRequest, Frames, VideoInfo
from planish_egovid.video.view import ClipView

Prewarp = Literal["fallback", "always", "never"]

PUBLISHED_FPS = 30.0
"""The rate that EgoVid's scripts silently take for granted; 4 and 8 frames at this rate are our 4/30 s and 8/30 s."""
GRID = 2
"""Every second pixel of every second row is checked: DIS finds flow at a half or a quarter of the size anyway."""
SAME_FRAME_S = 1e-6
"""Frames whose times are nearer than this are the same frame."""


class FlowConfig(Config):
    """How the flow between neighbouring sampled frames is found. Axes that use equal ones share the work."""

    preset: Preset = Field("fast", description="preset of cv2.DISOpticalFlow")
    size: int = Field(480, ge=64, description="longer side of the analysed picture in pixels; never enlarged")
    stride_s: float = Field(4 / 30, gt=0, description="seconds between neighbouring sampled frames")
    sampling: Literal["seconds", "frames"] = Field(
        "seconds",
        description="'frames': every round(30 * stride_s)-th frame whatever the rate, as in EgoVid's scripts",
    )
    prewarp: Prewarp = Field("fallback", description="when a pair is first aligned by an ORB homography")
    max_return_px: float = Field(
        1.0, gt=0, description="a pixel is valid if going there and back ends nearer than this to it"
    )
    fallback_frac: float = Field(
        0.3,
        ge=0,
        le=1,
        description="share of pixels, of those that stay in the picture, that must fail before a pair is aligned by a "
        "homography",
    )


@dataclass(frozen=True)
class FlowTrack:
    """The flow between neighbouring frames of a clip.

    A clip of fewer than two different frames has no pairs: the arrays are there with length 0.

    Attributes:
        config: How it was found.
        images: uint8 [frames, height, width], the analysed gray frames; no frame is there twice.
        times_s: float64 [frames], presentation times, seconds from the clip's start, strictly rising.
        frame_of: intp [asked], the frame that is on screen at each asked time; repeats where the video is slower than
            the sampling.
        forward: float32 [pairs, height, width, 2], (x, y) displacement of each pixel of frame i to frame i + 1, in
            pixels of the analysed picture, not rescaled to any stride.
        backward: float32 [pairs, rows, columns, 2], the same from frame i + 1 to frame i, but only at every
            ``grid``-th pixel of every ``grid``-th row: it serves the check.
        return_px: float32 [pairs, rows, columns], how far from itself each of these pixels of frame i ends after going
            there and back; infinite if it leaves the picture.
        valid: bool [pairs, rows, columns], pixels of frame i, at every ``grid``-th pixel, whose target lies inside the
            picture and leads back to them.
        valid_frac: float64 [pairs], share of all pixels that are valid.
        prewarped: bool [pairs], whether the pair was aligned by a homography first.
        grid: Spacing of ``backward`` and ``valid`` in pixels.
        scale: Pixels of the analysed picture a pixel of the upright video.
    """

    config: FlowConfig
    images: NDArray[np.uint8]
    times_s: NDArray[np.float64]
    frame_of: NDArray[np.intp]
    forward: NDArray[np.float32]
    backward: NDArray[np.float32]
    return_px: NDArray[np.float32]
    valid: NDArray[np.bool_]
    valid_frac: NDArray[np.float64]
    prewarped: NDArray[np.bool_]
    grid: int
    scale: float

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.forward)

    @property
    def intervals_s(self) -> NDArray[np.float64]:
        """float64 [pairs], seconds between the two frames of each pair."""
        return np.diff(self.times_s)

    def valid_mask(self, pair: int) -> NDArray[np.bool_]:
        """Return bool [height, width]: ``valid`` of a pair, each value spread over its grid cell."""
        height, width = self.images.shape[1:]
        mask = self.valid[pair].repeat(self.grid, axis=0).repeat(self.grid, axis=1)
        return np.asarray(mask[:height, :width], np.bool_)

    def correspondences(self, pair: int, spacing: int = 8) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return points of frame ``pair`` and where they are in frame ``pair + 1``: only valid ones, on a grid.

        Args:
            pair: Which pair.
            spacing: Pixels between grid points; a multiple of ``grid``.

        Returns:
            Two float64 [points, 2] arrays of (x, y) in pixels of the analysed picture, pixel centres at whole numbers.

        Raises:
            ValueError: ``spacing`` is no multiple of ``grid``.
        """
        if spacing < 1 or spacing % self.grid:
            raise ValueError(f"spacing {spacing} is no multiple of the check's grid of {self.grid} px")
        offset = spacing // 2 // self.grid * self.grid
        cells = slice(offset // self.grid, None, spacing // self.grid)
        rows, columns = np.nonzero(self.valid[pair][cells, cells])
        y, x = rows * spacing + offset, columns * spacing + offset
        first = np.stack([x, y], axis=1).astype(np.float64)
        return first, first + self.forward[pair][y, x]


def flow_requests(video: VideoInfo, duration_s: float, config: FlowConfig | None = None) -> tuple[FrameRequest, ...]:
    """Return what an axis that uses :func:`flow_track` must ask for: one request of gray frames.

    Times point at the middle of the frame that is meant, so that the nearest frame is met, not the one before it when
    a container rounds its times (29.97 fps, millisecond time bases).
    """
    config = config or FlowConfig()
    return (FrameRequest(sampled_times(video, duration_s, config.stride_s, config.sampling), "gray", config.size),)


def sampled_times(
    video: VideoInfo, duration_s: float, stride_s: float, sampling: Literal["seconds", "frames"] = "seconds"
) -> tuple[float, ...]:
    """Return the times of frames that are ``stride_s`` apart, each pointing at the middle of the nearest frame.

    Args:
        video: The stream.
        duration_s: Length of the clip in seconds.
        stride_s: Seconds between frames.
        sampling: ``"frames"``: every round(30 * stride_s)-th frame of the stream's average rate instead.
    """
    half = 0.5 / video.fps if video.fps > 0 else 0.0
    if sampling == "frames" and video.fps > 0:
        stride_s = max(1, round(PUBLISHED_FPS * stride_s)) / video.fps
    # A time beyond the last frame's middle would show that frame again, or the first one after the clip.
    count = max(1, int(np.ceil((duration_s - half) / stride_s - 1e-6)))
    return tuple(k * stride_s + half for k in range(count))


def distinct(times_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return bool [frames]: which frames are not the one before them again, by their presentation times."""
    shown = np.ones(len(times_s), np.bool_)
    shown[1:] = np.diff(times_s) > SAME_FRAME_S
    return shown


def flow_track(view: ClipView, config: FlowConfig | None = None) -> FlowTrack:
    """Return the clip's flow, computed by the first axis that asks for it under an equal config.

    The axis must have asked for the frames of :func:`flow_requests` with the same config.
    """
    config = config or FlowConfig()
    return view.shared(("flow_track", config), lambda: _track(view, config))


def _track(view: ClipView, config: FlowConfig) -> FlowTrack:
    (request,) = flow_requests(view.video, view.duration_s, config)
    frames = view.frames(request)
    return track_of(frames, config)


def track_of(frames: Frames, config: FlowConfig | None = None) -> FlowTrack:
    """Return the flow between neighbours of gray ``frames``, which may hold a frame several times in a row."""
    config = config or FlowConfig()
    shown = distinct(frames.times_s)
    images = frames.images if shown.all() else frames.images[shown]
    pairs, (height, width) = max(len(images) - 1, 0), images.shape[1:3]
    rows, columns = -(-height // GRID), -(-width // GRID)
    forward = np.empty((pairs, height, width, 2), np.float32)
    backward = np.empty((pairs, rows, columns, 2), np.float32)
    return_px = np.empty((pairs, rows, columns), np.float32)
    valid = np.empty((pairs, rows, columns), np.bool_)
    prewarped = np.zeros(pairs, np.bool_)
    there, back = DisFlow(config.preset), DisFlow("ultrafast")
    check = ReturnCheck(height, width, GRID, config.max_return_px)
    align = Aligner()
    for i in range(pairs):
        first, second = images[i], images[i + 1]
        forward[i], reverse = there.pair(first, second), back.pair(second, first)
        return_px[i], valid[i], failing = check(forward[i], reverse)
        if config.prewarp == "always" or (config.prewarp == "fallback" and failing > config.fallback_frac):
            homography = align(i, images)
            if homography is not None:
                ahead = aligned_flow(first, second, homography, there)
                behind = aligned_flow(second, first, inverse(homography), back)
                distance, passes, _ = check(ahead, behind)
                # An alignment to something that moves on its own may be worse than none.
                if config.prewarp == "always" or np.count_nonzero(passes) > np.count_nonzero(valid[i]):
                    forward[i], reverse, prewarped[i] = ahead, behind, True
                    return_px[i], valid[i] = distance, passes
        backward[i] = reverse[::GRID, ::GRID]
    share = np.count_nonzero(valid, axis=(1, 2)) / (rows * columns)
    return FlowTrack(
        config=config,
        images=images,
        times_s=frames.times_s[shown],
        frame_of=np.cumsum(shown) - 1,
        forward=forward,
        backward=backward,
        return_px=return_px,
        valid=valid,
        valid_frac=share,
        prewarped=prewarped,
        grid=GRID,
        scale=frames.scale,
    )
