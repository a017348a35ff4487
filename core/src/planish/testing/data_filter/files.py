"""Clauses on files: how they become clips, what pictures are made of them, and that they stay as they are."""

from __future__ import annotations

from pathlib import Path

from planish.errors import DataError
from planish.interfaces.data_filter import Clip, Illustration
from planish.testing.clause import require
from planish.testing.data_filter.subject import DataFilterSubject, contents
from planish.testing.picture import picture_fault


class FileClauses(DataFilterSubject):
    """What ``suffixes``, ``clips_of`` and ``illustrate`` keep."""

    def test_suffixes_begin_with_a_dot(self) -> None:
        """``suffixes`` are in lower case and begin with a dot, as a folder is searched by them."""
        suffixes = self.plugin.suffixes
        wrong = [s for s in suffixes if not (isinstance(s, str) and s.startswith(".") and s == s.lower())]
        require(not wrong, f"suffixes {wrong} will match no file; write them in lower case with their dot")

    def test_files_are_left_alone(self, tmp_path: Path) -> None:
        """``score``, ``clips_of`` and ``illustrate`` change, add and remove no file beside the clips."""
        clips = self._clips(tmp_path)
        before = contents(tmp_path)
        plugin = self.make_plugin()
        for clip, row in zip(clips, plugin.score(clips), strict=False):
            plugin.clips_of(Path(clip.path))
            plugin.illustrate(clip, row)
        after = contents(tmp_path)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        require(not changed, f"scoring changed, added or removed {changed[:3]}; write to a temporary folder")

    def test_clips_of_files_have_ids_of_their_own(self, tmp_path: Path) -> None:
        """``clips_of`` a readable file gives clips of that file, the same every time, under ids that differ."""
        seen: dict[str, str] = {}
        for path in sorted({clip.path for clip in self._clips(tmp_path)}):
            try:
                clips = self.make_plugin().clips_of(Path(path))
            except Exception as error:
                clips = []
                require(False, f"clips_of() a readable file raised {type(error).__name__}: {error}")
            require(
                clips and all(isinstance(clip, Clip) and clip.path == path for clip in clips),
                f"clips_of({path!r}) gave {clips!r}; expected at least one clip of this path",
            )
            require(clips == self.make_plugin().clips_of(Path(path)), f"clips_of({path!r}) gives other clips each time")
            for clip in clips:
                require(
                    clip.start_s >= 0 and (clip.end_s is None or clip.end_s > clip.start_s),
                    f"clip {clip.id!r} goes from {clip.start_s} to {clip.end_s} s",
                )
                require(
                    clip.id not in seen,
                    f"two clips are called {clip.id!r}, of {seen.get(clip.id)} and {path}; put file and start into ids",
                )
                seen[clip.id] = path

    def test_clips_of_a_missing_file(self, tmp_path: Path) -> None:
        """``clips_of`` a missing file raises DataError or gives the whole file, which then gets an error row."""
        path = tmp_path / f"missing{self.plugin.suffixes[0] if self.plugin.suffixes else ''}"
        try:
            clips = self.make_plugin().clips_of(path)
        except DataError:
            return
        except Exception as error:
            clips = []
            require(False, f"clips_of() a missing file raised {type(error).__name__}: {error}; raise DataError")
        whole = [(clip.path, clip.start_s, clip.end_s) for clip in clips]
        require(
            whole == [(str(path), 0.0, None)],
            f"clips_of() a missing file gave {clips!r}; raise DataError or give the whole file",
        )

    def test_illustrations_are_pictures(self, tmp_path: Path) -> None:
        """``illustrate`` gives Illustrations with a title, whose data is what their media type says."""
        plugin = self.make_plugin()
        clips = self._clips(tmp_path)
        for clip, row in zip(clips, plugin.score(clips), strict=False):
            try:
                made = plugin.illustrate(clip, row)
            except Exception as error:
                made = []
                require(False, f"illustrate() raised {type(error).__name__}: {error} for the readable {clip.id!r}")
            require(
                isinstance(made, list) and all(isinstance(one, Illustration) for one in made),
                f"illustrate() returned {made!r}; expected a list of planish.interfaces.Illustration",
            )
            for one in made:
                require(one.title.strip() and "\n" not in one.title, f"a picture is called {one.title!r}; use one line")
                fault = picture_fault(one.data, one.media_type)
                require(not fault, f"the picture {one.title!r} of clip {clip.id!r} {fault}")
