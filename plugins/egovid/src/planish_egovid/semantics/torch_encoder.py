"""TorchEncoder: batches, devices and number formats of encoders that are torch modules."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from planish_egovid.model.torch_threads import torch_threads

logger = logging.getLogger("planish_egovid")


class TorchEncoder(ABC):
    """Turns batches of arrays into unit vectors on a device.

    On a processor each clip is a forward pass of its own, on a fixed number of threads: a clip's scores are the same
    bits whatever stands beside it, and larger batches would not be faster. On a GPU all images of a batch of clips go
    through in passes of ``batch_size``.
    """

    def __init__(
        self,
        name: str,
        image_size: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        device: str,
        dtype: torch.dtype,
        batch_size: int = 256,
        threads: int = 1,
    ) -> None:
        """Keep what a forward pass needs.

        Args:
            name: Stored with the scores; the number format is appended.
            image_size: Side of the images, in pixels.
            mean: Of each channel, for values in 0..1.
            std: Likewise.
            device: Where the model is.
            dtype: Its number format.
            batch_size: Images a forward pass on a GPU.
            threads: Of torch, on a processor.
        """
        self.name = f"{name}/{str(dtype).removeprefix('torch.')}"
        self.image_size = image_size
        self.device, self.dtype, self.batch_size, self.threads = device, dtype, batch_size, threads
        self._on_gpu = device.startswith("cuda")
        # Scaling to 0..1 and normalising in one step: (x / 255 - mean) / std.
        scale = torch.tensor(std, dtype=torch.float64).mul(255).reciprocal()
        shift = torch.tensor(mean, dtype=torch.float64).div(torch.tensor(std, dtype=torch.float64)).neg()
        self._scale = scale.float().to(device).view(1, 3, 1, 1)
        self._shift = shift.float().to(device).view(1, 3, 1, 1)

    @abstractmethod
    def image_features(self, pixels: Tensor) -> Tensor:
        """Embed normalised images ``[images, 3, size, size]``: ``[images, width]``, of any length."""

    @abstractmethod
    def text_features(self, texts: list[str]) -> Tensor:
        """Embed texts: ``[texts, width]``, of any length."""

    def pixels(self, images: NDArray[np.uint8]) -> Tensor:
        """Return uint8 [images, size, size, 3] as the model takes them: normalised [images, 3, size, size]."""
        found = torch.from_numpy(np.ascontiguousarray(images)).to(self.device).permute(0, 3, 1, 2)
        return (found.float() * self._scale + self._shift).to(self.dtype)

    @torch.inference_mode()
    def embed_images(self, clips: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Return float32 [images, width] of unit length for each clip's uint8 [images, size, size, 3]."""
        if not self._on_gpu:
            with torch_threads(self.threads):
                return [_units(self.image_features(self.pixels(images))) for images in clips]
        images = np.concatenate(clips)
        units = np.concatenate(
            list(self._passes(len(images), lambda part: self.image_features(self.pixels(images[part]))))
        )
        ends = np.cumsum([len(clip) for clip in clips])[:-1]
        return np.split(units, ends)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """Return float32 [width] of unit length for each text; each is encoded once."""
        if not self._on_gpu:
            with torch_threads(self.threads):
                return [_units(self.text_features([text]))[0] for text in texts]
        known = list(texts)
        return list(np.concatenate(list(self._passes(len(known), lambda part: self.text_features(known[part])))))

    def _passes(self, count: int, forward: Callable[[slice], Tensor]) -> Iterator[NDArray[np.float32]]:
        """Run passes of ``batch_size``, and of half as many from then on where the GPU's memory is short."""
        start = 0
        while start < count:
            try:
                yield _units(forward(slice(start, start + self.batch_size)))
                start += self.batch_size
            except torch.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                torch.cuda.empty_cache()
                self.batch_size = (self.batch_size + 1) // 2
                logger.warning("%s: GPU memory is short; passes of %d from now on", self.name, self.batch_size)


def _units(features: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
    return found
