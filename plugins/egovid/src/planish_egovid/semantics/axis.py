"""TextAxis: whether a clip shows what its text says, by CLIP and by EgoVideo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from planish.interfaces import Clip, ClipWork, Row, Stage
from pydantic import Field, model_validator

from planish_egovid.axis import Axis
from planish_egovid.policy.rule import Rule, Threshold
from planish_egovid.semantics import egovideo, image_embedding
from planish_egovid.semantics.egovideo import EgoVideoConfig
from planish_egovid.semantics.image_embedding import ImageEmbedding, embedding_stage
from planish_egovid.semantics.text import stated
from planish_egovid.video.request import FrameRequest, VideoInfo
from planish_egovid.video.view import ClipView


class TextConfig(ImageEmbedding):
    """How text and picture are compared."""

    backend: Literal["none", "clip", "open_clip", "egovideo"] = Field(  # type: ignore[assignment]
        "none",
        description="none: columns stay null; clip: CLIP by transformers; open_clip: a model of open_clip; egovideo: "
        "the model under 'egovideo' alone",
    )
    egovideo: EgoVideoConfig | None = Field(
        None, description="an EgoVideo checkpoint that you installed; beside clip or open_clip it scores as well"
    )
    compat: image_embedding.Compat = Field(
        "strict",
        description="strict: frames after 0, 1.3, 2.63 and 3.97 s, EgoVideo's after 0, 1, 2 and 3 s; official: frames "
        "0, 39, 79, 119 and 0, 30, 60, 90 whatever the rate",
    )

    @model_validator(mode="after")
    def _has_its_checkpoint(self) -> TextConfig:
        if self.backend == "egovideo" and self.egovideo is None:
            raise ValueError("backend 'egovideo' needs the options under 'egovideo': source and checkpoint")
        return self

    def embedding(self) -> ImageEmbedding | None:
        """Return the options of the image-text model, as other axes may hold them; None if there is no such model."""
        return None if self.backend in ("none", "egovideo") else self.shared()


class TextColumns(Row):
    """Text-video consistency of a clip."""

    ti_sim: list[float] | None = Field(
        None, description="cosine of text and image times 100, for the frames after 0, 1.3, 2.63 and 3.97 s"
    )
    egovideo_score: float | None = Field(None, description="dot product of EgoVideo's video and text features")
    text_backend: str | None = Field(None, description="models and number formats that gave these, or null")
    text_reason: str | None = Field(None, description="why there are none: no_text, no backend, shorter than 3.97 s")


class TextAxis(Axis):
    """Text-video consistency: CLIP at four frames, and EgoVideo over four frames (EgoVid ``clipsim.py``,
    ``egovideo_clean.py``).
    """

    name: ClassVar[str] = "text"
    summary: ClassVar[str] = "whether the picture shows what the text says"
    Config: ClassVar[type[TextConfig]] = TextConfig
    Columns: ClassVar[type[TextColumns]] = TextColumns
    cost: ClassVar[float] = 0.8
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            metric="ti_sim",
            column="ti_sim",
            default=Threshold(min_quantile=0.15),
            reduce="mean",
            low="picture does not show the text",
            high="picture too close to the text",
            unit="",
            description="mean CLIP cosine of text and image times 100; its scale depends on the model, so by quantile",
        ),
        Rule(
            metric="egovideo_score",
            column="egovideo_score",
            default=Threshold(min_quantile=0.15),
            low="video does not show the text",
            high="video too close to the text",
            unit="",
            description="EgoVideo's video-text score; by quantile likewise",
        ),
    )
    config: TextConfig

    def __init__(self, config: Any) -> None:
        """Keep the options; models are loaded by the stage, with the first clip that needs them."""
        super().__init__(config)
        self._embedding = self.config.embedding()

    def requests(self, clip: Clip, video: VideoInfo, duration_s: float) -> Sequence[FrameRequest]:
        """Return the key frames as decoded: 4 for CLIP, 4 for EgoVideo; none for a clip without text."""
        if stated(clip.text) is None:
            return ()
        return tuple(
            image_embedding.request(image_embedding.frame_times(frames, video, self.config.compat))
            for frames in self._frames()
            if image_embedding.shortness(frames, video, duration_s, self.config.compat) is None
        )

    def measure(self, view: ClipView) -> dict[str, Any]:
        """Put the frames into the payload; the columns themselves come from the stage."""
        columns: dict[str, Any] = dict.fromkeys(("ti_sim", "egovideo_score", "text_backend", "text_reason"))
        if not self._frames():
            return {**columns, "text_reason": "no backend"}
        if stated(view.clip.text) is None:
            return {**columns, "text_reason": "no_text"}
        reasons = []
        for frames in self._frames():
            short = image_embedding.shortness(frames, view.video, view.duration_s, self.config.compat)
            if short is not None:
                reasons.append(short)
                continue
            times = image_embedding.frame_times(frames, view.video, self.config.compat)
            if frames is egovideo.FRAMES:
                egovideo.prepare(view, times)
            elif self._embedding is not None:
                image_embedding.prepare(view, self._embedding, times, "ti_sim")
        return {**columns, "text_reason": "; ".join(reasons) or None}

    def stage(self) -> Stage | None:
        """Return the model stage, or None without a backend.

        Raises:
            UnsupportedError: A package that the backend needs is not installed.
        """
        stages = [] if self._embedding is None else [embedding_stage(self._embedding)]
        stages += [] if self.config.egovideo is None else [egovideo.stage(self.config.egovideo)]
        present = [stage for stage in stages if stage is not None]
        return _in_a_row(present) if present else None

    def _frames(self) -> list[tuple[int, ...]]:
        clip = [] if self._embedding is None else [image_embedding.KEY_FRAMES]
        return clip + ([] if self.config.egovideo is None else [egovideo.FRAMES])


def _in_a_row(stages: list[Stage]) -> Stage:
    """One stage that runs several models in one worker, because an axis has one stage."""
    if len(stages) == 1:
        return stages[0]

    def run(works: list[ClipWork]) -> list[ClipWork]:
        for stage in stages:
            works = stage.run(works)
        return works

    return Stage(
        "+".join(stage.name for stage in stages),
        run,
        cpus=max(stage.cpus for stage in stages),
        gpus=max(stage.gpus for stage in stages),
        batch_size=min(stage.batch_size for stage in stages),
    )
