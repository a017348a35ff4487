"""Models of open_clip; the released EgoVid tables were made with its ViT-L-14/openai."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planish.errors import ConfigError, UnsupportedError
from torch import Tensor

from planish_egovid.model.source import explained, require
from planish_egovid.semantics.torch_encoder import TorchEncoder

if TYPE_CHECKING:
    from planish_egovid.semantics.image_embedding import ImageEmbedding

logger = logging.getLogger("planish_egovid")

DEFAULT = "ViT-L-14/openai"


class OpenClipEncoder(TorchEncoder):
    """An :class:`~planish_egovid.semantics.encoder.ImageTextEncoder` around a model of ``open_clip``."""

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None:
        """Wrap a model that is on its device, and its tokenizer; ``options`` go to :class:`TorchEncoder`."""
        super().__init__(**options)
        self.model, self.tokenizer = model, tokenizer

    @classmethod
    def load(cls, config: ImageEmbedding) -> OpenClipEncoder:
        """Load ``ARCHITECTURE/WEIGHTS``; the weights are a tag of open_clip or a file.

        Raises:
            ConfigError: The model has no slash.
            UnsupportedError: open_clip, the weights or the device are missing.
        """
        require("open_clip", "open-clip")
        named = config.model or DEFAULT
        architecture, slash, weights = named.partition("/")
        if not slash or not weights:
            raise ConfigError(f"model is {named!r}; open_clip takes ARCHITECTURE/WEIGHTS, such as {DEFAULT}")
        device = config.resolved_device()
        dtype = config.resolved_dtype(device)
        where = "that file" if Path(weights).is_file() else "open_clip's cache, or downloading it if it is not there"
        logger.warning("open_clip: loading %s with weights %s from %s", architecture, weights, where)
        with explained("open_clip model", named, "model"):
            import open_clip

            # Weights such as OpenAI's were trained with QuickGELU; without being told, open_clip only warns.
            tag = open_clip.get_pretrained_cfg(architecture, weights) or {}
            model = open_clip.create_model(
                architecture, pretrained=weights, force_quick_gelu=bool(tag.get("quick_gelu", False))
            )
            tokenizer = open_clip.get_tokenizer(architecture)
        how = getattr(model.visual, "preprocess_cfg", {})
        if how.get("interpolation", "bicubic") != "bicubic" or how.get("resize_mode", "shortest") != "shortest":
            raise UnsupportedError(
                f"model: {named} wants its images resized by {how['interpolation']}, mode {how['resize_mode']}; this "
                "backend runs models that take bicubic, mode shortest"
            )
        size = model.visual.image_size
        return cls(
            model.eval().to(device=device, dtype=dtype),
            tokenizer,
            name=f"open_clip/{named}",
            image_size=int(size[0] if isinstance(size, tuple | list) else size),
            mean=list(model.visual.image_mean),
            std=list(model.visual.image_std),
            device=device,
            dtype=dtype,
            batch_size=config.batch_size,
            threads=config.threads,
        )

    def image_features(self, pixels: Tensor) -> Tensor:
        """``[images, 3, size, size]`` to ``[images, width]``."""
        features: Tensor = self.model.encode_image(pixels)
        return features

    def text_features(self, texts: list[str]) -> Tensor:
        """Tokenise, truncated to the model's context, and embed: ``[texts, width]``."""
        features: Tensor = self.model.encode_text(self.tokenizer(texts).to(self.device))
        return features
