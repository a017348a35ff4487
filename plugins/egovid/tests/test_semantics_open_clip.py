"""The open_clip backend: against a stand-in of its interface, and against open_clip itself where it is installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from planish.errors import ConfigError, UnsupportedError
from planish_egovid.semantics.encoder import load_encoder
from planish_egovid.semantics.image_embedding import ImageEmbedding

torch = pytest.importorskip("torch")

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)


class StandInVisual(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image_size = (32, 32)
        self.image_mean, self.image_std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
        self.preprocess_cfg = {"interpolation": "bicubic", "resize_mode": "shortest"}
        self.projection = torch.nn.Linear(3 * 32 * 32, 8)


class StandInModel(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = StandInVisual()
        self.words = torch.nn.Embedding(256, 8)

    def encode_image(self, image: Any, normalize: bool = False) -> Any:
        return self.visual.projection(image.flatten(1))

    def encode_text(self, text: Any, normalize: bool = False) -> Any:
        return self.words(text).mean(1)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A module with the functions of open_clip that the backend calls, and what it was called with."""
    from importlib.machinery import ModuleSpec

    torch.manual_seed(0)
    seen = SimpleNamespace(model=StandInModel(), calls=[])
    module: Any = ModuleType("open_clip")
    module.__spec__ = ModuleSpec("open_clip", None)

    def create_model(model_name: str, pretrained: str | None = None, *, force_quick_gelu: bool = False) -> Any:
        seen.calls.append((model_name, pretrained, force_quick_gelu))
        if pretrained == "absent":
            raise RuntimeError("Pretrained value 'absent' is not a known tag or valid file path.")
        return seen.model

    module.create_model = create_model
    module.get_pretrained_cfg = lambda name, tag: {"quick_gelu": True} if tag == "openai" else {}
    module.get_tokenizer = lambda name: (
        lambda texts: torch.tensor([[*text.encode()[:10], *[0] * (10 - len(text.encode()[:10]))] for text in texts])
    )
    monkeypatch.setitem(sys.modules, "open_clip", module)
    load_encoder.cache_clear()
    yield seen
    load_encoder.cache_clear()


def config_of(model: str | None = None) -> ImageEmbedding:
    return ImageEmbedding(backend="open_clip", model=model, image_size=32, device="cpu")


def test_features_are_those_of_the_model_normalised(stand_in: SimpleNamespace) -> None:
    encoder = load_encoder(config_of())
    assert encoder.name == "open_clip/ViT-L-14/openai/float32"
    assert encoder.image_size == 32
    found = encoder.embed_images([IMAGES])[0]
    pixels = (IMAGES / 255 - (0.5, 0.4, 0.3)) / (0.2, 0.25, 0.3)
    visual = stand_in.model.visual.projection
    flat = pixels.transpose(0, 3, 1, 2).reshape(3, -1)
    expected = flat @ visual.weight.detach().double().numpy().T + visual.bias.detach().double().numpy()
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(encoder.embed_texts(["open", "cut"]), axis=1), 1, atol=1e-6)


def test_weights_trained_with_quick_gelu_get_it(stand_in: SimpleNamespace) -> None:
    load_encoder(config_of())
    load_encoder(config_of("ViT-B-32/laion2b_s34b_b79k"))
    assert stand_in.calls == [("ViT-L-14", "openai", True), ("ViT-B-32", "laion2b_s34b_b79k", False)]


def test_weights_that_are_not_there_are_said(stand_in: SimpleNamespace) -> None:
    with pytest.raises(UnsupportedError, match="model: cannot load open_clip model 'ViT-L-14/absent'"):
        load_encoder(config_of("ViT-L-14/absent"))


@pytest.mark.parametrize("model", ["ViT-L-14", "ViT-L-14/"])
def test_a_model_without_weights_is_an_error(model: str, stand_in: SimpleNamespace) -> None:
    with pytest.raises(ConfigError, match="ARCHITECTURE/WEIGHTS"):
        load_encoder(config_of(model))


def test_models_that_squash_their_images_are_refused(stand_in: SimpleNamespace) -> None:
    stand_in.model.visual.preprocess_cfg["resize_mode"] = "squash"
    with pytest.raises(UnsupportedError, match="mode squash"):
        load_encoder(config_of("ViT-SO400M-14-SigLIP/webli"))


def test_open_clip_itself(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip", reason="open_clip (extra open-clip) is not installed")
    layers = {"width": 32, "layers": 2, "heads": 2}
    tiny = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, **layers},
    }
    (tmp_path / "tiny-open-clip.json").write_text(json.dumps(tiny))
    open_clip.add_model_config(tmp_path / "tiny-open-clip.json")
    model, _, preprocess = open_clip.create_model_and_transforms("tiny-open-clip")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    encoder = load_encoder(config_of(f"tiny-open-clip/{tmp_path / 'weights.pt'}"))
    from PIL import Image
    from planish_egovid.semantics.square import squares

    large = np.random.default_rng(1).integers(0, 256, (2, 57, 101, 3)).astype(np.uint8)
    pixels = torch.stack([preprocess(Image.fromarray(image)) for image in large])
    with torch.inference_mode():
        expected = model.eval().encode_image(pixels, normalize=True).numpy()
        words = model.encode_text(open_clip.get_tokenizer("tiny-open-clip")(["opens the door"]), normalize=True)
    prepared = squares(large, 32, rounds_crop=True)
    np.testing.assert_allclose(encoder.pixels(prepared).numpy(), pixels.numpy(), atol=2e-6)  # type: ignore[attr-defined]
    np.testing.assert_allclose(encoder.embed_images([prepared])[0], expected, atol=1e-5)
    np.testing.assert_allclose(encoder.embed_texts(["opens the door"])[0], words[0].numpy(), atol=1e-5)
