"""A store of scores in memory, with what deciding reads from one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from planish.filtering.identity import FilterIdentity
from planish.interfaces import Row
from samples.flicker import Flicker


@dataclass
class Stored:
    """Rows of a filter, as if they had been read from a folder."""

    folder: Path
    made: list[Row] = field(default_factory=list)
    read: int = 0
    identity: FilterIdentity = field(default_factory=lambda: FilterIdentity.of(Flicker()))

    def rows(self, data_filter):
        self.read += 1
        return iter(self.made)
