"""ii_sim comes from the image model that the text axis uses as well, and is embedded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planish.interfaces import Clip, ClipWork
from planish_egovid.consistency.axis import ConsistencyAxis, ConsistencyConfig
from planish_egovid.semantics import TextAxis, TextConfig
from planish_egovid.semantics.image_embedding import ImageEmbedding
from planish_egovid.testing import HeadMotion, view_of
from planish_egovid.testing.fixtures import rendered

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("PIL")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from planish_egovid.testing.tiny_clip import save_tiny_clip

    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


def embedding(folder: Path) -> ImageEmbedding:
    return ImageEmbedding(backend="clip", model=str(folder), image_size=32, device="cpu")


def frames(count: int = 120) -> np.ndarray:
    return rendered(HeadMotion(), 120, 30.0, 96, 54).frames[:count]


def test_ii_sim_is_the_cosine_of_the_first_frame_and_later_ones(folder: Path) -> None:
    import torch
    from transformers import CLIPImageProcessorPil, CLIPModel

    axis = ConsistencyAxis(ConsistencyConfig(embedding=embedding(folder)))
    view = view_of(frames(), axis)
    work = ClipWork(view.clip, axis.measure(view), view.payload)
    stage = axis.stage()
    assert stage is not None
    (work,) = stage.run([work])
    row = axis.Columns(clip_id="a", **work.values)
    assert row.ii_reason is None
    assert row.ii_backend
    assert not work.payload

    model = CLIPModel.from_pretrained(folder).double().eval()
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    pixels = processor(list(frames()[[0, 39, 79, 119]]), return_tensors="pt")["pixel_values"].double()
    with torch.no_grad():
        features = model.visual_projection(model.vision_model(pixels).pooler_output)
    features = features / features.norm(dim=-1, keepdim=True)
    assert row.ii_sim == pytest.approx((100 * features[1:] @ features[0]).tolist(), abs=1e-3)


def test_both_axes_share_frames_and_stage(folder: Path) -> None:
    options = embedding(folder).model_dump()
    consistency = ConsistencyAxis(ConsistencyConfig(embedding=options))
    text = TextAxis(TextConfig(**options))
    view = view_of(frames(), consistency, text, clip=Clip("a", "a.mp4", text="open the op"))
    values = consistency.measure(view) | text.measure(view)
    stages = [axis.stage() for axis in (consistency, text)]
    assert stages[0] is not None
    assert stages[1] is not None
    assert stages[0].name == stages[1].name
    images = [array for name, array in view.payload.items() if name.endswith("/images")]
    assert [len(array) for array in images] == [4]
    (work,) = stages[0].run([ClipWork(view.clip, values, view.payload)])
    assert len(work.values["ii_sim"]) == 3
    assert len(work.values["ti_sim"]) == 4


def test_a_short_clip_says_why_it_has_none(folder: Path) -> None:
    axis = ConsistencyAxis(ConsistencyConfig(embedding=embedding(folder)))
    view = view_of(frames(100), axis)
    columns = axis.measure(view)
    assert columns["ii_sim"] is None
    assert columns["ii_reason"] == "shorter than 3.97 s"
    assert columns["cut_score"] is not None
    assert not view.payload
