"""Text as a LightningDataModule."""

from __future__ import annotations

from typing import Any

import lightning as L
from planish.config import validate
from torch import Tensor

from planish_lightning.text_data.batches import TokenBatches
from planish_lightning.text_data.config import TextData
from planish_lightning.text_data.corpus import read_corpus
from planish_lightning.text_data.tokenizer import Tokenizer, tokenizer_for


class TextDataModule(L.LightningDataModule):
    """Batches of text for causal language models::

        data = TextDataModule("stdlib", seq_len=256, batch_size=32)
        model = build(vocab_size=data.tokenizer.vocab_size)

    The order depends on the seed alone, and a Trainer checkpoint continues it exactly, in the middle of an epoch too.
    Several devices share each global batch by themselves; Lightning adds no sampler.
    """

    def __init__(
        self,
        text: str | None = None,
        *,
        config: TextData | None = None,
        seed: int = 0,
        batches_per_epoch: int | None = None,
        **options: Any,
    ) -> None:
        """Create the data module; nothing is read yet.

        Args:
            text: ``"stdlib"``, a file, a directory or the name of a Hugging Face dataset.
            config: All options at once, in place of ``text`` and ``options``.
            seed: Of the order.
            batches_per_epoch: Length of an epoch; None for one pass over the text.
            options: Fields of :class:`TextData`.

        Raises:
            ConfigError: An option is unknown or out of bounds.
        """
        super().__init__()
        if text is not None:
            options["text"] = text
        self.config = validate(TextData, options if config is None else config, where="data")
        self.seed = seed
        self.batches_per_epoch = batches_per_epoch
        self._loaded: tuple[Tokenizer, Tensor, Tensor] | None = None

    def prepare_data(self) -> None:
        """Read once on one rank, so that downloads and tokenizer training are not done by all at a time."""
        self._load()

    def setup(self, stage: str | None = None) -> None:
        """Read, tokenize and cut.

        Raises:
            DataError: The text is missing, empty, not text, or too short for one sequence.
        """
        self._load()

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; reads the corpus at first use."""
        return self._load()[0]

    def train_dataloader(self) -> TokenBatches:
        """Return the training batches, from the start of epoch 0."""
        trainer = self.trainer
        return TokenBatches(
            self._load()[1],
            length=self.config.seq_len,
            batch_size=self.config.batch_size,
            seed=self.seed,
            rank=trainer.global_rank if trainer else 0,
            ranks=trainer.world_size if trainer else 1,
            multiple_of=trainer.accumulate_grad_batches if trainer else 1,
            batches_per_epoch=self.batches_per_epoch,
            what=f"data.text: the training split of {self.config.text!r}",
        )

    def val_dataloader(self) -> TokenBatches:
        """Return the validation batches, always the same ones."""
        trainer = self.trainer
        return TokenBatches(
            self._load()[2],
            length=self.config.seq_len,
            batch_size=self.config.batch_size,
            shuffle=False,
            rank=trainer.global_rank if trainer else 0,
            ranks=trainer.world_size if trainer else 1,
            max_batches=self.config.val_batches,
            what=f"data.text: the validation split of {self.config.text!r}",
        )

    def _load(self) -> tuple[Tokenizer, Tensor, Tensor]:
        if self._loaded is None:
            corpus = read_corpus(self.config)
            tokenizer = tokenizer_for(self.config, corpus)
            self._loaded = tokenizer, tokenizer.encode(corpus.train), tokenizer.encode(corpus.val)
        return self._loaded
