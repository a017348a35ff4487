"""Tokenizers: plain bytes, and byte-pair encoding trained on the corpus itself."""

from __future__ import annotations

import hashlib
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from planish.atomic import write_text
from planish.errors import DataError, WorkError
from torch import Tensor

from planish_lightning.text_data.config import TextData
from planish_lightning.text_data.corpus import Corpus, Document

END = "<|endoftext|>"


class Tokenizer(ABC):
    """Turns documents into one stream of token ids; id 0 ends a document."""

    vocab_size: int

    @abstractmethod
    def encode(self, documents: Iterable[Document]) -> Tensor:
        """Return the documents' ids in one 1-D tensor of the smallest sufficient integer dtype, each ended by 0."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; document ends are left out, broken characters become U+FFFD."""


class ByteTokenizer(Tokenizer):
    """One token a byte of UTF-8. Byte 0 does not occur in text and serves as the end of a document."""

    vocab_size = 256

    def encode(self, documents: Iterable[Document]) -> Tensor:
        """Return uint8 ids."""
        data = bytearray()
        for document in documents:
            data += document.text.encode()
            data.append(0)
        return torch.frombuffer(data, dtype=torch.uint8)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text."""
        return bytes(i for i in ids if i).decode("utf-8", errors="replace")


class BpeTokenizer(Tokenizer):
    """Byte-level byte-pair encoding (Sennrich et al. 2016; GPT-2's byte alphabet), trained on a corpus."""

    def __init__(self, tokenizer: Any) -> None:
        """Wrap a trained ``tokenizers.Tokenizer`` whose token 0 is the end of a document."""
        self.tokenizer = tokenizer
        self.vocab_size = int(tokenizer.get_vocab_size())

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> BpeTokenizer:
        """Return a tokenizer of at most ``vocab_size`` symbols; fewer if the texts hold no more pairs."""
        from tokenizers import Tokenizer as Fast
        from tokenizers import decoders, models, pre_tokenizers, trainers

        fast = Fast(models.BPE())
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        fast.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        fast.train_from_iterator(texts, trainer)
        return cls(fast)

    def encode(self, documents: Iterable[Document]) -> Tensor:
        """Return int16 or int32 ids."""
        ids: list[int] = []
        for encoding in self.tokenizer.encode_batch([d.text for d in documents], add_special_tokens=False):
            ids.extend(encoding.ids)
            ids.append(0)
        return torch.tensor(ids, dtype=torch.int16 if self.vocab_size <= 2**15 else torch.int32)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text."""
        text: str = self.tokenizer.decode([i for i in ids if i], skip_special_tokens=True)
        return text


def tokenizer_for(config: TextData, corpus: Corpus) -> Tokenizer:
    """Return the tokenizer that ``config`` asks for; a BPE is trained once per corpus and kept in the cache.

    Raises:
        DataError: A cached tokenizer is damaged.
    """
    if config.tokenizer == "bytes":
        return ByteTokenizer()
    key = hashlib.sha256(f"bpe 1 {config.vocab_size} {corpus.digest}".encode()).hexdigest()[:24]
    path = (config.cache or _user_cache()) / f"{key}.json"
    if path.exists():
        from tokenizers import Tokenizer as Fast

        try:
            return BpeTokenizer(Fast.from_file(str(path)))
        except Exception as error:  # tokenizers raises bare Exception
            raise DataError(f"cached tokenizer {path} is damaged ({error}); delete it") from error
    made = BpeTokenizer.train((d.text for d in corpus.train), config.vocab_size)
    try:
        write_text(path, made.tokenizer.to_str())
    except WorkError as error:
        warnings.warn(f"the trained tokenizer is not kept: {error}", stacklevel=2)
    return made


def _user_cache() -> Path:
    root = os.environ.get("PLANISH_CACHE") or os.environ.get("XDG_CACHE_HOME")
    base = Path(root) if root else Path.home() / ".cache"
    return base / ("tokenizers" if os.environ.get("PLANISH_CACHE") else "planish/tokenizers")
