"""A clip's inertial recording: where it is found, and its times brought onto the clip's clock."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from planish.interfaces import Clip

from planish_egovid.kinematics.config import KinematicsConfig
from planish_egovid.kinematics.errors import ImuError
from planish_egovid.kinematics.imu.csv_recording import read_imu_csv
from planish_egovid.kinematics.imu.gopro import find_gopro
from planish_egovid.kinematics.imu.stream import ImuStream
from planish_egovid.kinematics.imu.timestamps import clean_samples

Array = NDArray[np.float64]

_FRAME_COLUMNS = ("gyro_x", "gyro_y", "gyro_z", "accl_x", "accl_y", "accl_z")


def recording_of(clip: Clip, fps: float, config: KinematicsConfig) -> ImuStream | None:
    """Return a clip's recording with times from the clip's start, or None if there is none.

    A CSV file's clock is taken to be that of the video file. The picture of a stabilised GoPro turns otherwise than
    its body does: its recording is given in the picture's axes.

    Args:
        clip: ``extra["imu"]``: path of a CSV file; ``extra["gyro_x"]`` .. ``extra["accl_z"]``: values at frame rate,
            as the released annotation has them; ``extra["imu_to_camera"]``: 3x3 rotation from the sensor's axes.
        fps: Frames a second of the video.
        config: ``imu`` and ``repair_imu``.

    Raises:
        ImuError: What ``imu`` or the clip names is not there or is unreadable.
        ImuTimestampError: Time stamps are wrong beyond repair.
    """
    stream = _found(clip, fps, config)
    if stream is None:
        return None
    mounting = clip.extra.get("imu_to_camera")
    if mounting is not None:
        rotation = np.asarray(mounting, np.float64)
        if rotation.shape != (3, 3) or np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3:
            raise ImuError(f"clip {clip.id!r}: extra.imu_to_camera is no 3x3 rotation matrix")
        stream = stream.rotated(rotation, axes_are_camera=True)
    return stream


def _found(clip: Clip, fps: float, config: KinematicsConfig) -> ImuStream | None:
    wanted = config.imu
    if wanted == "none":
        return None
    path = clip.extra.get("imu")
    if wanted == "csv" and not path:
        raise ImuError(f"clip {clip.id!r} names no recording; give extra.imu, the path of a CSV file, or use imu: auto")
    if wanted in ("auto", "csv") and path:
        return read_imu_csv(Path(str(path)), repair=config.repair_imu).shifted(-clip.start_s)
    if wanted in ("auto", "frames") and all(clip.extra.get(name) is not None for name in _FRAME_COLUMNS):
        return _at_frame_rate(clip, fps, config)
    if wanted == "frames":
        raise ImuError(f"clip {clip.id!r} lacks some of extra.{', extra.'.join(_FRAME_COLUMNS)}")
    telemetry = find_gopro(clip.path)
    if telemetry is None:
        if wanted == "gpmf":
            raise ImuError(f"{clip.path}: there is no GoPro telemetry with a gyroscope in this file")
        return None
    return telemetry.imu_of_image().shifted(-clip.start_s)


def _at_frame_rate(clip: Clip, fps: float, config: KinematicsConfig) -> ImuStream:
    columns = [_numbers(clip.extra[name], clip.id, name) for name in _FRAME_COLUMNS]
    lengths = sorted({len(column) for column in columns})
    if len(lengths) != 1 or lengths[0] < 2:
        raise ImuError(f"clip {clip.id!r}: gyro_x .. accl_z have {lengths} values; they need equally many, two or more")
    values = np.stack(columns, axis=1)
    clean = clean_samples(
        np.arange(len(values)) / fps, values, repair=config.repair_imu, where=f"clip {clip.id!r} (gyro_x .. accl_z)"
    )
    return ImuStream(clean.times_s, clean.values[:, :3], clean.values[:, 3:], "frame columns", clean.is_repaired)


def _numbers(value: Any, clip_id: str, name: str) -> Array:
    """Return a list of numbers that may be written as text, as in the released CSV files."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                raise ImuError(f"clip {clip_id!r}: extra.{name} is no list of numbers: {value[:40]!r}") from None
    try:
        return np.asarray(value, np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise ImuError(f"clip {clip_id!r}: extra.{name} is no list of numbers") from None
