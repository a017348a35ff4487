"""The stage that measures motion with another backend, such as RAFT, on frames that were decoded before."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Literal

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from planish.errors import UnsupportedError
from planish.interfaces import Clip, ClipWork
from planish_egovid.flow.backend import FlowBackend
from planish_egovid.flow.dis import DisFlow
from planish_egovid.motion.axis import MotionAxis
from planish_egovid.motion.columns import MotionColumns
from planish_egovid.motion.config import MotionConfig
from planish_egovid.motion.stage import FRAMES, TIMES, FlowStage
from planish_egovid.testing import Camera, HeadMotion, RenderedClip, render_clip
from planish_egovid.testing.memory_view import view_of

RAFT = MotionConfig(backend="raft", size=320)


class ColourDis:
    """DIS for RGB frames."""

    name = "colour-dis"
    pixels: Literal["gray", "rgb"] = "rgb"

    def flows(self, clips: Sequence[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        search = DisFlow("fast")
        for clip in clips:
            yield from search.flows([np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in clip])])


@pytest.fixture(scope="module")
def turning() -> RenderedClip:
    return render_clip(HeadMotion.spinning(10.0), frames=13, fps=7.5, camera=Camera(320, 180))


def work_of(rendered: RenderedClip, config: MotionConfig = RAFT, name: str = "a") -> ClipWork:
    axis = MotionAxis(config)
    view = view_of(rendered.frames, axis, fps=7.5)
    return ClipWork(Clip(name, name), axis.measure(view), dict(view.payload))


def test_the_payload_holds_rgb_frames_a_stride_apart(turning: RenderedClip) -> None:
    work = work_of(turning)
    assert work.payload[FRAMES].shape == (7, 180, 320, 3)
    np.testing.assert_allclose(np.diff(work.payload[TIMES]), 8 / 30)
    assert set(work.values.values()) == {None}


def test_the_stage_gives_the_columns_of_the_axis(turning: RenderedClip) -> None:
    assert isinstance(ColourDis(), FlowBackend)
    (work,) = FlowStage(RAFT, ColourDis())([work_of(turning)])
    row = MotionColumns(clip_id="a", **work.values)
    axis = MotionAxis(MotionConfig(size=320, method="plain"))
    plain = MotionColumns(clip_id="a", **axis.measure(view_of(turning.frames, axis, fps=7.5)))
    assert row.flow_mean == pytest.approx(plain.flow_mean, rel=1e-6)
    assert row.flow_8_12 == pytest.approx(plain.flow_8_12, abs=1e-6)
    assert row.flow5_cv == pytest.approx(plain.flow5_cv, rel=1e-6)
    assert row.flow_global == pytest.approx(plain.flow_global, rel=0.02)
    assert row.flow_pairs == 6
    assert row.flow_valid_frac is None
    assert row.motion_backend == "colour-dis"
    assert work.payload == {}


def test_each_clip_gets_its_own_columns_and_broken_ones_pass(turning: RenderedClip) -> None:
    still = render_clip(HeadMotion.still(), frames=5, fps=7.5, camera=Camera(320, 180))
    alone = FlowStage(RAFT, ColourDis())([work_of(turning)])[0].values
    broken = ClipWork(Clip("x", "x"), error="truncated")
    works = FlowStage(RAFT, ColourDis())([work_of(still), broken, work_of(turning, name="b")])
    assert [work.clip.id for work in works] == ["a", "x", "b"]
    assert works[0].values["flow_mean"] < 0.05
    assert works[1].values == {}
    assert works[2].values == alone


def test_a_clip_of_one_frame_has_nulls() -> None:
    one = render_clip(HeadMotion.still(), frames=1, fps=7.5, camera=Camera(320, 180))
    (work,) = FlowStage(RAFT, ColourDis())([work_of(one)])
    assert work.values["flow_mean"] is None
    assert work.values["flow_pairs"] == 0


def test_the_stage_travels_to_other_processes(turning: RenderedClip) -> None:
    stage = pickle.loads(pickle.dumps(FlowStage(RAFT, DisFlowByName())))
    (work,) = stage([work_of(turning)])
    assert work.values["flow_mean"] > 1


class DisFlowByName(ColourDis):
    """At module level, so that it can be pickled."""


def test_without_torchvision_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'planish-egovid\[raft\]'"):
        MotionAxis(RAFT).stage()
    assert MotionAxis(MotionConfig()).stage() is None


def test_pictures_are_drawn_by_dis(turning: RenderedClip) -> None:
    axis = MotionAxis(RAFT)
    view = view_of(turning.frames, axis, fps=7.5)
    flow, course = axis.illustrate(view, MotionColumns(clip_id="a"))
    assert flow.media_type == "image/jpeg"
    assert course.data.count(b"<circle") == 6


def test_measuring_by_default_imports_no_torch() -> None:
    program = (
        "import sys, numpy as np\n"
        "from planish_egovid.motion.axis import MotionAxis\n"
        "from planish_egovid.motion.config import MotionConfig\n"
        "from planish_egovid.testing.memory_view import view_of\n"
        "axis = MotionAxis(MotionConfig())\n"
        "axis.measure(view_of(np.zeros((9, 72, 128, 3), np.uint8), axis))\n"
        "assert axis.stage() is None\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('torch', 'torchvision')))\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.strip() == "[]"
