"""The text axis inside of data filters, from a video file to a row, with a tiny CLIP."""

from __future__ import annotations

import numpy as np
import pytest
from planish.interfaces import Clip
from planish_egovid.semantics.image_embedding import KEY_FRAMES, SCALE
from planish_egovid.semantics.square import squares
from planish_egovid.testing import write_video
from planish_egovid.testing.tiny_clip import IMAGE_SIZE, save_tiny_clip
from planish_egovid.video import FrameRequest, decode_clips

pytest.importorskip("torch")
pytest.importorskip("transformers")

from planish_egovid.filters import EgoVid, Text
from planish_egovid.semantics.encoder import load_encoder


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = save_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")
    return {"backend": "clip", "model": str(folder), "image_size": IMAGE_SIZE, "device": "cpu"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("videos")
    drawn = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    frames = np.stack([np.roll(drawn, 2 * i, axis=1) for i in range(120)])
    write_video(folder / "long.mp4", frames)
    write_video(folder / "short.mp4", frames[:60])
    return [
        Clip("long", str(folder / "long.mp4"), text="opens the door"),
        Clip("silent", str(folder / "long.mp4")),
        Clip("short", str(folder / "short.mp4"), text="opens the door"),
    ]


def test_from_file_to_row(options: dict[str, object], clips: list[Clip]) -> None:
    data_filter = Text(options)
    rows = data_filter.score(clips)
    encoder = load_encoder(data_filter.measured_axes[0].config.embedding())
    times = tuple((frame + 0.5) / 30 for frame in KEY_FRAMES)
    wanted = FrameRequest(times, "rgb", fit="native")
    ((_, view),) = decode_clips([clips[0]], lambda *_: [wanted])
    images = encoder.embed_images([squares(view.frames(wanted).images, IMAGE_SIZE)])[0]  # type: ignore[union-attr]
    (text,) = encoder.embed_texts(["opens the door"])
    assert rows[0].ti_sim == [float(v) for v in SCALE * (images.astype(np.float64) @ text.astype(np.float64))]
    assert [row.text_reason for row in rows] == [None, "no_text", "shorter than 3.97 s"]
    assert [row.ti_sim is None for row in rows] == [False, True, True]
    assert [row.error for row in rows] == [None, None, None]


def test_rows_do_not_depend_on_the_batch(options: dict[str, object], clips: list[Clip]) -> None:
    data_filter = Text(options)
    assert data_filter.score(clips) == [data_filter.score([clip])[0] for clip in clips]


def test_the_pipeline_embeds_once_for_two_axes(
    options: dict[str, object], clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = EgoVid(
        axes=("consistency", "text"), consistency={"embedding": options}, text=options
    )  # fmt: skip
    assert [stage.name.split("-")[0] for stage in pipeline.stages()] == ["decode", "clip"]
    encoder = load_encoder(pipeline.config.text.embedding())
    seen: list[int] = []
    embed = encoder.embed_images
    monkeypatch.setattr(
        encoder, "embed_images", lambda given: (seen.extend(len(images) for images in given), embed(given))[1]
    )
    rows = pipeline.score(clips)
    assert seen == [4, 4], "the two long clips; the short one has no key frames"
    assert [row.ti_sim is None for row in rows] == [False, True, True]
    assert [row.ii_sim is None for row in rows] == [False, False, True]
    assert rows[0].ii_sim == rows[1].ii_sim
    assert rows[0].ti_sim == Text(options).score(clips[:1])[0].ti_sim
    assert rows[0].text_backend == rows[0].ii_backend == encoder.name
