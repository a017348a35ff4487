"""2:4 sparse pre-training of feed-forward networks: FST with transposable masks, and S-STE."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planish_pretrain24.config import Pretrain24Config
    from planish_pretrain24.decay_search import DecaySearch, DecayTrial, find_decay
    from planish_pretrain24.sparsifier import Pretrain24
    from planish_pretrain24.trial import plain_trial

__all__ = ["DecaySearch", "DecayTrial", "Pretrain24", "Pretrain24Config", "find_decay", "plain_trial"]

_HOMES = {
    "Pretrain24Config": "config",
    "DecaySearch": "decay_search",
    "DecayTrial": "decay_search",
    "find_decay": "decay_search",
    "Pretrain24": "sparsifier",
    "plain_trial": "trial",
}


def __getattr__(name: str) -> Any:
    # Listing plugins imports this package; torch comes with the first name that is used.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"planish_pretrain24.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
