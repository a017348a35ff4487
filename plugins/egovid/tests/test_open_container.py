"""Files are opened alike under every release of PyAV, whatever bytes their tags are."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from planish.errors import DataError
from planish.filtering import ScoreStore, decide_all, find_clips, score_clips
from planish.filtering.local_engine import LocalEngine
from planish.filtering.report.page import write_report
from planish_egovid.filters.motion import Motion
from planish_egovid.kinematics.errors import ImuError
from planish_egovid.kinematics.imu.gopro import find_gopro
from planish_egovid.video.container import open_container
from planish_egovid.video.video_file import VideoFile

Texture = Callable[..., np.ndarray]

LATIN1 = b"caf\xe9\xff"
ESCAPED = "caf\udce9\udcff"


def tagged(path: Path, frames: np.ndarray, tag: bytes = LATIN1) -> Path:
    """Write a video whose title, comment and handler hold ``tag``, of five bytes."""
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "cafXX by the sea"
        container.metadata["comment"] = "cafXX"
        stream: Any = container.add_stream("libx264", rate=30, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.metadata["handler_name"] = stream.metadata["title"] = "cafXX MET"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    data = path.read_bytes()
    assert data.count(b"cafXX") >= 3
    path.write_bytes(data.replace(b"cafXX", tag))
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi"])
def test_bytes_that_are_not_utf8_are_lone_surrogates(tmp_path: Path, moving_texture: Texture, suffix: str) -> None:
    path = tagged(tmp_path / f"clip.{suffix}", moving_texture(12))
    with open_container(path) as container:
        assert container.metadata["title"] == f"{ESCAPED} by the sea"
        assert container.metadata["title"].encode("utf-8", "surrogateescape") == LATIN1 + b" by the sea"
        assert any(value.startswith(ESCAPED) for value in container.streams[0].metadata.values())
    with VideoFile(path) as file:
        assert file.info.fps == 30
        assert type(file.time_base) is Fraction, "some releases have a rational number of their own"
    assert find_gopro(path) is None


def test_tags_in_utf8_are_read_as_such(tmp_path: Path, moving_texture: Texture) -> None:
    with open_container(tagged(tmp_path / "clip.mp4", moving_texture(4), "café".encode())) as container:
        assert container.metadata["title"] == "café by the sea"


def test_a_duration_that_is_no_text_is_not_believed(tmp_path: Path, moving_texture: Texture) -> None:
    """Matroska states the length of a stream as a tag."""
    path = tagged(tmp_path / "clip.mkv", moving_texture(12))
    data = path.read_bytes()
    at = data.index(b"00:00:00.4")
    path.write_bytes(data[:at] + b"\xe9\xff" + data[at + 2 :])
    with VideoFile(path) as file:
        assert not file.duration_is_exact
        assert file.info.duration_s == pytest.approx(0.4, abs=0.01)


def test_a_clip_with_undecodable_tags_gets_its_row_decision_and_card(tmp_path: Path, moving_texture: Texture) -> None:
    """Another clip of the same pictures, whose tags are plain, has the same scores; a damaged one has its error."""
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    tagged(folder / "odd.mp4", moving_texture(40))
    tagged(folder / "plain.mp4", moving_texture(40), b"cafes")
    whole = tagged(folder / "short.mp4", moving_texture(40)).read_bytes()
    (folder / "short.mp4").write_bytes(whole[: len(whole) // 2])
    data_filter = Motion()
    summary = score_clips(data_filter, find_clips([folder], data_filter), out, LocalEngine(in_process=True))
    assert summary.clips == 3
    store = ScoreStore.open(out)
    odd, plain, short = store.rows(data_filter)
    assert odd.error is None
    assert odd.model_dump(exclude={"clip_id"}) == plain.model_dump(exclude={"clip_id"})
    assert short.error is not None
    decide_all(data_filter, store, data_filter.Policy())
    assert "odd.mp4" in write_report(out, data_filter).read_text(encoding="utf-8")


def test_a_file_name_that_is_not_utf8_is_refused_with_its_name(tmp_path: Path, moving_texture: Texture) -> None:
    path = tagged(tmp_path / "clip.mp4", moving_texture(4))
    try:
        odd = path.rename(tmp_path / os.fsdecode(LATIN1 + b".mp4"))
    except (OSError, UnicodeError):
        pytest.skip("this file system takes names in UTF-8 alone")
    with VideoFile(odd) as file:
        assert file.info.fps == 30
    data_filter = Motion()
    with pytest.raises(DataError, match=r"caf\\udce9\\udcff\.mp4' cannot be stored: .* not UTF-8; rename the file"):
        score_clips(data_filter, find_clips([tmp_path], data_filter), tmp_path / "out", LocalEngine(in_process=True))


def test_telemetry_is_not_looked_for_where_a_name_leads(tmp_path: Path, moving_texture: Texture) -> None:
    clip = tagged(tmp_path / "clip.mp4", moving_texture(4))
    with pytest.raises(ImuError, match="cannot be opened"):
        find_gopro(f"concat:{clip}|{clip}")
