"""ImageTextEncoder: what embeds images and texts into one space, whatever library it comes from."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from planish_egovid.semantics.image_embedding import ImageEmbedding


@runtime_checkable
class ImageTextEncoder(Protocol):
    """Embeds images and texts into one space.

    Attributes:
        name: Library, model and number format, such as ``"clip/openai/clip-vit-base-patch32/float32"``; stored with
            the scores.
        image_size: Side of the images it takes, in pixels.
    """

    name: str
    image_size: int

    def embed_images(self, clips: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Return float32 [images, width] of unit length for each clip's uint8 [images, size, size, 3], RGB."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """Return float32 [width] of unit length for each text."""
        ...


@functools.lru_cache(maxsize=2)
def load_encoder(config: ImageEmbedding) -> ImageTextEncoder:
    """Return the encoder that the options name, loaded once a process.

    Raises:
        UnsupportedError: A package, the weights or the device are missing.
    """
    if config.backend == "open_clip":
        from planish_egovid.semantics.open_clip_encoder import OpenClipEncoder

        return OpenClipEncoder.load(config)
    from planish_egovid.semantics.clip_encoder import ClipEncoder

    return ClipEncoder.load(config)
