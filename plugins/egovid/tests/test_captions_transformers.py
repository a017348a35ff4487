"""The transformers backend: on stand-ins of a model and its processor, and on tiny models of the real classes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from planish.errors import UnsupportedError
from planish_egovid.captions import CaptionBackend, CaptionConfig, caption_backend
from planish_egovid.captions.config import TransformersCaptionConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from planish_egovid.captions.transformers_captions import TransformersCaptions  # noqa: E402

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 56, 84, 3)).astype(np.uint8)


class Reader:
    """A processor or tokenizer that hands the prompt's bytes to the model."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def apply_chat_template(self, messages: Any, *, add_generation_prompt: bool, tokenize: bool) -> str:
        assert add_generation_prompt
        assert not tokenize
        (message,) = messages
        assert message["role"] == "user"
        if isinstance(message["content"], str):
            return message["content"]
        return "".join(part.get("text", "<video>") for part in message["content"])

    def __call__(self, text: list[str], return_tensors: str, **more: Any) -> dict[str, Any]:
        self.seen.append({"text": text[0], **more})
        found = {"input_ids": torch.tensor([list(text[0].encode())])}
        if "videos" in more:
            found["pixel_values_videos"] = torch.from_numpy(more["videos"][0]).double() / 255
        return found

    def batch_decode(self, ids: Any, *, skip_special_tokens: bool) -> list[str]:
        assert skip_special_tokens
        return [bytes(row.tolist()).decode() for row in ids]


class Model:
    """Answers with a fixed text after the prompt, as ``generate`` does."""

    dtype = torch.float32

    def __init__(self, answer: str) -> None:
        self.answer, self.calls = answer, []  # type: ignore[var-annotated]

    def generate(self, *, input_ids: Any, max_new_tokens: int, do_sample: bool, **more: Any) -> Any:
        self.calls.append(SimpleNamespace(tokens=max_new_tokens, sample=do_sample, **more))
        return torch.cat([input_ids, torch.tensor([list(self.answer.encode())])], 1)


def test_frames_and_prompt_reach_the_model_and_only_the_answer_comes_back() -> None:
    reader, model = Reader(), Model(" A hand opens a drawer.\n")
    backend = TransformersCaptions(model, reader, name="transformers/x/float32", device="cpu", describe_tokens=50)
    assert isinstance(backend, CaptionBackend)
    assert backend.describe(FRAMES) == "A hand opens a drawer."
    (seen,) = reader.seen
    assert seen["text"].startswith("<video>")
    np.testing.assert_array_equal(seen["videos"][0], FRAMES)
    (call,) = model.calls
    assert (call.tokens, call.sample) == (50, False)
    assert call.pixel_values_videos.dtype == torch.float32, "pixels come in the model's number format"
    assert backend.name == "transformers/x/float32/prompts-1"


def test_a_language_model_condenses_if_there_is_one() -> None:
    reader, model, words, writer = Reader(), Model("no"), Reader(), Model("open the drawer")
    backend = TransformersCaptions(
        model, reader, name="x", device="cpu", writer=writer, tokenizer=words, condense_tokens=7, words=9
    )
    assert backend.condense("A hand.", "open", None, complaint="it is empty") == "open the drawer"
    assert not model.calls
    assert writer.calls[0].tokens == 7
    prompt = words.seen[0]["text"]
    assert all(part in prompt for part in ("9 words", "open", "it is empty", "A hand."))
    assert TransformersCaptions(model, reader, name="x", device="cpu").condense("A hand.", None, None) == "no"


@pytest.mark.parametrize("package", ["transformers", "torchvision"])
def test_a_missing_package_is_said_with_its_install_line(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnsupportedError, match=rf"'{package}'.*planish-egovid\[captions\]"):
        caption_backend(CaptionConfig(backend="transformers"))


def byte_tokenizer(special: list[str]) -> Any:
    """A tokenizer of single characters, with the given special tokens and a chat template."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    characters = [chr(code) for code in range(32, 127)]
    vocabulary = {word: number for number, word in enumerate(["<unk>", "<pad>", "<eos>", *special, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    found = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="<eos>"
    )
    found.add_special_tokens({"additional_special_tokens": special})
    return found


def template_of(video: str) -> str:
    return (
        "{% for m in messages %}{% for p in m['content'] %}{% if p['type'] == 'video' %}" + video + "{% else %}"
        "{{ p['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )


def tiny_llava(folder: Path) -> None:
    """LLaVA-NeXT-Video: CLIP of 2 layers, Llama of 2 layers, random weights."""
    tokenizer = byte_tokenizer(["<image>", "<video>"])
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 7, "projection_dim": 16, "model_type": "clip_vision_model"}  # fmt: skip
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 2, "vocab_size": len(tokenizer), "model_type": "llama", "pad_token_id": 1,
            "max_position_embeddings": 4096}  # fmt: skip
    config = transformers.LlavaNextVideoConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[28, 28], [56, 28], [28, 56]],
        vision_feature_layer=-2,
    )
    transformers.LlavaNextVideoForConditionalGeneration(config).save_pretrained(folder)
    size = {"shortest_edge": 28}
    crop = {"height": 28, "width": 28}
    transformers.LlavaNextVideoProcessor(
        video_processor=transformers.LlavaNextVideoVideoProcessor(size=size, crop_size=crop),
        image_processor=transformers.LlavaNextImageProcessor(
            size=size, crop_size=crop, image_grid_pinpoints=[[28, 28], [56, 28], [28, 56]]
        ),
        tokenizer=tokenizer,
        patch_size=7,
        vision_feature_select_strategy="default",
        chat_template=template_of("<video>"),
    ).save_pretrained(folder)


def tiny_qwen(folder: Path) -> None:
    """Qwen2.5-VL: 2 layers each, random weights."""
    special = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = byte_tokenizer(special)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in special}
    config = transformers.Qwen2_5_VLConfig(
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32,
                       "fullatt_block_indexes": [1], "window_size": 56},
        text_config={"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                     "num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 4096,
                     "pad_token_id": 1,
                     "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    transformers.Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    transformers.Qwen2_5_VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen2VLVideoProcessor(),
        chat_template=template_of("<|vision_start|><|video_pad|><|vision_end|>"),
    ).save_pretrained(folder)


@pytest.mark.parametrize("make", [tiny_llava, tiny_qwen])
def test_tiny_models_of_the_real_classes(make: Any, tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="torchvision, which video processors need, is not installed")
    if int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("transformers 4 takes no tokenizer of characters in these processors")
    torch.manual_seed(0)
    make(tmp_path)
    config = TransformersCaptionConfig(model=str(tmp_path), device="cpu", describe_tokens=6, condense_tokens=4)
    backend = TransformersCaptions.load(config)
    first = backend.describe(FRAMES)
    assert first == backend.describe(FRAMES), "greedy"
    seen: list[Any] = []
    generate = backend._model.generate

    def recorded(**given: Any) -> Any:
        out = generate(**given)
        seen.append((given, out.shape[1] - given["input_ids"].shape[1]))
        return out

    backend._model.generate = recorded
    backend.describe(FRAMES)
    given, tokens = seen[0]
    assert 1 <= tokens <= 6
    assert "pixel_values_videos" in given, "the model sees the video"
    if make is tiny_llava:
        assert given["pixel_values_videos"].shape[:2] == (1, 4)
    else:
        assert given["video_grid_thw"][0, 0] == 2, "frames go through in twos"
        assert [float(seconds) for seconds in given["second_per_grid_ts"]] == [2.0], "frames are a second apart"
    backend.condense("A hand opens a drawer.", "open", None)
    given, tokens = seen[1]
    assert 1 <= tokens <= 4
    assert not any("pixel_values" in name for name in given)
