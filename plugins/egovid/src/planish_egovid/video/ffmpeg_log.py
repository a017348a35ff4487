"""What FFmpeg says about a file: kept for the reason of an error, never printed."""

from __future__ import annotations

from threading import Lock
from types import TracebackType
from typing import Any

import av
import av.logging

_lock = Lock()
_users = 0
_level_before: int | None = None
_skipped_before = True


class FFmpegLog:
    """Catches the error messages of FFmpeg in this thread while it is entered.

    FFmpeg tells of damage that it patches up only in its log, so the messages count, too.
    """

    def __init__(self) -> None:
        self._capture = av.logging.Capture()
        self._messages: list[tuple[int, str, str]] = []

    def __enter__(self) -> FFmpegLog:
        """Start catching."""
        global _users, _level_before, _skipped_before
        with _lock:
            if _users == 0:
                _level_before, _skipped_before = av.logging.get_level(), av.logging.get_skip_repeated()
                av.logging.set_level(av.logging.ERROR)
                av.logging.set_skip_repeated(False)  # a message that is said again is another damaged frame
            _users += 1
        self._messages = self._capture.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop catching, and set FFmpeg's log back once nobody catches."""
        global _users
        self._capture.__exit__(None, None, None)
        with _lock:
            _users -= 1
            if _users == 0:
                av.logging.set_level(_level_before)
                av.logging.set_skip_repeated(_skipped_before)

    def take(self) -> str:
        """Return the last message since the last call, or an empty string."""
        if not self._messages:
            return ""
        message = " ".join(self._messages[-1][2].split())
        self._messages.clear()
        return message

    def reason(self, error: BaseException) -> str:
        """Return an error of PyAV as a phrase, with FFmpeg's last message if there is one."""
        what: Any = getattr(error, "strerror", None) or str(error) or type(error).__name__
        said = self.take()
        return f"{what} ({said})" if said else str(what)
