"""The whole pipeline on rendered clips: what is wrong with a clip is why it is dropped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planish.interfaces import Clip, Decision
from planish_egovid.filters import EgoVid
from planish_egovid.testing import HeadMotion, corruptions, write_video
from planish_egovid.testing.corrupted_mix import FAULTS, corrupted_mix
from planish_egovid.testing.fixtures import rendered

AXES = ("motion", "consistency", "clarity")


def frames_of(motion: HeadMotion, seed: int = 0) -> np.ndarray:
    return rendered(motion, 120, 30.0, 240, 136, seed).frames


def in_range() -> np.ndarray:
    return frames_of(HeadMotion().times(0.12))


def decided(folder: Path, frames: np.ndarray) -> tuple[Decision, Any]:
    write_video(folder / "clip.mp4", frames, crf=16)
    pipeline = EgoVid({"axes": AXES})
    (row,) = pipeline.score([Clip("a", str(folder / "clip.mp4"))])
    assert row.error is None
    return pipeline.decide(row), row


def test_a_good_clip_is_kept(tmp_path: Path) -> None:
    decision, _ = decided(tmp_path, in_range())
    assert decision == Decision(True)


CASES: dict[str, tuple[Callable[[], np.ndarray], str, str]] = {
    "static": (lambda: frames_of(HeadMotion.still()), "flow_mean", "motion too low: flow_mean "),
    "spin": (lambda: frames_of(HeadMotion.spinning(90)), "flow_mean", "motion too high: flow_mean "),
    "shuffled": (
        lambda: corruptions.shuffle_segment(in_range(), 20, 80),
        "frame_order",
        "inconsistent: frames out of order: frame_order ",
    ),
    "cut": (
        lambda: corruptions.hard_cut(in_range(), frames_of(HeadMotion().times(0.12), 1), 60),
        "cut_score",
        "inconsistent: cut to another shot: cut_score ",
    ),
    "frozen": (
        lambda: corruptions.freeze(in_range(), 30, 60),
        "freeze_frac",
        "inconsistent: picture stands still: freeze_frac ",
    ),
    "blurred": (
        lambda: corruptions.gaussian_blur(in_range(), 4),
        "clarity_proxy",
        "unclear: blurred, noisy, blocky or badly exposed: clarity_proxy ",
    ),
    "letterboxed": (
        lambda: corruptions.letterbox(in_range(), 0.4),
        "border_frac",
        "unclear: black borders: border_frac ",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_spoilt_clip_is_dropped_for_what_is_wrong_with_it(tmp_path: Path, case: str) -> None:
    make, rule, reason = CASES[case]
    decision, row = decided(tmp_path, make())
    assert not decision.keep
    assert decision.reason.startswith(reason)
    assert decision.rules[0] == rule
    policy = EgoVid.Policy(**{name: {"min": None, "max": None} for name in decision.rules})
    assert EgoVid({"axes": AXES}).decide(row, policy).keep, "without these rules it would be kept"


@pytest.mark.slow
def test_precision_and_recall_on_a_mix_of_good_and_spoilt_clips(tmp_path: Path) -> None:
    pipeline = EgoVid({"axes": AXES})
    outcomes = []
    for clip in corrupted_mix(20, seed=1):
        write_video(tmp_path / f"{clip.name}.mp4", clip.frames, crf=16)
        (row,) = pipeline.score([Clip(clip.name, str(tmp_path / f"{clip.name}.mp4"))])
        outcomes.append((clip.fault, bool(pipeline.decide(row))))
    dropped = [fault for fault, kept in outcomes if not kept]
    spoilt = [fault for fault, _ in outcomes if fault is not None]
    assert set(spoilt) == set(FAULTS)
    hits = sum(fault is not None for fault in dropped)
    assert hits / len(dropped) >= 0.95
    assert hits / len(spoilt) >= 0.9
