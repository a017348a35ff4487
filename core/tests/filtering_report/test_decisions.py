"""All rows of a store are decided, counted and written; what is written belongs together or is refused."""

import json
import random
from itertools import combinations

import pyarrow.parquet as pq
import pytest
import yaml
from filtering_report.stored import Stored
from hypothesis import given, settings
from hypothesis import strategies as st
from planish import DataError, PluginError
from planish.filtering.decisions import decide_all, read_decisions
from planish.filtering.funnel import FunnelCounter, share
from planish.filtering.identity import FilterIdentity
from planish.filtering.policy import read_policy
from planish.filtering.reason import reason_class
from planish.interfaces import Decision
from samples.brightness import Brightness
from samples.flicker import Flicker

Columns = Flicker.Columns


@pytest.fixture
def store(tmp_path):
    rows = [
        Columns(clip_id="fine", luminance=0.5, flicker=0.1),
        Columns(clip_id="dark", luminance=0.05, flicker=0.1),
        Columns(clip_id="dark-flicker", luminance=0.04, flicker=0.5),
        Columns(clip_id="flicker", luminance=0.5, flicker=0.6),
        Columns(clip_id="bright", luminance=0.99, flicker=None),
        Columns(clip_id="gone", error="/clips/a b.ppms: cut short: 87 of 120 pictures"),
        Columns(clip_id="gone too", error="/clips/c.ppms: cut short: 3 of 120 pictures"),
    ]
    return Stored(tmp_path / "out", rows)


def test_every_row_gets_its_decision(store):
    decide_all(Flicker(), store, Flicker.Policy())
    table = pq.read_table(store.folder / "decisions.parquet")
    assert table.column_names == ["clip_id", "keep", "reason", "rules"]
    found = {row["clip_id"]: row for row in table.to_pylist()}
    assert [row["clip_id"] for row in table.to_pylist()] == [row.clip_id for row in store.made]
    assert [clip for clip, row in found.items() if row["keep"]] == ["fine"]
    assert found["dark"] == {
        "clip_id": "dark",
        "keep": False,
        "reason": "luminance 0.050 is below 0.1",
        "rules": ["luminance.min"],
    }
    assert found["dark-flicker"]["rules"] == ["luminance.min", "flicker.max"]
    assert found["gone"]["reason"].startswith("/clips/a b.ppms: cut short")
    assert found["gone"]["rules"] == []


def test_funnel_counts_what_each_rule_takes(store):
    funnel = decide_all(Flicker(), store, Flicker.Policy())
    assert (funnel.clips, funnel.failed, funnel.kept, funnel.named) == (7, 2, 1, True)
    assert [count.model_dump() for count in funnel.rules] == [
        {"rule": "luminance.min", "first": 2, "left": 3, "alone": 1, "any": 2},
        {"rule": "luminance.max", "first": 1, "left": 2, "alone": 1, "any": 1},
        {"rule": "flicker.max", "first": 1, "left": 1, "alone": 1, "any": 2},
    ]
    assert funnel.overlap["luminance.min"] == {"luminance.min": 2, "flicker.max": 1, "luminance.max": 0}
    assert sum(funnel.errors.values()) == 2


def test_funnel_file_holds_the_whole_funnel(store):
    funnel = decide_all(Flicker(), store, Flicker.Policy())
    stored = json.loads((store.folder / "funnel.json").read_text())
    assert stored["rules"] == [count.model_dump() for count in funnel.rules]
    assert stored["overlap"] == funnel.overlap
    assert stored["failed"] == 2
    table, again = read_decisions(store.folder, store.identity)
    assert again == funnel
    assert table.num_rows == 7


def test_quantiles_are_settled_and_both_policies_are_kept(store):
    policy = read_policy(Flicker(), preset="steady")
    funnel = decide_all(Flicker(), store, policy)
    assert funnel.policy["flicker"]["max_quantile"] == 0.5
    assert funnel.settled["flicker"] == {"min": None, "max": 0.3, "max_quantile": None}
    text = (store.folder / "policy.yaml").read_text()
    assert yaml.safe_load(text) == funnel.policy
    assert "# Settled over 7 clips:" in text
    assert "#     max: 0.3" in text
    assert read_policy(Flicker(), store.folder / "policy.yaml") == policy


def test_rows_are_read_once_where_nothing_is_to_be_settled(tmp_path):
    store = Stored(tmp_path, [Brightness.Columns(clip_id="a", luminance=0.5, side=16)])
    decide_all(Brightness(), store, Brightness.Policy())
    assert store.read == 1


def test_reasons_count_where_rules_have_no_names(tmp_path):
    rows = [Brightness.Columns(clip_id=str(i), luminance=i / 100, side=16) for i in range(40)]
    funnel = decide_all(Brightness(), Stored(tmp_path, rows), Brightness.Policy())
    assert not funnel.named
    assert [(count.rule, count.first) for count in funnel.rules] == [("luminance … is below …", 20)]


def test_policy_given_twice_gives_the_same_bytes(store):
    decide_all(Flicker(), store, read_policy(Flicker(), preset="steady"))
    before = {path.name: path.read_bytes() for path in store.folder.iterdir()}
    decide_all(Flicker(), store, read_policy(Flicker(), preset="steady"))
    assert before == {path.name: path.read_bytes() for path in store.folder.iterdir()}


def test_no_scores_leave_earlier_decisions_alone(store):
    decide_all(Flicker(), store, Flicker.Policy())
    before = {path.name: path.read_bytes() for path in store.folder.iterdir()}
    with pytest.raises(DataError, match="holds no scores"):
        decide_all(Flicker(), Stored(store.folder), Flicker.Policy())
    assert before == {path.name: path.read_bytes() for path in store.folder.iterdir()}


def test_filter_that_cannot_decide_is_to_blame(store):
    class Forgetful(Flicker):
        def decide(self, row, policy=None):
            raise KeyError("luminance")

    with pytest.raises(PluginError, match="sample-flicker cannot decide its own row of clip 'fine': KeyError"):
        decide_all(Forgetful(), store, Flicker.Policy())
    assert list(store.folder.iterdir()) == []


def test_files_of_different_runs_are_refused(store):
    decide_all(Flicker(), store, Flicker.Policy())
    table = (store.folder / "decisions.parquet").read_bytes()
    decide_all(Flicker(), store, read_policy(Flicker(), preset="any"))
    (store.folder / "decisions.parquet").write_bytes(table)
    with pytest.raises(DataError, match="of different runs"):
        read_decisions(store.folder, store.identity)


def test_decisions_about_other_scores_are_refused(store):
    decide_all(Flicker(), store, Flicker.Policy())
    with pytest.raises(DataError, match="about the scores sample-flicker-v1-"):
        read_decisions(store.folder, FilterIdentity.of(Flicker(window_s=5)))


def test_missing_and_damaged_decisions_are_refused(store):
    with pytest.raises(DataError, match="nothing was decided there"):
        read_decisions(store.folder, store.identity)
    decide_all(Flicker(), store, Flicker.Policy())
    (store.folder / "decisions.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        read_decisions(store.folder, store.identity)


# ---- the funnel alone

RULES = ["blur", "motion", "cuts", "text"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), max_size=40), st.randoms(use_true_random=False))
def test_funnel_agrees_with_counting_clip_by_clip(clips, random_order):
    decisions = [tuple(name for name, says in zip(RULES, clip, strict=True) if says) for clip in clips]
    random_order.shuffle(decisions)
    counter = FunnelCounter()
    for rules in decisions:
        counter.count(Decision(not rules, "too " + rules[0] if rules else "", rules), None)
    funnel = counter.funnel({}, {})
    left = len(decisions)
    assert {count.rule for count in funnel.rules} == {name for rules in decisions for name in rules}
    for count in funnel.rules:
        assert count.first == sum(rules[:1] == (count.rule,) for rules in decisions)
        assert count.alone == sum(rules == (count.rule,) for rules in decisions)
        assert count.any == sum(count.rule in rules for rules in decisions)
        left -= count.first
        assert count.left == left
    assert left == funnel.kept
    for one, other in combinations(funnel.overlap, 2):
        expected = sum(one in rules and other in rules for rules in decisions)
        assert funnel.overlap[one][other] == funnel.overlap[other][one] == expected
    named = [count.rule for count in funnel.rules]
    compared = {pair for rules in decisions for pair in combinations(rules, 2)}
    assert all(named.index(one) < named.index(other) for one, other in compared)


def test_rules_that_no_clip_compares_go_by_the_policy():
    counter = FunnelCounter()
    for rules in (("text",), ("text",), ("blur.max",), ("other",)):
        counter.count(Decision(False, "no", rules), None)
    funnel = counter.funnel({"blur": {"max": 1}, "text": {"min": 2}}, {})
    assert [count.rule for count in funnel.rules] == ["blur.max", "text", "other"]


def test_rules_that_contradict_each_other_are_all_listed():
    counter = FunnelCounter()
    for rules in (("a", "b"), ("b", "a"), ("b",)):
        counter.count(Decision(False, "no", rules), None)
    assert [count.rule for count in counter.funnel({}, {}).rules] == ["b", "a"]


def test_endless_kinds_of_reasons_are_bounded():
    counter = FunnelCounter()
    letters = random.Random(0)
    for _ in range(2000):
        word = "".join(letters.choices("abcdefghij", k=12))
        counter.count(Decision(False, word), None)
        counter.count(Decision(False, word), word)
    funnel = counter.funnel({}, {})
    assert len(funnel.rules) == len(funnel.errors) == 501
    assert sum(count.first for count in funnel.rules) == funnel.failed == 2000


def test_table_shows_every_rule(store):
    from rich.console import Console

    console = Console(width=100, record=True, force_terminal=False)
    console.print(decide_all(Flicker(), store, Flicker.Policy()).table())
    shown = console.export_text()
    assert "1 of 7 clips kept (14.3 %)" in shown
    for words in ("luminance.min", "flicker.max", "could not be scored", "drops alone"):
        assert words in shown


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("luminance 0.08 is below 0.2", "luminance … is below …"),
        ("flow_0_4 of 1e-05 is above -3.5", "flow_0_4 of … is above …"),
        ("truncated: 87/120", "truncated: …"),
        ("/a/b c.mp4: moov atom not found", "… c.mp4: moov atom not found"),
        ("no stream in 'my clip 3.mp4'", "no stream in …"),
        ("", "no reason given"),
    ],
)
def test_reason_class_takes_out_what_varies(reason, expected):
    assert reason_class(reason) == expected


def test_shares_never_round_to_all_or_nothing():
    assert share(1, 100_000) == "< 0.1 %"
    assert share(99_999, 100_000) == "> 99.9 %"
    assert share(0, 5) == "0.0 %"
    assert share(5, 5) == "100.0 %"
    assert share(0, 0) == "–"
