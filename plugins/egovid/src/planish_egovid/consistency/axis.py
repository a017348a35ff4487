"""ConsistencyAxis: whether a clip is one continuous shot whose frames are in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
from planish.config import Config
from planish.interfaces import Clip, Illustration, Row, Stage
from pydantic import Field

from planish_egovid.axis import Axis
from planish_egovid.consistency.appearance import Appearance, thumbnail_request
from planish_egovid.consistency.cuts import find_cuts, repeated_share
from planish_egovid.consistency.picture import around, change_plot
from planish_egovid.flow.track import FlowConfig, flow_requests, flow_track
from planish_egovid.policy.rule import Rule, Threshold
from planish_egovid.semantics import image_embedding
from planish_egovid.semantics.image_embedding import KEY_FRAMES, Compat, ImageEmbedding, embedding_stage
from planish_egovid.video.request import FrameRequest, VideoInfo
from planish_egovid.video.view import ClipView

LATER_S = tuple(frame / image_embedding.PUBLISHED_FPS for frame in KEY_FRAMES[1:])
"""Times of the published key frames after the first."""
IN_ORDER = 0.92
"""Least ``frame_order`` of frames in order: shuffled stretches reach 0.89, the most erratic handheld clip 0.99."""
CUT = 0.45
"""Least ``cut_score`` of a cut. Joins of different places score 0.79 and more, one within a moving scene 0.48; frozen
and suddenly overexposed clips reach 0.4, other continuous clips 0.1."""


class ConsistencyConfig(Config):
    """How consistency is measured."""

    embedding: ImageEmbedding = Field(
        ImageEmbedding(), description="model behind ii_sim; give it the text axis' options and both share its work"
    )
    flow: FlowConfig = Field(FlowConfig(), description="optical flow; the default is the one that other axes share")
    compat: Compat = Field(
        "strict",
        description="for ii_sim: strict: frames after 0, 1.3, 2.63 and 3.97 s; official: frames 0, 39, 79 and 119 "
        "whatever the rate",
    )
    min_cut_score: float = Field(CUT, ge=0, le=1, description="cut_score from which a change counts as a cut")
    repeat_levels: float = Field(
        0.5, ge=0, le=255, description="mean absolute difference in grey levels up to which a frame repeats another"
    )


class ConsistencyColumns(Row):
    """Frame-frame consistency of a clip. All but ``ii_sim`` are planish's own."""

    ii_sim: list[float] | None = Field(
        None, description="cosine of image features times 100, first frame and those after 1.3, 2.63 and 3.97 s"
    )
    ii_backend: str | None = Field(None, description="model that gave ii_sim, or null")
    ii_reason: str | None = Field(None, description="why there is no ii_sim: no backend, shorter than 3.97 s")
    frame_similarity: list[float] | None = Field(
        None,
        description="overlap of the colour histograms of the first frame and those after 1.3, 2.63 and 3.97 s, as far "
        "as the clip goes; 0 to 1",
    )
    cut_score: float | None = Field(
        None,
        description="strongest evidence for a cut: share of flow lost times share of the change that neighbouring "
        "frames do not explain; 0 to 1",
    )
    cuts: int | None = Field(None, description="number of cuts")
    cut_times_s: list[float] | None = Field(None, description="times of first frames after cuts, seconds")
    frame_order: float | None = Field(
        None,
        description="least change over two frames relative to the change over one, in any 0.4 s that move: about 2 in "
        "steady motion, below 0.92 where frames are out of order; null where nothing moves",
    )
    disorder_frac: float | None = Field(None, description="share of the clip that is out of order, 0 to 1")
    freeze_frac: float | None = Field(None, description="share of frames, 4/30 s apart, that repeat the one before")
    exposure_jump: float | None = Field(
        None, description="largest change of mean brightness from one frame to the next, in stops (powers of two)"
    )
    consistency_backend: str | None = Field(None, description="what measured the columns other than ii_sim")


class ConsistencyAxis(Axis):
    """Frame-frame consistency: CLIP similarity of frames (EgoVid ``clipsim.py``), and cuts, order and freezes.

    What is planish's own needs no model: thumbnails of all frames and the optical flow that other axes use as well.
    """

    name: ClassVar[str] = "consistency"
    summary: ClassVar[str] = "whether the frames belong together"
    Config: ClassVar[type[ConsistencyConfig]] = ConsistencyConfig
    Columns: ClassVar[type[ConsistencyColumns]] = ConsistencyColumns
    cost: ClassVar[float] = 0.16
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            metric="ii_sim",
            column="ii_sim",
            default=Threshold(min=70.0),
            reduce="min",
            low="inconsistent: later frames show something else",
            description="least CLIP cosine of the first frame and later ones, times 100",
        ),
        # Before the cut, because a picture that has stood still jumps when it goes on.
        Rule(
            metric="freeze_frac",
            column="freeze_frac",
            default=Threshold(max=0.2),
            high="inconsistent: picture stands still",
            description="share of frames that repeat the one before",
        ),
        Rule(
            metric="cut_score",
            column="cut_score",
            default=Threshold(max=CUT),
            high="inconsistent: cut to another shot",
            description="strongest evidence for a cut, 0 to 1",
        ),
        Rule(
            metric="frame_order",
            column="frame_order",
            default=Threshold(min=IN_ORDER),
            low="inconsistent: frames out of order",
            description="how far frames lead on, about 2 in steady motion",
        ),
        Rule(
            metric="frame_similarity",
            column="frame_similarity",
            default=Threshold(),
            reduce="min",
            low="inconsistent: colours change",
            description="least overlap of colours with those of the first frame, 0 to 1; a head turn lowers it too",
        ),
        Rule(
            metric="exposure_jump",
            column="exposure_jump",
            default=Threshold(),
            high="inconsistent: brightness jumps",
            unit="stops",
            description="largest change of mean brightness from one frame to the next",
        ),
    )
    config: ConsistencyConfig

    def requests(self, clip: Clip, video: VideoInfo, duration_s: float) -> Sequence[FrameRequest]:
        """Return thumbnails of all frames, the frames of the flow, and with a model four frames as decoded."""
        asked = [thumbnail_request(video, duration_s), *flow_requests(video, duration_s, self.config.flow)]
        if self._reason(video, duration_s) is None:
            asked.append(image_embedding.request(self._key_times(video)))
        return tuple(asked)

    def measure(self, view: ClipView) -> dict[str, Any]:
        """Measure all but ``ii_sim``, and put frames into the payload for that."""
        reason = self._reason(view.video, view.duration_s)
        if reason is None:
            image_embedding.prepare(view, self.config.embedding, self._key_times(view.video), "ii_sim")
        appearance = Appearance.of(view.frames(thumbnail_request(view.video, view.duration_s)))
        columns = dict.fromkeys(name for name in ConsistencyColumns.model_fields if name not in Row.model_fields)
        columns |= {
            "ii_reason": reason,
            "frame_similarity": appearance.similarity(LATER_S) or None,
            "consistency_backend": f"thumbnails-dis-{self.config.flow.preset}/cv2-{cv2.__version__}",
        }
        if len(appearance.times_s) < 2:
            return columns
        track = flow_track(view, self.config.flow)
        cuts = find_cuts(appearance, track)
        found = cuts.above(self.config.min_cut_score)
        order = appearance.window_order()
        moving = order[~np.isnan(order)]
        return columns | {
            "cut_score": float(cuts.scores.max()),
            "cuts": len(found),
            "cut_times_s": found,
            "frame_order": float(moving.min()) if len(moving) else None,
            "disorder_frac": float((moving < IN_ORDER).sum() / len(order)) if len(order) else None,
            "freeze_frac": repeated_share(track, self.config.repeat_levels),
            "exposure_jump": float(np.abs(np.diff(appearance.stops)).max()),
        }

    def stage(self) -> Stage | None:
        """Return the stage of the image model, or None without one.

        Raises:
            UnsupportedError: A package that the model needs is not installed.
        """
        return embedding_stage(self.config.embedding)

    def illustrate(self, view: ClipView, row: Row) -> list[Illustration]:
        """Return the change from frame to frame over time, and the frames around the strongest evidence for a cut."""
        appearance = Appearance.of(view.frames(thumbnail_request(view.video, view.duration_s)))
        if len(appearance.times_s) < 2:
            return []
        track = flow_track(view, self.config.flow)
        cuts = find_cuts(appearance, track)
        pictures = [change_plot(cuts.times_s, appearance.changes, cuts.above(self.config.min_cut_score))]
        strongest = int(cuts.scores.argmax())
        if len(track) and cuts.scores[strongest] > 0:
            at_s, score = float(cuts.times_s[strongest]), float(cuts.scores[strongest])
            pictures.append(around(track.images, track.times_s, at_s, score))
        return pictures

    def _reason(self, video: VideoInfo, duration_s: float) -> str | None:
        """Return why there will be no ``ii_sim``, or None."""
        if self.config.embedding.backend == "none":
            return "no backend"
        return image_embedding.shortness(KEY_FRAMES, video, duration_s, self.config.compat)

    def _key_times(self, video: VideoInfo) -> tuple[float, ...]:
        return image_embedding.frame_times(KEY_FRAMES, video, self.config.compat)
