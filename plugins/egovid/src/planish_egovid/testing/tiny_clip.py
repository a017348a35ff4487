"""A CLIP of two layers and random weights, saved as a folder, for tests of whatever runs a CLIP."""

from __future__ import annotations

import json
from pathlib import Path
from string import ascii_lowercase

IMAGE_SIZE = 32
LENGTH = 16
"""Tokens of a text, its two ends included."""


def save_tiny_clip(folder: Path, *, seed: int = 0) -> Path:
    """Save model, tokenizer and image processor settings, and return the folder.

    Two layers of width 32, images of 32 px in patches of 8, a byte-pair vocabulary of lower-case letters. Weights are
    drawn with ``seed``, larger than usual, so that different pictures get clearly different embeddings.

    Args:
        folder: Where to; made if it is not there.
        seed: Of the weights.

    Raises:
        ImportError: torch or transformers is not installed.
    """
    import torch
    from transformers import CLIPConfig, CLIPModel

    folder.mkdir(parents=True, exist_ok=True)
    merges = ["o p", "op e", "ope n</w>", "t h", "th e</w>"]
    words = [*ascii_lowercase, *(f"{letter}</w>" for letter in ascii_lowercase)]
    words += [merge.replace(" ", "") for merge in merges]
    vocabulary = {word: number for number, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "size": {"shortest_edge": IMAGE_SIZE},
        "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "resample": 3,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **layers,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": LENGTH,
            "bos_token_id": vocabulary["<|startoftext|>"],
            "eos_token_id": vocabulary["<|endoftext|>"],
            "pad_token_id": vocabulary["<|endoftext|>"],
        },
        vision_config={**layers, "image_size": IMAGE_SIZE, "patch_size": 8},
        projection_dim=24,
    )
    drawing = torch.Generator().manual_seed(seed)
    model = CLIPModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                spread = 2 / parameter[0].numel() ** 0.5
                parameter.copy_(spread * torch.randn(parameter.shape, generator=drawing))
    model.save_pretrained(folder)
    return folder
