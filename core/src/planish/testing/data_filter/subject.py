"""What the clauses of a data filter work on: clips, rows, policies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ValidationError

from planish.config import Config
from planish.interfaces.data_filter import Clip, DataFilter, Row
from planish.testing.clause import require
from planish.testing.plugin_contract import PluginContract


class DataFilterSubject(PluginContract):
    """Clips and claims of a data filter's suite. Override what does not fit your filter."""

    kind: ClassVar[str] = "data_filter"

    thresholds: ClassVar[Mapping[str, Literal["stricter", "looser"]]] = {}
    """Numeric fields of ``Policy`` -> what raising them does. A dot leads into a nested field: ``"flow_mean.min"``.
    Each is tried over ``threshold_values``, alone: the field that it belongs to holds nothing else."""

    threshold_values: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    """Rising values to try per threshold; left out: multiples of the default from 0 to 2."""

    unsettled: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    """Values of ``Policy`` that depend on the whole data set, such as ``({"flow_mean": {"max_quantile": 0.5}},)``."""

    def make_clips(self, folder: Path) -> list[Clip]:
        """Write at least three different, readable media files to ``folder`` and return their clips."""
        require(False, "override make_clips(folder): write at least three readable files and return their clips")
        return []

    # ---- what several clauses need

    def _clips(self, folder: Path) -> list[Clip]:
        clips = self.make_clips(folder)
        require(len(clips) >= 3, f"make_clips() gave {len(clips)} clips; the suite needs at least three")
        return clips

    def _values(self, name: str) -> tuple[float, ...]:
        if name in self.threshold_values:
            return self.threshold_values[name]
        default: Any = self.plugin.Policy()
        for part in name.split("."):
            default = getattr(default, part)
        require(
            isinstance(default, int | float) and default,
            f"the threshold {name} is {default!r} by default; say in threshold_values which values to try",
        )
        return tuple(type(default)(default * factor / 4) for factor in range(9))

    def _policy(self, name: str, value: float) -> Config:
        values: Any = value
        for part in reversed(name.split(".")):
            values = {part: values}
        policy: Config = self.plugin.Policy(**values)
        return policy

    def _policies(self) -> list[Any]:
        return [None, *(self._policy(name, value) for name in self.thresholds for value in self._values(name))]

    def _whole_policies(self) -> list[Config]:
        """Return the default policy, the presets, and those of ``unsettled``."""
        made = [self.plugin.Policy(), *(self.plugin.Policy(**values) for values in self.unsettled)]
        for values in self.plugin.presets.values():
            try:
                made.append(self.plugin.Policy(**values))
            except (TypeError, ValidationError):
                continue  # another clause says so
        return made

    def _settle(self, plugin: DataFilter, policy: Config, rows: Iterable[Row]) -> Config:
        try:
            settled = plugin.settle(policy, iter(rows))
        except Exception as error:
            require(
                False, f"settle({policy!r}, rows) raised {type(error).__name__}: {error}; rows come once, any number"
            )
            raise
        require(
            isinstance(settled, self.plugin.Policy),
            f"settle() returned {settled!r}; expected a {self.plugin.__name__}.Policy",
        )
        return settled

    def _rows_to_settle(self, folder: Path) -> Sequence[Row]:
        """Return scored rows and one with an error, as a store holds them."""
        rows: list[Row] = self.make_plugin().score(self._clips(folder))
        return [*rows, self.plugin.Columns(clip_id="gone", error="no such file")]


def contents(folder: Path) -> dict[str, bytes]:
    """Return relative path -> bytes of each file in a folder and those below it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
