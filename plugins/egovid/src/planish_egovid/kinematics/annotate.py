"""Annotation: a clip's poses as files, in the layout of the released ones."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from planish.config import validate
from planish.errors import WorkError
from planish.interfaces import Clip

from planish_egovid.flow.one_thread import one_thread
from planish_egovid.flow.track import flow_requests, flow_track
from planish_egovid.kinematics.axis import columns_of
from planish_egovid.kinematics.config import KinematicsConfig
from planish_egovid.kinematics.errors import ImuError, PoseError
from planish_egovid.kinematics.estimate import KinematicEstimate, estimate_kinematics
from planish_egovid.kinematics.imu.gravity import integrated_rotations
from planish_egovid.kinematics.official import OfficialFusion, fuse_official
from planish_egovid.kinematics.pose.interpolation import interpolate
from planish_egovid.kinematics.pose.intrinsics import intrinsics_of
from planish_egovid.kinematics.pose.trajectory import PoseConvention, Trajectory
from planish_egovid.video.decode import decode_clips
from planish_egovid.video.view import ClipView

Array = NDArray[np.float64]

STEP = 5
"""Frames between the poses that the published script reads."""


@dataclass(frozen=True)
class Annotation:
    """What was written.

    Attributes:
        folder: ``OUT/poses/<id>``.
        files: Names of the files in it.
        columns: The kinematics columns of the clip; ``kinematics_reason`` says why files are missing.
    """

    folder: Path
    files: tuple[str, ...]
    columns: dict[str, Any]


def annotate(clip: Clip, out: str | Path, config: KinematicsConfig | dict[str, Any] | None = None) -> Annotation:
    """Write the poses of all frames of a clip to ``out/poses/<id>``, camera-to-world.

    ``intri.npy``: 3x3, of the upright video at its own size. ``sfm_pose.npy``: [F, 4, 4] from the picture, in metres if
    there is an inertial recording, else up to scale; the two-view backend knows rotations only, and the translations
    are then NaN. ``imu_pose.npy``: rotations from the gyroscope alone, translations NaN (a few seconds of double
    integration are worth nothing). ``fused_pose.npy``: from both, in metres. ``cost.txt``: the published script's
    alignment cost, with compat "official" only. ``kinematics.json`` and ``kinematics.npz``: conventions, times,
    covariances and columns. A file whose content is unknown is not written.

    Args:
        clip: The clip.
        out: Folder; an annotation of the same clip in it is replaced.
        config: How; a :class:`KinematicsConfig` or its values.

    Raises:
        DataError: The clip cannot be decoded.
        WorkError: The folder cannot be written.
        UnsupportedError: The visual backend is not installed.
    """
    settings = validate(KinematicsConfig, config or {})
    with one_thread():
        ((_, view),) = decode_clips(
            [clip], lambda clip, video, duration_s: list(flow_requests(video, duration_s, settings.flow()))
        )
        if not isinstance(view, ClipView):
            raise view
        track = flow_track(view, settings.flow())
        # No frame lies after the last analysed one by more than a stride, and none is guessed further than that.
        times = np.arange(max(round(view.duration_s * view.video.fps), 1)) / view.video.fps
        analysed = times[(times >= track.times_s[0] - 1e-9) & (times <= track.times_s[-1] + 1e-9)]
        estimate = estimate_kinematics(track, clip, view.video.fps, settings, times_s=analysed)
        columns = columns_of(estimate, settings, track)
    arrays: dict[str, Array] = {}
    cost: float | None = None
    if estimate.intrinsics is not None:
        lens = intrinsics_of(
            clip,
            view.video.width,
            view.video.height,
            assume_fov_deg=settings.assume_fov_deg,
            assume_lens=settings.assume_lens,
        )
        arrays["intri.npy"] = lens.matrix
    if settings.compat == "official":
        official = _official(estimate, times, view.video.fps, columns)
        if official is not None:
            arrays["sfm_pose.npy"], arrays["imu_pose.npy"] = official.sfm.matrices, official.imu.matrices
            arrays["fused_pose.npy"], cost = official.fused.matrices, official.cost
    else:
        arrays |= _ours(estimate, times)
    return _write(clip, Path(out), arrays, cost, columns, estimate, times)


def _ours(estimate: KinematicEstimate, times: Array) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    visual = estimate.rotations
    if visual is not None:
        if estimate.fused is not None and estimate.fused.scale is not None:
            visual = visual.scaled(estimate.fused.scale, is_metric=True)
        arrays["sfm_pose.npy"] = _at(visual, times)
    imu = estimate.imu
    if imu is not None:
        start, end = max(float(times[0]), float(imu.times_s[0])), min(float(times[-1]), float(imu.times_s[-1]))
        part = imu.between(start, end)
        gyro_bias = estimate.fused.gyro_bias if estimate.fused is not None else None
        rotations = integrated_rotations(part, gyro_bias)
        arrays["imu_pose.npy"] = _at(Trajectory.of_rotations(rotations, part.times_s), times)
    if estimate.fused is not None:
        arrays["fused_pose.npy"] = _at(estimate.fused.trajectory, times)
    return arrays


def _at(trajectory: Trajectory, times: Array) -> Array:
    """Return camera-to-world poses at all frames, the first one the identity; the outermost motion goes on."""
    beyond = max(float(trajectory.times_s[0] - times[0]), float(times[-1] - trajectory.times_s[-1]), 0.0)
    c2w = trajectory.to(PoseConvention.CAMERA_TO_WORLD)
    return interpolate(c2w, times, max_beyond_s=beyond + 1e-6).rebased().matrices


def _official(estimate: KinematicEstimate, times: Array, fps: float, columns: dict[str, Any]) -> OfficialFusion | None:
    """Return the published fusion, or None, with the reason added to the columns."""
    try:
        if estimate.trajectory is None:
            raise PoseError("compat official needs a visual trajectory: visual colmap, or files")
        if estimate.imu is None:
            raise ImuError("compat official needs an inertial recording")
        poses = _at(estimate.trajectory, times)[::STEP]
        inside = np.clip(times, estimate.imu.times_s[0], estimate.imu.times_s[-1])

        def at_frames(values: Array) -> Array:
            assert estimate.imu is not None
            return np.stack([np.interp(inside, estimate.imu.times_s, values[:, k]) for k in range(3)], axis=1)

        return fuse_official(poses, at_frames(estimate.imu.gyro), at_frames(estimate.imu.accel), fps=fps)
    except (PoseError, ImuError) as error:
        columns["kinematics_reason"] = "; ".join(filter(None, [columns["kinematics_reason"], str(error)]))
        return None


def _write(
    clip: Clip,
    out: Path,
    arrays: dict[str, Array],
    cost: float | None,
    columns: dict[str, Any],
    estimate: KinematicEstimate,
    times: Array,
) -> Annotation:
    name = re.sub(r"[^\w.\-]+", "_", clip.id.removesuffix(".mp4")).strip(".") or "clip"
    folder = out / "poses" / name
    beside = folder.with_name(f".{name}.{os.getpid()}.part")
    about: dict[str, Any] = {
        "clip_id": clip.id,
        "convention": "c2w",
        "axes": "OpenCV: x right, y down, z forward",
        "frames": len(times),
        "columns": columns,
    }
    detail: dict[str, Array] = {"times_s": times}
    if estimate.intrinsics is not None:
        about["lens"] = {
            "model": estimate.intrinsics.lens,
            "distortion": list(estimate.intrinsics.distortion),
            "source": estimate.intrinsics.source,
        }
    if estimate.visual is not None:
        detail["pair_times_s"] = estimate.visual.times_s
        for field in ("rotation", "rotation_covariance"):
            detail[f"pair_{field}"] = np.stack(
                [np.full((3, 3), np.nan) if pair is None else getattr(pair, field) for pair in estimate.visual.pairs]
            )
        for field, shape in (("translation", (3,)), ("translation_covariance", (3, 3))):
            values = [None if pair is None else getattr(pair, field) for pair in estimate.visual.pairs]
            detail[f"pair_{field}"] = np.stack([np.full(shape, np.nan) if v is None else v for v in values])
    if estimate.fused is not None:
        about["scale"] = estimate.fused.scale
        about["scale_std"] = estimate.fused.scale_std
        detail |= {
            "fused_times_s": estimate.fused.trajectory.times_s,
            "fused_rotation_std_deg": estimate.fused.rotation_std_deg,
            "fused_position_std_m": estimate.fused.position_std_m,
            "gravity": estimate.fused.gravity,
            "gyro_bias": estimate.fused.gyro_bias,
            "accel_bias": estimate.fused.accel_bias,
        }
    try:
        beside.mkdir(parents=True)
        for file, array in arrays.items():
            np.save(beside / file, array)
        if cost is not None:
            (beside / "cost.txt").write_text(f"{cost!r}\n", encoding="utf-8")
        with (beside / "kinematics.npz").open("wb") as stream:
            np.savez(stream, allow_pickle=False, **detail)
        (beside / "kinematics.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        beside.replace(folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise WorkError(f"{folder}: poses of clip {clip.id!r} cannot be written: {error}") from None
    return Annotation(folder, tuple(sorted(path.name for path in folder.iterdir())), columns)
