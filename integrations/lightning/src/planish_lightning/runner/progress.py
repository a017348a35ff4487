"""What a person sees while a recipe runs: bars on a terminal, a line per validation elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class RunProgress:
    """Progress of the parts of a run, on stderr; silent if it is not wanted."""

    def __init__(self, *, shown: bool) -> None:
        """Create the display.

        Args:
            shown: Whether to show anything.
        """
        self._console = Console(stderr=True)
        self._shown = shown
        self._bars = shown and self._console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._bars,
            expand=True,
        )
        self._task: TaskID | None = None
        self._name, self._total, self._figures = "", 0, {"loss": "", "val": ""}

    def __enter__(self) -> RunProgress:
        """Start the display."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the display; the bars stay as they are."""
        self._progress.stop()

    def begin(self, name: str, total: int) -> None:
        """Begin a part of ``total`` steps."""
        self._name, self._total, self._figures = name, total, {"loss": "", "val": ""}
        self._task = self._progress.add_task(name, total=total, figures="")
        if self._shown and not self._bars:
            self._line(f"{name}: {total} steps")

    def step(self, done: int, loss: float | None) -> None:
        """Show that ``done`` steps are done."""
        if self._task is not None:
            if loss is not None:
                self._figures["loss"] = f"loss {loss:.3f}"
            self._progress.update(self._task, completed=done, figures=self._text())

    def validation(self, done: int, loss: float) -> None:
        """Show a validation loss."""
        self._figures["val"] = f"val {loss:.3f}"
        if self._task is not None:
            self._progress.update(self._task, figures=self._text())
        if self._shown and not self._bars:
            self._line(f"{self._name} {done}/{self._total}: {self._text()}")

    def part(self, done: int, total: int, what: str) -> None:
        """Show a part whose length is known only as it goes; the signature is that of planish's Progress."""
        if self._task is None or self._total != total:
            self.begin("search", total)
        if self._task is not None:
            self._progress.update(self._task, completed=done, figures=what)
        if self._shown and not self._bars:
            self._line(f"search {done}/{total}: {what}")

    def say(self, text: str) -> None:
        """Show a line above the bars."""
        if self._shown:
            if self._bars:
                self._console.print(text, markup=False, highlight=False)
            else:
                self._line(text)

    def _text(self) -> str:
        return "  ".join(part for part in self._figures.values() if part)

    @staticmethod
    def _line(text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
