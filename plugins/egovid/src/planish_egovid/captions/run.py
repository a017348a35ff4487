"""Captioning many clips into a file, so that a run that was killed goes on where it stopped."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from planish.atomic import make_folder, replacing
from planish.errors import ConfigError, DataError, WorkError
from planish.interfaces import Clip
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planish_egovid.captions.backend import CaptionBackend
from planish_egovid.captions.captioning import Caption, caption
from planish_egovid.captions.config import CaptionConfig
from planish_egovid.captions.sampling import caption_times
from planish_egovid.video import ClipView, DecodeConfig, FrameRequest, VideoInfo, decode_clips

logger = logging.getLogger("planish_egovid")

FAILURES_IN_A_ROW = 10
"""So many clips in a row that the backend could not be asked for end the run: its server is gone."""


class CaptionRow(BaseModel):
    """What is stored of a clip."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip_id: str = Field(description="identifier of the clip")
    description: str | None = Field(None, description="what is seen, at length")
    name: str | None = Field(None, description="the action as a short phrase; the released tables call it so too")
    reason: str | None = Field(None, description="why there is no phrase, or null")
    attempts: int = Field(0, description="how often the phrase was asked for")
    backend: str = Field(description="what wrote it")
    error: str | None = Field(None, description="why the clip could not be captioned, or null")


@dataclass(frozen=True)
class CaptionSummary:
    """What a run did.

    Attributes:
        clips: Clips asked for.
        resumed: Of these, captioned by an earlier run.
        captioned: Captioned now, with a phrase.
        unusable: Captioned now, without one.
        errors: Not captioned: could not be decoded, or the backend failed.
        out: The file.
    """

    clips: int
    resumed: int
    captioned: int
    unusable: int
    errors: int
    out: Path


def caption_clips(
    clips: Iterable[Clip],
    backend: CaptionBackend,
    out: Path,
    config: CaptionConfig | None = None,
    *,
    retry_errors: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CaptionSummary:
    """Caption clips into a ``.jsonl`` or ``.parquet`` file, one row each.

    Every row is on disk before the next is begun. A later run with the same backend leaves clips alone that have a
    row; rows of another backend, and rows of clips that are not asked for, stay as they are. Parquet is written whole
    at the end, from a journal beside it that a killed run leaves behind.

    Args:
        clips: With unique ids; hints in ``extra``, the narration in ``text``.
        backend: Who writes.
        out: The file.
        config: Frames, sizes and limits.
        retry_errors: Whether clips whose row has an error are done again.
        progress: Called with clips done and clips in all.

    Raises:
        ConfigError: ``out`` has another suffix.
        DataError: ``out`` holds something else, or an id occurs twice.
        WorkError: The file cannot be written, or the backend failed for many clips in a row.
    """
    settings = config or CaptionConfig()
    journal = _Journal(out)
    wanted = list(clips)
    ids = [clip.id for clip in wanted]
    if len(set(ids)) != len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise DataError(f"the id {twice!r} occurs twice among the clips; give them ids of their own")
    known = journal.read()
    finished = {
        name for (name, wrote), row in known.items() if wrote == backend.name and not (retry_errors and row.error)
    }
    missing = [clip for clip in wanted if clip.id not in finished]
    counts = {"captioned": 0, "unusable": 0, "errors": 0}
    failures = 0
    done = len(wanted) - len(missing)
    progress(done, len(wanted))
    with journal:
        for row, failed in _rows(missing, backend, settings):
            journal.append(row)
            counts["errors" if row.error else "captioned" if row.name is not None else "unusable"] += 1
            done += 1
            progress(done, len(wanted))
            failures = 0 if failed is False else failures + bool(failed)
            if failures >= FAILURES_IN_A_ROW:
                raise WorkError(
                    f"{backend.name} failed for {failures} clips in a row, at last with: {row.error}; run the same "
                    "command again, with --retry-errors, when it answers"
                )
    journal.finish()
    return CaptionSummary(len(wanted), len(wanted) - len(missing), **counts, out=out)


def _rows(
    clips: Sequence[Clip], backend: CaptionBackend, config: CaptionConfig
) -> Iterator[tuple[CaptionRow, bool | None]]:
    """Yield each clip's row and whether the backend failed, None if it was not asked; decodes while it is at work."""
    with ThreadPoolExecutor(backend.parallel, thread_name_prefix="caption") as pool:
        under_way: deque[tuple[Clip, Future[Caption]]] = deque()
        try:
            for clip, seen in _seen(clips, backend, config):
                if isinstance(seen, Exception):
                    yield CaptionRow(clip_id=clip.id, backend=backend.name, error=_said(seen)), None
                    continue
                under_way.append((clip, pool.submit(_captioned, backend, clip, seen, config)))
                if len(under_way) > backend.parallel:
                    yield _finished(*under_way.popleft(), backend)
            while under_way:
                yield _finished(*under_way.popleft(), backend)
        finally:
            for _, future in under_way:
                future.cancel()


def _captioned(backend: CaptionBackend, clip: Clip, frames: NDArray[np.uint8] | None, config: CaptionConfig) -> Caption:
    return caption(
        backend,
        frames,
        text=clip.text,
        verb=clip.extra.get(config.verb_column),
        noun=clip.extra.get(config.noun_column),
        words=config.words,
        verbs=frozenset(config.verbs),
    )


def _finished(clip: Clip, future: Future[Caption], backend: CaptionBackend) -> tuple[CaptionRow, bool]:
    try:
        found = future.result()
    except WorkError as error:
        return CaptionRow(clip_id=clip.id, backend=backend.name, error=_said(error)), True
    return (
        CaptionRow(
            clip_id=clip.id,
            description=found.description,
            name=found.name,
            reason=found.reason,
            attempts=found.attempts,
            backend=backend.name,
        ),
        False,
    )


def _seen(
    clips: Sequence[Clip], backend: CaptionBackend, config: CaptionConfig
) -> Iterator[tuple[Clip, NDArray[np.uint8] | Exception | None]]:
    """Yield each clip with its frames, with why it has none, or with None for a backend that looks at none."""
    if not backend.looks_at_frames:
        yield from ((clip, None) for clip in clips)
        return

    def request(video: VideoInfo, duration_s: float) -> FrameRequest:
        return FrameRequest(caption_times(video, duration_s, config.frames), "rgb", config.size)

    for _, together in groupby(clips, key=lambda clip: (clip.path, clip.extra.get("stream"))):
        for clip, view in decode_clips(
            list(together), lambda clip, video, duration_s: [request(video, duration_s)], DecodeConfig()
        ):
            if isinstance(view, ClipView):
                yield clip, view.frames(request(view.video, view.duration_s)).images
            else:
                yield clip, view


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class _Journal:
    """The file, written a row at a time."""

    def __init__(self, out: Path) -> None:
        self._out = out
        if out.suffix not in (".jsonl", ".parquet"):
            raise ConfigError(f"captions go to a .jsonl or .parquet file, not {out.name}")
        self._path = out if out.suffix == ".jsonl" else out.with_name(f".{out.name}.journal.jsonl")
        self._handle: Any = None

    def read(self) -> dict[tuple[str, str], CaptionRow]:
        """Return the rows so far, by clip and backend; cuts off a last line that a killed run did not finish."""
        rows: dict[tuple[str, str], CaptionRow] = {}
        for row in [*self._read_parquet(), *self._read_lines()]:
            rows[row.clip_id, row.backend] = row
        return rows

    def _read_lines(self) -> list[CaptionRow]:
        if not self._path.is_file():
            return []
        data = self._path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            logger.warning("%s: its last line is cut short; that clip is captioned again", self._path)
            with self._path.open("r+b") as handle:
                handle.truncate(whole)
        rows = []
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                rows.append(CaptionRow.model_validate_json(line))
            except ValidationError:
                raise DataError(
                    f"{self._path}, line {number}: no row of captions; name another file, or remove that line"
                ) from None
        return rows

    def _read_parquet(self) -> list[CaptionRow]:
        if self._path == self._out or not self._out.is_file():
            return []
        import pyarrow
        from pyarrow import parquet

        try:
            return [CaptionRow.model_validate(row) for row in parquet.read_table(self._out).to_pylist()]
        except (pyarrow.ArrowException, ValidationError) as error:
            raise DataError(f"{self._out} holds no captions: {_said(error)[:200]}; name another file") from None

    def __enter__(self) -> _Journal:
        make_folder(self._path.parent)
        try:
            self._handle = self._path.open("ab")
        except OSError as error:
            raise WorkError(f"cannot write {self._path}: {error.strerror or error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def append(self, row: CaptionRow) -> None:
        """Put a row on disk."""
        line = json.dumps(row.model_dump(), ensure_ascii=False)
        try:
            self._handle.write(f"{line}\n".encode())
            self._handle.flush()
            os.fsync(self._handle.fileno())
        except OSError as error:
            raise WorkError(
                f"cannot write {self._path}: {error.strerror or error}; free space, run it again"
            ) from error

    def finish(self) -> None:
        """Leave one row a clip and backend, the latest; write Parquet, if that is what was asked for."""
        rows = [row.model_dump() for row in self.read().values()]
        if self._path == self._out:
            lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
            with replacing(self._out) as beside:
                beside.write_text(lines, encoding="utf-8")
            return
        import pyarrow
        from pyarrow import parquet

        kinds = {"attempts": pyarrow.int32()}
        schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in CaptionRow.model_fields])
        with replacing(self._out) as beside:
            parquet.write_table(pyarrow.Table.from_pylist(rows, schema), beside)
        self._path.unlink(missing_ok=True)
