"""FilterEngine: runs a data filter over many clips, on one machine or on many."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from planish.config import Config as PluginConfig
from planish.errors import PluginError
from planish.interfaces.data_filter import Clip, DataFilter, Row
from planish.interfaces.plugin import Plugin


@dataclass(frozen=True)
class FilterJob:
    """A data filter by name and options: what a worker needs to build it.

    Attributes:
        target: ``"module:Class"`` of the filter.
        config: Its options, as JSON values.
    """

    target: str
    config: Mapping[str, Any]

    @classmethod
    def of(cls, data_filter: DataFilter) -> FilterJob:
        """Return the job of a filter."""
        kind = type(data_filter)
        return cls(f"{kind.__module__}:{kind.__qualname__}", data_filter.config.model_dump(mode="json"))

    def build(self) -> DataFilter:
        """Import the class and create the filter.

        Raises:
            PluginError: There is no such class in this process.
            ConfigError: An option is unknown or out of bounds.
        """
        import importlib

        module, _, attribute = self.target.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            raise PluginError(
                f"the data filter {self.target} cannot be imported: {error}; install its package wherever "
                "filters run, and define the class at module level"
            ) from error
        made: DataFilter = found(dict(self.config))
        return made


class FilterEngine(Plugin):
    """Runs the stages of a data filter over clips, in whatever workers it has."""

    interface_version: ClassVar[int] = 1
    Config: ClassVar[type[PluginConfig]]
    """Workers, addresses, limits. Never part of a score's identity."""

    @abstractmethod
    def run(self, job: FilterJob, clips: Iterable[Sequence[Clip]]) -> Iterator[Sequence[Row]]:
        """Yield the rows of all clips, in any order, as they come.

        Each clip gets exactly one row. A clip that takes its worker down, or that takes longer than the engine's limit,
        gets a row that says so, and the others go on.

        Args:
            job: The filter.
            clips: Groups of clips, those of one file together; read as workers become free.

        Raises:
            WorkError: The engine itself cannot go on.
        """
