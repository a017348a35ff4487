"""What a run remembers on disk about itself, so that it can be resumed and nothing else is mistaken for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from planish.atomic import make_folder, write_text
from planish.errors import CheckpointError
from planish.interfaces import RunOptions
from planish.recipe.schema import Recipe, TransformSpec

_FORMAT = 1
_FILE = "run.json"


@dataclass
class RunState:
    """The state of a run, in ``<report>/state/``: ``run.json`` and a checkpoint of the variant in training.

    Attributes:
        folder: The report folder.
        identity: What makes it this run: the recipe without ``report``, and whether there is a baseline.
        status: How it stands.
        done: Variants that are trained and in the report.
        transforms: The transforms with every open option decided; None before that.
        notes: What is to be remarked in the report about how they were decided.
        writes: Whether this process may write: the one of rank 0.
    """

    folder: Path
    identity: dict[str, Any]
    status: Literal["running", "finished"] = "running"
    done: list[str] = field(default_factory=list)
    transforms: list[dict[str, Any]] | None = None
    notes: list[str] = field(default_factory=list)
    writes: bool = True

    @classmethod
    def begin(cls, recipe: Recipe, options: RunOptions, *, writes: bool) -> RunState:
        """Start a run, or take up the one that the folder holds if it is to be resumed.

        A new run replaces the state of an older one in the same folder; nothing else there is touched.

        Raises:
            CheckpointError: There is nothing to resume, it is damaged, or it belongs to another recipe.
            WorkError: The folder cannot be written.
        """
        folder = Path(recipe.report)
        state = cls(folder, _identity(recipe, options), writes=writes)
        if options.resume:
            state._take_up()
        elif writes:
            make_folder(folder)
            shutil.rmtree(state.path, ignore_errors=True)
            state.save()
        return state

    @property
    def path(self) -> Path:
        """The folder of the state."""
        return self.folder / "state"

    def checkpoint(self, variant: str) -> Path:
        """Return where the checkpoint of a variant lies, or would."""
        return self.path / f"{variant}.ckpt"

    def specs(self, recipe: Recipe) -> tuple[TransformSpec, ...]:
        """Return the transforms with open options decided, as far as they are."""
        if self.transforms is None:
            return recipe.transforms
        return tuple(TransformSpec.model_validate(spec) for spec in self.transforms)

    def save(self) -> None:
        """Write ``run.json``.

        Raises:
            WorkError: It cannot be written.
        """
        if not self.writes:
            return
        values = {
            "format": _FORMAT,
            "status": self.status,
            "done": self.done,
            "transforms": self.transforms,
            "notes": self.notes,
            "identity": self.identity,
        }
        write_text(self.path / _FILE, json.dumps(values, indent=1))

    def finish(self) -> None:
        """Mark the run as finished and drop its checkpoints."""
        self.status = "finished"
        self.save()
        if self.writes:
            for checkpoint in self.path.glob("*.ckpt"):
                checkpoint.unlink(missing_ok=True)

    def _take_up(self) -> None:
        path = self.path / _FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            saved, version = values["identity"], values["format"]
        except FileNotFoundError:
            raise CheckpointError(f"nothing to resume in {self.folder}: run without --resume to begin") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} is damaged ({type(error).__name__}: {error}); run without --resume to begin anew"
            ) from error
        if version != _FORMAT:
            raise CheckpointError(f"{path} has format {version}, this planish-lightning resumes format {_FORMAT}")
        difference = _first_difference(saved, self.identity, "")
        if difference is not None:
            where, before, now = difference
            raise CheckpointError(
                f"{self.folder} holds a run of another recipe: {where} was {before!r} and is now {now!r}; give "
                "'report' another folder, undo the change, or run without --resume to begin anew"
            )
        self.status, self.done = values["status"], list(values["done"])
        self.transforms, self.notes = values["transforms"], list(values["notes"])


def _identity(recipe: Recipe, options: RunOptions) -> dict[str, Any]:
    values = recipe.model_dump(mode="json")
    del values["report"]
    # Through JSON, so that it compares equal to what is read back.
    identity: dict[str, Any] = json.loads(json.dumps({"baseline": options.baseline, **values}))
    return identity


def _first_difference(before: Any, now: Any, where: str) -> tuple[str, Any, Any] | None:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in [*before, *(key for key in now if key not in before)]:
            inner = f"{where}.{key}" if where else str(key)
            found = _first_difference(before.get(key), now.get(key), inner)
            if found is not None:
                return found
        return None
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, (old, new) in enumerate(zip(before, now)):
            found = _first_difference(old, new, f"{where}[{place}]")
            if found is not None:
                return found
        return None
    return None if before == now else (where, before, now)
