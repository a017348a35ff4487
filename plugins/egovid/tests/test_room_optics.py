"""The rendered room obeys optics, and its inertial readings integrate back to the path."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from planish.errors import ConfigError
from planish_egovid.testing import Camera, ClipTruth, Hand, HeadMotion, Room, Swing, render_clip, simulate_imu
from planish_egovid.testing.fixtures import rendered
from planish_egovid.testing.head_motion import GRAVITY_M_S2
from scipy.spatial.transform import Rotation

ODD = Camera(101, 57, 80.0)


def truth_of(motion: HeadMotion, *times_s: float, room: Room | None = None, hand: Hand | None = None) -> ClipTruth:
    return ClipTruth(room or Room(), motion, ODD, hand, np.asarray(times_s))


@pytest.mark.parametrize("degrees", [-9.0, 0.5, 12.0])
@pytest.mark.parametrize("z", [-2.0, 1.0])
def test_yaw_moves_the_centre_by_focal_length_times_tangent_at_any_depth(degrees: float, z: float) -> None:
    motion = replace(HeadMotion.spinning(degrees), start_m=(0.3, 0.2, z))
    flow, _ = truth_of(motion, 0.0, 1.0).flow(0, 1)
    # Turning right moves the picture to the left.
    expected = -ODD.focal_px * np.tan(np.radians(degrees))
    np.testing.assert_allclose(flow[ODD.height // 2, ODD.width // 2], [expected, 0], atol=1e-9)


def test_flow_of_a_turn_knows_no_depth() -> None:
    near, far = (
        truth_of(HeadMotion.spinning(8.0), 0.0, 1.0, room=Room(half_sizes_m=s)) for s in [(3, 1.5, 4), (9, 5, 9)]
    )
    np.testing.assert_allclose(near.flow(0, 1)[0], far.flow(0, 1)[0], atol=1e-9)


@pytest.mark.parametrize("velocity", [(0.0, 0.0, 0.5), (0.2, -0.1, 0.6)])
def test_flow_of_a_walk_leaves_the_focus_of_expansion(velocity: tuple[float, float, float]) -> None:
    truth = truth_of(HeadMotion.walking(velocity), 0.0, 0.4)
    flow, valid = truth.flow(0, 1)
    focus = ODD.project(np.asarray(velocity))
    pixels = np.moveaxis(ODD.project(ODD.rays()), 0, -1)
    away = pixels - focus
    across = flow[..., 0] * away[..., 1] - flow[..., 1] * away[..., 0]
    distance = np.linalg.norm(away, axis=-1)
    assert np.abs(across[valid] / np.maximum(distance[valid], 1)).max() < 1e-9
    # Along the way it is the distance from the focus times the step over the depth that is left.
    step = velocity[2] * 0.4
    expected = away * (step / (truth.depth(0) - step))[..., None]
    np.testing.assert_allclose(flow[valid], expected[valid], atol=1e-9)


def test_a_larger_world_looks_the_same() -> None:
    small = truth_of(HeadMotion(), 0.0, 0.3)
    large = truth_of(HeadMotion().scaled(2.5), 0.0, 0.3, room=Room().scaled(2.5))
    np.testing.assert_allclose(small.flow(0, 1)[0], large.flow(0, 1)[0], atol=1e-9)
    np.testing.assert_allclose(small.depth(1) * 2.5, large.depth(1), rtol=1e-12)
    pictures = [render_clip(t.motion, times_s=[0.3], room=t.room, camera=ODD).frames for t in (small, large)]
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() < 0.05


def test_the_picture_follows_the_true_flow(room_clip) -> None:
    flow, valid = room_clip.truth.flow(0, 4)
    assert np.linalg.norm(flow, axis=-1)[valid].mean() > 25
    grid = np.stack(np.meshgrid(np.arange(480), np.arange(270)), axis=-1)

    def difference(sign: int) -> float:
        at = (grid + sign * flow).astype(np.float32)
        moved = cv2.remap(room_clip.frames[4], at[..., 0], at[..., 1], cv2.INTER_LINEAR)
        return float(np.abs(moved.astype(int) - room_clip.frames[0])[valid].mean())

    assert difference(1) < 2
    assert difference(-1) > 20


def test_flow_is_the_composition_of_the_relative_pose() -> None:
    truth = truth_of(HeadMotion(), 0.0, 0.25, 0.6)
    chained = truth.relative_pose(1, 2) @ truth.relative_pose(0, 1)
    np.testing.assert_allclose(chained, truth.relative_pose(0, 2), atol=1e-12)
    np.testing.assert_allclose(truth.relative_pose(2, 0), np.linalg.inv(truth.relative_pose(0, 2)), atol=1e-12)
    point = truth.camera.rays()[:, 20, 40] * truth.depth(0)[20, 40]
    seen = truth.camera.project(truth.relative_pose(0, 2)[:3, :3] @ point + truth.relative_pose(0, 2)[:3, 3])
    np.testing.assert_allclose(truth.flow(0, 2)[0][20, 40], seen - [40, 20], atol=1e-9)


def test_the_hand_moves_on_its_own_and_hides_what_is_behind_it() -> None:
    hand = Hand()
    truth = truth_of(HeadMotion.still(), 0.0, 0.2, hand=hand)
    flow, valid = truth.flow(0, 1)
    mask = truth.object_mask(0)
    assert 0.02 < mask.mean() < 0.3
    step = hand.centre(0.2) - hand.centre(0.0)
    np.testing.assert_allclose(
        flow[mask], np.tile(ODD.focal_px * step[:2] / hand.centre_m[2], (mask.sum(), 1)), atol=1e-9
    )
    assert np.abs(flow[~mask]).max() < 1e-9
    # A wall is hidden where the hand is now and was not before.
    np.testing.assert_array_equal(~valid & ~mask, truth.object_mask(1) & ~mask)
    assert (~valid & ~mask).any()
    bare = render_clip(HeadMotion.still(), times_s=[0.0], camera=ODD).frames[0]
    seen = render_clip(HeadMotion.still(), times_s=[0.0], camera=ODD, hand=hand).frames[0]
    changed = (bare != seen).any(axis=-1)
    assert changed[mask].mean() > 0.95
    assert not changed[cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))) == 0].any()


def test_rates_and_accelerations_are_the_derivatives_of_the_pose() -> None:
    motion, step = HeadMotion(spin_deg_s=15.0), 1e-4
    for time in (0.0, 0.37, 1.9):
        before, after = motion.rotation(time - step), motion.rotation(time + step)
        rates = Rotation.from_matrix(before.T @ after).as_rotvec() / (2 * step)
        np.testing.assert_allclose(motion.body_rates(time), rates, atol=1e-6)
        velocity = (motion.position(time + step) - motion.position(time - step)) / (2 * step)
        np.testing.assert_allclose(motion.velocity(time), velocity, atol=1e-6)
        acceleration = (motion.velocity(time + step) - motion.velocity(time - step)) / (2 * step)
        np.testing.assert_allclose(motion.acceleration(time), acceleration, atol=1e-5)


def test_inertial_readings_integrate_back_to_the_path() -> None:
    motion, rate = HeadMotion(), 400.0
    imu = simulate_imu(motion, 2.0, rate_hz=rate)
    rotation, velocity, position = motion.rotation(0.0), motion.velocity(0.0), motion.position(0.0)
    for index in range(len(imu.times_s) - 1):
        middle = (imu.gyro_rad_s[index] + imu.gyro_rad_s[index + 1]) / 2
        force = (imu.accel_m_s2[index] + imu.accel_m_s2[index + 1]) / 2
        half_turned = rotation @ Rotation.from_rotvec(middle / rate / 2).as_matrix()
        acceleration = half_turned @ force + GRAVITY_M_S2
        position = position + velocity / rate + acceleration / rate**2 / 2
        velocity = velocity + acceleration / rate
        rotation = rotation @ Rotation.from_rotvec(middle / rate).as_matrix()
    np.testing.assert_allclose(position, motion.position(2.0), atol=2e-3)
    np.testing.assert_allclose(rotation, motion.rotation(2.0), atol=1e-4)


def test_a_head_at_rest_feels_minus_gravity_and_faults_are_added_to_it() -> None:
    plain = simulate_imu(HeadMotion.still(), 10.0)
    np.testing.assert_allclose(plain.accel_m_s2, np.tile([0, -9.80665, 0], (2001, 1)), atol=1e-12)
    np.testing.assert_allclose(plain.gyro_rad_s, 0, atol=1e-12)
    faulty = simulate_imu(
        HeadMotion.still(),
        10.0,
        accel_bias_m_s2=(0.1, 0.2, -0.3),
        gyro_bias_rad_s=(0.01, 0.0, -0.02),
        accel_noise_m_s2=0.05,
        gyro_noise_rad_s=0.002,
        time_offset_s=0.7,
    )
    np.testing.assert_allclose(faulty.times_s - plain.times_s, 0.7)
    np.testing.assert_allclose((faulty.accel_m_s2 - plain.accel_m_s2).mean(0), [0.1, 0.2, -0.3], atol=0.005)
    np.testing.assert_allclose(faulty.gyro_rad_s.mean(0), [0.01, 0.0, -0.02], atol=0.0002)
    assert faulty.accel_m_s2.std(0) == pytest.approx([0.05] * 3, rel=0.1)


def test_the_same_arguments_give_the_same_bytes_and_another_seed_another_room() -> None:
    clips = [render_clip(times_s=[0.1], camera=ODD, room=Room(seed)).frames for seed in (0, 0, 1)]
    np.testing.assert_array_equal(clips[0], clips[1])
    assert np.abs(clips[0].astype(int) - clips[2]).mean() > 10


def test_every_wall_has_detail() -> None:
    for yaw, pitch in [(0, 0), (90, 0), (180, 0), (270, 0), (0, 80), (0, -80)]:
        motion = replace(HeadMotion.spinning(yaw), pitch_deg=Swing(float(pitch), 1.0, np.pi / 2))
        picture = render_clip(motion, times_s=[1.0], camera=ODD).frames[0]
        assert picture.std(axis=(0, 1)).min() > 12


def test_a_camera_outside_the_room_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"is outside the room of half sizes \[3\.0, 1\.5, 4\.0\]"):
        render_clip(HeadMotion.walking((0, 0, 4.0)), times_s=[2.0], camera=ODD)
    with pytest.raises(ConfigError, match="at least one frame"):
        render_clip(frames=0)


def test_rendered_clips_are_made_once() -> None:
    assert rendered(HeadMotion(), 1, 30.0, 32, 18) is rendered(HeadMotion(), 1, 30.0, 32, 18)


def test_the_room_needs_neither_pytest_nor_torch() -> None:
    code = "import sys, planish_egovid.testing; print(sorted({'pytest', 'torch', 'torchvision'} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": ""}
    )
    assert found.stdout.strip() == "[]"
