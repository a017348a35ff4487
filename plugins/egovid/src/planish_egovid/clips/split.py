"""Train and validation sets that share no source video."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal

from planish.errors import ConfigError
from planish.interfaces import Clip

from planish_egovid.clips.ids import ClipIdError, parse_clip_id

Part = Literal["train", "val"]


def part_of(source: str, val_fraction: float, seed: int = 0) -> Part:
    """Return the set that a source belongs to, by a hash of its name: the same whatever other sources there are.

    Sources that are validation at one fraction are so at every larger one.

    Args:
        source: Name of the source video.
        val_fraction: Share of sources for validation, 0 to 1; met on average.
        seed: Another seed draws other sources.

    Raises:
        ConfigError: The fraction is not within 0 and 1.
    """
    if not 0 <= val_fraction <= 1:
        raise ConfigError(f"val_fraction is {val_fraction}; expected 0 to 1")
    digest = hashlib.sha256(f"{seed}/{source}".encode()).digest()
    return "val" if int.from_bytes(digest[:8], "big") < val_fraction * 2**64 else "train"


def source_of(clip: Clip) -> str:
    """Return the name of the video that a clip was cut from: by its id if that says so, else by its file."""
    try:
        return parse_clip_id(clip.id).source
    except ClipIdError:
        return clip.path


def split(clips: Iterable[Clip], val_fraction: float, seed: int = 0) -> tuple[list[Clip], list[Clip]]:
    """Return the clips for training and those for validation, each in order; no source is in both.

    Raises:
        ConfigError: The fraction is not within 0 and 1.
    """
    train: list[Clip] = []
    val: list[Clip] = []
    for clip in clips:
        (val if part_of(source_of(clip), val_fraction, seed) == "val" else train).append(clip)
    return train, val


def shared_sources(train: Sequence[Clip], val: Sequence[Clip]) -> list[str]:
    """Return the sources that two sets share, sorted; empty for a clean split."""
    return sorted({source_of(clip) for clip in train} & {source_of(clip) for clip in val})
