"""Text for language models: corpora, tokenizers, and batches in a deterministic, resumable order."""

from planish_lightning.text_data.batches import TokenBatches
from planish_lightning.text_data.config import TextData
from planish_lightning.text_data.corpus import Corpus, read_corpus
from planish_lightning.text_data.data_module import TextDataModule
from planish_lightning.text_data.tokenizer import BpeTokenizer, ByteTokenizer, Tokenizer

__all__ = [
    "BpeTokenizer",
    "ByteTokenizer",
    "Corpus",
    "TextData",
    "TextDataModule",
    "TokenBatches",
    "Tokenizer",
    "read_corpus",
]
