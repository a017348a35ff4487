"""Options of text data: a recipe's ``data`` section."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from planish.config import Config
from pydantic import Field, model_validator


class TextData(Config):
    """Which text, how it is cut into tokens, and how tokens are cut into batches."""

    text: str = Field(
        "stdlib",
        min_length=1,
        description="'stdlib' (the source of Python's standard library), a file, a directory, or the name of a "
        "Hugging Face dataset (needs planish-lightning[datasets])",
    )
    files: tuple[str, ...] = Field(
        ("*",), min_length=1, description="of a directory: glob patterns over file names; hidden files are left out"
    )
    dataset_config: str | None = Field(None, description="of a Hugging Face dataset: which configuration")
    dataset_split: str = Field("train", description="of a Hugging Face dataset: which split is read")
    column: str = Field("text", description="of a Hugging Face dataset: which column holds the text")
    max_bytes: int | None = Field(None, ge=1, description="read no more than this much text, in whole documents")
    tokenizer: Literal["bytes", "bpe"] = Field(
        "bytes", description="'bytes': 256 symbols; 'bpe': byte-pair encoding, trained on the training split"
    )
    vocab_size: int = Field(4096, ge=257, le=2**20, description="of 'bpe': number of symbols")
    cache: Path | None = Field(None, description="folder for trained tokenizers; left out: planish's user cache")
    val_fraction: float = Field(0.05, gt=0, lt=1, description="share of the text, by documents, kept for validation")
    seq_len: int = Field(128, ge=2, description="tokens in a sequence")
    batch_size: int = Field(16, ge=1, description="sequences in a batch, per device")
    val_batches: int | None = Field(
        None, ge=1, description="validate on at most this many batches, spread evenly; left out: on all"
    )

    @model_validator(mode="after")
    def _patterns(self) -> TextData:
        if any(not pattern for pattern in self.files):
            raise ValueError("files holds an empty pattern; use '*' for every file")
        return self
