"""Inertial recordings in CSV files, such as the per-video ones of Ego4D."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.errors import ImuError
from planish_egovid.kinematics.imu.stream import ImuStream
from planish_egovid.kinematics.imu.timestamps import clean_samples

Array = NDArray[np.float64]

_TIMES: tuple[tuple[str, float], ...] = (
    ("canonicaltimestampms", 1e-3),
    ("componenttimestampms", 1e-3),
    ("timestampms", 1e-3),
    ("timems", 1e-3),
    ("timestampus", 1e-6),
    ("timestampns", 1e-9),
    ("timestamps", 1.0),
    ("times", 1.0),
    ("ts", 1.0),
    ("timestamp", 1.0),
    ("time", 1.0),
    ("t", 1.0),
)
"""Normalised column name -> seconds a unit, best first: Ego4D's canonical time is that of the video."""
_GYRO = ("gyro", "gyroscope", "gyr", "angularvelocity", "omega", "w")
_ACCEL = ("accl", "accel", "acc", "accelerometer", "acceleration", "a")
_UNIT = re.compile(r"(rads|radpers|ms2|mpers2|mss)$")


def read_imu_csv(path: str | Path, *, repair: bool = True) -> ImuStream:
    """Read an inertial recording from a CSV file with a header.

    Time columns: ``canonical_timestamp_ms`` (Ego4D's video clock), else ``component_timestamp_ms``, or
    ``timestamp_ms``, ``time_s``, ``t`` and the like; gyroscope columns ``gyro_x`` .. ``gyro_z`` in
    rad/s, and optionally ``accl_x`` .. ``accl_z`` (``accel``, ``acc``) in m/s^2. Case, separators and unit suffixes do
    not matter. Empty cells and ``NULL`` are missing values; rows that carry only one of the two sensors are
    interpolated onto the gyroscope's.

    Args:
        path: The file.
        repair: Whether wrong time stamps are repaired (``is_repaired`` then says so) or refused.

    Raises:
        ImuError: The file cannot be read or has no time or gyroscope columns.
        ImuTimestampError: Time stamps are wrong beyond repair, or at all if ``repair`` is off.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ImuError(f"{path}: cannot be read: {error}") from None
    if len(rows) < 3:
        raise ImuError(f"{path}: {max(len(rows) - 1, 0)} samples; a recording has two or more below its header")
    names = [_normal(cell) for cell in rows[0]]
    time_columns = [(names.index(name), unit) for name, unit in _TIMES if name in names]
    gyro, accel = _axes(names, _GYRO), _axes(names, _ACCEL)
    if not time_columns or gyro is None:
        lacks = "time column" if not time_columns else "gyroscope columns"
        raise ImuError(
            f"{path}: no {lacks} among {', '.join(rows[0])}; name them like canonical_timestamp_ms, gyro_x, gyro_y, "
            "gyro_z, accl_x, accl_y, accl_z"
        )
    table = np.full((len(rows) - 1, len(names)), np.nan)
    for i, row in enumerate(rows[1:]):
        for j, cell in enumerate(row[: len(names)]):
            table[i, j] = _number(cell)
    column, unit = next(((c, u) for c, u in time_columns if np.isfinite(table[:, c]).mean() > 0.5), time_columns[0])
    times = table[:, column] * unit
    return _stream(times, table[:, gyro], None if accel is None else table[:, accel], repair=repair, path=path)


def _stream(times: Array, gyro: Array, accel: Array | None, *, repair: bool, path: Path) -> ImuStream:
    # A sensor of its own rate leaves its cells empty in the other's rows: such a row is no fault of this sensor.
    has_gyro = ~np.isnan(gyro).all(axis=1)
    has_accel = np.zeros(len(times), bool) if accel is None else ~np.isnan(accel).all(axis=1)
    own_rows = not bool(np.any(has_gyro & has_accel)) and bool(has_accel.any())
    rows = has_gyro if own_rows else np.ones(len(times), bool)
    clean = clean_samples(times[rows], gyro[rows], repair=repair, where=str(path))
    if accel is None or not has_accel.any():
        force, is_repaired = np.full_like(clean.values, np.nan), clean.is_repaired
    else:
        other = clean_samples(
            times[has_accel] if own_rows else times,
            accel[has_accel] if own_rows else accel,
            repair=repair,
            where=f"{path} (accelerometer)",
        )
        force = np.stack([np.interp(clean.times_s, other.times_s, other.values[:, k]) for k in range(3)], axis=1)
        is_repaired = clean.is_repaired or other.is_repaired
    return ImuStream(clean.times_s, clean.values, force, f"csv {path.name}", is_repaired)


def _normal(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _axes(names: Sequence[str], words: Sequence[str]) -> list[int] | None:
    bare = [_UNIT.sub("", name) for name in names]
    for word in words:
        for axes in ("xyz", "012"):
            wanted = [f"{word}{axis}" for axis in axes]
            if all(name in bare for name in wanted):
                return [bare.index(name) for name in wanted]
    return None


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
