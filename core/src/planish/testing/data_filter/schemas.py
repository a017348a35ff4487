"""Clauses on schemas: what rows and policies say of themselves, and that they can be stored."""

from __future__ import annotations

import re
from pathlib import Path

from planish.config import Config
from planish.interfaces.data_filter import Row
from planish.testing.clause import require
from planish.testing.data_filter.subject import DataFilterSubject


class SchemaClauses(DataFilterSubject):
    """What ``Columns``, ``Policy``, ``presets`` and ``metric_version`` keep."""

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

    def test_rows_survive_json(self, tmp_path: Path) -> None:
        """A row written to JSON and read back is equal: scores are stored so."""
        for row in self.make_plugin().score(self._clips(tmp_path)):
            try:
                again = self.plugin.Columns.model_validate_json(row.model_dump_json())
            except Exception as error:
                again = None
                require(False, f"a row does not survive JSON: {type(error).__name__}: {error}")
            require(again == row, f"a row read back from JSON is {again!r}; it was {row!r}; NaN and infinity are lost")

    def test_policy_survives_json(self) -> None:
        """A policy written to JSON and read back is equal: it is stored beside the decisions."""
        for policy in self._whole_policies():
            try:
                again = self.plugin.Policy.model_validate_json(policy.model_dump_json())
            except Exception as error:
                again = None
                require(False, f"{policy!r} does not survive JSON: {type(error).__name__}: {error}")
            require(again == policy, f"a policy read back from JSON is {again!r}; it was {policy!r}")

    def test_presets_are_policies(self) -> None:
        """Each of ``presets`` has a name to type and values that ``Policy`` takes; no field is called ``preset``."""
        require(
            "preset" not in self.plugin.Policy.model_fields,
            "Policy has a field 'preset', which in a policy file names a preset; rename the field",
        )
        for name, values in self.plugin.presets.items():
            require(
                isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_.-]+", name),
                f"a preset is called {name!r}; use letters, digits, '-', '_' and '.'",
            )
            try:
                self.plugin.Policy(**values)
            except Exception as error:
                require(False, f"preset {name!r} is no Policy: {type(error).__name__}: {error}")
