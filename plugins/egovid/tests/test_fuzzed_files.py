"""More than five hundred damaged and odd files: one row each, with a reason, soon, and the same one every time."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from planish.config import Config
from planish.interfaces import Clip, Row
from planish_egovid.axis import Axis
from planish_egovid.filters import AxisFilter, EgoVid
from planish_egovid.filters.clip_columns import ClipColumns
from planish_egovid.testing.damaged_files import DamagedFile, damaged_files
from planish_egovid.video import ClipView, FrameRequest, VideoInfo
from pydantic import Field

Corpus = list[tuple[DamagedFile, Clip]]

COUNT = 560
LONGEST_S = 5.0


class LookConfig(Config):
    """Nothing to choose."""


class LookColumns(Row):
    mean: float | None = Field(None, description="mean of all pixels")


class LookAxis(Axis):
    """Looks at frames in every way that axes do, without computing anything."""

    name = "look"
    summary = "pixels"
    Config = LookConfig
    Columns = LookColumns

    def requests(self, clip: Clip, video: VideoInfo, duration_s: float) -> Sequence[FrameRequest]:
        often = tuple(np.arange(0, duration_s, 0.1).tolist())
        return (
            FrameRequest(often, "gray", 32),
            FrameRequest((0.0, duration_s / 2, duration_s), "rgb", 24, "cover"),
            FrameRequest((duration_s / 3,), "rgb", fit="native"),
        )

    def measure(self, view: ClipView) -> dict[str, Any]:
        frames = [view.frames(request) for request in self.requests(view.clip, view.video, view.duration_s)]
        return {"mean": float(np.mean([f.images.mean() for f in frames]))}


class Look(AxisFilter):
    name = "look"
    summary = "pixels"
    axis = LookAxis


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    made = []
    for file in damaged_files(COUNT, seed=20):
        (folder / file.name).write_bytes(file.content)
        made.append((file, Clip(file.name, str(folder / file.name))))
    assert len(made) == COUNT
    assert len({file.name for file, _ in made}) == COUNT
    return made


def require_row(file: DamagedFile, row: Row) -> None:
    """Hold a row to: the right clip, either an error that says why, or all that decoding tells."""
    assert row.clip_id == file.name
    if row.error is None:
        assert file.readable is not False, "scored what is no video"
        assert isinstance(row, ClipColumns)
        assert row.frames_actual
        assert row.frames_damaged == 0
        assert row.variable_rate or row.frames_actual >= 0.9 * row.frames_expected - 1  # type: ignore[operator]
        return
    assert file.readable is not True, row.error
    assert len(row.error.split()) >= 2, f"no reason in {row.error!r}"
    assert not re.match(r"(\w+: )?\w*(Error|Exception)\b", row.error), f"an error that nobody foresaw: {row.error}"
    assert row.model_dump(exclude={"clip_id", "error"}, exclude_none=True) == {}


def test_every_file_gets_one_row_soon(corpus: Corpus, capfd: pytest.CaptureFixture[str]) -> None:
    plugin = Look()
    rows = []
    for file, clip in corpus:
        begun = time.monotonic()
        (row,) = plugin.score([clip])
        assert time.monotonic() - begun < LONGEST_S, file.name
        require_row(file, row)
        rows.append(row)
    assert plugin.score([clip for _, clip in corpus][::-1])[::-1] == rows, "rows depend on the batch, or on chance"
    reasons = " | ".join(row.error or "" for row in rows)
    for phrase in (
        "truncated: ",
        "damaged: ",
        "incomplete: ",
        "cannot be opened",
        "no video stream",
        "still image",
        "playlist",
    ):
        assert phrase in reasons, phrase
    printed = capfd.readouterr()
    assert printed.out + printed.err == "", "FFmpeg printed something"
    failed = sum(row.error is not None for row in rows)
    assert COUNT / 4 < failed < 3 * COUNT / 4, "a corpus that is all good or all bad tests little"


def test_the_whole_pipeline_takes_them_too(corpus: Corpus) -> None:
    """The axes themselves stand what decoding lets through: a tenth of the corpus, and all odd but good files."""
    chosen = [pair for i, pair in enumerate(corpus) if pair[0].readable or i % 10 == 0]
    plugin = EgoVid()
    for (file, _), row in zip(chosen, plugin.score([clip for _, clip in chosen]), strict=True):
        require_row(file, row)
        assert plugin.decide(row).reason or row.error is None


def test_the_corpus_is_the_same_every_time() -> None:
    once, again = (list(damaged_files(COUNT, seed=3))[-60:] for _ in range(2))
    assert once == again
    assert [file.content for file in damaged_files(COUNT, seed=4)][-60:] != [file.content for file in once]
