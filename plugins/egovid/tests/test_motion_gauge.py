"""The numbers that are made of a flow field, on fields whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from planish.config import validate
from planish.errors import ConfigError
from planish_egovid.motion.config import MotionConfig
from planish_egovid.motion.gauge import BUCKETS, WINDOWS, Gauge, summarised

STRIDE_S = 8 / 30
SIDE = 512
"""Of a square picture in which a pixel of flow is a pixel of the published unit."""


def field(*magnitudes: float, height: int = SIDE, width: int = SIDE) -> NDArray[np.float32]:
    """Flow of equal vertical stripes with the given magnitudes, in a direction that is not an axis."""
    columns = np.repeat(np.asarray(magnitudes, np.float32), width // len(magnitudes))
    direction = np.array([0.6, -0.8], np.float32)
    return np.broadcast_to(columns[None, :, None] * direction, (height, width, 2)).astype(np.float32)


def strict(**options: object) -> Gauge:
    return Gauge(SIDE, SIDE, 1.0, STRIDE_S, **options)  # type: ignore[arg-type]


def test_strict_buckets_close_at_their_upper_end() -> None:
    pair = strict().pair(field(0.0, 4.0, 4.5, 8.0, 9.0, 12.5, 16.0, 17.0), STRIDE_S)
    assert pair.buckets == pytest.approx((2 / 8, 2 / 8, 1 / 8, 2 / 8, 1 / 8), abs=1e-9)
    assert pair.mean == pytest.approx(np.mean([0, 4, 4.5, 8, 9, 12.5, 16, 17]), rel=1e-6)


def test_official_buckets_overlap_between_4_and_5_and_leave_zeros_out() -> None:
    pair = strict(official=True).pair(field(0.0, 3.0, 4.5, 5.0, 7.0, 10.0, 14.0, 20.0), STRIDE_S)
    assert pair.buckets == pytest.approx((3 / 8, 3 / 8, 1 / 8, 1 / 8, 1 / 8), abs=1e-9)
    assert sum(pair.buckets) == pytest.approx(9 / 8)


def test_no_flow_at_all() -> None:
    still = field(0.0)
    assert strict().pair(still, STRIDE_S).buckets == (1.0, 0.0, 0.0, 0.0, 0.0)
    assert strict(official=True).pair(still, STRIDE_S).buckets == (0.0, 0.0, 0.0, 0.0, 0.0)
    columns = summarised([strict().pair(still, STRIDE_S)])
    assert columns["flow_mean"] == 0.0
    assert columns["flow5_cv"] is None


@pytest.mark.parametrize(("height", "width", "scale"), [(270, 480, 1.0), (270, 480, 0.5), (360, 640, 1.0)])
def test_the_unit_is_relative_to_the_mean_side(height: int, width: int, scale: float) -> None:
    gauge = Gauge(round(height / scale), round(width / scale), scale, STRIDE_S)
    pair = gauge.pair(field(10.0, height=height, width=width), STRIDE_S)
    assert pair.mean == pytest.approx(10 * 512 / (0.5 * (height + width)), rel=1e-6)


def test_magnitude_is_rescaled_to_the_stride_unless_official() -> None:
    flow = field(6.0)
    assert strict().pair(flow, 2 * STRIDE_S).mean == pytest.approx(3.0, rel=1e-6)
    assert strict(official=True).pair(flow, 2 * STRIDE_S).mean == pytest.approx(6.0, rel=1e-6)


@pytest.mark.parametrize(("grid", "tolerance"), [(1, 1e-5), (2, 2e-3)])
def test_official_counts_the_padding(grid: int, tolerance: float) -> None:
    height, width = 540, 960
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    flow = np.stack([0.02 * x, 0.05 * (y - 100)], axis=-1).astype(np.float32)
    # RAFT's InputPadder: 540 becomes 544, two rows above and two below.
    padded = np.pad(np.linalg.norm(flow, axis=-1), ((2, 2), (0, 0)), mode="edge") * 512 / (0.5 * (544 + 960))
    pair = Gauge(height, width, 1.0, STRIDE_S, grid=grid, official=True).pair(flow[::grid, ::grid], STRIDE_S)
    assert pair.mean == pytest.approx(padded.mean(), rel=tolerance)
    assert pair.buckets[0] == pytest.approx(((padded > 0) & (padded <= 5)).mean(), abs=tolerance)
    assert pair.buckets[4] == pytest.approx((padded > 16).mean(), abs=tolerance)


def test_windows_are_the_middle_and_the_corners() -> None:
    flow = np.zeros((100, 200, 2), np.float32)
    flow[:50, :100] = (1, 0)
    flow[:50, 100:] = (2, 0)
    flow[50:, :100] = (3, 0)
    flow[50:, 100:] = (4, 0)
    pair = Gauge(100, 200, 1.0, STRIDE_S).pair(flow, STRIDE_S)
    unit = 512 / 150
    assert pair.windows == pytest.approx(tuple(unit * value for value in (2.5, 1, 2, 3, 4)), rel=1e-6)
    columns = summarised([pair])
    assert columns["flow5_cv"] == pytest.approx(np.std([2.5, 1, 2, 3, 4]) / 2.5, rel=1e-6)


def test_dominant_motion_and_what_it_leaves() -> None:
    shift = np.array([[1, 0, 6.0], [0, 1, 8.0], [0, 0, 1]])
    flow = np.broadcast_to(np.float32([6, 8]), (SIDE, SIDE, 2)).copy()
    flow[:, : SIDE // 4] += np.float32([3, 4])
    valid = np.ones((SIDE, SIDE), np.bool_)
    pair = strict().pair(flow, STRIDE_S, valid=valid, homography=shift)
    assert pair.dominant == pytest.approx(10.0, rel=1e-6)
    assert pair.residual == pytest.approx(5.0 / 4, rel=1e-5)
    assert pair.valid_frac == 1.0
    valid[:, : SIDE // 4] = False
    hidden = strict().pair(flow, STRIDE_S, valid=valid, homography=shift)
    assert hidden.residual == pytest.approx(0.0, abs=1e-5)
    assert hidden.valid_frac == pytest.approx(0.75)


def test_what_was_not_measured_is_null() -> None:
    pair = strict().pair(field(5.0), STRIDE_S)
    columns = summarised([pair])
    assert [columns[name] for name in ("flow_global", "flow_residual", "flow_valid_frac")] == [None, None, None]
    assert columns["flow_pairs"] == 1
    nothing = summarised([])
    assert nothing.pop("flow_pairs") == 0
    assert set(nothing.values()) == {None}
    assert {*BUCKETS, *WINDOWS} < set(nothing)


@pytest.mark.parametrize(
    ("options", "links", "stride_s", "prewarp"),
    [
        ({}, 2, 4 / 30, "fallback"),
        ({"stride_s": 4 / 30}, 1, 4 / 30, "fallback"),
        ({"stride_s": 0.5}, 4, 0.125, "fallback"),
        ({"method": "prewarp"}, 1, 8 / 30, "always"),
        ({"method": "plain"}, 1, 8 / 30, "never"),
        ({"backend": "raft"}, 1, 8 / 30, "fallback"),
    ],
)
def test_a_stride_is_cut_into_steps_that_dis_can_take(
    options: dict[str, object], links: int, stride_s: float, prewarp: str
) -> None:
    config = MotionConfig(**options)  # type: ignore[arg-type]
    assert config.links == links
    assert config.flow().stride_s == pytest.approx(stride_s)
    assert config.flow().prewarp == prewarp


def test_the_default_flow_is_the_one_that_other_axes_share() -> None:
    from planish_egovid.flow.track import FlowConfig

    assert MotionConfig().flow() == FlowConfig()


def test_wrong_options_are_named() -> None:
    with pytest.raises(ConfigError, match="preset"):
        validate(MotionConfig, {"preset": "slow"})
    with pytest.raises(ConfigError, match=r"strides.*did you mean 'stride_s'"):
        validate(MotionConfig, {"strides": 1})
