"""CLIP by transformers, with the image processing that the model's folder asks for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from planish.errors import UnsupportedError
from torch import Tensor

from planish_egovid.model.source import announce, explained, require
from planish_egovid.semantics.torch_encoder import TorchEncoder

if TYPE_CHECKING:
    from planish_egovid.semantics.image_embedding import ImageEmbedding

logger = logging.getLogger("planish_egovid")

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Mean and deviation of the channels in CLIP's training (Radford et al. 2021, official code)."""
BICUBIC = 3
"""Pillow's number of the filter."""


class ClipEncoder(TorchEncoder):
    """An :class:`~planish_egovid.semantics.encoder.ImageTextEncoder` around ``transformers.CLIPModel``."""

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None:
        """Wrap a model that is on its device, and its tokenizer; ``options`` go to :class:`TorchEncoder`."""
        super().__init__(image_size=int(model.config.vision_config.image_size), **options)
        self.model, self.tokenizer = model, tokenizer
        self.length = int(model.config.text_config.max_position_embeddings)

    @classmethod
    def load(cls, config: ImageEmbedding) -> ClipEncoder:
        """Load the model that the options name.

        Raises:
            UnsupportedError: transformers, the weights or the device are missing, or the folder holds another model.
        """
        require("transformers", "clip")
        device = config.resolved_device()
        dtype = config.resolved_dtype(device)
        source = config.model or (
            "openai/clip-vit-large-patch14" if device.startswith("cuda") else "openai/clip-vit-base-patch32"
        )
        announce("CLIP", source)
        with explained("CLIP", source, "model"):
            from transformers import AutoConfig, AutoTokenizer, CLIPModel

            kind = AutoConfig.from_pretrained(source).model_type
            if kind != "clip":
                raise UnsupportedError(f"model: {source} is a model of type {kind!r}; this backend runs 'clip'")
            model, info = CLIPModel.from_pretrained(source, dtype=dtype, output_loading_info=True)
            if info["missing_keys"]:
                raise UnsupportedError(
                    f"model: the weights of {source} lack {len(info['missing_keys'])} tensors, the first of which is "
                    f"{sorted(info['missing_keys'])[0]}; use a complete CLIP checkpoint"
                )
            tokenizer = AutoTokenizer.from_pretrained(source)
        mean, std = _normalisation(source, int(model.config.vision_config.image_size))
        return cls(
            model.eval().to(device),
            tokenizer,
            name=f"clip/{source}",
            mean=mean,
            std=std,
            device=device,
            dtype=dtype,
            batch_size=config.batch_size,
            threads=config.threads,
        )

    def image_features(self, pixels: Tensor) -> Tensor:
        """``[images, 3, size, size]`` to ``[images, projection_dim]``."""
        return _pooled(self.model.get_image_features(pixel_values=pixels))

    def text_features(self, texts: list[str]) -> Tensor:
        """Tokenise, truncated to the model's positions, and embed: ``[texts, projection_dim]``."""
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=self.length, return_tensors="pt")
        return _pooled(
            self.model.get_text_features(
                input_ids=tokens["input_ids"].to(self.device), attention_mask=tokens["attention_mask"].to(self.device)
            )
        )


def _pooled(found: Any) -> Tensor:
    """transformers 4 returns the projected features themselves, transformers 5 an output that holds them."""
    features: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return features


def _normalisation(source: str, image_size: int) -> tuple[list[float], list[float]]:
    """Return mean and std of the model's own image processor, after checking that it resizes as we do."""
    try:
        # Works without torchvision; named so from transformers 5 on.
        from transformers import CLIPImageProcessorPil as Processor
    except ImportError:
        from transformers import CLIPImageProcessor as Processor
    try:
        processor = Processor.from_pretrained(source)
    except (OSError, ValueError):
        logger.warning("CLIP: %s has no preprocessor_config.json; normalising as CLIP was trained", source)
        return list(MEAN), list(STD)
    resample = int(processor.resample) if processor.resample is not None else BICUBIC
    short = dict(processor.size).get("shortest_edge", image_size)
    if resample != BICUBIC or short != image_size:
        raise UnsupportedError(
            f"model: the image processor of {source} resizes the shorter side to {short} px with Pillow's filter "
            f"{resample}; this backend runs models whose shorter side becomes {image_size} px, bicubic (3)"
        )
    return [float(value) for value in processor.image_mean], [float(value) for value in processor.image_std]
