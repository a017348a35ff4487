"""Rules, thresholds, quantiles and presets."""

from __future__ import annotations

import logging

import pytest
from planish.config import validate
from planish.errors import ConfigError
from planish.interfaces import Decision, Row
from planish_egovid.policy import Rule, Threshold, decide, policy_model, settled
from planish_egovid.policy.policy_model import preset_values


class Scores(Row):
    flow: float | None = None
    alike: list[float | None] | None = None


RULES = (
    Rule(
        "flow", "flow", Threshold(min=3, max=35), "motion too low", "motion too high", unit="px", description="motion"
    ),
    Rule("alike", "alike", Threshold(min=70), "frames do not belong together", reduce="min"),
)
Policy = policy_model("Policy", RULES)


def row(**values: object) -> Scores:
    return Scores(clip_id="c", **values)  # type: ignore[arg-type]


def test_a_row_within_all_bounds_is_kept() -> None:
    assert decide(row(flow=3.0, alike=[70.0, 99.0]), Policy(), RULES) == Decision(True)
    assert decide(row(flow=35.0, alike=[80.0]), Policy(), RULES).keep


@pytest.mark.parametrize(
    ("values", "reason", "rules"),
    [
        ({"flow": 0.8}, "motion too low: flow 0.8 px is below 3", ("flow",)),
        ({"flow": 41.26}, "motion too high: flow 41.3 px is above 35", ("flow",)),
        ({"flow": 2.9999}, "motion too low: flow 2.9999 px is below 3", ("flow",)),
        ({"flow": 35.00000001}, "motion too high: flow 35.00000001 px is above 35", ("flow",)),
        ({"alike": [90.0, None, 12.0]}, "frames do not belong together: alike 12 is below 70", ("alike",)),
        (
            {"flow": 0.0, "alike": [1.0]},
            "motion too low: flow 0 px is below 3 (also frames do not belong together)",
            ("flow", "alike"),
        ),
    ],
)
def test_the_first_broken_rule_gives_the_reason_and_all_are_named(
    values: dict[str, object], reason: str, rules: tuple[str, ...]
) -> None:
    assert decide(row(**values), Policy(), RULES) == Decision(False, reason, rules)


def test_an_error_is_the_reason() -> None:
    assert decide(row(error="truncated: 87/120 frames", flow=10.0), Policy(), RULES) == Decision(
        False, "truncated: 87/120 frames"
    )


@pytest.mark.parametrize("values", [{}, {"alike": [None, None]}, {"flow": float("nan")}])
def test_what_is_missing_is_kept_or_rejected_as_the_policy_says(values: dict[str, object]) -> None:
    given = row(**{"flow": 10.0} | values)
    metric = "flow" if "flow" in values else "alike"
    assert decide(given, Policy(), RULES).keep
    strict = Policy(**{metric: {"min": 3, "missing": "reject"}})
    assert decide(given, strict, RULES) == Decision(False, f"{metric} could not be measured", (metric,))


def test_quantiles_become_numbers_over_the_rows_that_have_the_metric() -> None:
    rows = [row(flow=float(i)) for i in range(11)] + [row(), row(error="no", flow=1e9)]
    policy = Policy(flow={"min_quantile": 0.2, "max_quantile": 0.9, "max": 8.5, "missing": "reject"})
    found = settled(policy, iter(rows), RULES)
    assert found.flow == Threshold(min=2.0, max=8.5, missing="reject")  # type: ignore[attr-defined]
    assert found.alike == Threshold(min=70)  # type: ignore[attr-defined]
    kept = [r.flow for r in rows if r.error is None and decide(r, found, RULES).keep]
    assert kept == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    assert settled(found, rows, RULES) == found


def test_a_quantile_of_nothing_bounds_nothing() -> None:
    found = settled(Policy(flow={"min_quantile": 0.5}), [row(), row()], RULES)
    assert found.flow == Threshold()  # type: ignore[attr-defined]


def test_bounds_that_meet_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"policy.flow: .* lower bound comes to 5 and the upper one to 2"):
        settled(Policy(flow={"min_quantile": 0.5, "max": 2}), [row(flow=float(i)) for i in range(11)], RULES)
    with pytest.raises(ValueError, match="no value could be kept"):
        Policy(flow={"min": 4, "max": 3})


def test_an_unsettled_quantile_does_not_bind_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    rules = (Rule("unsettled", "flow", Threshold(min_quantile=0.9)),)
    policy = policy_model("Policy", rules)()
    with caplog.at_level(logging.WARNING):
        assert decide(row(flow=0.0), policy, rules).keep
        assert decide(row(flow=1.0), policy, rules).keep
    assert [r.message for r in caplog.records if "unsettled by a quantile" in r.message] == [caplog.records[0].message]


def test_a_misspelt_metric_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"policy.flwo: unknown field; did you mean 'flow'"):
        validate(Policy, {"flwo": {"min": 2}}, where="policy")
    with pytest.raises(ConfigError, match=r"policy.flow.mn: unknown field; did you mean 'min'"):
        validate(Policy, {"flow": {"mn": 2}}, where="policy")


def test_the_schema_says_what_each_metric_is() -> None:
    schema = Policy.model_json_schema()
    assert schema["properties"]["flow"]["description"] == "motion [px]"
    assert Policy.model_validate_json(Policy().model_dump_json()) == Policy()


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(TypeError, match="more than one rule for flow"):
        policy_model("Policy", (RULES[0], RULES[0]))


def test_a_preset_unbinds_what_it_does_not_name() -> None:
    policy = Policy(**preset_values(RULES, {"flow": Threshold(min=1), "elsewhere": Threshold(max=0)}))
    assert decide(row(flow=99.0, alike=[0.0]), policy, RULES).keep
    assert not decide(row(flow=0.5), policy, RULES).keep
