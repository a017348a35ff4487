"""``planish egovid room``: rendered test clips, to try everything without data."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Any

import typer
from planish.cli.output import print_json
from planish.cli.session import Json
from planish.errors import ConfigError

KINDS = ("walk", "still", "spin", "cut")
"""What clips there are, by turns."""
TEXTS = {
    "walk": "walks through a room",
    "still": "sits still",
    "spin": "turns around quickly",
    "cut": "walks through one room, then another",
}


def room(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the clips.")],
    clips: Annotated[int, typer.Option(min=1, help="Number of clips: walk, still, spin, cut, by turns.")] = 4,
    frames: Annotated[int, typer.Option(min=2, help="Frames of each, at 30 a second.")] = 120,
    width: Annotated[int, typer.Option(min=32, max=1920, help="Pixels; the height is 9/16 of it.")] = 240,
    as_json: Json = False,
) -> None:
    """Render clips of a room, and the files that go with them.

    A walk that is worth keeping, and three clips that are not. clips.csv is their manifest, said.csv their narrations,
    and each has an inertial recording. The same command gives the same files.

    Example: planish egovid room room/

    Example: planish filter room/clips.csv --with egovid --out scored
    """
    from planish.atomic import make_folder, replacing

    from planish_egovid.cli.progress import progress
    from planish_egovid.clips.manifest_file import write_manifest
    from planish_egovid.testing import write_video

    if out.is_file():
        raise ConfigError(f"{out} is a file; name a folder")
    make_folder(out)
    made = []
    with progress("rendering", clips, quiet=as_json) as advance:
        for number in range(clips):
            kind = KINDS[number % len(KINDS)]
            name = f"{kind}{number // len(KINDS)}"
            pictures, recording = _render(kind, number, frames, width)
            with replacing(out / f"{name}.mp4") as beside, beside.open("wb") as file:
                write_video(file, pictures)
            _write_imu(out / f"{name}-imu.csv", recording)
            made.append((name, TEXTS[kind]))
            advance()
    import pyarrow as pa
    from planish.interfaces import Clip

    listed = [Clip(name, f"{name}.mp4", text=text, extra={"imu": f"./{name}-imu.csv"}) for name, text in made]
    write_manifest(out / "clips.csv", listed, {"imu": pa.string()})
    middle = frames / 60
    with replacing(out / "said.csv") as beside, beside.open("w", newline="", encoding="utf-8") as said:
        writer = csv.writer(said, lineterminator="\n")
        writer.writerow(["video", "time_s", "text"])
        for name, text in made:
            writer.writerow([name, f"{middle / 2:g}", text])
            writer.writerow([name, f"{middle:g}", "looks on"])
    if as_json:
        print_json({"folder": str(out), "clips": [name for name, _ in made]})
    else:
        print(f"{out}: {len(made)} clips, clips.csv, said.csv")


def _render(kind: str, seed: int, frames: int, width: int) -> tuple[Any, Any]:
    """Return the frames of a clip and what its inertial sensor reads."""
    import numpy as np

    from planish_egovid.testing import Camera, HeadMotion, Room, Swing, render_clip, simulate_imu

    motions = {
        "walk": HeadMotion(
            yaw_deg=Swing(3.0, 0.4, 0.3 * seed),
            pitch_deg=Swing(0.8, 0.6),
            roll_deg=Swing(0.5, 1.0),
            velocity_m_s=(0.0, 0.0, 0.25),
            bob_m=Swing(0.005, 2.0),
        ),
        "still": HeadMotion.still(),
        "spin": HeadMotion.spinning(100.0),
    }
    motion = motions.get(kind, motions["walk"])
    camera = Camera(width, max(18, round(width * 9 / 16)))
    pictures = render_clip(motion, frames=frames, room=Room(seed), camera=camera).frames
    if kind == "cut":
        other = render_clip(motion, frames=frames, room=Room(seed + 1000), camera=camera).frames
        pictures = np.concatenate([pictures[: frames // 2], other[frames // 2 :]])
    recording = simulate_imu(motion, frames / 30.0, accel_noise_m_s2=0.02, gyro_noise_rad_s=0.002, seed=seed)
    return pictures, recording


def _write_imu(path: Path, recording: Any) -> None:
    from planish.atomic import replacing

    with replacing(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["time_s", "gyro_x", "gyro_y", "gyro_z", "accl_x", "accl_y", "accl_z"])
        for time, gyro, accel in zip(recording.times_s, recording.gyro_rad_s, recording.accel_m_s2, strict=True):
            writer.writerow([f"{value:.9g}" for value in (time, *gyro, *accel)])
