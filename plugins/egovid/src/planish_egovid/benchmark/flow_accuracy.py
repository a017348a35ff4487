"""How far each way to find long flow is from the exact flow of a rendered room, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import cv2
import numpy as np
from numpy.typing import NDArray
from planish.benchmark import BenchmarkOptions, BenchmarkResult, Measurement, Row, collect
from planish.errors import UnsupportedError

from planish_egovid.flow.chain import long_flows
from planish_egovid.flow.dis import Preset
from planish_egovid.flow.track import FlowTrack, track_of
from planish_egovid.motion.config import LONGEST_LINK_S, MotionConfig
from planish_egovid.motion.gauge import Gauge
from planish_egovid.testing import HeadMotion, RenderedClip, Room, render_clip
from planish_egovid.video.request import Frames

NAME = "egovid-flow"
WITHIN_PCT = 2.0
"""What the chained flow of the default preset must keep to in every pair, over pixels visible in both frames."""
METHODS = ("chain", "prewarp", "plain")
WALKS: dict[str, tuple[HeadMotion, int]] = {
    "walk": (HeadMotion(), 0),
    "brisk walk": (HeadMotion(start_m=(1.2, 0.3, -2.5), velocity_m_s=(-0.3, 0.0, 0.8)), 3),
}
"""Name -> motion and the room's seed; both look around with up to 50 degrees a second."""


@dataclass(frozen=True)
class FlowAccuracy:
    """How one way of finding flow did on one clip.

    Attributes:
        endpoint_px: Of each pair, the median distance to the exact flow over pixels visible in both frames, in pixels
            at 480 x 270.
        visible_pct: Of each pair, the error of the mean magnitude over the same pixels, in percent of the truth.
        all_pct: Of each pair, the error of the mean magnitude over all pixels, those that leave included, in percent.
        seconds: For the clip's frames as decoded.
    """

    endpoint_px: NDArray[np.float64]
    visible_pct: NDArray[np.float64]
    all_pct: NDArray[np.float64]
    seconds: float


def flow_accuracy(clip: RenderedClip, config: MotionConfig, repeats: int = 3) -> FlowAccuracy:
    """Compare the flow of one way to the truth.

    Args:
        clip: A rendered clip whose frames are ``LONGEST_LINK_S`` apart.
        config: Which way, and over which stride, a multiple of that.
        repeats: Times that the work is done; the shortest counts.
    """
    every = round(config.stride_s / config.links / LONGEST_LINK_S)
    images = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.frames[::every]]).astype(np.uint8)
    frames = Frames(images, clip.times_s[::every], 1.0)
    seconds = min(_timed(frames, config) for _ in range(repeats))
    track = track_of(frames, config.flow())
    endpoint, visible_pct, all_pct = [], [], []
    for long in long_flows(track, config.links, filled=config.method != "plain"):
        truth, visible = clip.truth.flow(long.first * every, long.last * every)
        truth, visible = truth[:: long.grid, :: long.grid], visible[:: long.grid, :: long.grid]
        found, true = np.linalg.norm(long.flow, axis=-1), np.linalg.norm(truth, axis=-1)
        endpoint.append(np.median(np.linalg.norm(long.flow - truth, axis=-1)[visible]))
        visible_pct.append(100 * (found[visible].mean() / true[visible].mean() - 1))
        all_pct.append(100 * (found.mean() / true.mean() - 1))
    return FlowAccuracy(np.asarray(endpoint), np.asarray(visible_pct), np.asarray(all_pct), seconds)


def rows(
    presets: Sequence[Preset] = ("ultrafast", "fast", "medium"), seconds: float = 4.0, repeats: int = 3
) -> list[Row]:
    """Return the error of each preset by chaining, beside prewarping and plain DIS, at strides of 4/30 and 8/30 s.

    Three rows each: endpoint error, error of the mean magnitude over visible pixels (absolute, of each pair), and time.

    Args:
        presets: Of DIS.
        seconds: Length of the rendered clips.
        repeats: Times that each is timed; the shortest counts.
    """
    found: list[Row] = []
    for name, (motion, seed) in WALKS.items():
        times = np.arange(round(seconds / LONGEST_LINK_S)) * LONGEST_LINK_S
        clip = render_clip(motion, times_s=times.tolist(), room=Room(seed))
        for preset in presets:
            for frames in (4, 8):
                options = {"preset": preset, "stride_s": frames / 30}
                results = {
                    method: flow_accuracy(clip, MotionConfig.model_validate({**options, "method": method}), repeats)
                    for method in METHODS
                }
                found += _compared(f"{name}/dis-{preset}/stride {frames}", results)
    return found


def bench(options: BenchmarkOptions) -> BenchmarkResult:
    """Measure; the default preset must keep to ``WITHIN_PCT`` in every pair of frames.

    Raises:
        UnsupportedError: A GPU is asked for.
    """
    if options.device != "cpu":
        raise UnsupportedError("this benchmark is of processors: --device cpu")
    found = rows(("fast",), 1.2, 1) if options.quick else rows()
    worst = {
        row.case: row.extra["chain"]["worst_pair_visible_pct"]
        for row in found
        if row.metric == "magnitude error" and "/dis-fast/" in row.case
    }
    faults = [
        f"{case}: {value:.2f} % off in the worst pair, more than {WITHIN_PCT:g} %"
        for case, value in worst.items()
        if value > WITHIN_PCT
    ]
    return collect(NAME, found, oracle_passed=not faults, command=options.command, notes=faults)


def _compared(case: str, results: dict[str, FlowAccuracy]) -> list[Row]:
    ours, peers = results["chain"], {method: results[method] for method in METHODS if method != "chain"}
    extra = {
        method: {
            "clip_visible_pct": float(result.visible_pct.mean()),
            "worst_pair_visible_pct": float(np.abs(result.visible_pct).max()),
            "clip_all_pct": float(result.all_pct.mean()),
        }
        for method, result in results.items()
    }
    return [
        Row.compare(
            case,
            Measurement.of(ours.endpoint_px),
            {name: Measurement.of(peer.endpoint_px) for name, peer in peers.items()},
            against="plain",
            metric="endpoint error",
            unit="px",
        ),
        Row.compare(
            case,
            Measurement.of(np.abs(ours.visible_pct)),
            {name: Measurement.of(np.abs(peer.visible_pct)) for name, peer in peers.items()},
            against="plain",
            metric="magnitude error",
            unit="%",
            extra=extra,
        ),
        Row.compare(
            case,
            Measurement.of([1000 * ours.seconds]),
            {name: Measurement.of([1000 * peer.seconds]) for name, peer in peers.items()},
            against="plain",
        ),
    ]


def _timed(frames: Frames, config: MotionConfig) -> float:
    start = perf_counter()
    _measured(track_of(frames, config.flow()), config)
    return perf_counter() - start


def _measured(track: FlowTrack, config: MotionConfig) -> None:
    height, width = track.images.shape[1:3]
    gauge = Gauge(height, width, 1.0, config.stride_s, grid=track.grid)
    for long in long_flows(track, config.links, filled=config.method != "plain"):
        gauge.pair(long.flow, config.stride_s, valid=long.valid, homography=long.homography)
