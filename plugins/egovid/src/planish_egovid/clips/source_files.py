"""Finding the video files of released clips."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from planish.interfaces import Clip

from planish_egovid.clips.frame_rate import to_seconds
from planish_egovid.clips.ids import ClipId


@dataclass
class SourceFiles:
    """Video files in a folder: whole sources as ``<source>.mp4``, or clips that are cut already as ``<video_id>.mp4``.

    Attributes:
        folder: Where they are.
        missing: Sources that were asked for and have no file.
    """

    folder: Path
    missing: set[str] = field(default_factory=set)
    _known: dict[str, bool] = field(default_factory=dict, repr=False)

    def clip(self, video_id: str, parsed: ClipId, fps: Fraction, text: str | None, extra: dict[str, Any]) -> Clip:
        """Return a released clip on its file: the cut one if there is one, else its frames of the source."""
        cut = self.folder / f"{ClipId(parsed.source, parsed.start, parsed.end)}.mp4"
        whole = self.folder / f"{parsed.source}.mp4"
        if not self._exists(parsed.source, whole) and cut.is_file():
            return Clip(video_id, str(cut), 0.0, None, text, extra)
        if not self._known[parsed.source]:
            self.missing.add(parsed.source)
        start, end = to_seconds(parsed.start, fps), to_seconds(parsed.end, fps)
        return Clip(video_id, str(whole), start, end, text, extra)

    def _exists(self, source: str, path: Path) -> bool:
        if source not in self._known:
            self._known[source] = path.is_file()
        return self._known[source]
