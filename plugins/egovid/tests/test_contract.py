"""The data filter contract, for the whole pipeline and for each axis alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from planish.interfaces import Clip
from planish.testing import DataFilterContract
from planish_egovid.filters import Clarity, Consistency, EgoVid, Kinematics, Motion, Text
from planish_egovid.testing.encode import write_video


def write_clips(folder: Path) -> list[Clip]:
    """Three clips of a texture: one that stands still, one that slides, one that is cut to another picture."""
    random = np.random.default_rng(1)
    width, height, long = 160, 96, 640
    sheet = sum(
        cv2.resize(random.random((height // s, long // s, 3), dtype=np.float32), (long, height)) for s in (4, 12, 32)
    )
    picture = np.clip(np.asarray(sheet) * 85, 0, 255).astype(np.uint8)
    clips = []
    for name, step in (("still", 0.0), ("slides", 0.4), ("cut", 0.4)):
        starts = [int(i * step) for i in range(40)]
        frames = np.stack([picture[:, start : start + width] for start in starts])
        if name == "cut":
            frames[21:] = frames[21:, ::-1, ::-1, ::-1] // 3
        write_video(folder / f"{name}.mp4", frames, gop=20, b_frames=2)
        clips.append(Clip(name, str(folder / f"{name}.mp4"), text=f"the texture {name}"))
    return clips


class _Contract(DataFilterContract):
    def make_clips(self, folder: Path) -> list[Clip]:
        return write_clips(folder)


class TestMotion(_Contract):
    plugin = Motion
    thresholds: ClassVar = {"flow_mean.min": "stricter", "flow_mean.max": "looser", "flow_16_.max": "looser"}
    threshold_values: ClassVar = {
        "flow_mean.min": (0.0, 1.0, 10.0, 35.0),
        "flow_mean.max": (3.0, 10.0, 30.0, 300.0),
        "flow_16_.max": (0.0, 0.3, 1.0),
    }
    bad_options = ({"size": 3}, {"max_clip_s": 0})


class TestConsistency(_Contract):
    plugin = Consistency
    thresholds: ClassVar = {"cut_score.max": "looser", "freeze_frac.max": "looser"}
    threshold_values: ClassVar = {"cut_score.max": (0.0, 0.2, 0.5, 1.0), "freeze_frac.max": (0.0, 0.5, 1.0)}


class TestClarity(_Contract):
    plugin = Clarity
    thresholds: ClassVar = {"clarity_proxy.min": "stricter"}
    threshold_values: ClassVar = {"clarity_proxy.min": (0.0, 0.2, 0.5, 0.8, 1.0)}


class TestText(_Contract):
    """Without a backend there is nothing but the reason why."""

    plugin = Text
    thresholds: ClassVar = {"ti_sim.min": "stricter"}
    threshold_values: ClassVar = {"ti_sim.min": (0.0, 20.0, 40.0)}


class TestKinematics(_Contract):
    plugin = Kinematics
    options: ClassVar[dict[str, Any]] = {"assume_fov_deg": 90.0}
    thresholds: ClassVar = {"rotation_speed_max_deg_s.max": "looser"}
    threshold_values: ClassVar = {"rotation_speed_max_deg_s.max": (0.0, 10.0, 100.0, 1000.0)}


class TestEgoVid(_Contract):
    plugin = EgoVid
    options: ClassVar[dict[str, Any]] = {"kinematics": {"assume_fov_deg": 90.0}}
    thresholds: ClassVar = {"flow_mean.min": "stricter", "cut_score.max": "looser"}
    threshold_values: ClassVar = {"flow_mean.min": (0.0, 10.0, 35.0), "cut_score.max": (0.0, 0.3, 1.0)}
    bad_options = ({"motion": {"size": 3}}, {"axes": ["smell"]}, {"segment": {"method": "narrations"}})


def test_the_pipeline_gives_each_axis_columns_as_that_axis_alone(tmp_path: Path) -> None:
    clips = write_clips(tmp_path)
    together = EgoVid(kinematics={"assume_fov_deg": 90.0}).score(clips)
    for single in (Motion(), Consistency(), Clarity(), Text(), Kinematics(assume_fov_deg=90.0)):
        for row, whole in zip(single.score(clips), together, strict=True):
            assert row.model_dump().items() <= whole.model_dump().items()


def test_decisions_on_plain_cases(tmp_path: Path) -> None:
    """A still picture, a slow one and a hard cut get the reasons that a person would give."""
    plugin = EgoVid()
    still, slides, cut = (plugin.decide(row) for row in plugin.score(write_clips(tmp_path)))
    assert still.reason.startswith("motion too low: flow_mean ")
    assert slides.keep, slides.reason
    assert cut.reason.startswith("inconsistent: cut to another shot"), cut


def test_scoring_by_default_needs_no_torch(tmp_path: Path) -> None:
    """Neither importing the filters nor scoring and deciding on a processor imports torch or torchvision."""
    clips = write_clips(tmp_path)
    program = f"""
import sys
from planish.interfaces import Clip
from planish_egovid.filters import EgoVid
plugin = EgoVid()
rows = plugin.score([Clip("a", {clips[1].path!r}, text="a texture slides")])
assert rows[0].error is None and rows[0].flow_mean, rows
plugin.settle(plugin.Policy(), rows), plugin.decide(rows[0]), plugin.illustrate(Clip("a", {clips[1].path!r}), rows[0])
found = [name for name in ("torch", "torchvision", "transformers") if name in sys.modules]
assert not found, found
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
