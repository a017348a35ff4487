"""What the pipeline decides about clips whose faults are known, and what each of its rules adds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planish.config import Config
from planish.errors import WorkError
from planish.filtering import LocalEngine, ScoreStore, decide_all, read_policy, score_clips
from planish.filtering.decisions import read_decisions

from planish_egovid.benchmark.cleaning_clips import KnownClip
from planish_egovid.filters import EgoVid
from planish_egovid.policy import Threshold


@dataclass(frozen=True)
class Agreement:
    """How decisions agree with what is known. To drop a clip with a fault is right, and to drop a good one wrong.

    Attributes:
        hits: Clips with a fault that are dropped.
        false_alarms: Good clips that are dropped.
        misses: Clips with a fault that are kept.
        found: Fault -> dropped clips with it, and clips with it.
    """

    hits: int
    false_alarms: int
    misses: int
    found: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, kept: Mapping[str, bool], clips: Sequence[KnownClip]) -> Agreement:
        """Count decisions, by clip id."""
        found: dict[str, tuple[int, int]] = {}
        false_alarms = 0
        for known in clips:
            dropped = not kept[known.clip.id]
            if known.fault is None:
                false_alarms += dropped
            else:
                hits, all_of_it = found.get(known.fault, (0, 0))
                found[known.fault] = (hits + dropped, all_of_it + 1)
        hits = sum(hits for hits, _ in found.values())
        return cls(hits, false_alarms, sum(count for _, count in found.values()) - hits, found)

    @property
    def precision(self) -> float | None:
        """Share of the dropped clips that have a fault; None if none is dropped."""
        dropped = self.hits + self.false_alarms
        return self.hits / dropped if dropped else None

    @property
    def recall(self) -> float | None:
        """Share of the clips with a fault that are dropped; None if there are none."""
        spoilt = self.hits + self.misses
        return self.hits / spoilt if spoilt else None


@dataclass(frozen=True)
class Decided:
    """The outcome of a run of the pipeline.

    Attributes:
        kept: Clip id -> whether the default policy keeps it.
        reasons: Clip id -> why it was dropped; empty for a kept clip.
        agreement: Of the default policy.
        without: Rule -> the agreement of the default policy without it, for all rules that bind.
    """

    kept: Mapping[str, bool]
    reasons: Mapping[str, str]
    agreement: Agreement
    without: Mapping[str, Agreement]


def decide_mix(clips: Sequence[KnownClip], out: Path, *, jobs: int = 1) -> Decided:
    """Score clips with the default pipeline, decide them by its default policy, and take rules away in turn.

    Args:
        clips: Clips whose faults are known.
        out: Folder of the run, as of ``planish filter``; scores that it has are not computed again.
        jobs: Processes that score; 1 works in this process.

    Raises:
        WorkError: A clip could not be scored, or decisions that were read back are not those of the rows.
    """
    pipeline = EgoVid()
    engine = LocalEngine({"in_process": True} if jobs <= 1 else {"workers": jobs})
    score_clips(pipeline, [known.clip for known in clips], out, engine)
    store = ScoreStore.open(out)
    policy = read_policy(pipeline)
    decide_all(pipeline, store, policy)
    table, _ = read_decisions(out, store.identity)
    kept = dict(zip(table["clip_id"].to_pylist(), table["keep"].to_pylist(), strict=True))
    reasons = dict(zip(table["clip_id"].to_pylist(), table["reason"].to_pylist(), strict=True))
    rows = list(store.rows(pipeline))
    unscored = [row.clip_id for row in rows if row.error is not None]
    if unscored or len(rows) != len(clips):
        raise WorkError(f"{len(clips)} clips gave {len(rows)} rows, {len(unscored)} of them with an error; see {out}")
    if _kept(pipeline, rows, policy) != kept:
        raise WorkError(f"{out}: what was decided from stored scores is not what the rows are decided as")
    without = {
        rule: Agreement.of(_kept(pipeline, rows, policy.model_copy(update={rule: Threshold()})), clips)
        for rule in binding_rules(pipeline, rows, policy)
    }
    return Decided(kept, reasons, Agreement.of(kept, clips), without)


def binding_rules(pipeline: EgoVid, rows: Sequence[Any], policy: Config) -> list[str]:
    """Return the rules that drop at least one of the clips, in the policy's order."""
    settled = pipeline.settle(policy, rows)
    broken = {rule for row in rows for rule in pipeline.decide(row, settled).rules}
    return [rule.metric for rule in pipeline.rules if rule.metric in broken]


def _kept(pipeline: EgoVid, rows: Iterable[Any], policy: Config) -> dict[str, bool]:
    rows = list(rows)
    settled = pipeline.settle(policy, rows)
    return {row.clip_id: pipeline.decide(row, settled).keep for row in rows}
