from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from planish_egovid.kinematics.errors import ImuError
from planish_egovid.kinematics.imu import gopro
from planish_egovid.kinematics.imu.klv import parse
from planish_egovid.kinematics.pose import rotation as so3

RATE = 200


def item(key: str, kind: str, size: int, values: bytes) -> bytes:
    padded = values + b"\0" * (-len(values) % 4)
    return key.encode() + struct.pack(">cBH", kind.encode(), size, len(values) // size) + padded


def nest(key: str, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return key.encode() + struct.pack(">BBH", 0, 1, len(body)) + body


def shorts(values: np.ndarray) -> bytes:
    return np.round(values).astype(">i2").tobytes()


def payload(gyro: np.ndarray, accel: np.ndarray, order: str | None = "XzY", cori: np.ndarray | None = None) -> bytes:
    """Return one second of telemetry; gyro [n, 3] in rad/s and accel [n, 3] in m/s^2, along the channels."""
    orientation = [] if order is None else [item("ORIN", "c", 3, order.encode())]
    streams = [
        nest("STRM", item("STNM", "c", 1, b"Accelerometer"), *orientation,
             item("SCAL", "s", 2, shorts(np.array([417]))), item("ACCL", "s", 6, shorts(accel * 417))),
        nest("STRM", item("STNM", "c", 1, b"Gyroscope"), *orientation, item("SCAL", "s", 2, shorts(np.array([939]))),
             item("GYRO", "s", 6, shorts(gyro * 939))),
    ]  # fmt: skip
    if cori is not None:
        for key in ("CORI", "IORI"):
            values = cori if key == "IORI" else np.tile([1.0, 0, 0, 0], (len(cori), 1))
            scale = item("SCAL", "s", 2, shorts(np.array([32767])))
            streams.append(nest("STRM", scale, item(key, "s", 8, shorts(values * 32767))))
    return nest("DEVC", item("DVID", "L", 4, struct.pack(">L", 1)), item("DVNM", "c", 1, b"GoPro Test"), *streams)


def read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *payloads: tuple[float, float, bytes]
) -> gopro.GoProTelemetry:
    class Closed:
        def __enter__(self) -> Closed:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(gopro, "open_container", lambda path: Closed())
    monkeypatch.setattr(gopro, "_payloads", lambda container: list(payloads))
    found = gopro.find_gopro(tmp_path / "x.mp4")
    assert found is not None
    return found


def test_items_of_every_type_are_parsed() -> None:
    data = nest(
        "DEVC",
        item("NAME", "c", 1, b"abcde"),
        item("FLTS", "f", 8, struct.pack(">4f", 1.5, -2, 3, 4)),
        item("FIXQ", "q", 4, struct.pack(">l", 3 << 15)),
        item("FIXL", "Q", 8, struct.pack(">q", -(5 << 31))),
        item("BYTE", "B", 1, bytes([0, 255, 7])),
        item("LAST", "J", 8, struct.pack(">Q", 2**40)),
    )
    (device,) = parse(data + b"\0\0\0\0")
    found = {entry.key: entry for entry in device.children}
    assert found["NAME"].text() == "abcde"
    assert found["FLTS"].numbers().tolist() == [[1.5, -2], [3, 4]]
    assert found["FIXQ"].numbers().tolist() == [[1.5]]
    assert found["FIXL"].numbers().tolist() == [[-2.5]]
    assert found["BYTE"].numbers().ravel().tolist() == [0, 255, 7]  # three bytes, padded to four
    assert found["LAST"].numbers().tolist() == [[2**40]]
    assert [entry.key for entry in device.walk("DEVC")] == ["DEVC"]
    with pytest.raises(ImuError, match="NAME: type 'c'"):
        found["NAME"].numbers()


def test_damaged_data_is_an_error_not_a_crash() -> None:
    whole = payload(np.zeros((5, 3)), np.zeros((5, 3)))
    with pytest.raises(ImuError, match="needs"):
        parse(whole[:-20])
    deep = item("LEAF", "B", 1, b"1234")
    for _ in range(20):
        deep = nest("NEST", deep)
    with pytest.raises(ImuError, match="nested"):
        parse(deep)
    rng = np.random.default_rng(0)
    for _ in range(300):  # whatever the bytes are
        broken = bytearray(whole)
        for position in rng.integers(0, len(broken), 6):
            broken[position] = rng.integers(0, 256)
        try:
            for device in parse(bytes(broken)):
                list(device.walk("STRM"))
        except ImuError:
            pass


@pytest.mark.parametrize(
    ("order", "channels"),
    [("XzY", ("x", "-z", "y")), ("ZXY", ("z", "x", "y")), ("YxZ", ("y", "-x", "z")), (None, ("z", "x", "y"))],
)
def test_channels_are_brought_into_camera_axes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, order: str | None, channels: tuple[str, ...]
) -> None:
    # GoPro: X left, Y back, Z up. At rest the accelerometer feels 9.81 up; the camera turns right, which is about -Z.
    accel = {"x": 0.0, "y": 0.0, "z": 9.81}
    gyro = {"x": 0.0, "y": 0.0, "z": -0.5}

    def along(values: dict[str, float]) -> np.ndarray:
        row = [-values[name[1]] if name[0] == "-" else values[name] for name in channels]
        return np.tile(row, (RATE, 1))

    telemetry = read(monkeypatch, tmp_path, (0.0, 1.0, payload(along(gyro), along(accel), order)))
    assert telemetry.model == "GoPro Test"
    assert telemetry.imu.axes_are_camera
    assert np.allclose(telemetry.imu.accel, [0, -9.81, 0], atol=2e-3)  # y points down
    assert np.allclose(telemetry.imu.gyro, [0, 0.5, 0], atol=1e-3)  # about y is to the right
    assert telemetry.imu.rate_hz == pytest.approx(RATE)


def test_samples_are_spread_over_their_payload_and_payloads_joined(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    still = np.zeros((198, 3))
    telemetry = read(monkeypatch, tmp_path, *((k * 1.001, (k + 1) * 1.001, payload(still, still)) for k in range(3)))
    assert len(telemetry.imu.times_s) == 594
    assert telemetry.imu.times_s[198] == pytest.approx(1.001)
    assert np.allclose(np.diff(telemetry.imu.times_s), 1.001 / 198)
    assert not telemetry.imu.is_repaired
    assert not telemetry.is_stabilised


def test_the_recording_follows_a_stabilised_picture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The camera turns right at 0.5 rad/s and stabilisation turns the picture back at the same rate: it stands still.
    frames = np.arange(30) / 30
    back = so3.to_wxyz(so3.exp(frames[:, None] * np.array([0, 0.5, 0])))  # camera-to-image
    gyro = np.tile([0.0, 0.0, -0.5], (RATE, 1))[:, [2, 0, 1]]  # ZXY channels
    up = np.tile([9.81, 0, 0], (RATE, 1))
    telemetry = read(monkeypatch, tmp_path, (0.0, 1.0, payload(gyro, up, "ZXY", back)))
    assert telemetry.is_stabilised
    inside = telemetry.imu.times_s < 29 / 30
    assert np.allclose(telemetry.imu.gyro[:, 1], 0.5, atol=1e-3)
    assert np.abs(telemetry.imu_of_image().gyro[inside]).max() < 0.01
    assert np.allclose(telemetry.imu_of_image().accel, [0, -9.81, 0], atol=0.01)
    assert "stabilised" in telemetry.imu_of_image().source


def test_wrong_telemetry_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ImuError, match="ORIN"):
        read(monkeypatch, tmp_path, (0.0, 1.0, payload(np.zeros((9, 3)), np.zeros((9, 3)), "XXY")))
    (tmp_path / "no.mp4").write_bytes(b"not a video")
    monkeypatch.undo()
    with pytest.raises(ImuError, match="cannot be opened"):
        gopro.find_gopro(tmp_path / "no.mp4")


def test_a_file_without_telemetry_has_none(room_video: Path) -> None:
    assert gopro.find_gopro(room_video) is None
