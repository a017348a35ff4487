"""A progress bar on a terminal, and a line a minute where there is none."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_LINE_S = 60.0


class ProgressBar:
    """Shows on stderr how far a run is: clips done, errors, clips a second, time left.

    Use it as a context, and pass it to :func:`planish.filtering.run.score_clips`.
    """

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        """Create the bar.

        Args:
            name: What stands before it.
            quiet: Show nothing.
        """
        console = Console(file=sys.stderr)
        self._name, self._quiet = name, quiet
        self._bar: Progress | None = None
        if console.is_terminal and not quiet:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[errors]} errors"),
                TextColumn("{task.fields[rate]:.1f} clips/s"),
                TimeRemainingColumn(),
                console=console,
            )
        self._task: TaskID | None = None
        self._clips = self._done = self._scored = self._errors = 0
        self._started = self._said = time.monotonic()

    def __enter__(self) -> ProgressBar:
        """Return itself; the bar appears when scoring begins."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal in order."""
        if self._bar is not None:
            self._bar.stop()

    def begin(self, clips: int, reused: int) -> None:
        """Say how many clips there are, and how many of them have their scores already."""
        self._clips, self._done = clips, reused
        self._started = self._said = time.monotonic()
        if reused and not self._quiet:
            sys.stderr.write(f"{reused:,} of {clips:,} clips have their scores already; {clips - reused:,} to go\n")
        if self._bar is not None and reused < clips:
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=clips, completed=reused, errors=0, rate=0.0)

    def advance(self, clips: int, errors: int) -> None:
        """Count further clips."""
        self._done += clips
        self._scored += clips
        self._errors += errors
        now = time.monotonic()
        rate = self._scored / max(1e-9, now - self._started)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, errors=self._errors, rate=rate)
        elif not self._quiet and now - self._said >= _LINE_S:
            self._said = now
            sys.stderr.write(
                f"{self._name}: {self._done:,} of {self._clips:,} clips, {self._errors:,} errors, {rate:.1f} clips/s\n"
            )
