"""What passes between a block and its layers while the block computes as one."""

from __future__ import annotations

from planish.errors import UnsupportedError
from torch import Tensor

PASS, NORM, OUT, PROJECTION = -2, -1, 0, 1
"""Roles of a layer: see :class:`Handover`. Projections count up from ``PROJECTION``."""


class Handover:
    """The slots that a block and the layers inside it share.

    While a block computes as one, its own ``forward`` and that of its attention still run, on stand-ins: they bring
    masks, positions and caches to the attention in whatever way the model does it. A layer that meets a stand-in
    answers by its role:

    * ``NORM``: the norm before the attention; gives the attention a stand-in of the hidden state's shape.
    * ``PROJECTION + i``: the i-th projection of queries, keys and values; gives what the block computed for it.
    * ``OUT``: the output projection; keeps what the attention computed, for the block.
    * ``PASS``: the other norm and the feed-forward linears; nothing is computed in them.

    Stand-ins of the hidden state are NaN and take no memory, so that code that would compute with them shows.

    Attributes:
        is_open: whether the block is at work.
        features: width of the hidden state.
        hidden: the stand-in that the attention is given.
        projected: what the projections give.
        attended: what the output projection was given.
    """

    def __init__(self, features: int) -> None:
        self.features = features
        self.is_open = False
        self.hidden: Tensor | None = None
        self.projected: tuple[Tensor, ...] = ()
        self.attended: Tensor | None = None

    def open(self, hidden: Tensor, projected: tuple[Tensor, ...]) -> None:
        """Begin: ``hidden`` stands in for what the attention is given."""
        self.hidden, self.projected, self.attended = hidden, projected, None
        self.is_open = True

    def close(self) -> Tensor | None:
        """End, and hold nothing any longer; what the attention computed, if it came so far."""
        attended = self.attended
        self.is_open = False
        self.hidden, self.projected, self.attended = None, (), None
        return attended

    def meet(self, role: int, input: Tensor) -> Tensor:
        """What a layer of this role answers."""
        if role == PASS:
            return input[..., :1]
        if role == NORM:
            assert self.hidden is not None
            return self.hidden
        if role == OUT:
            if self.attended is not None:
                raise UnsupportedError(
                    "jetfire: the attention calls its output projection twice, so its block cannot compute as one; "
                    "apply jetfire with flow='linear'"
                )
            self.attended = input
            return input.new_full((1,), float("nan")).expand(*input.shape[:-1], 1)
        if input is not self.hidden:
            raise UnsupportedError(
                "jetfire: the attention projects something else than the hidden state that its block hands to it, so "
                "the block cannot compute as one; apply jetfire with flow='linear'"
            )
        return self.projected[role - PROJECTION]
