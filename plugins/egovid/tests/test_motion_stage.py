"""The stage that measures motion with another backend, such as RAFT, on frames that were decoded before."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from planish.errors import UnsupportedError
from planish.filtering.identity import scoring_params
from planish.interfaces import Clip, ClipWork
from planish_egovid.flow.backend import FlowBackend
from planish_egovid.flow.dis import DisFlow
from planish_egovid.motion.axis import MotionAxis
from planish_egovid.motion.columns import MotionColumns
from planish_egovid.motion.config import MotionConfig
from planish_egovid.motion.gauge import Gauge, PairMotion
from planish_egovid.motion.in_threads import in_threads
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


class OnGpu(ColourDis):
    """Says that it is on a GPU, so that the stage measures in threads."""

    device = "cuda"


def on_threads(count: int) -> MotionConfig:
    return RAFT.model_copy(update={"column_threads": count})


@pytest.fixture
def measured_by(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The thread that measures each pair."""
    found: list[int] = []
    measure = Gauge.pair

    def pair(self: Gauge, *args: Any, **options: Any) -> PairMotion:
        found.append(threading.get_ident())
        return measure(self, *args, **options)

    monkeypatch.setattr(Gauge, "pair", pair)
    return found


def test_threads_give_the_rows_of_one_in_the_order_of_the_clips(turning: RenderedClip, measured_by: list[int]) -> None:
    noise = replace(turning, frames=np.random.default_rng(0).integers(0, 256, turning.frames.shape, np.uint8))
    clips = [turning, noise, render_clip(HeadMotion.still(), frames=1, fps=7.5, camera=Camera(320, 180)), turning]

    def rows(stage: FlowStage) -> list[tuple[str, dict[str, Any]]]:
        done = stage([work_of(clip, name=str(i)) for i, clip in enumerate(clips)])
        return [(work.clip.id, work.values) for work in done]

    alone = rows(FlowStage(RAFT, ColourDis()))
    assert set(measured_by) == {threading.get_ident()}
    measured_by.clear()
    threads_before = cv2.getNumThreads()
    assert rows(FlowStage(on_threads(4), OnGpu())) == alone
    assert threading.get_ident() not in measured_by
    assert len(measured_by) == 18
    assert cv2.getNumThreads() == threads_before
    assert alone[0][1] == alone[3][1] != alone[1][1]


def test_flow_of_a_processor_is_measured_by_the_thread_that_finds_it(
    turning: RenderedClip, measured_by: list[int]
) -> None:
    FlowStage(on_threads(4), ColourDis())([work_of(turning)])
    assert set(measured_by) == {threading.get_ident()}


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (3, 3), (64, 8)])
def test_there_are_as_many_threads_as_cores_up_to_eight(
    monkeypatch: pytest.MonkeyPatch, turning: RenderedClip, cores: int, expected: int
) -> None:
    asked = []

    def noted(groups: Any, *, threads: int, most_waiting: int) -> Any:
        asked.append(threads)
        return in_threads(groups, threads=1, most_waiting=most_waiting)

    monkeypatch.setattr("planish_egovid.motion.stage.available_cores", lambda: cores)
    monkeypatch.setattr("planish_egovid.motion.stage.in_threads", noted)
    FlowStage(RAFT, OnGpu())([work_of(turning)])
    assert asked == [expected]


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_over_a_pair_is_raised_whoever_measures(
    monkeypatch: pytest.MonkeyPatch, turning: RenderedClip, threads: int
) -> None:
    def pair(*_: Any, **__: Any) -> PairMotion:
        raise ZeroDivisionError("no interval")

    monkeypatch.setattr(Gauge, "pair", pair)
    threads_before = threading.active_count(), cv2.getNumThreads()
    with pytest.raises(ZeroDivisionError, match="no interval"):
        FlowStage(on_threads(threads), OnGpu())([work_of(turning), work_of(turning)])
    assert (threading.active_count(), cv2.getNumThreads()) == threads_before


def test_a_stage_whose_threads_have_worked_travels_too(turning: RenderedClip) -> None:
    stage = FlowStage(on_threads(2), OnGpu())
    (here,) = stage([work_of(turning)])
    (there,) = pickle.loads(pickle.dumps(stage))([work_of(turning)])
    assert there.values == here.values


def test_threads_are_no_part_of_what_a_score_is() -> None:
    assert scoring_params(on_threads(5)) == scoring_params(RAFT)
