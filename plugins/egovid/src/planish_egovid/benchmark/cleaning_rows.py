"""What the cleaning experiment writes: a row for each figure, and sentences that say how they compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from planish.benchmark import Measurement, Row

from planish_egovid.benchmark.cleaning_clips import KnownClip
from planish_egovid.benchmark.cleaning_decisions import Agreement, Decided

ARMS = ("everything", "kept", "random")
"""What a model is trained on."""
_PEERS = {"everything": "all clips", "random": "a random subset"}
ASKED_PRECISION, ASKED_RECALL = 0.95, 0.9


def compared(runs: Mapping[tuple[int, str], Row]) -> list[Row]:
    """Return the rows of all runs, by seed; those of ``kept`` beside the other arms of their seed."""
    rows = []
    for seed, arm in sorted(runs, key=lambda run: (run[0], ARMS.index(run[1]))):
        row = runs[seed, arm]
        peers = {name: runs[seed, other].ours for other, name in _PEERS.items() if (seed, other) in runs}
        if arm == "kept" and _PEERS["random"] in peers:
            row = Row.compare(
                row.case, row.ours, peers, against=_PEERS["random"], metric=row.metric, unit=row.unit, extra=row.extra
            )
        rows.append(row)
    return rows


def decision_rows(decided: Decided) -> Iterator[Row]:
    """Yield precision and recall of the decisions, under all rules and without each, and recall of each fault."""
    agreement = decided.agreement
    yield from _agreement_rows("decisions", agreement)
    for fault, (hits, count) in agreement.found.items():
        yield _share(f"decisions/{fault}", "recall", hits / count, {"dropped": hits, "clips": count})
    for rule, without in decided.without.items():
        yield from _agreement_rows(f"decisions without {rule}", without)


def _agreement_rows(case: str, agreement: Agreement) -> Iterator[Row]:
    extra = {"hits": agreement.hits, "false_alarms": agreement.false_alarms, "misses": agreement.misses}
    for metric, value in (("precision", agreement.precision), ("recall", agreement.recall)):
        if value is not None:
            yield _share(case, metric, value, extra)


def _share(case: str, metric: str, value: float, extra: Mapping[str, Any]) -> Row:
    return Row(case=case, metric=metric, unit="share", better="higher", ours=Measurement.of([value]), extra=dict(extra))


def decision_notes(clips: Sequence[KnownClip], decided: Decided) -> list[str]:
    """Say how the decisions compare with what was asked for, and which they get wrong."""
    agreement = decided.agreement
    spoilt = agreement.hits + agreement.misses
    kept = sum(decided.kept.values())
    notes = [
        f"{len(clips)} clips, {spoilt} of them with a fault. The pipeline drops {agreement.hits} of these and "
        f"{agreement.false_alarms} good ones (asked for: precision {ASKED_PRECISION} and recall {ASKED_RECALL}); "
        f"{agreement.misses} of the {kept} clips that it keeps have a fault"
    ]
    missed = [f"{fault} {count - hits} of {count}" for fault, (hits, count) in agreement.found.items() if hits < count]
    if missed:
        notes.append(f"faults that were missed: {', '.join(missed)}")
    wrong = [
        f"{known.clip.id}: {decided.reasons[known.clip.id]}"
        for known in clips
        if known.fault is None and not decided.kept[known.clip.id]
    ]
    if wrong:
        notes.append(f"good clips that were dropped: {'; '.join(wrong)}")
    idle = [rule for rule, without in decided.without.items() if without == agreement]
    if idle:
        notes.append(f"switched off alone, these rules change no decision, for others drop the same: {', '.join(idle)}")
    return notes


def learning_notes(rows: Sequence[Row]) -> list[str]:
    """Say how the arms compare: means over seeds, and in how many seeds cleaning helps."""
    by_arm: dict[str, dict[int, Row]] = {arm: {} for arm in ARMS}
    for row in rows:
        by_arm[row.extra["arm"]][row.extra["seed"]] = row
    notes = []
    for arm, group in by_arm.items():
        if group:
            losses = [row.ours.median for row in group.values()]
            notes.append(
                f"trained on {arm}: val_loss {sum(losses) / len(losses):.5f} (range {max(losses) - min(losses):.5f}, "
                f"{len(losses)} seed{'s' if len(losses) > 1 else ''})"
            )
    for other in ("random", "everything"):
        seeds = sorted(by_arm["kept"].keys() & by_arm[other].keys())
        if seeds:
            ratios = [by_arm["kept"][seed].ours.median / by_arm[other][seed].ours.median for seed in seeds]
            notes.append(
                f"kept has a lower loss than {other} in {sum(ratio < 1 for ratio in ratios)} of {len(seeds)} seeds; "
                f"its loss is {', '.join(f'{ratio:.4f}' for ratio in ratios)} of the other's"
            )
    if rows:
        minutes = sum(row.extra["seconds"] for row in rows) / 60
        notes.append(f"training and measuring took {minutes:.1f} minutes of processor time in all")
    return notes
