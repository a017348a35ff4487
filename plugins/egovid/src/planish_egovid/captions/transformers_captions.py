"""TransformersCaptions: vision-language models of transformers, such as LLaVA-NeXT-Video and Qwen2.5-VL."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from planish_egovid.captions.config import TransformersCaptionConfig
from planish_egovid.captions.prompts import DESCRIBE, VERSION, condensing
from planish_egovid.captions.validation import MOST_WORDS
from planish_egovid.model.source import announce, explained, require


class TransformersCaptions:
    """A :class:`~planish_egovid.captions.backend.CaptionBackend` that runs the models in this process.

    Decoding is greedy, so the same frames get the same text on the same machine. The model that sees also condenses,
    unless a language model of its own is named for that.
    """

    looks_at_frames = True
    parallel = 1

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        name: str,
        device: str,
        writer: Any = None,
        tokenizer: Any = None,
        describe_tokens: int = 1024,
        condense_tokens: int = 128,
        words: int = MOST_WORDS,
    ) -> None:
        """Wrap models that are on their device.

        Args:
            model: What sees: generates from the processor's output for a text and a video.
            processor: Its processor, with a chat template.
            name: Stored with the captions.
            device: Where the models are.
            writer: What condenses; None: ``model``.
            tokenizer: Its tokenizer, with a chat template.
            describe_tokens: Longest description.
            condense_tokens: Longest phrase.
            words: Longest phrase that is asked for.
        """
        self.name = f"{name}/prompts-{VERSION}"
        self._model, self._processor, self._device = model, processor, device
        self._writer, self._tokenizer = writer, tokenizer
        self._describe_tokens, self._condense_tokens, self._words = describe_tokens, condense_tokens, words

    @classmethod
    def load(cls, config: TransformersCaptionConfig, words: int = MOST_WORDS) -> TransformersCaptions:
        """Load the models that the options name.

        Raises:
            UnsupportedError: A package, the weights or the device are missing.
        """
        require("transformers", "captions")
        # The processors of video models prepare their frames with it.
        require("torchvision", "captions")
        device = config.resolved_device()
        dtype = config.resolved_dtype(device)
        announce("captions", config.model)
        with explained("the captioning model", config.model, "model"):
            from transformers import AutoModelForImageTextToText, AutoProcessor

            processor = AutoProcessor.from_pretrained(config.model)
            model = AutoModelForImageTextToText.from_pretrained(config.model, dtype=dtype)
        writer = tokenizer = None
        if config.text_model is not None:
            announce("captions", config.text_model)
            with explained("the language model", config.text_model, "text_model"):
                from transformers import AutoModelForCausalLM, AutoTokenizer

                tokenizer = AutoTokenizer.from_pretrained(config.text_model)
                writer = AutoModelForCausalLM.from_pretrained(config.text_model, dtype=dtype).eval().to(device)
        models = config.model if config.text_model is None else f"{config.model}+{config.text_model}"
        return cls(
            model.eval().to(device),
            processor,
            name=f"transformers/{models}/{str(dtype).removeprefix('torch.')}",
            device=device,
            writer=writer,
            tokenizer=tokenizer,
            describe_tokens=config.describe_tokens,
            condense_tokens=config.condense_tokens,
            words=words,
        )

    def describe(self, frames: NDArray[np.uint8]) -> str:
        """Return the model's description of frames that are a second apart."""
        content = [{"type": "video"}, {"type": "text", "text": DESCRIBE}]
        inputs = self._processor(
            text=[self._templated(self._processor, content)],
            videos=[np.ascontiguousarray(frames)],
            return_tensors="pt",
            **_timing(len(frames)),
        )
        return self._generated(self._model, self._processor, inputs, self._describe_tokens)

    def condense(self, text: str, verb: str | None, noun: str | None, *, complaint: str | None = None) -> str:
        """Return the language model's phrase."""
        prompt = condensing(text, verb, noun, self._words, complaint)
        if self._writer is not None:
            inputs = self._tokenizer([self._templated(self._tokenizer, prompt)], return_tensors="pt")
            return self._generated(self._writer, self._tokenizer, inputs, self._condense_tokens)
        content = [{"type": "text", "text": prompt}]
        inputs = self._processor(text=[self._templated(self._processor, content)], return_tensors="pt")
        return self._generated(self._model, self._processor, inputs, self._condense_tokens)

    @staticmethod
    def _templated(reader: Any, content: Any) -> str:
        message = [{"role": "user", "content": content}]
        templated: str = reader.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        return templated

    @torch.inference_mode()
    def _generated(self, model: Any, reader: Any, inputs: Any, tokens: int) -> str:
        given = {name: value.to(self._device) if hasattr(value, "to") else value for name, value in inputs.items()}
        for name, value in given.items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                given[name] = value.to(model.dtype)
        # Sampling settings that a model's own generation config may carry are of no use to greedy decoding.
        out = model.generate(**given, max_new_tokens=tokens, do_sample=False, temperature=None, top_p=None, top_k=None)
        said: str = reader.batch_decode(out[:, given["input_ids"].shape[1] :], skip_special_tokens=True)[0]
        return said.strip()


def _timing(frames: int) -> dict[str, Any]:
    """Tell the processor that all frames are to be used, a second apart; transformers 4 and 5 differ in the words."""
    import transformers

    if int(transformers.__version__.split(".", 1)[0]) < 5:
        return {"fps": 1.0}
    metadata = {
        "total_num_frames": frames,
        "fps": 1.0,
        "duration": float(frames),
        "frames_indices": list(range(frames)),
    }
    return {"do_sample_frames": False, "video_metadata": [metadata]}
