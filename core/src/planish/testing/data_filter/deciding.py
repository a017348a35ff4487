"""Clauses on deciding: from a row and a policy alone, with a reason, and by rules that have names."""

from __future__ import annotations

import re
from pathlib import Path

from planish.interfaces.data_filter import Decision
from planish.testing.clause import not_claimed, require
from planish.testing.data_filter.subject import DataFilterSubject

_RULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*([.-][A-Za-z_][A-Za-z0-9_]*)*")


class DecidingClauses(DataFilterSubject):
    """What ``decide`` keeps."""

    def test_decision_depends_on_the_row_alone(self, tmp_path: Path) -> None:
        """``decide`` gives the same answer for a stored row, on another instance, after the files are gone."""
        clips = self._clips(tmp_path)
        plugin = self.make_plugin()
        rows = plugin.score(clips)
        expected = [plugin.decide(row) for row in rows]
        for clip in clips:
            Path(clip.path).unlink(missing_ok=True)  # clips may share a file
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

    def test_rejecting_rules_are_stable_names(self, tmp_path: Path) -> None:
        """``Decision.rules`` are names without numbers or reasons in them, each once; a kept clip has none."""
        plugin = self.make_plugin()
        for row in plugin.score(self._clips(tmp_path)):
            for policy in self._policies():
                decision = plugin.decide(row, policy)
                rules = decision.rules
                require(
                    isinstance(rules, tuple) and len(set(rules)) == len(rules),
                    f"clip {row.clip_id!r}: rules are {rules!r}; expected a tuple that names each rule once",
                )
                wrong = [rule for rule in rules if not isinstance(rule, str) or not _RULE.fullmatch(rule)]
                require(
                    not wrong,
                    f"clip {row.clip_id!r}: a rule is called {wrong[:1]}; expected a name such as 'flow_mean.min', "
                    "the same for all clips that it rejects",
                )
                require(not (decision.keep and rules), f"clip {row.clip_id!r} is kept, and rejected by {rules!r}")
