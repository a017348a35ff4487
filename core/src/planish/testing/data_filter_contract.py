"""DataFilterContract: the contract of :class:`planish.interfaces.DataFilter`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from planish.config import Config
from planish.interfaces.data_filter import Clip, Decision, Row
from planish.testing.clause import not_claimed, require
from planish.testing.plugin_contract import PluginContract


class DataFilterContract(PluginContract):
    """The whole battery for a data filter::

    class TestDemo(DataFilterContract):
        plugin = Demo
        thresholds = {"min_brightness": "stricter"}

        def make_clips(self, folder):
            return [...]
    """

    kind: ClassVar[str] = "data_filter"

    thresholds: ClassVar[Mapping[str, Literal["stricter", "looser"]]] = {}
    """Numeric fields of ``Policy`` -> what raising them does. Each is tried over ``threshold_values``."""

    threshold_values: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    """Rising values to try per threshold; left out: multiples of the default from 0 to 2."""

    def make_clips(self, folder: Path) -> list[Clip]:
        """Write at least three different, readable media files to ``folder`` and return their clips."""
        require(False, "override make_clips(folder): write at least three readable files and return their clips")
        return []

    # ---- clauses on schemas

    def test_columns_are_described(self) -> None:
        """``Columns`` derives from Row, every column says what it is, and exports a JSON schema."""
        columns = getattr(self.plugin, "Columns", None)
        require(
            isinstance(columns, type) and issubclass(columns, Row),
            f"{self.plugin.__name__}.Columns is {columns!r}; expected a class that derives from planish.interfaces.Row",
        )
        self._require_described(columns)  # type: ignore[arg-type]
        self._require_schema(columns)  # type: ignore[arg-type]

    def test_policy_is_described(self) -> None:
        """``Policy`` is a frozen Config apart from ``Config``; its fields are described, its defaults complete."""
        policy = getattr(self.plugin, "Policy", None)
        require(
            isinstance(policy, type) and issubclass(policy, Config),
            f"{self.plugin.__name__}.Policy is {policy!r}; expected a class that derives from planish.Config",
        )
        self._require_frozen(policy)  # type: ignore[arg-type]
        self._require_described(policy)  # type: ignore[arg-type]
        self._require_schema(policy)  # type: ignore[arg-type]
        required = [name for name, field in policy.model_fields.items() if field.is_required()]  # type: ignore[union-attr]
        require(not required, f"Policy has no default for {', '.join(required)}; decide(row) must work without one")

    def test_metric_version_is_a_positive_integer(self) -> None:
        """``metric_version`` is an integer from 1 on: stored scores carry it."""
        version = self.plugin.metric_version
        require(type(version) is int and version >= 1, f"metric_version is {version!r}; expected 1, 2, 3, …")

    # ---- clauses on scoring

    def test_one_row_per_clip_in_order(self, tmp_path: Path) -> None:
        """``score`` returns one row of type ``Columns`` per clip, in the clips' order, without errors."""
        clips = self._clips(tmp_path)
        rows = self.make_plugin().score(clips)
        require(
            isinstance(rows, list) and [getattr(row, "clip_id", None) for row in rows] == [c.id for c in clips],
            f"{len(clips)} clips gave rows for {[getattr(row, 'clip_id', row) for row in rows]}; expected "
            f"{[clip.id for clip in clips]}",
        )
        for row in rows:
            require(type(row) is self.plugin.Columns, f"a row is a {type(row).__name__}; expected Columns")
            require(row.error is None, f"the readable clip {row.clip_id!r} got the error {row.error!r}")

    def test_no_clips_give_no_rows(self) -> None:
        """``score([])`` is an empty list."""
        try:
            rows = self.make_plugin().score([])
        except Exception as error:
            rows = None
            require(False, f"score([]) raised {type(error).__name__}: {error}; expected []")
        require(rows == [], f"score([]) returned {rows!r}; expected []")

    def test_scores_are_repeatable(self, tmp_path: Path) -> None:
        """Scoring the same clips again, by this or another instance, gives equal rows."""
        clips = self._clips(tmp_path)
        plugin = self.make_plugin()
        first = plugin.score(clips)
        require(plugin.score(clips) == first, "scoring the same clips a second time gives other rows")
        require(self.make_plugin().score(clips) == first, "another instance scores the same clips differently")

    def test_batches_do_not_matter(self, tmp_path: Path) -> None:
        """Rows do not depend on which clips are scored together, or in which order."""
        clips = self._clips(tmp_path)
        plugin = self.make_plugin()
        together = plugin.score(clips)
        alone = [row for clip in clips for row in plugin.score([clip])]
        require(alone == together, "clips scored one by one get other rows than together")
        backwards = plugin.score(clips[::-1])
        require(backwards[::-1] == together, "clips scored in reverse order get other rows")

    def test_missing_file_is_an_error_row(self, tmp_path: Path) -> None:
        """A file that does not exist gets a row with ``error``; its neighbours are scored."""
        self._bad_clip_gets_error_row(tmp_path, None, "a missing file")

    def test_empty_file_is_an_error_row(self, tmp_path: Path) -> None:
        """A file of zero bytes gets a row with ``error``; its neighbours are scored."""
        self._bad_clip_gets_error_row(tmp_path, b"", "a file of zero bytes")

    def test_garbage_is_an_error_row(self, tmp_path: Path) -> None:
        """A file of bytes in no known format gets a row with ``error``; its neighbours are scored."""
        self._bad_clip_gets_error_row(tmp_path, bytes(range(256)) * 8, "a file of meaningless bytes")

    def test_files_are_left_alone(self, tmp_path: Path) -> None:
        """``score`` changes, adds and removes no file beside the clips."""
        clips = self._clips(tmp_path)
        before = _contents(tmp_path)
        self.make_plugin().score(clips)
        after = _contents(tmp_path)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        require(not changed, f"score() changed, added or removed {changed[:3]}; write to a temporary folder")

    # ---- clauses on rows and decisions

    def test_rows_survive_json(self, tmp_path: Path) -> None:
        """A row written to JSON and read back is equal: scores are stored so."""
        for row in self.make_plugin().score(self._clips(tmp_path)):
            try:
                again = self.plugin.Columns.model_validate_json(row.model_dump_json())
            except Exception as error:
                again = None
                require(False, f"a row does not survive JSON: {type(error).__name__}: {error}")
            require(again == row, f"a row read back from JSON is {again!r}; it was {row!r}; NaN and infinity are lost")

    def test_decision_depends_on_the_row_alone(self, tmp_path: Path) -> None:
        """``decide`` gives the same answer for a stored row, on another instance, after the files are gone."""
        clips = self._clips(tmp_path)
        plugin = self.make_plugin()
        rows = plugin.score(clips)
        expected = [plugin.decide(row) for row in rows]
        for clip in clips:
            Path(clip.path).unlink()
        stored = [self.plugin.Columns.model_validate_json(row.model_dump_json()) for row in rows]
        try:
            found = [self.make_plugin().decide(row) for row in stored]
        except Exception as error:
            found = []
            require(False, f"decide() on a stored row raised {type(error).__name__}: {error}; use the row alone")
        require(found == expected, "decide() on a stored row gives another answer; use the row alone")

    def test_decision_is_given_with_a_reason(self, tmp_path: Path) -> None:
        """``decide`` returns a Decision, and gives a reason with every rejection."""
        plugin = self.make_plugin()
        for row in plugin.score(self._clips(tmp_path)):
            for policy in self._policies():
                decision = plugin.decide(row, policy)
                require(
                    isinstance(decision, Decision) and isinstance(decision.keep, bool),
                    f"decide() returned {decision!r}; expected a planish.interfaces.Decision",
                )
                require(
                    decision.keep or decision.reason.strip(),
                    f"clip {row.clip_id!r} is rejected without a reason under {policy!r}",
                )

    def test_error_row_is_rejected_with_its_error(self, tmp_path: Path) -> None:
        """A row with an error is rejected, and the error is the reason."""
        (row, *_) = self.make_plugin().score(self._clips(tmp_path))
        failed = row.model_copy(update={"error": "the decoder gave up at 0.4 s"})
        decision = self.make_plugin().decide(failed)
        require(
            not decision.keep and failed.error in decision.reason,
            f"a row with the error {failed.error!r} got {decision!r}; reject it with that error as the reason",
        )

    def test_policy_defaults_are_the_defaults(self, tmp_path: Path) -> None:
        """``decide(row)`` and ``decide(row, Policy())`` agree."""
        plugin = self.make_plugin()
        for row in plugin.score(self._clips(tmp_path)):
            without, given = plugin.decide(row), plugin.decide(row, self.plugin.Policy())
            require(without == given, f"without a policy {without!r}, under Policy() {given!r}; use Policy() for None")

    def test_thresholds_are_monotone(self, tmp_path: Path) -> None:
        """Raising a ``stricter`` threshold never admits a rejected clip; a ``looser`` one never rejects a kept clip."""
        if not self.thresholds:
            not_claimed("thresholds is empty")
        plugin = self.make_plugin()
        rows = plugin.score(self._clips(tmp_path))
        for name, direction in self.thresholds.items():
            kept: set[str] | None = None
            for value in self._values(name):
                now = {row.clip_id for row in rows if plugin.decide(row, self._policy(name, value)).keep}
                if kept is not None:
                    ordered = now <= kept if direction == "stricter" else now >= kept
                    require(
                        ordered,
                        f"raising {name} to {value} {'admits' if direction == 'stricter' else 'rejects'} "
                        f"{sorted(now ^ kept)}, but the suite declares it {direction}",
                    )
                kept = now

    # ---- what several clauses need

    def _clips(self, folder: Path) -> list[Clip]:
        clips = self.make_clips(folder)
        require(len(clips) >= 3, f"make_clips() gave {len(clips)} clips; the suite needs at least three")
        return clips

    def _bad_clip_gets_error_row(self, folder: Path, content: bytes | None, what: str) -> None:
        clips = self._clips(folder)
        path = folder / f"bad{Path(clips[0].path).suffix}"
        if content is not None:
            path.write_bytes(content)
        bad = replace(clips[0], id="bad", path=str(path))
        plugin = self.make_plugin()
        try:
            rows = plugin.score([clips[0], bad, *clips[1:]])
        except Exception as error:
            rows = []
            require(False, f"{what} made score() raise {type(error).__name__}: {error}; return a row with error set")
        require(len(rows) == len(clips) + 1, f"{what} among {len(clips) + 1} clips gave {len(rows)} rows; leave no gap")
        require(rows[1].error, f"{what} was scored as if it were readable; set error")
        spoiled = [row.clip_id for row in (rows[0], *rows[2:]) if row.error]
        require(not spoiled, f"{what} gave its neighbours {spoiled} an error too")

    def _values(self, name: str) -> tuple[float, ...]:
        if name in self.threshold_values:
            return self.threshold_values[name]
        default = getattr(self.plugin.Policy(), name)
        return tuple(type(default)(default * factor / 4) for factor in range(9))

    def _policy(self, name: str, value: float) -> Config:
        policy: Config = self.plugin.Policy(**{name: value})
        return policy

    def _policies(self) -> list[Any]:
        return [None, *(self._policy(name, value) for name in self.thresholds for value in self._values(name))]


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
