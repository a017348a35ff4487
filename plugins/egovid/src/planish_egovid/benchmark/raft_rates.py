"""RAFT on a GPU: frames encoded once and pairs of clips together, beside the loop over pairs of EgoVid's script."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from planish.benchmark import Measurement, Row, interleave
from planish.interfaces import Clip, ClipWork
from torch.nn import functional

from planish_egovid.benchmark.rate import rate_row
from planish_egovid.flow.raft import RaftFlow, padding
from planish_egovid.flow.raft_config import RaftConfig
from planish_egovid.motion.axis import MotionAxis
from planish_egovid.motion.config import MotionConfig
from planish_egovid.motion.stage import FlowStage
from planish_egovid.video import ClipView, Frames, VideoInfo

PUBLISHED_RATE = 3000 / 3600
"""Clips a second that a comment in EgoVid's ``optical-flow-score.py`` states, on one card that it does not name."""
LOOP = "loop over pairs, float32"
FORWARD = "torchvision forward, pairs of a clip together, bfloat16"
PUBLISHED = "published rate, card not named"


@dataclass(frozen=True)
class RaftSizes:
    """Sizes of the measurement.

    Attributes:
        height: Of the frames.
        width: Of the frames.
        frames: Of a clip: 15 are every 8th of 120.
        updates: Refinement steps.
        pairs: Pairs a pass.
        clips: Clips a call of ours, at least; more if a pass holds more.
        rounds: Samples of each.
        compiled: Whether to measure ours compiled as well, at the most pairs.
    """

    height: int = 540
    width: int = 960
    frames: int = 15
    updates: int = 20
    pairs: tuple[int, ...] = (14, 56)
    clips: int = 4
    rounds: int = 3
    compiled: bool = True


QUICK = RaftSizes(72, 96, 4, 2, (3, 6), 2, 2, compiled=False)


class RaftCase:
    """A RAFT of the right sizes with random weights, whose flow stays within the picture."""

    def __init__(self, model: torch.nn.Module, sizes: RaftSizes, device: str) -> None:
        """Take a model and make clips of drifting texture."""
        self.sizes, self.device = sizes, device
        self.model: Any = model.eval().to(device)
        drawn = np.random.default_rng(0)
        count = max(sizes.clips, -(-max(sizes.pairs) // (sizes.frames - 1)))
        self.clips = [self._drifting(drawn) for _ in range(count)]
        self._backends: dict[tuple[str, int, bool], RaftFlow] = {}

    def _drifting(self, drawn: np.random.Generator) -> NDArray[np.uint8]:
        height, width, frames = self.sizes.height, self.sizes.width, self.sizes.frames
        coarse = drawn.integers(0, 256, (height // 12 + frames + 2, width // 12 + 2, 3), np.uint8)
        large = coarse.repeat(12, axis=0).repeat(12, axis=1)
        return np.stack([large[3 * i : 3 * i + height, i : i + width] for i in range(frames)])

    def backend(self, dtype: Literal["float32", "bfloat16"], pairs: int, compiled: bool = False) -> RaftFlow:
        """Return ours in a number format; the same one each time, since a compiler would begin anew with another."""
        key = (dtype, pairs, compiled)
        if key not in self._backends:
            config = RaftConfig(
                device=self.device, dtype=dtype, updates=self.sizes.updates, pairs=pairs, compiled=compiled
            )
            self._backends[key] = RaftFlow(config, self.model)
        # On a processor clips go one by one; that is what a run there would do, and what is timed there.
        return self._backends[key]

    @torch.inference_mode()
    def loop(self, clip: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Find the flow of a clip as ``optical-flow-score.py`` does: a pair at a time, both frames encoded for each."""
        images = [torch.from_numpy(frame)[None].permute(0, 3, 1, 2).to(self.device).float() for frame in clip]
        pads = padding(*clip.shape[1:3])
        images = [functional.pad(image / 127.5 - 1, pads, mode="replicate") for image in images]
        found = []
        for first, second in pairwise(images):
            flow = self.model(first, second, num_flow_updates=self.sizes.updates)[-1]
            found.append(flow[0].permute(1, 2, 0).cpu().numpy())
        return self._cut(np.stack(found), clip)

    @torch.inference_mode()
    def forward(self, clip: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Find the flow of a clip with one call of torchvision's forward, under autocast."""
        images = torch.from_numpy(clip).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        images = functional.pad(images, padding(*clip.shape[1:3]), mode="replicate")
        with torch.autocast(self.device.split(":")[0], torch.bfloat16):
            flow = self.model(images[:-1], images[1:], num_flow_updates=self.sizes.updates)[-1]
        return self._cut(flow.float().permute(0, 2, 3, 1).cpu().numpy(), clip)

    def _cut(self, flow: NDArray[np.float32], clip: NDArray[np.uint8]) -> NDArray[np.float32]:
        left, _, top, _ = padding(*clip.shape[1:3])
        return flow[:, top : top + clip.shape[1], left : left + clip.shape[2]]

    def faults(self) -> Iterator[str]:
        """Say where ours disagrees with the model's own forward, over the clips of a whole pass."""
        exact = _exactly(lambda: [self.loop(clip) for clip in self.clips])
        tried: list[tuple[Literal["float32", "bfloat16"], bool, float]] = [
            ("float32", False, 1e-3),
            ("bfloat16", False, 0.05),
        ]
        if self.sizes.compiled:
            tried.append(("bfloat16", True, 0.05))
        for dtype, compiled, tolerance in tried:
            backend = self.backend(dtype, max(self.sizes.pairs), compiled)
            for flow, expected in zip(backend.flows(self.clips), exact, strict=True):
                error = float(np.linalg.norm(flow - expected, axis=-1).mean())
                size = float(np.linalg.norm(expected, axis=-1).mean())
                if not error <= tolerance * size:
                    what = f"{dtype}, compiled" if compiled else dtype
                    yield f"RAFT in {what} is off by {error:.3g} px in the mean of {size:.3g}"

    def works(self, clips: Sequence[NDArray[np.uint8]]) -> list[ClipWork]:
        """Return clips as the motion axis hands them to its stage."""
        height, width, frames = self.sizes.height, self.sizes.width, self.sizes.frames
        axis = MotionAxis(MotionConfig(backend="raft", size=max(height, width)))
        video = VideoInfo(width=width, height=height, fps=30.0, frames=8 * frames, duration_s=frames * 8 / 30)
        works = []
        for number, images in enumerate(clips):
            clip = Clip(str(number), "")
            (request,) = axis.requests(clip, video, frames * 8 / 30)
            view = ClipView(clip, video, frames * 8 / 30, {request: Frames(images, np.array(request.times_s), 1.0)})
            works.append(ClipWork(clip, axis.measure(view), view.payload))
        return works


def large_raft() -> torch.nn.Module:
    """Return torchvision's raft_large with random weights, its steps so small that the flow stays in the picture.

    Raises:
        UnsupportedError: torchvision is not installed.
    """
    from planish_egovid.model.source import require

    require("torchvision", "raft")
    from torchvision.models.optical_flow import raft_large

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = raft_large(weights=None)
    with torch.no_grad():
        for parameter in model.update_block.flow_head.parameters():
            # Trained steps shrink; untrained ones would carry all lookups out of the picture, where they cost less.
            parameter.mul_(0.1)
    found: torch.nn.Module = model
    return found


def raft_rows(case: RaftCase, say: Callable[[str], None]) -> Iterator[Row]:
    """Clips a second by pairs a pass, compiled, of the whole stage, and the best beside the published rate."""
    sizes, on_gpu = case.sizes, case.device.startswith("cuda")
    label = f"raft/{sizes.width}x{sizes.height}/{sizes.frames - 1} pairs/{sizes.updates} updates"
    works: dict[str, Callable[[], object]] = {}
    ours: dict[str, tuple[RaftFlow, int, dict[str, object]]] = {}
    compiling = [(max(sizes.pairs), True)] if sizes.compiled else []
    for pairs, compiled in [*((pairs, False) for pairs in sizes.pairs), *compiling]:
        clips = min(len(case.clips), max(sizes.clips, pairs // (sizes.frames - 1)))
        backend = case.backend("bfloat16", pairs, compiled)
        name = f"pass {pairs}, compiled" if compiled else f"pass {pairs}"
        works[name] = partial(_all_flows, backend, case.clips[:clips])
        extra: dict[str, object] = {"format": "bfloat16, float32 correlations"}
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        works[name]()  # a first call, for its memory and what it may compile
        if on_gpu:
            extra["peak GPU memory, GiB"] = torch.cuda.max_memory_allocated() / 2**30
        ours[name] = backend, clips, {"pairs a pass": backend.pairs, **extra}
    # All in turn, so that each peer is timed once for all of ours. What remains to warm up does when calls are counted.
    works |= {LOOP: lambda: case.loop(case.clips[0]), FORWARD: lambda: case.forward(case.clips[0])}
    times = interleave(works, device=case.device, rounds=sizes.rounds, warmup=0)
    best: tuple[Measurement, RaftFlow, str] | None = None
    for name, (backend, clips, extra) in ours.items():
        found = {"ours": times[name], LOOP: times[LOOP], FORWARD: times[FORWARD]}
        row = rate_row(f"{label}/{name}", found, {"ours": clips, LOOP: 1, FORWARD: 1}, against=LOOP, extra=extra)
        say(f"{row.case}: {row.ours.median:.4g} clips/s, loop {row.peers[LOOP].median:.4g}")
        yield row
        if best is None or row.ours.median > best[0].median:
            best = row.ours, backend, name
    assert best is not None
    rate, backend, name = best
    # Two passes at least, as in the eight clips that the axis' stage is given: one is measured beside the other.
    given = case.clips * 2
    stage = FlowStage(MotionConfig(backend="raft"), backend)
    alone = "flow without columns"
    times = interleave(
        {"ours": lambda: stage(case.works(given)), alone: partial(_all_flows, backend, given)},
        device=case.device,
        rounds=sizes.rounds,
        warmup=1,
    )
    yield rate_row(f"{label}/stage with columns, {name}", times, {"ours": len(given), alone: len(given)}, against=alone)
    yield Row.compare(
        f"{label}/best, {name}",
        rate,
        {PUBLISHED: Measurement.of([PUBLISHED_RATE])},
        against=PUBLISHED,
        metric="rate",
        unit="clips/s",
        better="higher",
        target=10.0,
    )


def _all_flows(backend: RaftFlow, clips: list[NDArray[np.uint8]]) -> None:
    for _ in backend.flows(clips):
        pass


def _exactly(work: Callable[[], list[NDArray[np.float32]]]) -> list[NDArray[np.float32]]:
    """Run without TF32, as the reference."""
    precision, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        return work()
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = tf32
