"""Opening a media file through PyAV, the same under every release that is supported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

# Tags need not be UTF-8, and one that is not must not cost the clip. From 19 on, PyAV maps such bytes to lone
# surrogates, and takes no argument for it; before, it raises unless told to do the same. Only a release that takes the
# argument has the attribute.
_TAGS: dict[str, Any] = {"metadata_errors": "surrogateescape"} if hasattr(InputContainer, "metadata_errors") else {}


def open_container(path: str | Path) -> Any:
    """Open a local media file for reading; a name or a playlist in it leads nowhere else.

    Bytes of its tags that are no UTF-8 are lone surrogates in ``metadata``: compare tags or parse them, and pass them
    through ``encode("utf-8", "backslashreplace")`` before they are stored or shown.

    Args:
        path: The file.

    Returns:
        The ``av.container.InputContainer``; use it as a context manager, or close it.

    Raises:
        av.error.FFmpegError: FFmpeg cannot open it; those are ``OSError`` or ``ValueError``, too.
    """
    return av.open(f"file:{path}", container_options={"protocol_whitelist": "file"}, **_TAGS)
