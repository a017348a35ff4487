"""Batches of windows over a stream of tokens, in an order that a seed fixes and a checkpoint continues."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from planish.errors import CheckpointError, DataError


class TokenBatches:
    """Iterates over batches ``{"input_ids": int64 [batch, length], "labels": the same}``.

    Labels equal inputs: models of the Hugging Face convention shift them. One pass is an epoch: every window once, in
    an order drawn from ``(seed, epoch)``, with the windows' offset drawn as well. Validation (``shuffle=False``) goes
    over fixed windows in order.

    With several ranks a global batch is ``ranks * batch_size`` windows, of which each rank gets its consecutive
    share: two ranks see together what one process with the doubled batch size sees.

    :meth:`state_dict` is exact in the middle of an epoch; Lightning keeps it in its checkpoints.
    """

    def __init__(
        self,
        tokens: Tensor,
        *,
        length: int,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        ranks: int = 1,
        multiple_of: int = 1,
        max_batches: int | None = None,
        what: str = "text",
    ) -> None:
        """Create the batches.

        Args:
            tokens: The stream, 1-D, of any integer dtype.
            length: Tokens in a window.
            batch_size: Windows in a batch of one rank.
            seed: Of order and offsets.
            shuffle: Whether to train: random order, incomplete last batches dropped.
            rank: Which share of each global batch.
            ranks: Number of shares.
            multiple_of: Drop batches at an epoch's end until their number is a multiple of it, so that gradient
                accumulation never runs over an epoch's end; where an epoch has fewer, nothing is dropped.
            max_batches: Without shuffling: at most this many batches, of windows spread evenly over the stream.
            what: Name of the data, for messages.

        Raises:
            DataError: The stream is shorter than one window, or than one batch for all ranks.
        """
        self.tokens, self.length, self.batch_size = tokens, length, batch_size
        self.seed, self.shuffle, self.rank, self.ranks = seed, shuffle, rank, ranks
        total = tokens.numel()
        if total < length:
            raise DataError(
                f"{what} has {total} tokens, fewer than one sequence of seq_len {length}; "
                "use more text or a smaller seq_len"
            )
        if shuffle:
            self.windows = max(1, (total - length) // length)
            self.slack = min(length - 1, total - self.windows * length)
            if self.windows < ranks:
                raise DataError(
                    f"{what} has {self.windows} sequences of {length} tokens for {ranks} devices; "
                    "use more text, a smaller seq_len or fewer devices"
                )
            full = self.windows // (batch_size * ranks)
            kept = full - full % multiple_of if full >= multiple_of else full
            self.batches = max(1, kept)
        else:
            available = total // length
            starts = torch.arange(available) * length
            wanted = available if max_batches is None else min(available, max_batches * batch_size * ranks)
            wanted -= wanted % ranks if wanted >= ranks else 0
            if wanted < ranks:
                raise DataError(
                    f"{what} has {available} sequences of {length} tokens for {ranks} devices; "
                    "use more text, a smaller seq_len or fewer devices"
                )
            self.starts = starts[torch.arange(wanted) * available // wanted]
            self.windows, self.slack = wanted, 0
            self.batches = -(-wanted // (batch_size * ranks))
        self.epoch, self.position = 0, 0

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self.batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Go on where the state says; after the end of an epoch, with the next one."""
        if self.position >= self.batches:
            self.epoch, self.position = self.epoch + 1, 0
        if not self.shuffle:
            self.position = 0
        starts = self._order(self.epoch) if self.shuffle else self.starts
        while self.position < self.batches:
            at = self.position
            self.position += 1
            yield self._batch(starts, at)

    def state_dict(self) -> dict[str, Any]:
        """Return the position: epoch and batches taken in it, with what fixes the order."""
        return {"epoch": self.epoch, "position": self.position, "order": self._fingerprint()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a saved position.

        Raises:
            CheckpointError: The state was saved over other text, or with another seed, length, batch size or number
                of ranks.
        """
        if state["order"] != self._fingerprint():
            raise CheckpointError(
                "the checkpoint was saved with other data: the text, seq_len, batch_size, seed and number of devices "
                "must be the same to continue in the middle of an epoch"
            )
        self.epoch, self.position = state["epoch"], state["position"]

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(_mix(self.seed, epoch))
        offset = int(torch.randint(self.slack + 1, (), generator=generator))
        return torch.randperm(self.windows, generator=generator) * self.length + offset

    def _batch(self, starts: Tensor, at: int) -> dict[str, Tensor]:
        share = self.batch_size
        first = at * share * self.ranks
        remaining = min(share * self.ranks, len(starts) - first)
        if remaining < share * self.ranks:  # the incomplete last batch: equal shares
            share = remaining // self.ranks
        chosen = starts[first + self.rank * share : first + (self.rank + 1) * share]
        windows = self.tokens[chosen[:, None] + torch.arange(self.length)].long()
        return {"input_ids": windows, "labels": windows.clone()}

    def _fingerprint(self) -> str:
        sample = self.tokens[:: max(1, self.tokens.numel() // 65536)].long().numpy().tobytes()
        parts = (self.tokens.numel(), self.length, self.batch_size, self.seed, self.shuffle, self.ranks, self.batches)
        return hashlib.sha256(repr(parts).encode() + sample).hexdigest()[:16]


def _mix(seed: int, epoch: int) -> int:
    """Return a 63-bit seed in which neighbouring (seed, epoch) pairs have nothing in common."""
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:8], "little") >> 1
