"""Image embeddings of a clip's key frames, computed once for all axes that compare them with a text or each other.

How two axes share one model: both hold an equal :class:`ImageEmbedding` in their options. In ``measure`` each calls
:func:`prepare`, which puts the frames into the payload, a frame that is there already not again, and marks which of
them it wants compared. Both return :func:`embedding_stage` from ``stage()``; it has the same name for equal options, so
the pipeline keeps one of the two. The stage writes whatever columns were marked and takes its frames out of the
payload, so that a second one would find nothing to do and would not even load the model.

Payload, below ``ImageEmbedding.payload_key()``:

* ``…/images``: uint8 [images, size, size, 3], RGB
* ``…/times``: float64 [images], seconds from the clip's start
* ``…/ti_sim``: intp [k], images to compare with the clip's text
* ``…/ii_sim``: intp [k], images of which the first is compared with each other one
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from planish.errors import ConfigError
from planish.interfaces import ClipWork, Stage
from pydantic import Field

from planish_egovid.model.placement import Placement
from planish_egovid.model.source import require
from planish_egovid.semantics.square import squares
from planish_egovid.semantics.text import stated
from planish_egovid.video.request import FrameRequest, VideoInfo
from planish_egovid.video.view import ClipView

Comparison = Literal["ti_sim", "ii_sim"]
Compat = Literal["strict", "official"]

KEY_FRAMES: tuple[int, ...] = (0, 39, 79, 119)
"""Frames that EgoVid's ``clipsim.py`` looks at; it takes 30 frames a second for granted."""
PUBLISHED_FPS = 30.0
SCALE = 100.0
"""Cosines are stored times this, as in the released tables."""


class ImageEmbedding(Placement):
    """A model that embeds images and texts into one space."""

    backend: Literal["none", "clip", "open_clip"] = Field(
        "none", description="none: columns stay null; clip: CLIP by transformers; open_clip: a model of open_clip"
    )
    model: str | None = Field(
        None,
        min_length=1,
        description="clip: folder or hub id, by default openai/clip-vit-large-patch14 on a GPU and "
        "openai/clip-vit-base-patch32 elsewhere; open_clip: ARCHITECTURE/WEIGHTS, by default ViT-L-14/openai",
    )
    image_size: int = Field(224, ge=16, le=1024, description="side of the square that the model looks at, in pixels")
    batch_size: int = Field(
        256,
        ge=1,
        json_schema_extra={"decides_scores": False},
        description="images a forward pass on a GPU; on a processor: those of one clip",
    )
    clips: int = Field(
        64,
        ge=1,
        json_schema_extra={"decides_scores": False},
        description="clips that the model stage takes at a time",
    )

    def payload_key(self) -> str:
        """Return the prefix of the payload's keys, which is also the stage's name; equal for equal options."""
        digest = hashlib.sha256(self.shared().model_dump_json().encode()).hexdigest()
        return f"{self.backend}-{digest[:8]}"

    def shared(self) -> ImageEmbedding:
        """Return these options without what a derived class adds: what axes that share a model have in common."""
        return ImageEmbedding.model_validate({name: getattr(self, name) for name in ImageEmbedding.model_fields})


def frame_times(frames: Sequence[int], video: VideoInfo, compat: Compat = "strict") -> tuple[float, ...]:
    """Return the times of published frame numbers, each in the middle of the frame that is meant.

    Args:
        frames: Numbers in a video of 30 frames a second, such as :data:`KEY_FRAMES`.
        video: The stream.
        compat: ``"strict"``: what is on screen at that time, so 0, 1.3, 2.63 and 3.97 s; ``"official"``: the frame of
            that number whatever the rate.
    """
    rate = video.fps if compat == "official" and video.fps > 0 else PUBLISHED_FPS
    half = 0.5 / video.fps if video.fps > 0 else 0.0
    return tuple(frame / rate + half for frame in frames)


def shortness(frames: Sequence[int], video: VideoInfo, duration_s: float, compat: Compat = "strict") -> str | None:
    """Return why a clip is too short for published frame numbers, or None if it is not."""
    if frame_times(frames, video, compat)[-1] < duration_s:
        return None
    if compat == "official":
        return f"shorter than {frames[-1] + 1} frames"
    return f"shorter than {frames[-1] / PUBLISHED_FPS:.2f} s"


def request(times_s: Sequence[float]) -> FrameRequest:
    """Return the request for frames to embed: as decoded, because the model's own resize must see every pixel."""
    return FrameRequest(tuple(times_s), "rgb", fit="native")


def prepare(view: ClipView, config: ImageEmbedding, times_s: Sequence[float], comparison: Comparison) -> None:
    """Put the frames at ``times_s`` into the payload and mark them for a comparison.

    The axis must have asked for ``request(times_s)``.

    Args:
        view: The clip.
        config: The model.
        times_s: Seconds from the clip's start.
        comparison: The column that the stage is to write: ``"ti_sim"`` needs a text.

    Raises:
        UnsupportedError: Pillow is not installed.
    """
    key, payload = config.payload_key(), view.payload
    known = [] if f"{key}/times" not in payload else payload[f"{key}/times"].tolist()
    missing = [i for i, time in enumerate(times_s) if time not in known]
    if missing:
        images = squares(
            view.frames(request(times_s)).images[missing],
            config.image_size,
            # open_clip resizes through torchvision, CLIP's processor of transformers does not.
            rounds_crop=config.backend == "open_clip",
        )
        known += [times_s[i] for i in missing]
        before = [payload[f"{key}/images"]] if f"{key}/images" in payload else []
        payload[f"{key}/images"] = np.concatenate([*before, images])
        payload[f"{key}/times"] = np.array(known)
    payload[f"{key}/{comparison}"] = np.array([known.index(time) for time in times_s], np.intp)


def embedding_stage(config: ImageEmbedding) -> Stage | None:
    """Return the stage that embeds the prepared frames and writes ``ti_sim`` and ``ii_sim``; None without a backend.

    Columns: ``ti_sim``, cosine of image and text times 100 for each marked image, with ``text_backend`` beside it;
    ``ii_sim``, cosine of the first marked image and each other one times 100, with ``ii_backend`` beside it. Where the
    model gives NaN, the column is None and ``text_reason`` or ``ii_reason`` says so.

    Raises:
        UnsupportedError: A package that the backend needs is not installed.
    """
    if config.backend == "none":
        return None
    require("torch", "clip")
    require("PIL", "clip")
    require("transformers" if config.backend == "clip" else "open_clip", config.backend.replace("_", "-"))
    return Stage(config.payload_key(), _Embed(config.shared()), batch_size=config.clips, **config.resources())


class _Embed:
    """What the stage runs. The model is loaded with the first clip that needs it."""

    def __init__(self, config: ImageEmbedding) -> None:
        self.config = config

    def __call__(self, works: list[ClipWork]) -> list[ClipWork]:
        key = self.config.payload_key()
        found = [work for work in works if work.error is None and f"{key}/images" in work.payload]
        if not found:
            return works
        from planish_egovid.semantics.encoder import load_encoder

        encoder = load_encoder(self.config)
        if encoder.image_size != self.config.image_size:
            raise ConfigError(
                f"image_size is {self.config.image_size}, and {encoder.name} looks at images of "
                f"{encoder.image_size} px; set image_size to {encoder.image_size}"
            )
        images = encoder.embed_images([work.payload.pop(f"{key}/images") for work in found])
        wanting = [i for i, work in enumerate(found) if f"{key}/ti_sim" in work.payload]
        texts = encoder.embed_texts([stated(found[i].clip.text) or "" for i in wanting]) if wanting else []
        text_of = dict(zip(wanting, texts, strict=True))
        for i, work in enumerate(found):
            work.payload.pop(f"{key}/times")
            if i in text_of:
                marked = work.payload.pop(f"{key}/ti_sim")
                _write(work, "ti_sim", "text", _cosines(images[i][marked], text_of[i]), encoder.name)
            if f"{key}/ii_sim" in work.payload:
                first, *others = work.payload.pop(f"{key}/ii_sim")
                _write(work, "ii_sim", "ii", _cosines(images[i][others], images[i][first]), encoder.name)
        return works


def _cosines(many: np.ndarray, one: np.ndarray) -> list[float]:
    """Cosines times 100 between rows of ``many`` [n, width] and ``one`` [width], all of unit length."""
    return [float(value) for value in SCALE * (many.astype(np.float64) @ one.astype(np.float64))]


def _write(work: ClipWork, column: str, prefix: str, cosines: list[float], model: str) -> None:
    work.values[f"{prefix}_backend"] = model
    if all(math.isfinite(cosine) for cosine in cosines):
        work.values[column] = cosines
    else:
        work.values[column] = None
        work.values[f"{prefix}_reason"] = "the model's embedding is not finite"
