"""How many processor cores it takes to decode what a GPU scores."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from planish.benchmark import Row, interleave
from planish.errors import WorkError
from planish.interfaces import Clip

from planish_egovid.benchmark.rate import rate
from planish_egovid.motion.axis import MotionAxis
from planish_egovid.motion.config import MotionConfig
from planish_egovid.semantics import TextAxis, TextConfig
from planish_egovid.testing import write_video
from planish_egovid.video import ClipView, FrameRequest, VideoInfo, decode_clips


def decode_rows(
    height: int, width: int, frames: int, rounds: int, image: int, gpu_rates: dict[str, float]
) -> Iterator[Row]:
    """Clips a second that one core decodes and prepares for each model, from an H.264 file.

    Args:
        height: Of the video.
        width: Of the video.
        frames: Of the clip, at 30 a second.
        rounds: Samples.
        image: Side of CLIP's images.
        gpu_rates: ``"clip"`` and ``"raft"`` -> clips a second that a GPU scores.
    """
    axes = {
        "clip": TextAxis(TextConfig(backend="clip", device="cpu", image_size=image)),
        "raft": MotionAxis(MotionConfig(backend="raft", size=max(height, width))),
    }
    drawn = np.random.default_rng(0)
    coarse = drawn.integers(0, 256, (height // 12 + frames // 4 + 2, width // 12 + 2, 3), np.uint8)
    large = coarse.repeat(12, axis=0).repeat(12, axis=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drift.mp4"
        write_video(path, np.stack([large[3 * i : 3 * i + height, 0:width] for i in range(frames)]))
        clip = Clip("drift", str(path), text="opens the door")
        times = interleave(
            {name: _decoding(clip, axis.requests, axis.measure) for name, axis in axes.items()},
            rounds=rounds,
            warmup=1,
        )
    for name, time in times.items():
        found = rate(time, 1)
        extra = {"frames a clip": frames, "video": f"{width}x{height}, H.264"}
        if name in gpu_rates:
            extra["cores that one GPU keeps busy"] = f"{gpu_rates[name] / found.median:.1f}"
        yield Row(
            case=f"decode/{name}/one core", metric="rate", unit="clips/s", better="higher", ours=found, extra=extra
        )


def _decoding(
    clip: Clip,
    requests: Callable[[Clip, VideoInfo, float], Sequence[FrameRequest]],
    measure: Callable[[ClipView], object],
) -> Callable[[], None]:
    def run() -> None:
        for _, view in decode_clips([clip], requests):
            if not isinstance(view, ClipView):
                raise WorkError(f"the benchmark's own clip cannot be decoded: {view}")
            measure(view)

    return run
