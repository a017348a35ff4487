"""RAFT optical flow by torchvision's model, in batches: each frame encoded once, only the last flow brought to size.

RAFT's own ``forward`` takes pairs: it encodes the inner frames of a clip twice, and brings the flow of every refinement
step to full size. This runs the same public modules (``feature_encoder``, ``context_encoder``, ``corr_block``,
``update_block``, ``mask_predictor``) on frames instead, and gives the same flow as ``forward(...)[-1]``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from planish.errors import ConfigError
from torch import Tensor
from torch.nn import functional

from planish_egovid.flow.any_batch import compiled_for_any_batch
from planish_egovid.flow.raft_config import RaftConfig
from planish_egovid.flow.raft_refinement import Lookup, Refinement, sampled
from planish_egovid.model.source import explained, require
from planish_egovid.model.torch_threads import torch_threads

logger = logging.getLogger("planish_egovid")

STRIDE = 8
"""RAFT works on an eighth of the picture's sides."""
SMALLEST_SIDE = 128
"""Its correlation pyramid has four levels, which need 16 cells of 8 pixels."""


class RaftFlow:
    """RAFT (Teed and Deng, ECCV 2020). A :class:`~planish_egovid.flow.backend.FlowBackend` for RGB frames.

    Pictures are padded to multiples of 8 by repeating their edges, centred, as RAFT's own ``InputPadder`` does. On a
    processor each clip is worked on by itself on a fixed number of threads, so that its flow is the same bits whatever
    stands beside it. On a GPU pairs of several clips of one size go through together, and a clip's flow is copied to
    the host while the next ones are computed.

    The encoders and the refinement run in the configured number format; correlations, coordinates and the flow itself
    are float32, with TF32 allowed where the format is shorter than float32. On a GPU or compiled, refinement in a short
    format is :class:`~planish_egovid.flow.raft_refinement.Refinement`, without autocast.
    """

    pixels: Literal["gray", "rgb"] = "rgb"

    def __init__(
        self,
        config: RaftConfig,
        model: torch.nn.Module | None = None,
        *,
        keeps_padding: bool = False,
        lookup: Lookup | None = None,
    ) -> None:
        """Load the model that the options name, or run another one of the same modules.

        Args:
            config: Model, weights, refinement steps, device.
            model: In place of the named one, such as a RAFT of your own training; moved to the device.
            keeps_padding: Whether the flow of padded pixels is kept, as in EgoVid's ``optical-flow-score.py``: the
                sides of what :meth:`flows` yields are then multiples of 8.
            lookup: What looks correlations up in a short format on a GPU, where they are laid out as in torchvision's
                model, such as ``planish_kernels.correlation_lookup.correlation_lookup``; None: the compiler's kernel,
                or where nothing is compiled the model's own.

        Raises:
            UnsupportedError: torchvision, the weights or the device are missing.
        """
        self.device = config.resolved_device()
        self.dtype = config.resolved_dtype(self.device)
        self._on_gpu = self.device.startswith("cuda")
        weights = "own" if model is not None else Path(config.weights).name
        number = str(self.dtype).removeprefix("torch.")
        self.name = f"{config.model.replace('_', '-')}/{weights}/{config.updates}/{number}"
        loaded: Any = (model if model is not None else load_raft(config)).eval().to(self.device)
        self.model = loaded
        self.updates, self.pairs, self.threads = config.updates, config.pairs, config.threads
        self.keeps_padding = keeps_padding
        self._encoders: tuple[Any, Any] = loaded.feature_encoder, loaded.context_encoder
        self._update, self._mask_predictor = loaded.update_block, getattr(loaded, "mask_predictor", None)
        self._compiled = compiled = self._on_gpu if config.compiled is None else config.compiled
        if compiled:
            self._encoders = (
                compiled_for_any_batch(loaded.feature_encoder),
                compiled_for_any_batch(loaded.context_encoder),
            )
        self._refinement: Refinement | None = None
        if self.dtype != torch.float32 and (self._on_gpu or compiled):
            self._refinement = Refinement(loaded, self.dtype, compiled=compiled, lookup=lookup)
        elif compiled:
            self._update = compiled_for_any_batch(loaded.update_block)

    def flows(self, clips: Sequence[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield the flow of each clip, in order.

        Args:
            clips: Each uint8 [frames, height, width, 3], RGB.

        Yields:
            float32 [max(frames - 1, 0), height, width, 2]: (x, y) displacement of each pixel of frame i to frame i + 1
            in pixels.
        """
        pending: _Transfer | None = None
        for group in self._groups(clips):
            # Started before the last one is waited for: the host works on its results while the GPU goes on.
            started = self._start(group)
            if pending is not None:
                yield from pending.arrays()
            pending = started
        if pending is not None:
            yield from pending.arrays()

    def _groups(self, clips: Sequence[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.uint8]]]:
        """Neighbouring clips of one size that fill a pass; on a processor each clip alone."""
        group: list[NDArray[np.uint8]] = []
        count = 0
        for clip in clips:
            pairs = max(len(clip) - 1, 0)
            apart = not self._on_gpu or (bool(group) and clip.shape[1:] != group[0].shape[1:])
            if group and (apart or count + pairs > self.pairs):
                yield group
                group, count = [], 0
            group.append(clip)
            count += pairs
        if group:
            yield group

    def _start(self, group: list[NDArray[np.uint8]]) -> _Transfer:
        """Begin to compute the flow of clips of one size."""
        height, width = group[0].shape[1:3]
        counts = [max(len(clip) - 1, 0) for clip in group]
        lengths = [len(clip) for clip in group]
        starts = np.cumsum([0, *lengths[:-1]])
        first = np.concatenate([start + np.arange(count) for start, count in zip(starts, counts, strict=True)])
        while True:
            try:
                with torch.inference_mode(), self._settings():
                    flow = self._flow(np.concatenate(group), first.astype(np.int64))
                    break
            except torch.OutOfMemoryError:
                if self.pairs == 1:
                    raise
                torch.cuda.empty_cache()
                self.pairs = (self.pairs + 1) // 2
                logger.warning("%s: GPU memory is short; %d pairs at a time from now on", self.name, self.pairs)
        if not self.keeps_padding:
            left, _, top, _ = padding(height, width)
            flow = flow[:, :, top : top + height, left : left + width]
        return _Transfer(flow.permute(0, 2, 3, 1), counts)

    def _flow(self, frames: NDArray[np.uint8], first: NDArray[np.int64]) -> Tensor:
        """float32 [pairs, 2, padded height, padded width] of pairs (first[i], first[i] + 1) of frames."""
        height, width = frames.shape[1:3]
        left, right, top, bottom = pads = padding(height, width)
        if not len(first):
            return torch.empty(0, 2, height + top + bottom, width + left + right)
        pixels = torch.from_numpy(frames)
        if self._on_gpu:
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        index = torch.from_numpy(first).to(self.device)
        # Frames of the encoder a pass: about the work of a pass of pairs.
        features: list[Tensor] = []
        contexts: list[Tensor] = []
        for part in torch.split(pixels, self.pairs):
            images = functional.pad(part.permute(0, 3, 1, 2).float() / 127.5 - 1, pads, mode="replicate")
            with self._autocast():
                for encoder, found in zip(self._encoders, (features, contexts), strict=True):
                    found.append(encoder(images).float())
        feature, context = torch.cat(features), torch.cat(contexts)
        flows: list[Tensor] = []
        for part in torch.split(index, self.pairs):
            # A compiler makes a program of its own for a batch of one: longer than to compute the pair twice.
            doubled = part.repeat(2) if self._compiled and len(part) == 1 < self.pairs else part
            flows.append(self._refine(feature[doubled], feature[doubled + 1], context[doubled])[: len(part)])
        return torch.cat(flows)

    def _refine(self, first: Tensor, second: Tensor, context: Tensor) -> Tensor:
        """Find the flow between features ``[pairs, channels, h, w]``, float32 ``[pairs, 2, 8 h, 8 w]``."""
        self.model.corr_block.build_pyramid(first, second)
        hidden_size = self.model.update_block.hidden_state_size
        hidden, context = context[:, :hidden_size].tanh(), context[:, hidden_size:].relu()
        pairs, _, height, width = first.shape
        rows = torch.arange(height, device=first.device, dtype=torch.float32)
        columns = torch.arange(width, device=first.device, dtype=torch.float32)
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))[None].expand(pairs, -1, -1, -1)
        at, mask = grid, None
        if self._refinement is not None:
            hidden, context = self._refinement.short(hidden), self._refinement.short(context)
            # Neither views nor the same tensor, whatever the number of pairs: each would be compiled by itself.
            grid = grid.contiguous()
            at = grid.clone()
            for _ in range(self.updates):
                hidden, at = self._refinement.step(hidden, context, at, grid)
            mask = self._refinement.mask(hidden)
        else:
            for _ in range(self.updates):
                correlation = sampled(self.model.corr_block, at)
                with self._autocast():
                    hidden, step = self._update(hidden, context, correlation, at - grid)
                at = at + step.float()
            if self._mask_predictor is not None:
                with self._autocast():
                    mask = self._mask_predictor(hidden).float()
        self.model.corr_block.corr_pyramid = []  # a gigabyte or more that the next pass would allocate beside
        return upsampled(at - grid, mask)

    def _autocast(self) -> Any:
        short = self.dtype != torch.float32
        return torch.autocast("cuda" if self._on_gpu else "cpu", self.dtype if short else torch.bfloat16, enabled=short)

    @contextmanager
    def _settings(self) -> Iterator[None]:
        """Allow TF32 for a short format, and hold the threads of a processor; as before afterwards."""
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        short = self.dtype != torch.float32
        torch.set_float32_matmul_precision("high" if short else "highest")
        torch.backends.cudnn.allow_tf32 = short
        try:
            with torch_threads(self.threads):
                yield
        finally:
            torch.set_float32_matmul_precision(before[0])
            torch.backends.cudnn.allow_tf32 = before[1]


@dataclass
class _Transfer:
    """The flow of a group of clips on its way to the host."""

    flow: Tensor
    counts: list[int]

    def __post_init__(self) -> None:
        self._done: Callable[[], Any] = lambda: None
        if self.flow.is_cuda:
            host = torch.empty(self.flow.shape, dtype=self.flow.dtype, pin_memory=True)
            host.copy_(self.flow, non_blocking=True)
            cuda: Any = torch.cuda
            event = cuda.Event()
            event.record()
            self.flow, self._done = host, event.synchronize

    def arrays(self) -> Iterator[NDArray[np.float32]]:
        """Wait for the copy and cut it into clips."""
        self._done()
        for part in torch.split(self.flow, self.counts):
            yield np.ascontiguousarray(part.numpy())


def padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Return (left, right, top, bottom) pixels that bring both sides to a multiple of 8, of at least 128."""
    x, y = (max(-(-side // STRIDE) * STRIDE, SMALLEST_SIDE) - side for side in (width, height))
    return x // 2, x - x // 2, y // 2, y - y // 2


def upsampled(flow: Tensor, mask: Tensor | None) -> Tensor:
    """Bring the flow of an eighth of the picture to full size (paper section 3.3, appendix B).

    Args:
        flow: float32 [pairs, 2, h, w].
        mask: [pairs, 9 * 64, h, w], weights of the 3x3 neighbours of each of 8x8 pixels before softmax; None:
            interpolate.

    Returns:
        float32 [pairs, 2, 8 h, 8 w].
    """
    pairs, _, height, width = flow.shape
    if mask is None:
        size = (STRIDE * height, STRIDE * width)
        return STRIDE * functional.interpolate(flow, size=size, mode="bilinear", align_corners=True)
    weights = mask.view(pairs, 1, 9, STRIDE, STRIDE, height, width).softmax(dim=2)
    near = functional.unfold(STRIDE * flow, kernel_size=3, padding=1).view(pairs, 2, 9, 1, 1, height, width)
    fine = (weights * near).sum(dim=2)
    return fine.permute(0, 1, 4, 2, 5, 3).reshape(pairs, 2, STRIDE * height, STRIDE * width)


def load_raft(config: RaftConfig) -> torch.nn.Module:
    """Return torchvision's RAFT with the named weights, on the CPU.

    Raises:
        ConfigError: The weights are neither a file nor one of torchvision's names.
        UnsupportedError: torchvision is not installed, or the weights cannot be had or do not fit.
    """
    require("torchvision", "raft")
    with explained("RAFT", config.weights, "weights"):
        from torchvision.models import optical_flow

        model: torch.nn.Module = getattr(optical_flow, config.model)(weights=None)
        if Path(config.weights).is_file():
            logger.info("RAFT: loading weights from %s", config.weights)
            state = torch.load(config.weights, map_location="cpu", weights_only=True)
        else:
            state = _published(optical_flow, config)
        model.load_state_dict(state)
    return model


def _published(optical_flow: Any, config: RaftConfig) -> Any:
    known = getattr(
        optical_flow, {"raft_large": "Raft_Large_Weights", "raft_small": "Raft_Small_Weights"}[config.model]
    )
    names = [name for name in known.__members__ if name != "DEFAULT"]
    if config.weights not in names:
        raise ConfigError(
            f"weights is {config.weights!r}, which is no file; torchvision has these for {config.model}: "
            f"{', '.join(names)}"
        )
    entry = known[config.weights]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    cached = (folder / str(entry.url).rsplit("/", 1)[-1]).is_file()
    if cached:
        logger.info("RAFT: loading %s from the cache %s", config.weights, folder)
    else:
        logger.warning("RAFT: downloading %s into %s", entry.url, folder)
    return entry.get_state_dict(progress=False, check_hash=True)
