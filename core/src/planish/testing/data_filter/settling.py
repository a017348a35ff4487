"""Clauses on settling: what depends on the whole data set is worked out once, before any clip is decided."""

from __future__ import annotations

from pathlib import Path

from planish.testing.clause import require
from planish.testing.data_filter.subject import DataFilterSubject


class SettlingClauses(DataFilterSubject):
    """What ``settle`` keeps, for the default policy, the presets and those of ``unsettled``."""

    def test_settling_ignores_the_order_of_rows(self, tmp_path: Path) -> None:
        """``settle`` gives the same policy whatever the order of the rows."""
        rows = self._rows_to_settle(tmp_path)
        plugin = self.make_plugin()
        for policy in self._whole_policies():
            forwards, backwards = (self._settle(plugin, policy, some) for some in (rows, rows[::-1]))
            require(
                forwards == backwards,
                f"the rows in reverse order settle {policy!r} to {backwards!r}, not to {forwards!r}",
            )

    def test_settled_policy_stays_as_it_is(self, tmp_path: Path) -> None:
        """Settling a settled policy changes nothing, whatever the rows are."""
        rows = self._rows_to_settle(tmp_path)
        plugin = self.make_plugin()
        for policy in self._whole_policies():
            settled = self._settle(plugin, policy, rows)
            for some in (rows, rows[:1], []):
                again = self._settle(plugin, settled, some)
                require(
                    again == settled,
                    f"settled over {len(some)} rows, {settled!r} becomes {again!r}; replace what depends on the data "
                    "set by numbers",
                )

    def test_settled_policy_is_all_that_decides(self, tmp_path: Path) -> None:
        """Under a settled policy an instance that has settled nothing decides as the one that settled it."""
        rows = self._rows_to_settle(tmp_path)
        for policy in self._whole_policies():
            plugin, other = self.make_plugin(), self.make_plugin()
            settled = self._settle(plugin, policy, rows)
            for scoring in (plugin, other):
                scoring.score(self._clips(tmp_path))
            for row in rows:
                if row.error is None:
                    expected, found = plugin.decide(row, settled), other.decide(row, settled)
                    require(
                        found == expected,
                        f"clip {row.clip_id!r}: the instance that settled the policy says {expected!r}, another "
                        f"{found!r}; keep what was worked out in the policy, not in the instance",
                    )
