"""CLIP scores against a direct computation in float64, on a model of two layers with random weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planish.config import validate
from planish.errors import ConfigError, PlanishError, UnsupportedError
from planish.interfaces import Clip, ClipWork
from planish_egovid.semantics.encoder import ImageTextEncoder, load_encoder
from planish_egovid.semantics.image_embedding import (
    KEY_FRAMES,
    ImageEmbedding,
    embedding_stage,
    frame_times,
    prepare,
    request,
)
from planish_egovid.semantics.square import squares
from planish_egovid.testing.tiny_clip import IMAGE_SIZE, save_tiny_clip
from planish_egovid.video.request import Frames, VideoInfo
from planish_egovid.video.view import ClipView

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VIDEO = VideoInfo(width=75, height=41, fps=30.0, frames=120, duration_s=4.0)
TEXTS = ("opens the door", "cuts an apple", "the the the the", "walks")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def config(folder: Path) -> ImageEmbedding:
    return ImageEmbedding(backend="clip", model=str(folder), image_size=IMAGE_SIZE, device="cpu")


def pictures(seed: int, count: int = 4, height: int = 41, width: int = 75) -> np.ndarray:
    """Smooth random pictures: resizing filters differ on these by as much as on real ones."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 9, 3), np.uint8)
    from PIL import Image

    return np.stack([np.asarray(Image.fromarray(image).resize((width, height), 3)) for image in coarse])


def view_of(images: np.ndarray, clip: Clip, times: tuple[float, ...]) -> ClipView:
    return ClipView(clip, VIDEO, 4.0, {request(times): Frames(images, np.array(times), 1.0)})


def works_of(config: ImageEmbedding, texts: tuple[str, ...] = TEXTS) -> list[ClipWork]:
    times = frame_times(KEY_FRAMES, VIDEO)
    works = []
    for number, text in enumerate(texts):
        clip = Clip(str(number), "x.mp4", text=text)
        view = view_of(pictures(number), clip, times)
        prepare(view, config, times, "ti_sim")
        prepare(view, config, times, "ii_sim")
        works.append(ClipWork(clip, payload=view.payload))
    return works


def processor_of(folder: Path) -> Any:
    """The library's own image processor that works on Pillow pictures."""
    found = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    return found.from_pretrained(folder)


def reference(folder: Path, text: str, images: np.ndarray) -> tuple[list[float], list[float]]:
    """The published computation, through the library's own processor and in float64."""
    model = transformers.CLIPModel.from_pretrained(folder).double().eval()
    processor = processor_of(folder)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt", truncation=True)
    pixels = processor(images=list(images), return_tensors="np")["pixel_values"]
    with torch.inference_mode():
        found = model(pixel_values=torch.tensor(np.asarray(pixels), dtype=torch.float64), input_ids=tokens["input_ids"])
    image = torch.nn.functional.normalize(found.image_embeds, dim=-1)
    word = torch.nn.functional.normalize(found.text_embeds, dim=-1)
    return (100 * image @ word[0]).tolist(), (100 * image[1:] @ image[0]).tolist()


@pytest.mark.skipif(transformers.__version__ < "5", reason="the text model of transformers 4 has no float64")
def test_scores_agree_with_a_direct_computation_in_float64(folder: Path, config: ImageEmbedding) -> None:
    stage = embedding_stage(config)
    assert stage is not None
    for work in stage.run(works_of(config)):
        number = int(work.clip.id)
        text_image, image_image = reference(folder, TEXTS[number], pictures(number))
        # float32 through two layers: relative 1e-6 of scores up to 100, and a few more for the sum.
        np.testing.assert_allclose(work.values["ti_sim"], text_image, atol=1e-3)
        np.testing.assert_allclose(work.values["ii_sim"], image_image, atol=1e-3)
        assert all(type(value) is float for value in work.values["ti_sim"] + work.values["ii_sim"])
        assert work.values["text_backend"] == work.values["ii_backend"] == f"clip/{folder}/float32"
        assert work.payload == {}, "frames travel no further than they are needed"


def test_scores_tell_clips_and_texts_apart(config: ImageEmbedding) -> None:
    works = embedding_stage(config).run(works_of(config))  # type: ignore[union-attr]
    scores = np.array([work.values["ti_sim"] for work in works])
    assert scores.std() > 1, "a model that embeds everything alike would pass the other tests"


def test_a_batch_gives_the_bits_of_single_clips_on_a_processor(config: ImageEmbedding) -> None:
    stage = embedding_stage(config)
    assert stage is not None
    together = stage.run(works_of(config))
    alone = [stage.run([work])[0] for work in works_of(config)]
    assert [work.values for work in together] == [work.values for work in alone]


def test_passes_over_several_clips_agree_with_single_ones(config: ImageEmbedding) -> None:
    # What a GPU does: all images of all clips in passes that cut through clips.
    encoder = load_encoder(config)
    clips = [squares(pictures(number, count=number + 1), IMAGE_SIZE) for number in range(4)]
    alone = encoder.embed_images(clips)
    words = encoder.embed_texts(TEXTS)
    encoder._on_gpu, encoder.batch_size = True, 3  # type: ignore[attr-defined]
    try:
        together = encoder.embed_images(clips)
        for one, other in zip(alone, together, strict=True):
            assert one.shape == other.shape == (len(one), 24)
            np.testing.assert_allclose(one, other, atol=1e-5)
        np.testing.assert_allclose(words, encoder.embed_texts(TEXTS), atol=1e-5)
    finally:
        encoder._on_gpu, encoder.batch_size = False, 256  # type: ignore[attr-defined]


def test_short_gpu_memory_halves_the_passes(config: ImageEmbedding, caplog: pytest.LogCaptureFixture) -> None:
    encoder = load_encoder(config)
    alone = np.concatenate(encoder.embed_images([squares(pictures(1, count=5), IMAGE_SIZE)]))
    features = encoder.image_features  # type: ignore[attr-defined]

    def short(pixels: object) -> object:
        if len(pixels) > 2:  # type: ignore[arg-type]
            raise torch.OutOfMemoryError("CUDA out of memory")
        return features(pixels)

    encoder.image_features = short  # type: ignore[attr-defined]
    encoder._on_gpu, encoder.batch_size = True, 8  # type: ignore[attr-defined]
    try:
        together = encoder.embed_images([squares(pictures(1, count=5), IMAGE_SIZE)])[0]
        assert encoder.batch_size == 2  # type: ignore[attr-defined]
    finally:
        encoder._on_gpu, encoder.batch_size = False, 256  # type: ignore[attr-defined]
        del encoder.image_features  # type: ignore[attr-defined]
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert "memory is short" in caplog.text


def test_a_text_is_encoded_once_for_its_four_frames(config: ImageEmbedding, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(config)
    seen: list[str] = []
    features = encoder.text_features  # type: ignore[attr-defined]
    monkeypatch.setattr(encoder, "text_features", lambda texts: (seen.extend(texts), features(texts))[1])
    embedding_stage(config).run(works_of(config))  # type: ignore[union-attr]
    assert sorted(seen) == sorted(TEXTS)


def test_prepared_pixels_are_those_of_the_library_processor(folder: Path, config: ImageEmbedding) -> None:
    processor = processor_of(folder)
    encoder = load_encoder(config)
    # Landscape, portrait, square, already small; odd margins on both sides.
    for height, width in ((41, 75), (76, 41), (50, 50), (IMAGE_SIZE, IMAGE_SIZE), (33, 64)):
        images = pictures(height, 2, height, width)
        expected = np.asarray(processor(images=list(images), return_tensors="np")["pixel_values"])
        found = encoder.pixels(squares(images, IMAGE_SIZE)).numpy()  # type: ignore[attr-defined]
        np.testing.assert_allclose(found, expected, atol=2e-6, err_msg=f"{height}x{width}")


def test_two_axes_share_one_model_pass(config: ImageEmbedding, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(config)
    passes: list[int] = []
    features = encoder.image_features  # type: ignore[attr-defined]
    monkeypatch.setattr(encoder, "image_features", lambda pixels: (passes.append(len(pixels)), features(pixels))[1])
    first, second = embedding_stage(config), embedding_stage(config)
    assert first is not None
    assert second is not None
    assert first.name == second.name
    works = second.run(first.run(works_of(config, TEXTS[:1])))
    assert passes == [4], "four frames, although both columns look at them"
    assert len(works[0].values["ti_sim"]) == 4
    assert len(works[0].values["ii_sim"]) == 3


def test_axes_that_look_at_other_times_add_their_frames(config: ImageEmbedding) -> None:
    images = pictures(0, 5)
    clip = Clip("0", "x.mp4", text=TEXTS[0])
    one, other = (0.0, 1.0, 2.0), (0.0, 1.5, 2.0, 2.5)
    view = ClipView(
        clip,
        VIDEO,
        4.0,
        {
            request(one): Frames(images[[0, 1, 3]], np.array(one), 1.0),
            request(other): Frames(images[[0, 2, 3, 4]], np.array(other), 1.0),
        },
    )
    prepare(view, config, one, "ti_sim")
    prepare(view, config, other, "ii_sim")
    key = config.payload_key()
    assert view.payload[f"{key}/times"].tolist() == [0.0, 1.0, 2.0, 1.5, 2.5]
    np.testing.assert_array_equal(view.payload[f"{key}/images"], squares(images[[0, 1, 3, 2, 4]], IMAGE_SIZE))
    assert view.payload[f"{key}/ti_sim"].tolist() == [0, 1, 2]
    assert view.payload[f"{key}/ii_sim"].tolist() == [0, 3, 2, 4]


def test_failed_clips_pass_by(config: ImageEmbedding) -> None:
    works = works_of(config)
    works[1].error = "truncated: 87/120"
    done = embedding_stage(config).run(works)  # type: ignore[union-attr]
    assert [work.clip.id for work in done] == ["0", "1", "2", "3"]
    assert done[1].values == {}
    assert done[2].values["ti_sim"] is not None


def test_an_embedding_of_nan_is_null_with_a_reason(config: ImageEmbedding, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(config)
    monkeypatch.setattr(encoder, "image_features", lambda pixels: torch.full((len(pixels), 24), torch.nan))
    values = embedding_stage(config).run(works_of(config, TEXTS[:1]))[0].values  # type: ignore[union-attr]
    assert values["ti_sim"] is None
    assert values["ii_sim"] is None
    assert "not finite" in values["text_reason"]
    assert "not finite" in values["ii_reason"]


def test_options_name_payload_and_stage() -> None:
    config = ImageEmbedding(backend="clip", model="a")
    assert config.payload_key() == ImageEmbedding(backend="clip", model="a").payload_key()
    assert config.payload_key() != ImageEmbedding(backend="clip", model="b").payload_key()
    assert embedding_stage(ImageEmbedding()) is None
    assert embedding_stage(ImageEmbedding(backend="clip", device="cpu", threads=2)).cpus == 2  # type: ignore[union-attr]
    on_gpu = embedding_stage(ImageEmbedding(backend="clip", device="cuda", gpus=0.25))
    assert on_gpu is not None
    assert on_gpu.gpus == 0.25


def test_the_encoder_keeps_the_protocol(config: ImageEmbedding) -> None:
    assert isinstance(load_encoder(config), ImageTextEncoder)


def test_a_model_of_another_size_says_which(config: ImageEmbedding) -> None:
    other = config.model_copy(update={"image_size": 64})
    with pytest.raises(PlanishError, match="set image_size"):
        embedding_stage(other).run(works_of(other))  # type: ignore[union-attr]


def test_a_folder_of_another_model_is_refused(tmp_path: Path) -> None:
    transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedError, match="type 'bert'"):
        load_encoder(ImageEmbedding(backend="clip", model=str(tmp_path), device="cpu"))


def test_incomplete_weights_are_refused_rather_than_drawn_at_random(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_tiny_clip(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedError, match="visual_projection"):
        load_encoder(ImageEmbedding(backend="clip", model=str(tmp_path), device="cpu"))


def test_a_processor_that_resizes_otherwise_is_refused(tmp_path: Path) -> None:
    save_tiny_clip(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(file.read_text().replace('"resample": 3', '"resample": 2'))
    with pytest.raises(UnsupportedError, match="bicubic"):
        load_encoder(ImageEmbedding(backend="clip", model=str(tmp_path), device="cpu"))


def test_a_missing_folder_without_network_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UnsupportedError, match="HF_HUB_OFFLINE") as caught:
        load_encoder(ImageEmbedding(backend="clip", model="nobody/no-such-clip", device="cpu"))
    assert "\n" not in str(caught.value)
    assert "nobody/no-such-clip" in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens where there is no GPU")
def test_a_gpu_that_is_not_there_is_said(folder: Path) -> None:
    with pytest.raises(UnsupportedError, match="no CUDA GPU"):
        load_encoder(ImageEmbedding(backend="clip", model=str(folder), device="cuda", image_size=IMAGE_SIZE))


def test_it_runs_where_torchvision_cannot_be_imported(folder: Path) -> None:
    script = f"""
import sys
sys.modules["torchvision"] = None
from planish_egovid.semantics.encoder import load_encoder
from planish_egovid.semantics.image_embedding import ImageEmbedding
import numpy as np
encoder = load_encoder(ImageEmbedding(backend="clip", model={str(folder)!r}, image_size=32, device="cpu"))
assert np.isfinite(encoder.embed_images([np.zeros((1, 32, 32, 3), np.uint8)])[0]).all()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.parametrize(("package", "backend"), [("transformers", "clip"), ("open_clip", "open_clip")])
def test_a_missing_package_is_said_with_its_install_line(
    package: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnsupportedError, match=r"pip install 'planish-egovid\[(clip|open-clip)\]'"):
        embedding_stage(ImageEmbedding(backend=backend, device="cpu"))  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-2), ("bfloat16", 6.0)])
def test_a_gpu_agrees_with_the_processor(config: ImageEmbedding, dtype: str, tolerance: float) -> None:
    # bfloat16 keeps 8 bits: after two layers a cosine of random weights is right to about 0.02, here times 100; the
    # largest of nine may be three times as far off.
    on_gpu = config.model_copy(update={"device": "cuda", "dtype": dtype, "batch_size": 3})
    for one, other in zip(
        embedding_stage(config).run(works_of(config)),  # type: ignore[union-attr]
        embedding_stage(on_gpu).run(works_of(on_gpu)),  # type: ignore[union-attr]
        strict=True,
    ):
        np.testing.assert_allclose(one.values["ti_sim"], other.values["ti_sim"], atol=tolerance)
        np.testing.assert_allclose(one.values["ii_sim"], other.values["ii_sim"], atol=tolerance)


def test_config_error_names_the_field() -> None:
    with pytest.raises(ConfigError, match="backend"):
        validate(ImageEmbedding, {"backend": "clap"})
