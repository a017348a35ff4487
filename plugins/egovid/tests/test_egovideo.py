"""The EgoVideo adapter, on a stand-in of the same interface: a tiny CLIP whose frame features are averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planish.errors import ConfigError, UnsupportedError
from planish.interfaces import Clip, ClipWork
from planish_egovid.semantics.egovideo import (
    FRAMES,
    PAYLOAD,
    EgoVideoConfig,
    EgoVideoScorer,
    VideoTextScorer,
    load_scorer,
    prepare,
    stage,
)
from planish_egovid.semantics.image_embedding import request
from planish_egovid.testing.tiny_clip import IMAGE_SIZE, save_tiny_clip
from planish_egovid.video.request import Frames, VideoInfo
from planish_egovid.video.view import ClipView

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXTS = ("opens the door", "cuts an apple", "walks " * 30)
STAND_IN = '''
import torch
from transformers import AutoTokenizer, CLIPModel

def pooled(found):
    return getattr(found, "pooler_output", found)

class Model(torch.nn.Module):
    """Frame features of a tiny CLIP, averaged; EgoVideo's signatures."""

    def __init__(self, folder):
        super().__init__()
        self.clip = CLIPModel.from_pretrained(folder)

    def encode_image(self, video):
        clips, channels, frames, height, width = video.shape
        assert (channels, frames, height, width) == (3, 4, 224, 224)
        images = torch.nn.functional.adaptive_avg_pool2d(video.transpose(1, 2).flatten(0, 1), 32)
        return pooled(self.clip.get_image_features(pixel_values=images)).unflatten(0, (clips, frames)).mean(1)

    def encode_text(self, text, mask):
        assert text.shape[1] == mask.shape[1] == 20
        # The stand-in knows 16 positions.
        text, mask = text[:, :16].clone(), mask[:, :16]
        text[:, -1] = self.clip.config.text_config.eos_token_id
        return pooled(self.clip.get_text_features(input_ids=text, attention_mask=mask))

def build_model(ckpt_path=None, num_frames=4):
    assert num_frames == 4
    folder = open(ckpt_path).read()
    return Model(folder), AutoTokenizer.from_pretrained(folder)

def only_a_model(ckpt_path=None, num_frames=4):
    return build_model(ckpt_path, num_frames)[0]

def broken(ckpt_path=None, num_frames=4):
    raise RuntimeError("size mismatch for pos_embed\\nand much more")
'''


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> EgoVideoConfig:
    folder = tmp_path_factory.mktemp("egovideo")
    (folder / "backbone").mkdir()
    (folder / "backbone" / "egovideo_stand_in.py").write_text(STAND_IN)
    (folder / "ckpt_4frames.pth").write_text(str(save_tiny_clip(folder / "clip")))
    return EgoVideoConfig(
        source=str(folder / "backbone"),
        checkpoint=str(folder / "ckpt_4frames.pth"),
        factory="egovideo_stand_in:build_model",
        device="cpu",
    )


def videos() -> list[np.ndarray]:
    return [np.random.default_rng(n).integers(0, 256, (4, 224, 224, 3), np.uint8) // (n + 1) for n in range(3)]


@pytest.mark.skipif(transformers.__version__ < "5", reason="the text model of transformers 4 has no float64")
def test_the_score_is_the_dot_product_of_features_as_they_come(config: EgoVideoConfig) -> None:
    scorer = load_scorer(config)
    assert isinstance(scorer, VideoTextScorer)
    assert scorer.name == "egovideo/ckpt_4frames.pth/float32"
    found = scorer.scores(videos(), TEXTS)
    folder = Path(config.checkpoint).read_text()
    clip = transformers.CLIPModel.from_pretrained(folder).double().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    mean, std = (torch.tensor(v).double().view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    for video, text, score in zip(videos(), TEXTS, found, strict=True):
        frames = (torch.from_numpy(video).permute(0, 3, 1, 2).double() / 255 - mean) / std
        pooled = torch.nn.functional.adaptive_avg_pool2d(frames, IMAGE_SIZE)
        ids = tokenizer(text, max_length=20, padding="max_length", truncation=True, return_tensors="pt")
        ids["input_ids"][:, 15] = clip.config.text_config.eos_token_id
        with torch.inference_mode():
            seen = clip.get_image_features(pixel_values=pooled)
            # Without a mask: the feature is that of the first end of text, which sees nothing after it.
            read = clip.get_text_features(input_ids=ids["input_ids"][:, :16])
        seen, read = (getattr(value, "pooler_output", value) for value in (seen, read))
        expected = float(seen.mean(0) @ read[0])
        assert score == pytest.approx(expected, rel=1e-4, abs=1e-5)
        lengths = float(seen.mean(0).norm() * read[0].norm())
        assert abs(lengths - 1) > 0.2, "the stand-in's features are far from unit length, so normalising would show"


def test_a_batch_gives_the_bits_of_single_clips(config: EgoVideoConfig) -> None:
    scorer = load_scorer(config)
    alone = [scorer.scores([video], [text])[0] for video, text in zip(videos(), TEXTS, strict=True)]
    assert scorer.scores(videos(), TEXTS) == alone


def test_several_clips_a_pass_agree_with_single_ones(config: EgoVideoConfig) -> None:
    scorer = load_scorer(config)
    alone = scorer.scores(videos(), TEXTS)
    assert isinstance(scorer, EgoVideoScorer)
    scorer.clips = 2
    try:
        # Rounding scales with the features' lengths, and shows most in a product that nearly vanishes.
        np.testing.assert_allclose(scorer.scores(videos(), TEXTS), alone, rtol=0, atol=1e-5 * np.abs(alone).max())
    finally:
        scorer.clips = 1


def test_frames_are_prepared_as_torchvision_would() -> None:
    # torchvision on a uint8 tensor: antialiased bilinear on the shorter side, then a rounded centre crop.
    images = np.random.default_rng(0).integers(0, 256, (4, 360, 643, 3)).astype(np.uint8)
    images = np.repeat(np.repeat(images[:, ::8, ::8], 8, 1), 8, 2)[:, :360, :643]
    times = tuple(frame / 30 for frame in FRAMES)
    video = VideoInfo(width=643, height=360, fps=30.0, frames=None, duration_s=None)
    view = ClipView(Clip("a", "a.mp4", text="x"), video, 4.0, {request(times): Frames(images, np.array(times), 1.0)})
    prepare(view, times)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    width = int(224 * 643 / 360)
    resized = torch.nn.functional.interpolate(tensor.float(), (224, width), mode="bilinear", antialias=True)
    left = round((width - 224) / 2)
    expected = resized[..., left : left + 224].round().permute(0, 2, 3, 1).numpy()
    # Pillow works in fixed point, one direction after the other: a grey level apart where the sum is near a half.
    assert np.abs(view.payload[PAYLOAD].astype(int) - expected).max() <= 1


def test_the_stage_writes_its_column_and_adds_its_name(config: EgoVideoConfig) -> None:
    works = [
        ClipWork(Clip(str(n), "a.mp4", text=text), {"text_backend": "clip/x/float32"} if n else {}, {PAYLOAD: video})
        for n, (video, text) in enumerate(zip(videos(), TEXTS, strict=True))
    ]
    works.append(ClipWork(Clip("failed", "a.mp4"), {}, {PAYLOAD: videos()[0]}, error="cannot be read"))
    works.append(ClipWork(Clip("no text", "a.mp4"), {"text_reason": "no_text"}))
    done = stage(config).run(works)
    assert [work.values.get("egovideo_score") for work in done[:3]] == load_scorer(config).scores(videos(), TEXTS)
    assert done[0].values["text_backend"] == "egovideo/ckpt_4frames.pth/float32"
    assert done[1].values["text_backend"] == "clip/x/float32; egovideo/ckpt_4frames.pth/float32"
    assert done[3].values == {}
    assert done[4].values == {"text_reason": "no_text"}
    assert all(not work.payload for work in done[:3])


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("source", "/nowhere", "clone OpenGVLab/EgoVideo"),
        ("checkpoint", "/nowhere.pth", "download ckpt_4frames.pth"),
        ("factory", "egovideo_stand_in:absent", "has no 'absent'"),
    ],
)
def test_what_is_missing_is_said(config: EgoVideoConfig, field: str, value: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        EgoVideoScorer.load(config.model_copy(update={field: value}))


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("egovideo_stand_in:only_a_model", "expected .model, tokenizer"),
        ("egovideo_stand_in:broken", "size mismatch for pos_embed;"),
        ("no_such_module:build_model", "cannot be imported"),
    ],
)
def test_code_that_does_not_work_is_said(config: EgoVideoConfig, factory: str, says: str) -> None:
    with pytest.raises(UnsupportedError, match=says):
        EgoVideoScorer.load(config.model_copy(update={"factory": factory}))
