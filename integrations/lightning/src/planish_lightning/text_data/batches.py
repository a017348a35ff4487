"""Batches of windows over a stream of tokens, in an order that a seed fixes and a checkpoint continues."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from planish.errors import CheckpointError, DataError
from torch import Tensor


class TokenBatches:
    """Iterates over batches ``{"input_ids": int64 [batch, length], "labels": the same}``.

    Labels equal inputs: models of the Hugging Face convention shift them. A pass takes every window once, in an order
    drawn from ``(seed, pass)``, with the windows' offset drawn as well. Validation (``shuffle=False``) goes
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
        batches_per_epoch: int | None = None,
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
            multiple_of: Drop batches at a pass's end until their number is a multiple of it, so that gradient
                accumulation never runs over an epoch's end; where a pass has fewer, nothing is dropped.
            batches_per_epoch: With shuffling: what the length is said to be, passes following one another within an
                epoch or going on in the next one. None: one pass is an epoch.
            max_batches: Without shuffling: at most this many batches, of windows spread evenly over the stream.
            what: Name of the data, for messages.

        Raises:
            DataError: The stream is shorter than one window, or has fewer windows than there are ranks.
        """
        self.tokens, self.length, self.batch_size = tokens, length, batch_size
        self.seed, self.shuffle, self.rank, self.ranks = seed, shuffle, rank, ranks
        total = tokens.numel()
        windows = total // length
        if windows < ranks:
            raise DataError(
                f"{what} has {total} tokens, {windows} sequences of seq_len {length} for {ranks} "
                f"device{'s' if ranks > 1 else ''}; use more text or a smaller seq_len"
            )
        global_batch = batch_size * ranks
        self.starts = torch.arange(windows) * length
        if shuffle:
            # One window less makes room for a random offset of all of them.
            self.windows = max(ranks, windows - 1)
            self.slack = min(length - 1, total - self.windows * length)
            full = self.windows // global_batch
            self.batches = max(1, full - full % multiple_of if full >= multiple_of else full)
        else:
            wanted = windows if max_batches is None else min(windows, max_batches * global_batch)
            self.windows, self.slack = wanted - wanted % ranks, 0
            self.starts = self.starts[torch.arange(self.windows) * windows // self.windows]
            self.batches = -(-self.windows // global_batch)
        self.batches_per_epoch = batches_per_epoch if shuffle and batches_per_epoch else self.batches
        self.taken = 0
        self._order: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self.batches_per_epoch

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Go on where the state says, up to the end of the epoch; after it, with the next one."""
        if not self.shuffle:
            for number in range(self.batches):
                yield self._batch(self.starts, number)
            return
        end = (self.taken // self.batches_per_epoch + 1) * self.batches_per_epoch
        while self.taken < end:
            turn, number = divmod(self.taken, self.batches)
            self.taken += 1
            yield self._batch(self._starts_of(turn), number)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of batches taken, and a fingerprint of what fixes their order."""
        return {"taken": self.taken, "order": self._fingerprint()}

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
        self.taken = int(state["taken"])

    def _starts_of(self, turn: int) -> Tensor:
        """Return where the windows of one pass start, in its order."""
        if self._order is None or self._order[0] != turn:
            generator = torch.Generator().manual_seed(_mix(self.seed, turn))
            offset = int(torch.randint(self.slack + 1, (), generator=generator))
            self._order = turn, torch.randperm(self.windows, generator=generator) * self.length + offset
        return self._order[1]

    def _batch(self, starts: Tensor, number: int) -> dict[str, Tensor]:
        share = self.batch_size
        first = number * share * self.ranks
        remaining = len(starts) - first
        if remaining < share * self.ranks:  # an incomplete last batch: equal shares
            share = remaining // self.ranks
        chosen = starts[first + self.rank * share : first + (self.rank + 1) * share]
        windows = self.tokens[chosen[:, None] + torch.arange(self.length)].long()
        return {"input_ids": windows, "labels": windows.clone()}

    def _fingerprint(self) -> str:
        sample = self.tokens[:: max(1, self.tokens.numel() // 65536)].long().numpy().tobytes()
        parts = (self.tokens.numel(), self.length, self.batch_size, self.seed, self.shuffle, self.ranks, self.batches)
        return hashlib.sha256(repr(parts).encode() + sample).hexdigest()[:16]


def _mix(seed: int, turn: int) -> int:
    """Return a 63-bit seed in which neighbouring (seed, pass) pairs have nothing in common."""
    return int.from_bytes(hashlib.sha256(f"{seed} {turn}".encode()).digest()[:8], "little") >> 1
