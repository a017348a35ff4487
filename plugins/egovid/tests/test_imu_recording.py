from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planish.interfaces import Clip
from planish_egovid.kinematics.config import KinematicsConfig
from planish_egovid.kinematics.errors import ImuError, ImuTimestampError
from planish_egovid.kinematics.imu.csv_recording import read_imu_csv
from planish_egovid.kinematics.imu.gravity import gravity_direction, integrated_rotations
from planish_egovid.kinematics.imu.stream import ImuStream
from planish_egovid.kinematics.imu.timestamps import clean_samples
from planish_egovid.kinematics.pose import rotation as so3
from planish_egovid.kinematics.recording import recording_of
from planish_egovid.testing import HeadMotion, simulate_imu


def stream(duration_s: float = 3.0, rate: float = 200.0, motion: HeadMotion | None = None, **noise: float) -> ImuStream:
    made = simulate_imu(motion or HeadMotion(), duration_s, rate_hz=rate, **noise)  # type: ignore[arg-type]
    return ImuStream(made.times_s, made.gyro_rad_s, made.accel_m_s2, "simulated", axes_are_camera=True)


def write(path: Path, header: str, rows: list[list[object]]) -> Path:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def rows(n: int = 50, unit: float = 5.0) -> list[list[object]]:
    return [[k * unit, 0.1 * k, 0.2, 0.3, 1.0, 9.8, 0.5] for k in range(n)]


EGO4D = "canonical_timestamp_ms,gyro_x,gyro_y,gyro_z,accl_x,accl_y,accl_z"


@pytest.mark.parametrize(
    ("header", "unit"),
    [
        (EGO4D, 5.0),
        ("component_timestamp_ms,Gyro X,Gyro Y,Gyro Z,Accl X,Accl Y,Accl Z", 5.0),
        ("t_s,w0_rad_s,w1_rad_s,w2_rad_s,a0_m_s2,a1_m_s2,a2_m_s2", 0.005),
        ("timestamp_ns,gyroscope_x,gyroscope_y,gyroscope_z,accelerometer_x,accelerometer_y,accelerometer_z", 5e6),
        ("\ufefftime,gyr_x,gyr_y,gyr_z,acc_x,acc_y,acc_z", 0.005),
    ],
)
def test_columns_are_recognised_however_they_are_spelt(tmp_path: Path, header: str, unit: float) -> None:
    found = read_imu_csv(write(tmp_path / "imu.csv", header, rows(unit=unit)))
    assert np.allclose(found.times_s, np.arange(50) * 0.005)
    assert np.allclose(found.gyro[7], [0.7, 0.2, 0.3])
    assert np.allclose(found.accel, [1.0, 9.8, 0.5])
    assert found.rate_hz == pytest.approx(200)
    assert not found.is_repaired


def test_the_canonical_clock_is_preferred_unless_it_is_missing(tmp_path: Path) -> None:
    both = "component_timestamp_ms," + EGO4D
    with_clock = [[1e6 + row[0], *row] for row in rows()]  # type: ignore[operator]
    assert read_imu_csv(write(tmp_path / "a.csv", both, with_clock)).times_s[1] == pytest.approx(0.005)
    without = [[row[0], "NULL", *row[2:]] for row in with_clock]
    assert read_imu_csv(write(tmp_path / "b.csv", both, without)).times_s[0] == pytest.approx(1000)


def test_sensors_of_different_rates_share_a_file(tmp_path: Path) -> None:
    mixed: list[list[object]] = []
    for k in range(60):
        mixed.append([k * 5.0, 0.1 * k, 0, 0, "", "", ""])
        if k % 2 == 0:
            mixed.append([k * 5.0, "", "", "", k, 9.8, 0])
    found = read_imu_csv(write(tmp_path / "imu.csv", EGO4D, mixed))
    assert len(found.times_s) == 60
    assert np.allclose(found.accel[:59, 0], np.arange(59))  # interpolated onto the gyroscope's times
    assert not found.is_repaired


def test_a_gyroscope_alone_is_enough_for_rotation_but_not_for_gravity(tmp_path: Path) -> None:
    found = read_imu_csv(write(tmp_path / "imu.csv", "t,gyro_x,gyro_y,gyro_z", [row[:4] for row in rows(unit=0.005)]))
    assert not found.has_accel
    with pytest.raises(ImuError, match="no accelerometer"):
        gravity_direction(found)


def test_files_that_are_no_recordings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImuError, match="cannot be read"):
        read_imu_csv(tmp_path / "none.csv")
    with pytest.raises(ImuError, match="0 samples"):
        read_imu_csv(write(tmp_path / "a.csv", EGO4D, []))
    with pytest.raises(ImuError, match="no gyroscope columns among t, accl_x"):
        read_imu_csv(write(tmp_path / "b.csv", "t,accl_x,accl_y,accl_z", [[0, 1, 2, 3]] * 9))
    with pytest.raises(ImuError, match="no time column"):
        read_imu_csv(write(tmp_path / "c.csv", EGO4D.replace("canonical_timestamp_ms", "frame"), rows()))


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda table: table[3].__setitem__(0, "NULL"), "1 without a time stamp"),
        (lambda table: table[3].__setitem__(0, 1e14), "1 with an absurd time stamp"),
        (lambda table: table[3].__setitem__(2, "nan"), "1 whose value is not finite"),
        (lambda table: table.__setitem__(slice(3, 5), [table[4], table[3]]), "1 whose time runs backwards"),
        (lambda table: table[4].__setitem__(0, table[3][0]), "1 whose time repeats"),
    ],
)
def test_each_fault_of_time_stamps_is_refused_or_repaired_and_said(
    tmp_path: Path, damage: object, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    table = rows()
    damage(table)  # type: ignore[operator]
    path = write(tmp_path / "imu.csv", EGO4D, table)
    with pytest.raises(ImuTimestampError, match=what):
        read_imu_csv(path, repair=False)
    repaired = read_imu_csv(path)
    assert repaired.is_repaired
    assert what in caplog.text
    assert (np.diff(repaired.times_s) > 0).all()
    assert np.allclose(repaired.gyro[:, 0], 0.1 * repaired.times_s / 0.005, atol=0.11)


def test_a_shuffled_recording_is_beyond_repair_and_so_is_one_without_times() -> None:
    rng = np.random.default_rng(0)
    times = rng.permutation(100) / 200
    with pytest.raises(ImuTimestampError, match="too many to repair"):
        clean_samples(times, np.zeros((100, 3)), repair=True, where="x")
    with pytest.raises(ImuTimestampError, match="none of 10 samples has a time stamp"):
        clean_samples(np.full(10, np.nan), np.zeros((10, 3)), repair=True, where="x")
    values = np.full((10, 3), np.nan)
    values[0] = 0
    with pytest.raises(ImuTimestampError, match="1 of 10 samples are usable"):
        clean_samples(np.arange(10.0), values, repair=True, where="x")


def test_gaps_of_more_than_50_ms_are_listed() -> None:
    whole = stream(1.0)
    keep = (whole.times_s < 0.3) | (whole.times_s > 0.37)
    part = ImuStream(whole.times_s[keep], whole.gyro[keep], whole.accel[keep], "x")
    assert whole.gaps_s == []
    assert part.gaps_s == [(pytest.approx(0.295), pytest.approx(0.375))]


def test_mean_rates_are_integrals_and_unknown_outside() -> None:
    whole = stream(2.0)
    starts, ends = np.array([0.1, 0.333, 1.9]), np.array([0.2, 0.777, 2.1])
    means = whole.mean_gyro(starts, ends)
    for k in range(2):
        fine = np.linspace(starts[k], ends[k], 2000)
        exact = np.stack([HeadMotion().body_rates(t) for t in fine]).mean(axis=0)
        assert np.allclose(means[k], exact, atol=1e-3)
    assert np.isnan(means[2]).all()
    with pytest.raises(ImuError, match=r"covers 0.00 to 2.00 s, nothing of 5.00 to 6.00"):
        whole.between(5, 6)
    part = whole.between(0.5, 0.6)
    assert part.times_s[0] <= 0.5
    assert part.times_s[-1] >= 0.6
    assert len(part.times_s) <= 23


def test_gyroscope_integrates_to_the_head() -> None:
    whole = stream(3.0)
    truth = np.stack([HeadMotion().rotation(t) for t in whole.times_s])
    found = integrated_rotations(whole)
    assert so3.angle_deg(np.swapaxes(found, 1, 2) @ (truth[0].T @ truth)).max() < 0.02


@pytest.mark.parametrize("tilt", [(0.0, 0, 0), (0.4, 0, -0.3)])
def test_gravity_is_found_while_the_head_turns(tilt: tuple[float, float, float]) -> None:
    turn = so3.exp(np.array(tilt))
    found = gravity_direction(stream(4.0, accel_noise_m_s2=0.2).rotated(turn, axes_are_camera=False))
    truth = turn @ HeadMotion().rotation(0).T @ [0, 1, 0]
    error = np.degrees(np.arccos(found.direction @ truth))
    assert error < 1
    assert error < 4 * found.std_deg
    assert found.measured_m_s2 == pytest.approx(9.8, abs=0.7)
    in_g = stream(1.0)
    with pytest.raises(ImuError, match="not in g"):
        gravity_direction(replace(in_g, accel=in_g.accel / 9.81))


def test_recordings_of_clips(tmp_path: Path, room_video: Path) -> None:
    path = write(tmp_path / "imu.csv", EGO4D, rows(400))
    clip = Clip("c", str(room_video), start_s=0.5, extra={"imu": str(path)})
    found = recording_of(clip, 30, KinematicsConfig())
    assert found is not None
    assert found.times_s[0] == pytest.approx(-0.5)  # on the clip's clock
    assert not found.axes_are_camera
    turned = recording_of(
        Clip("c", str(room_video), extra={"imu": str(path), "imu_to_camera": [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]}),
        30,
        KinematicsConfig(),
    )
    assert turned is not None
    assert turned.axes_are_camera
    assert np.allclose(turned.accel[0], [9.8, -1.0, 0.5])
    assert recording_of(clip, 30, KinematicsConfig(imu="none")) is None
    bare = Clip("c", str(room_video))
    assert recording_of(bare, 30, KinematicsConfig()) is None
    for source, message in (("csv", "names no recording"), ("gpmf", "no GoPro telemetry"), ("frames", "lacks some")):
        with pytest.raises(ImuError, match=message):
            recording_of(bare, 30, KinematicsConfig(imu=source))  # type: ignore[arg-type]
    with pytest.raises(ImuError, match="no 3x3 rotation"):
        recording_of(replace(clip, extra={"imu": str(path), "imu_to_camera": [[1, 2], [3, 4]]}), 30, KinematicsConfig())


def test_the_released_columns_are_a_recording_at_frame_rate(room_video: Path) -> None:
    extra = {name: str([0.1 * k for k in range(120)]) for name in ("gyro_x", "gyro_y", "gyro_z")}
    extra |= {name: [float(k) for k in range(120)] for name in ("accl_x", "accl_y", "accl_z")}  # type: ignore[misc]
    found = recording_of(Clip("c", str(room_video), extra=extra), 30, KinematicsConfig())
    assert found is not None
    assert found.rate_hz == pytest.approx(30)
    assert found.gyro[50].tolist() == pytest.approx([5.0] * 3)
    for bad in ("[1, 2", "['a']", "[1, 2]"):
        with pytest.raises(ImuError, match="gyro_x"):
            recording_of(Clip("c", str(room_video), extra={**extra, "gyro_x": bad}), 30, KinematicsConfig())
