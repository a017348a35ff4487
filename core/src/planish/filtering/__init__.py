"""Filtering clips: from files to scores, from scores to decisions, for any data filter::

    from planish.filtering import LocalEngine, ScoreStore, decide_all, find_clips, read_policy, score_clips

    clips = find_clips(["clips/"], data_filter)
    score_clips(data_filter, clips, "scored", LocalEngine(workers=8))
    funnel = decide_all(data_filter, ScoreStore.open("scored"), read_policy(data_filter))

A name is imported at first use: workers need no Parquet, and reading scores needs no engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planish.filtering.decisions import decide_all
    from planish.filtering.identity import FilterIdentity
    from planish.filtering.local_engine import LocalEngine
    from planish.filtering.manifest import Manifest, find_clips
    from planish.filtering.policy import read_policy
    from planish.filtering.report import write_report
    from planish.filtering.run import Progress, RunSummary, score_clips
    from planish.filtering.run_record import RunRecord
    from planish.filtering.scoring import error_row, score_group
    from planish.filtering.store import ScoreStore
    from planish.filtering.threads import limited_threads

_HOME = {
    "FilterIdentity": "planish.filtering.identity",
    "LocalEngine": "planish.filtering.local_engine",
    "Manifest": "planish.filtering.manifest",
    "Progress": "planish.filtering.run",
    "RunRecord": "planish.filtering.run_record",
    "RunSummary": "planish.filtering.run",
    "ScoreStore": "planish.filtering.store",
    "decide_all": "planish.filtering.decisions",
    "error_row": "planish.filtering.scoring",
    "find_clips": "planish.filtering.manifest",
    "limited_threads": "planish.filtering.threads",
    "read_policy": "planish.filtering.policy",
    "score_clips": "planish.filtering.run",
    "score_group": "planish.filtering.scoring",
    "write_report": "planish.filtering.report",
}

__all__ = [
    "FilterIdentity",
    "LocalEngine",
    "Manifest",
    "Progress",
    "RunRecord",
    "RunSummary",
    "ScoreStore",
    "decide_all",
    "error_row",
    "find_clips",
    "limited_threads",
    "read_policy",
    "score_clips",
    "score_group",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import a public name at first use."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'planish.filtering' has no attribute {name!r}")
