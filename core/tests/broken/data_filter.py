"""Broken data filters, one for each clause of the contract."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from planish.interfaces import Clip, Decision, Illustration, Row
from pydantic import field_serializer
from samples.brightness import Brightness
from samples.suites import BrightnessSuite as Suite

from broken.case import Broken


class UndescribedColumn(Brightness):
    class Columns(Brightness.Columns):
        contrast: float | None = None


class UndescribedThreshold(Brightness):
    class Policy(Brightness.Policy):
        strict: bool = False


class VersionZero(Brightness):
    metric_version = 0


class NamesRowsByPath(Brightness):
    def score_one(self, clip):
        return super().score_one(clip).model_copy(update={"clip_id": clip.path})


class NeedsClips(Brightness):
    def score(self, clips):
        if not clips:
            raise ValueError("need at least one array to stack")
        return super().score(clips)


def shifted(row: Row, by: float) -> Row:
    """Return the row with another luminance."""
    return row if row.error else row.model_copy(update={"luminance": row.luminance + by})


class DiffersByInstance(Brightness):
    counter = itertools.count()

    def __init__(self, config=None, **options):
        super().__init__(config, **options)
        self.number = next(self.counter)

    def score_one(self, clip):
        return shifted(super().score_one(clip), 1e-9 * self.number)


class DependsOnTheBatch(Brightness):
    def score(self, clips):
        return [shifted(row, 1e-9 * len(clips)) for row in super().score(clips)]


class RaisesOnMissing(Brightness):
    def score_one(self, clip):
        if not Path(clip.path).exists():
            raise FileNotFoundError(clip.path)
        return super().score_one(clip)


class EmptyIsBlack(Brightness):
    def score_one(self, clip):
        path = Path(clip.path)
        if path.exists() and path.stat().st_size == 0:
            return self.Columns(clip_id=clip.id, luminance=0.0, side=0)
        return super().score_one(clip)


class GarbageIsGrey(Brightness):
    def score_one(self, clip):
        row = super().score_one(clip)
        if row.error and "not a binary PPM" in row.error and Path(clip.path).stat().st_size:
            return self.Columns(clip_id=clip.id, luminance=0.5, side=16)
        return row


class LeavesScores(Brightness):
    def score_one(self, clip):
        row = super().score_one(clip)
        Path(clip.path).with_suffix(".json").write_text(row.model_dump_json())
        return row


class OneWayColumn(Brightness):
    class Columns(Brightness.Columns):
        @field_serializer("luminance", when_used="json")
        def shorten(self, luminance):
            return None if luminance is None else round(luminance, 4)


class RemembersClips(Brightness):
    def __init__(self, config=None, **options):
        super().__init__(config, **options)
        self.paths = {}

    def score_one(self, clip):
        self.paths[clip.id] = clip.path
        return super().score_one(clip)

    def decide(self, row, policy=None):
        if row.error is None:
            Path(self.paths[row.clip_id]).stat()
        return super().decide(row, policy)


class RejectsWithoutReason(Brightness):
    def decide(self, row, policy=None):
        decision = super().decide(row, policy)
        return decision if row.error or decision.keep else Decision(False)


class IgnoresErrors(Brightness):
    def decide(self, row, policy=None):
        return super().decide(row.model_copy(update={"error": None}), policy)


class OtherDefaults(Brightness):
    def decide(self, row, policy=None):
        return super().decide(row, policy or self.Policy(min_luminance=0.0))


class TurnsAround(Brightness):
    def decide(self, row, policy=None):
        policy = policy or self.Policy()
        if policy.min_side > 12:
            policy = self.Policy(**{**policy.model_dump(), "min_side": 0})
        return super().decide(row, policy)


class PolicyGrows(Brightness):
    class Policy(Brightness.Policy):
        @field_serializer("max_luminance", when_used="json")
        def lengthen(self, value):
            return value + 1e-6


class MisspeltPreset(Brightness):
    presets: ClassVar = {"dark": {"max_luminence": 0.4}}


class TwoStagesOfOneName(Brightness):
    def stages(self):
        (stage,) = super().stages()
        return [stage, replace(stage, run=lambda works: works)]


class StageLooksAround(Brightness):
    def stages(self):
        (stage,) = super().stages()

        def run(works):
            return [
                replace(work, values={**work.values, "side": work.values["side"] + len(works) // 3})
                if work.error is None
                else work
                for work in stage.run(works)
            ]

        return [replace(stage, run=run)]


class HandsOnAFile(Brightness):
    def stages(self):
        (stage,) = super().stages()

        def run(works):
            return [replace(work, payload={"file": Path(work.clip.path)}) for work in stage.run(works)]

        return [replace(stage, run=run)]


class CountsItsRejections(Brightness):
    def decide(self, row, policy=None):
        decision = super().decide(row, policy)
        named = () if decision.keep or row.error else (f"luminance {row.luminance:.2f}",)
        return replace(decision, rules=named)


class FirstRowSettles(Brightness):
    def settle(self, policy, rows):
        first = next(iter(rows), None)
        return policy if first is None or policy.min_side != 8 else self.Policy(min_side=len(first.clip_id))


class NeverSettles(Brightness):
    def settle(self, policy, rows):
        return policy.model_copy(update={"min_luminance": policy.min_luminance / 2})


class SettlesItself(Brightness):
    darkest = 0.0

    def settle(self, policy, rows):
        self.darkest = max((row.luminance for row in rows if row.luminance is not None), default=0.0)
        return policy

    def decide(self, row, policy=None):
        decision = super().decide(row, policy)
        if decision.keep and row.luminance < self.darkest / 2:
            return Decision(False, f"luminance {row.luminance:.2f} is below half of the brightest")
        return decision


class CapitalSuffixes(Brightness):
    suffixes = ("PPM",)


class OneIdForAll(Brightness):
    def clips_of(self, path):
        return [Clip("picture", str(path))]


class LooksForTheFile(Brightness):
    def clips_of(self, path):
        path.stat()
        return super().clips_of(path)


class HalfAPicture(Brightness):
    def illustrate(self, clip, row):
        return [Illustration("Picture", b"\xff\xd8\xff\xe0 and then nothing")]


BROKEN = [
    Broken(Suite, "test_columns_are_described", "no description for contrast", UndescribedColumn),
    Broken(Suite, "test_policy_is_described", "no description for strict", UndescribedThreshold),
    Broken(Suite, "test_metric_version_is_a_positive_integer", "metric_version is 0", VersionZero),
    Broken(Suite, "test_one_row_per_clip_in_order", "expected ['clip-0'", NamesRowsByPath),
    Broken(Suite, "test_no_clips_give_no_rows", "expected []", NeedsClips),
    Broken(Suite, "test_scores_are_repeatable", "another instance", DiffersByInstance),
    Broken(Suite, "test_batches_do_not_matter", "one by one", DependsOnTheBatch),
    Broken(Suite, "test_missing_file_is_an_error_row", "raise FileNotFoundError", RaisesOnMissing),
    Broken(Suite, "test_empty_file_is_an_error_row", "scored as if it were readable", EmptyIsBlack),
    Broken(Suite, "test_garbage_is_an_error_row", "meaningless bytes", GarbageIsGrey),
    Broken(Suite, "test_files_are_left_alone", "0.json", LeavesScores),
    Broken(Suite, "test_rows_survive_json", "read back from JSON", OneWayColumn),
    Broken(Suite, "test_decision_depends_on_the_row_alone", "use the row alone", RemembersClips),
    Broken(Suite, "test_decision_is_given_with_a_reason", "without a reason", RejectsWithoutReason),
    Broken(Suite, "test_error_row_is_rejected_with_its_error", "reject it with that error", IgnoresErrors),
    Broken(Suite, "test_policy_defaults_are_the_defaults", "use Policy() for None", OtherDefaults),
    Broken(Suite, "test_thresholds_are_monotone", "raising min_side", TurnsAround),
    Broken(Suite, "test_policy_survives_json", "a policy read back from JSON", PolicyGrows),
    Broken(Suite, "test_presets_are_policies", "preset 'dark' is no Policy", MisspeltPreset),
    Broken(Suite, "test_stages_have_names_and_possible_needs", "['score', 'score']", TwoStagesOfOneName),
    Broken(Suite, "test_stages_give_the_rows_of_score", "in batches of 5", StageLooksAround),
    Broken(Suite, "test_payload_survives_pickling", "payload 'file' is PosixPath", HandsOnAFile),
    Broken(Suite, "test_rejecting_rules_are_stable_names", "a rule is called ['luminance 0.08']", CountsItsRejections),
    Broken(Suite, "test_settling_ignores_the_order_of_rows", "in reverse order", FirstRowSettles),
    Broken(Suite, "test_settled_policy_stays_as_it_is", "settled over 5 rows", NeverSettles),
    Broken(Suite, "test_settled_policy_is_all_that_decides", "not in the instance", SettlesItself),
    Broken(Suite, "test_suffixes_begin_with_a_dot", "['PPM'] will match no file", CapitalSuffixes),
    Broken(Suite, "test_clips_of_files_have_ids_of_their_own", "two clips are called 'picture'", OneIdForAll),
    Broken(Suite, "test_clips_of_a_missing_file", "raise DataError", LooksForTheFile),
    Broken(Suite, "test_illustrations_are_pictures", "is no whole image/jpeg", HalfAPicture),
]
