"""Clauses on stages: what engines run in their workers amounts to ``score``."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from planish.interfaces.data_filter import Clip, ClipWork, DataFilter, Row, Stage
from planish.testing.clause import require
from planish.testing.data_filter.subject import DataFilterSubject


class StagingClauses(DataFilterSubject):
    """What ``stages`` keeps."""

    def test_stages_have_names_and_possible_needs(self) -> None:
        """``stages`` gives at least one stage; names differ, and each needs a possible amount of the machine."""
        stages = self.make_plugin().stages()
        require(
            isinstance(stages, list) and stages and all(isinstance(stage, Stage) for stage in stages),
            f"stages() returned {stages!r}; expected a list of planish.interfaces.Stage",
        )
        names = [stage.name for stage in stages]
        require(len(set(names)) == len(names) and all(names), f"stages are called {names}; give each a name of its own")
        for stage in stages:
            amounts = {"cpus": stage.cpus, "gpus": stage.gpus}
            wrong = {name: n for name, n in amounts.items() if not (math.isfinite(n) and n >= 0)}
            require(not wrong, f"stage {stage.name!r} needs {wrong}; expected numbers from 0 on")
            require(
                type(stage.batch_size) is int and stage.batch_size >= 1,
                f"stage {stage.name!r} takes batches of {stage.batch_size!r} clips; expected 1, 2, 3, …",
            )

    def test_stages_give_the_rows_of_score(self, tmp_path: Path) -> None:
        """The stages, one after the other over batches of any size, give the rows of ``score``, with its errors."""
        plugin = self.make_plugin()
        clips = self._clips_and_a_missing_one(plugin, tmp_path)
        for size in (1, 2, len(clips)):
            expected = [
                row for start in range(0, len(clips), size) for row in plugin.score(clips[start : start + size])
            ]
            for clip, row, other in zip(clips, self._staged(plugin, clips, size), expected, strict=True):
                require(
                    _scores(row) == _scores(other),
                    f"clip {clip.id!r}: in batches of {size}, the stages give {row!r}; score() gives {other!r}",
                )

    def test_payload_survives_pickling(self, tmp_path: Path) -> None:
        """What passes from stage to stage is values and numeric arrays: pickled in between, the rows are the same."""
        plugin = self.make_plugin()
        clips = self._clips_and_a_missing_one(plugin, tmp_path)
        travelled = self._staged(plugin, clips, 1, pickled=True)
        require(travelled == self._staged(plugin, clips, 1), "pickled between stages, clips get other rows")

    # ---- what several clauses need

    def _clips_and_a_missing_one(self, plugin: DataFilter, folder: Path) -> list[Clip]:
        clips = self._clips(folder)
        missing = replace(clips[0], id="missing", path=str(folder / f"missing{Path(clips[0].path).suffix}"))
        try:
            plugin.score([missing])
        except Exception:  # another clause says so
            return clips
        return [clips[0], missing, *clips[1:]]

    def _staged(self, plugin: DataFilter, clips: Sequence[Clip], size: int, *, pickled: bool = False) -> list[Row]:
        works = [ClipWork(clip) for clip in clips]
        for stage in plugin.stages():
            done: list[ClipWork] = []
            for start in range(0, len(works), size):
                batch = works[start : start + size]
                try:
                    done += stage.run(_travel(batch, stage.name) if pickled else batch)
                except Exception as error:
                    require(False, f"stage {stage.name!r} raised {type(error).__name__}: {error}; set the clip's error")
            require(
                [work.clip.id for work in done] == [clip.id for clip in clips],
                f"stage {stage.name!r} took {len(clips)} clips in batches of {size} and returned "
                f"{[work.clip.id for work in done]}; return each work, in order",
            )
            works = done
        return [plugin.row_of(work) for work in (_travel(works, "the last one") if pickled else works)]


def _scores(row: Row) -> dict[str, object]:
    """Return a row's values without its clip, which another clause is about."""
    return row.model_dump(exclude={"clip_id"})


def _travel(works: Iterable[ClipWork], stage: str) -> list[ClipWork]:
    """Return works as they arrive in another process."""
    arrived = []
    for work in works:
        for name, array in work.payload.items():
            require(
                isinstance(array, np.ndarray) and not array.dtype.hasobject,
                f"before stage {stage!r} payload {name!r} is {type(array).__name__}; expected a numeric numpy array",
            )
        try:
            arrived.append(pickle.loads(pickle.dumps(work)))
        except Exception as error:
            require(False, f"before stage {stage!r} a clip cannot be pickled: {type(error).__name__}: {error}")
    return arrived
