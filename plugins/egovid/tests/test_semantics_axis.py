"""The text axis: what it asks for, what it says when it cannot score, and that its default needs no torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from planish.config import validate
from planish.errors import ConfigError
from planish.interfaces import Clip
from planish_egovid.semantics import TextAxis, TextConfig
from planish_egovid.semantics.text import stated
from planish_egovid.video.request import FrameRequest, Frames, VideoInfo
from planish_egovid.video.view import ClipView

pytest.importorskip("PIL")

VIDEO = VideoInfo(width=64, height=36, fps=30.0, frames=None, duration_s=None)
EGOVIDEO = {"source": "backbone", "checkpoint": "ckpt_4frames.pth"}
CLIP_ONLY = TextConfig(backend="clip", device="cpu", image_size=32)


def view_of(requests: Sequence[FrameRequest], clip: Clip, duration_s: float = 4.0) -> ClipView:
    def frames(request: FrameRequest) -> Frames:
        images = np.random.default_rng(len(request.times_s)).integers(0, 256, (len(request.times_s), 36, 64, 3))
        return Frames(images.astype(np.uint8), np.array(request.times_s), 1.0)

    return ClipView(clip, VIDEO, duration_s, {request: frames(request) for request in requests})


def measured(config: TextConfig, text: str | None, duration_s: float = 4.0) -> tuple[dict[str, object], ClipView]:
    axis, clip = TextAxis(config), Clip("a", "a.mp4", text=text)
    view = view_of(axis.requests(clip, VIDEO, duration_s), clip, duration_s)
    columns = axis.measure(view)
    TextAxis.Columns(clip_id="a", **columns)
    return columns, view


def test_the_default_scores_nothing_and_says_why() -> None:
    columns, view = measured(TextConfig(), "opens the door")
    assert columns == {
        "ti_sim": None,
        "egovideo_score": None,
        "text_backend": None,
        "text_reason": "no backend",
    }
    assert not view.decoded, "no frame is decoded for nothing"
    assert TextAxis(TextConfig()).stage() is None


def test_the_default_imports_neither_torch_nor_pillow() -> None:
    script = """
import sys
from planish.interfaces import Clip
from planish_egovid.semantics import TextAxis, TextConfig
from planish_egovid.video.request import VideoInfo
from planish_egovid.video.view import ClipView
axis, clip = TextAxis(TextConfig()), Clip("a", "a.mp4", text="opens the door")
video = VideoInfo(64, 36, 30.0, None, None)
assert axis.requests(clip, video, 4.0) == ()
assert axis.measure(ClipView(clip, video, 4.0, {}))["text_reason"] == "no backend"
assert axis.stage() is None
heavy = {"torch", "torchvision", "transformers", "open_clip", "PIL", "huggingface_hub"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize("text", [None, "", "  ", "nan", "NaN", "None", "null", float("nan")])
def test_absent_text_is_null_with_its_reason(text: str | None) -> None:
    columns, view = measured(CLIP_ONLY, text)
    assert columns["ti_sim"] is None
    assert columns["text_reason"] == "no_text"
    assert not view.payload
    assert not view.decoded


def test_text_that_merely_looks_odd_is_text() -> None:
    assert stated(" Nan cuts bread ") == "Nan cuts bread"
    assert stated("none of it") == "none of it"


def test_short_clips_are_null_with_their_reason() -> None:
    columns, view = measured(CLIP_ONLY, "opens the door", duration_s=3.9)
    assert columns["text_reason"] == "shorter than 3.97 s"
    assert not view.payload
    assert not view.decoded
    columns, _ = measured(CLIP_ONLY.model_copy(update={"compat": "official"}), "opens the door", duration_s=3.9)
    assert columns["text_reason"] == "shorter than 120 frames"


def test_exactly_120_frames_are_enough() -> None:
    columns, view = measured(CLIP_ONLY, "opens the door", duration_s=4.0)
    assert columns["text_reason"] is None
    assert CLIP_ONLY.embedding() is not None
    key = CLIP_ONLY.embedding().payload_key()  # type: ignore[union-attr]
    assert view.payload[f"{key}/images"].shape == (4, 32, 32, 3)


def test_times_are_those_of_the_published_frames_at_any_rate() -> None:
    clip = Clip("a", "a.mp4", text="opens the door")
    for fps, strict in ((30.0, (0, 39, 79, 119)), (60.0, (0, 78, 158, 238)), (30000 / 1001, (0, 39, 79, 119))):
        video = VideoInfo(width=64, height=36, fps=fps, frames=None, duration_s=None)
        for compat, expected in (("strict", strict), ("official", (0, 39, 79, 119))):
            axis = TextAxis(CLIP_ONLY.model_copy(update={"compat": compat}))
            (request,) = axis.requests(clip, video, 10.0)
            assert tuple(int(time * fps) for time in request.times_s) == expected
            assert request.fit == "native"
            assert request.pixels == "rgb"


def test_egovideo_asks_for_its_own_frames() -> None:
    config = TextConfig(backend="egovideo", egovideo=EGOVIDEO)
    clip = Clip("a", "a.mp4", text="opens the door")
    (request,) = TextAxis(config).requests(clip, VIDEO, 4.0)
    assert tuple(int(time * 30) for time in request.times_s) == (0, 30, 60, 90)
    columns, view = measured(config, "opens the door", duration_s=3.5)
    assert columns["text_reason"] is None, "3.5 s are enough for frame 90, not for CLIP's frame 119"
    assert view.payload["egovideo/images"].shape == (4, 224, 224, 3)


def test_both_models_are_measured_in_one_decode() -> None:
    config = TextConfig(backend="clip", image_size=32, device="cpu", egovideo={**EGOVIDEO, "device": "cpu"})
    columns, view = measured(config, "opens the door", duration_s=3.5)
    assert columns["text_reason"] == "shorter than 3.97 s"
    assert set(view.payload) == {"egovideo/images"}
    _, view = measured(config, "opens the door")
    assert "egovideo/images" in view.payload
    assert len(view.payload) == 4
    pytest.importorskip("torch")
    stage = TextAxis(config).stage()
    assert stage is not None
    assert stage.name.endswith("+egovideo")
    assert (stage.cpus, stage.gpus, stage.batch_size) == (1.0, 0.0, 16)


def test_egovideo_without_its_options_is_an_error() -> None:
    with pytest.raises(ConfigError, match="needs the options under 'egovideo'"):
        validate(TextConfig, {"backend": "egovideo"})


def test_the_model_is_shared_whatever_else_the_axis_is_told() -> None:
    one, other = CLIP_ONLY.embedding(), CLIP_ONLY.model_copy(update={"compat": "official"}).embedding()
    assert one is not None
    assert one == other
    assert TextConfig().embedding() is None


def test_rules_look_at_columns_that_exist() -> None:
    row = TextAxis.Columns(clip_id="a", ti_sim=[20.0, 22.0, 24.0, 26.0])
    values = {rule.metric: rule.value(row) for rule in TextAxis.rules}
    assert values == {"ti_sim": 23.0, "egovideo_score": None}
