from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planish.interfaces import Clip
from planish_egovid.kinematics.errors import PoseError
from planish_egovid.kinematics.pose.intrinsics import Intrinsics, intrinsics_of

LENSES = [
    Intrinsics.of_fov(90, 480, 270),
    Intrinsics.of_fov(126, 480, 270, "fisheye"),
    Intrinsics(240, 240, 239.5, 134.5, 480, 270, "opencv", (-0.25, 0.08, 0.001, -0.0005)),
    Intrinsics(240, 240, 239.5, 134.5, 480, 270, "opencv", (-0.2, 0.05, 0.0, 0.0, -0.01)),
    Intrinsics(180, 180, 239.5, 134.5, 480, 270, "fisheye", (0.05, -0.01, 0.002, 0.0)),
]


@pytest.mark.parametrize("lens", LENSES, ids=lambda lens: f"{lens.lens}{len(lens.distortion)}")
def test_rays_and_pixels_are_inverses(lens: Intrinsics) -> None:
    x, y = np.meshgrid(np.linspace(20, 460, 12), np.linspace(10, 260, 8))
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)
    rays = lens.rays(pixels)
    seen = np.isfinite(rays).all(axis=1)  # a corner may lie beyond the lens
    assert seen.mean() > 0.9
    pixels, rays = pixels[seen], rays[seen]
    assert np.allclose(np.linalg.norm(rays, axis=1), 1)
    assert np.abs(lens.project(rays * 3.7) - pixels).max() < 1e-4
    # pixels_per_radian is the geometric mean of the two directions' densities, distortion left aside.
    if not lens.distortion:
        step = 1e-5
        for ray, density in zip(rays[::7], lens.pixels_per_radian(rays[::7]), strict=True):
            side = np.cross(ray, [0, 0, 1.0])
            side /= np.linalg.norm(side)
            up = np.cross(side, ray)
            here = lens.project(ray[None])[0]
            spans = [np.linalg.norm(lens.project((ray + step * d)[None])[0] - here) / step for d in (side, up)]
            assert density == pytest.approx(np.sqrt(spans[0] * spans[1]), rel=1e-3)


def test_the_field_of_view_reaches_from_edge_to_edge() -> None:
    for lens in ("pinhole", "fisheye"):
        rays = Intrinsics.of_fov(100, 480, 270, lens).rays(np.array([[-0.5, 134.5], [479.5, 134.5]]))
        assert np.degrees(np.arccos(rays[0] @ rays[1])) == pytest.approx(100)


def test_resizing_keeps_rays() -> None:
    lens = LENSES[2]
    half = lens.resized(240, 135)
    pixels = np.array([[100.0, 50.0]])
    assert np.allclose(half.rays((pixels + 0.5) / 2 - 0.5), lens.rays(pixels), atol=1e-6)


def test_rays_far_off_the_axis_are_left_out() -> None:
    rays = Intrinsics.of_fov(180, 480, 270, "fisheye").rays(np.array([[0.0, 134.5], [239.5, 134.5]]))
    assert np.isnan(rays[0]).all()
    assert np.allclose(rays[1], [0, 0, 1])


def test_intrinsics_come_from_the_clip_or_are_assumed_or_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "intri.npy", Intrinsics.of_fov(80, 960, 540).matrix)
    given = Clip("a", "a.mp4", extra={"intrinsics": str(tmp_path / "intri.npy"), "intrinsics_size": [960, 540]})
    found = intrinsics_of(given, 480, 270)
    assert found.source == "intri.npy"
    assert found.fx == pytest.approx(Intrinsics.of_fov(80, 480, 270).fx)
    mapped = Clip("a", "a.mp4", extra={"intrinsics": {"fx": 200, "fy": 200, "cx": 240, "cy": 135, "lens": "fisheye"}})
    assert intrinsics_of(mapped, 480, 270).lens == "fisheye"
    none = Clip("a", "a.mp4")
    assert intrinsics_of(none, 480, 270, assume_fov_deg=70, assume_lens="fisheye").source == "assumed fov 70 fisheye"
    with pytest.raises(PoseError, match=r"has no intrinsics.*assume_fov_deg"):
        intrinsics_of(none, 480, 270)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"intrinsics": "nowhere.npy"}, "cannot be read"),
        ({"intrinsics": [[1, 2], [3, 4]]}, r"shape \[2, 2\]"),
        ({"intrinsics": {"fx": 200, "fy": 200, "cx": 240}}, "has no cy"),
        ({"intrinsics": {"fx": 200, "fy": 200, "cx": 240, "cy": 135, "k1": 0}}, "unknown k1"),
        ({"intrinsics": {"fx": -1, "fy": 200, "cx": 240, "cy": 135}}, "fx is -1"),
        ({"intrinsics": {"fx": 2, "fy": 2, "cx": 240, "cy": 135, "lens": "cubic"}}, "known lenses"),
        ({"intrinsics": {"fx": 2, "fy": 2, "cx": 240, "cy": 135, "distortion": [1]}}, "1 distortion coefficients"),
        ({"intrinsics": Intrinsics.of_fov(80, 1920, 1080).matrix}, "do not fit a picture of 480x270"),
        ({"intrinsics": Intrinsics.of_fov(80, 640, 640).matrix, "intrinsics_size": [640, 640]}, "do not fit"),
    ],
)
def test_wrong_intrinsics_are_refused(extra: dict[str, object], message: str) -> None:
    with pytest.raises(PoseError, match=message):
        intrinsics_of(Clip("a", "a.mp4", extra=extra), 480, 270)


def test_no_field_of_view_is_out_of_range() -> None:
    with pytest.raises(PoseError, match="field of view is 180"):
        Intrinsics.of_fov(180, 480, 270)
