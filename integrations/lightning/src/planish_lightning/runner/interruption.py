"""Ctrl-C and termination during a run: the step in progress is completed and kept, then the run stops."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any


class Interruption:
    """Within this context the first SIGINT or SIGTERM during training only sets :attr:`requested`.

    The second one, or one that comes outside of training, raises KeyboardInterrupt at once. Handlers are put back at
    the end. Outside the main thread, where Python delivers no signals, nothing is installed.
    """

    def __init__(self) -> None:
        """Create the context."""
        self.requested = False
        self.is_training = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the earlier handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def reinstall(self) -> None:
        """Install the handlers again: Lightning puts its own in place of SIGTERM's while it trains."""
        for number in self._before:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested or not self.is_training:
            raise KeyboardInterrupt
        self.requested = True
        sys.stderr.write("\nstopping after this step; once more stops at once\n")
