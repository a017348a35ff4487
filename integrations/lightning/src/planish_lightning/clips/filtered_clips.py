"""FilteredClips: a data module over the clips that a data filter keeps."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from planish.atomic import write_text
from planish.config import Config, validate
from planish.errors import ConfigError, DataError, WorkError
from planish.interfaces import Clip, DataFilter, Decision, Row
from planish.plugins.manager import default_registry
from planish.plugins.registry import Registry
from pydantic import ValidationError
from torch.utils.data import DataLoader, Dataset

_log = logging.getLogger(__name__)


class FilteredClips(L.LightningDataModule):
    """Scores clips with a data-filter plugin once, and trains on those it keeps::

        data = FilteredClips(clips, "egovid", dataset=MyClips, scores="scores.jsonl", batch_size=4)
        Trainer().fit(LitVideoModel("egodreamer"), data)

    Scores are written to ``scores`` as they come, a JSON line a clip; a run that is interrupted, or that adds clips,
    scores only what is missing. Thresholds (``policy``) are applied afterwards and can be changed without scoring
    again.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        data_filter: str | DataFilter,
        *,
        dataset: Callable[[Sequence[Clip]], Dataset[Any]],
        scores: str | Path,
        options: Mapping[str, Any] | None = None,
        policy: Mapping[str, Any] | Config | None = None,
        val_fraction: float = 0.0,
        score_batch: int = 32,
        registry: Registry | None = None,
        **loader: Any,
    ) -> None:
        """Create the data module; nothing is scored yet.

        Args:
            clips: The clips, with unique ids.
            data_filter: Name of an installed data-filter plugin, or a data filter.
            dataset: Makes the dataset of kept clips.
            scores: JSON-lines file of scores; created if missing.
            options: The filter's options, for a name.
            policy: Thresholds; None for the filter's defaults.
            val_fraction: Share of clips for validation, chosen by a hash of their file, so that pieces of one file
                stay together.
            score_batch: Clips scored at a time.
            registry: Where the name is looked up; None for what is installed.
            loader: Passed to :class:`torch.utils.data.DataLoader`; ``shuffle`` concerns training only, and is on.

        Raises:
            PluginError: No data filter has this name.
            ConfigError: An option or threshold is wrong, or two clips share an id.
        """
        super().__init__()
        if isinstance(data_filter, str):
            made: DataFilter = (registry or default_registry()).load(data_filter, "data_filter")(dict(options or {}))
        else:
            made = data_filter
        self.filter = made
        self.policy = validate(self.filter.Policy, policy or {}, where=f"{self.filter.name}.policy")
        twice = [clip_id for clip_id, count in Counter(c.id for c in clips).items() if count > 1]
        if twice:
            raise ConfigError(f"clips: the id {twice[0]!r} occurs more than once; ids must be unique")
        if not 0 <= val_fraction < 1:
            raise ConfigError(f"val_fraction is {val_fraction}; expected at least 0 and below 1")
        if score_batch < 1:
            raise ConfigError(f"score_batch is {score_batch}; expected at least 1")
        self.clips, self.scores, self._dataset = list(clips), Path(scores), dataset
        self.val_fraction, self.score_batch, self._loader = val_fraction, score_batch, loader
        self.decisions: dict[str, Decision] = {}

    @property
    def kept(self) -> list[Clip]:
        """The kept clips, in order; empty before :meth:`setup`."""
        return [clip for clip in self.clips if self.decisions.get(clip.id)]

    @property
    def rejected(self) -> dict[str, str]:
        """Clip id -> why it was rejected."""
        return {clip_id: decision.reason for clip_id, decision in self.decisions.items() if not decision}

    def prepare_data(self) -> None:
        """Score the clips that have no score of this filter and configuration yet; on one rank.

        Raises:
            WorkError: The score file cannot be written.
        """
        rows = self._read()
        missing = [clip for clip in self.clips if clip.id not in rows]
        if not missing:
            return
        write_text(self.scores, "\n".join([self._identity(), *(row.model_dump_json() for row in rows.values())]) + "\n")
        for start in range(0, len(missing), self.score_batch):
            scored = self.filter.score(missing[start : start + self.score_batch])
            self._append([row.model_dump_json() for row in scored])

    def setup(self, stage: str | None = None) -> None:
        """Decide, and split what is kept.

        Raises:
            DataError: No clip is kept; the commonest reasons are named.
        """
        rows = self._read()
        lacking = [clip.id for clip in self.clips if clip.id not in rows]
        if lacking:
            raise DataError(f"{self.scores} has no score for clip {lacking[0]!r}; call prepare_data() first")
        self.decisions = {clip.id: self.filter.decide(rows[clip.id], self.policy) for clip in self.clips}
        if not self.kept:
            reasons = Counter(self.rejected.values()).most_common(3)
            listed = "; ".join(f"{count} × {reason}" for reason, count in reasons) or "there are no clips"
            raise DataError(f"{self.filter.name} keeps none of {len(self.clips)} clips ({listed}); loosen its policy")
        _log.info("%s keeps %d of %d clips", self.filter.name, len(self.kept), len(self.clips))

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches of the kept clips that are not for validation."""
        chosen = [clip for clip in self.kept if not self._is_val(clip)]
        if not chosen:
            raise DataError(f"val_fraction {self.val_fraction} leaves none of {len(self.kept)} kept clips to train on")
        return DataLoader(self._dataset(chosen), **{"shuffle": True, **self._loader})

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return batches of the kept clips for validation, in order; none where ``val_fraction`` is 0."""
        chosen = [clip for clip in self.kept if self._is_val(clip)]
        return DataLoader(self._dataset(chosen), **{**self._loader, "shuffle": False}) if chosen else []

    def _is_val(self, clip: Clip) -> bool:
        digest = hashlib.sha256(clip.path.encode()).digest()
        return int.from_bytes(digest[:8], "little") < self.val_fraction * 2**64

    def _identity(self) -> str:
        parts = {
            "filter": self.filter.name,
            "metric_version": self.filter.metric_version,
            "config": self.filter.config.model_dump(mode="json"),
        }
        return json.dumps(parts, sort_keys=True)

    def _read(self) -> dict[str, Row]:
        """Return clip id -> row of the score file; nothing if it was written by another filter or configuration."""
        try:
            text = self.scores.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read scores {self.scores}: {error}; delete the file to score again") from error
        lines = text[: text.rfind("\n") + 1].splitlines()  # a line without its end was being written when a run died
        if not lines or lines[0] != self._identity():
            _log.warning("%s was written by another filter, version or configuration; scoring again", self.scores)
            return {}
        rows: dict[str, Row] = {}
        for number, line in enumerate(lines[1:], start=2):
            try:
                row = self.filter.Columns.model_validate_json(line)
            except ValidationError as error:
                raise DataError(
                    f"{self.scores} line {number} is no row of {self.filter.name} "
                    f"({error.errors(include_url=False)[0]['msg']}); delete the file to score again"
                ) from None
            rows[row.clip_id] = row
        return rows

    def _append(self, lines: Sequence[str]) -> None:
        try:
            with self.scores.open("a", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in lines))
        except OSError as error:
            raise WorkError(
                f"cannot write {self.scores}: {error.strerror or error}; free space or choose another file"
            ) from error
