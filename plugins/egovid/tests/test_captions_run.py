"""Captioning into files: resuming, errors that stay with their clip, and the command."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planish.errors import ConfigError, DataError, WorkError
from planish.interfaces import Clip
from planish_egovid.captions import CaptionConfig, CaptionRow, caption_backend, caption_clips, caption_command
from planish_egovid.captions import run as running
from planish_egovid.captions.template import TemplateCaptions
from planish_egovid.testing import write_video

CLIPS = [
    Clip("a", "a.mp4", extra={"verb_cls": "cut_(trim)", "noun_cls": "apple"}),
    Clip("b", "b.mp4", text="#C C opens the door"),
    Clip("c", "c.mp4", extra={"verb_cls": float("nan")}, text="nan"),
]


def read(path: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["clip_id"] for row in rows}) == len(rows)
    return {row["clip_id"]: row for row in rows}


class Eyes:
    """A backend that looks at frames: says how bright they are."""

    name = "eyes"
    looks_at_frames = True
    parallel = 3

    def __init__(self, fail: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        self.calls, self.fail, self.lock = 0, fail, threading.Lock()

    def describe(self, frames: Any) -> str:
        with self.lock:
            self.calls += 1
            call = self.calls
        time.sleep(0.001 * (call % 3))
        if call in self.fail:
            raise WorkError("the server is\ndown")
        assert frames.dtype == np.uint8
        return f"{len(frames)} frames of {frames.shape[2]}x{frames.shape[1]}, level {frames.mean():.0f}"

    def condense(self, text: str, verb: str | None, noun: str | None, *, complaint: str | None = None) -> str:
        return f"look at {text}"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("videos")
    clips = []
    for number, level in enumerate((40, 120, 200)):
        frames = np.full((36, 48, 64, 3), level, np.uint8)
        write_video(folder / f"{number}.mp4", frames, fps=12)
        clips.append(Clip(f"v{number}", str(folder / f"{number}.mp4")))
    clips.append(Clip("v0-part", str(folder / "0.mp4"), 0.0, 1.5))
    (folder / "broken.mp4").write_bytes(b"not a video")
    clips.append(Clip("broken", str(folder / "broken.mp4")))
    return clips


def test_rows_say_what_was_written_and_why_not(tmp_path: Path) -> None:
    summary = caption_clips(CLIPS, TemplateCaptions(), tmp_path / "out.jsonl")
    assert (summary.clips, summary.captioned, summary.unusable, summary.errors) == (3, 2, 1, 0)
    rows = read(tmp_path / "out.jsonl")
    assert rows["a"]["name"] == "cut the apple"
    assert rows["b"]["name"] == "opens the door"
    assert rows["c"]["name"] is None
    assert rows["c"]["reason"].startswith("no_text")
    assert {row["backend"] for row in rows.values()} == {"template/1"}


def test_parquet_is_written_whole(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    caption_clips(CLIPS[:2], TemplateCaptions(), tmp_path / "out.parquet")
    caption_clips(CLIPS, TemplateCaptions(), tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.column_names == list(CaptionRow.model_fields)
    assert table.column("clip_id").to_pylist() == ["a", "b", "c"]
    assert table.column("name").to_pylist() == ["cut the apple", "opens the door", None]
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"], "no journal is left"


def test_models_see_the_frames_and_failures_stay_with_their_clip(tmp_path: Path, videos: list[Clip]) -> None:
    summary = caption_clips(videos, Eyes(), tmp_path / "out.jsonl", CaptionConfig(size=32))
    assert (summary.captioned, summary.errors) == (4, 1)
    rows = read(tmp_path / "out.jsonl")
    assert rows["v0"]["description"].startswith("3 frames of 32x24, level ")
    assert rows["v0-part"]["description"].startswith("2 frames")
    levels = [int(rows[f"v{n}"]["description"].rsplit(" ", 1)[1]) for n in range(3)]
    np.testing.assert_allclose(levels, [40, 120, 200], atol=4)
    assert rows["broken"]["error"]
    assert rows["broken"]["name"] is None


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [Clip(str(n), f"{n}.mp4", text=f"opens door {n}") for n in range(10)]
    out = tmp_path / "out.jsonl"
    written = 0
    append = running._Journal.append

    def dies(self: Any, row: CaptionRow) -> None:
        nonlocal written
        if written == 4:
            self._handle.write(b'{"clip_id": "4", "na')  # the write that the kill cut short
            self._handle.flush()
            raise KeyboardInterrupt
        append(self, row)
        written += 1

    monkeypatch.setattr(running._Journal, "append", dies)
    with pytest.raises(KeyboardInterrupt):
        caption_clips(clips, TemplateCaptions(), out)
    monkeypatch.setattr(running._Journal, "append", append)
    summary = caption_clips(clips, TemplateCaptions(), out)
    assert (summary.resumed, summary.captioned) == (4, 6)
    assert sorted(read(out), key=int) == [str(n) for n in range(10)]
    again = caption_clips(clips, TemplateCaptions(), out)
    assert (again.resumed, again.captioned) == (10, 0)


def test_a_killed_parquet_run_leaves_its_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "out.parquet"
    caption_clips(CLIPS[:1], TemplateCaptions(), out)
    with monkeypatch.context() as patch:
        patch.setattr(running._Journal, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            caption_clips(CLIPS[:2], TemplateCaptions(), out)
    assert len(list(tmp_path.iterdir())) == 2
    summary = caption_clips(CLIPS, TemplateCaptions(), out)
    assert summary.resumed == 2
    assert parquet.read_table(out).num_rows == 3


def test_another_backend_writes_its_own_rows(tmp_path: Path, videos: list[Clip]) -> None:
    out = tmp_path / "out.jsonl"
    clips = [Clip(clip.id, clip.path, text="opens a box") for clip in videos[:2]]
    caption_clips(clips, TemplateCaptions(), out)
    summary = caption_clips(clips, Eyes(), out)
    assert (summary.resumed, summary.captioned) == (0, 2)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted((row["clip_id"], row["backend"]) for row in rows) == [
        ("v0", "eyes"), ("v0", "template/1"), ("v1", "eyes"), ("v1", "template/1"),
    ]  # fmt: skip


def test_errors_are_done_again_on_request_alone(tmp_path: Path, videos: list[Clip]) -> None:
    out = tmp_path / "out.jsonl"
    summary = caption_clips(videos[:3], Eyes({2}), out)
    assert (summary.captioned, summary.errors) == (2, 1)
    (failed,) = [row for row in read(out).values() if row["error"]]
    assert failed["error"] == "the server is down"
    assert caption_clips(videos[:3], Eyes(), out).resumed == 3
    summary = caption_clips(videos[:3], Eyes(), out, retry_errors=True)
    assert (summary.resumed, summary.captioned, summary.errors) == (2, 1, 0)
    assert len(read(out)) == 3


def test_a_server_that_is_gone_ends_the_run(tmp_path: Path, videos: list[Clip]) -> None:
    clips = [Clip(str(n), videos[0].path) for n in range(30)]
    with pytest.raises(WorkError, match="failed for 10 clips in a row, at last with: the server is down"):
        caption_clips(clips, Eyes(set(range(100))), tmp_path / "out.jsonl")
    assert len(read(tmp_path / "out.jsonl")) == 10


def test_rows_are_reported_as_they_come(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    caption_clips(CLIPS, TemplateCaptions(), tmp_path / "o.jsonl", progress=lambda *done: seen.append(done))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_files_of_another_kind_are_refused_and_kept(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.jsonl or \.parquet"):
        caption_clips(CLIPS, TemplateCaptions(), tmp_path / "out.csv")
    (tmp_path / "notes.jsonl").write_text('{"note": 1}\n')
    with pytest.raises(DataError, match="line 1: no row of captions"):
        caption_clips(CLIPS, TemplateCaptions(), tmp_path / "notes.jsonl")
    assert (tmp_path / "notes.jsonl").read_text() == '{"note": 1}\n'
    (tmp_path / "bad.parquet").write_bytes(b"PAR?")
    with pytest.raises(DataError, match="holds no captions"):
        caption_clips(CLIPS, TemplateCaptions(), tmp_path / "bad.parquet")
    with pytest.raises(DataError, match="'a' occurs twice"):
        caption_clips([CLIPS[0], CLIPS[0]], TemplateCaptions(), tmp_path / "out.jsonl")


def test_backends_by_name() -> None:
    assert isinstance(caption_backend(CaptionConfig()), TemplateCaptions)
    with pytest.raises(ConfigError, match=r"endpoint\.model"):
        caption_backend(CaptionConfig(backend="endpoint"))


def test_the_command(tmp_path: Path) -> None:
    typer = pytest.importorskip("typer")
    from typer.testing import CliRunner

    app = typer.Typer()
    app.command()(caption_command)
    (tmp_path / "clips.csv").write_text(
        "id,path,text,extra.verb_cls,extra.noun_cls\na,a.mp4,,cut_(trim),apple\nb,b.mp4,#C C opens the door,,\n"
    )
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    arguments = [str(tmp_path / "clips.csv"), "--out", str(tmp_path / "out.jsonl"), "--json"]
    first = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)["captioned"] == 2
    assert read(tmp_path / "out.jsonl")["a"]["name"] == "cut the apple"
    second = CliRunner().invoke(app, [*arguments[:-1]], catch_exceptions=False)
    assert "2 of them from an earlier run" in second.stdout
    with pytest.raises(ConfigError, match="backend"):
        CliRunner().invoke(app, [*arguments, "--set", "backend=telepathy"], catch_exceptions=False)


def test_the_command_fails_where_too_many_clips_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typer = pytest.importorskip("typer")
    from typer.testing import CliRunner

    app = typer.Typer()
    app.command()(caption_command)
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    monkeypatch.setattr("planish_egovid.captions.config.caption_backend", lambda config: Eyes())
    found = CliRunner().invoke(
        app, [str(tmp_path / "broken.mp4"), "--out", str(tmp_path / "out.jsonl")], catch_exceptions=False
    )
    assert found.exit_code == 1
    assert "1 with an error" in found.stdout
