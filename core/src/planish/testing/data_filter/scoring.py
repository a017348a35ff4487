"""Clauses on scoring: one row a clip, whatever the clip is and whatever stands beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from planish.testing.clause import require
from planish.testing.data_filter.subject import DataFilterSubject


class ScoringClauses(DataFilterSubject):
    """What ``score`` keeps."""

    def test_one_row_per_clip_in_order(self, tmp_path: Path) -> None:
        """``score`` returns one row of type ``Columns`` per clip, in the clips' order, without errors."""
        clips = self._clips(tmp_path)
        rows = self.make_plugin().score(clips)
        require(
            isinstance(rows, list) and [getattr(row, "clip_id", None) for row in rows] == [c.id for c in clips],
            f"{len(clips)} clips gave rows for {[getattr(row, 'clip_id', row) for row in rows]}; expected "
            f"{[clip.id for clip in clips]}",
        )
        for row in rows:
            require(type(row) is self.plugin.Columns, f"a row is a {type(row).__name__}; expected Columns")
            require(row.error is None, f"the readable clip {row.clip_id!r} got the error {row.error!r}")

    def test_no_clips_give_no_rows(self) -> None:
        """``score([])`` is an empty list."""
        try:
            rows = self.make_plugin().score([])
        except Exception as error:
            rows = None
            require(False, f"score([]) raised {type(error).__name__}: {error}; expected []")
        require(rows == [], f"score([]) returned {rows!r}; expected []")

    def test_scores_are_repeatable(self, tmp_path: Path) -> None:
        """Scoring the same clips again, by this or another instance, gives equal rows."""
        clips = self._clips(tmp_path)
        plugin = self.make_plugin()
        first = plugin.score(clips)
        require(plugin.score(clips) == first, "scoring the same clips a second time gives other rows")
        require(self.make_plugin().score(clips) == first, "another instance scores the same clips differently")

    def test_batches_do_not_matter(self, tmp_path: Path) -> None:
        """Rows do not depend on which clips are scored together, or in which order."""
        clips = self._clips(tmp_path)
        plugin = self.make_plugin()
        together = plugin.score(clips)
        alone = [row for clip in clips for row in plugin.score([clip])]
        require(alone == together, "clips scored one by one get other rows than together")
        backwards = plugin.score(clips[::-1])
        require(backwards[::-1] == together, "clips scored in reverse order get other rows")

    def test_missing_file_is_an_error_row(self, tmp_path: Path) -> None:
        """A file that does not exist gets a row with ``error``; its neighbours are scored."""
        self._bad_clip_gets_error_row(tmp_path, None, "a missing file")

    def test_empty_file_is_an_error_row(self, tmp_path: Path) -> None:
        """A file of zero bytes gets a row with ``error``; its neighbours are scored."""
        self._bad_clip_gets_error_row(tmp_path, b"", "a file of zero bytes")

    def test_garbage_is_an_error_row(self, tmp_path: Path) -> None:
        """A file of bytes in no known format gets a row with ``error``; its neighbours are scored."""
        self._bad_clip_gets_error_row(tmp_path, bytes(range(256)) * 8, "a file of meaningless bytes")

    # ---- what several clauses need

    def _bad_clip_gets_error_row(self, folder: Path, content: bytes | None, what: str) -> None:
        clips = self._clips(folder)
        path = folder / f"bad{Path(clips[0].path).suffix}"
        if content is not None:
            path.write_bytes(content)
        bad = replace(clips[0], id="bad", path=str(path))
        plugin = self.make_plugin()
        try:
            rows = plugin.score([clips[0], bad, *clips[1:]])
        except Exception as error:
            rows = []
            require(False, f"{what} made score() raise {type(error).__name__}: {error}; return a row with error set")
        require(len(rows) == len(clips) + 1, f"{what} among {len(clips) + 1} clips gave {len(rows)} rows; leave no gap")
        require(rows[1].error, f"{what} was scored as if it were readable; set error")
        spoiled = [row.clip_id for row in (rows[0], *rows[2:]) if row.error]
        require(not spoiled, f"{what} gave its neighbours {spoiled} an error too")
