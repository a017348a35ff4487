"""Data-Juicer's motion score as a peer, in a Python that has it: its dependencies need not be ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import TracebackType
from typing import Any

VARIABLE = "PLANISH_DATA_JUICER_PYTHON"
"""Environment variable: a Python interpreter in whose environment py-data-juicer, OpenCV and PyAV are installed."""

_SERVE = """
import json, os, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import cv2
cv2.setNumThreads(1)
from importlib.metadata import version
from data_juicer.ops.filter.video_motion_score_filter import VideoMotionScoreFilter
from data_juicer.utils.constant import Fields
options = json.loads(sys.argv[1])
scorer = VideoMotionScoreFilter(**options)
print(json.dumps({"version": version("py-data-juicer")}), file=answers, flush=True)
for line in sys.stdin:
    sample = {"videos": [json.loads(line)], Fields.stats: {}, Fields.source_file: ""}
    stats = scorer.compute_stats_single(sample)[Fields.stats]
    print(json.dumps(float(stats["video_motion_score"][0])), file=answers, flush=True)
"""


class DataJuicerMotion:
    """``video_motion_score_filter`` in a process of its own, which stays up between clips. One thread.

    Attributes:
        version: Of py-data-juicer.
    """

    def __init__(self, python: str, **options: Any) -> None:
        """Start it.

        Args:
            python: Interpreter that has it.
            options: Of the operator, such as ``sampling_fps`` and ``size``.

        Raises:
            RuntimeError: It does not start.
        """
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            [python, "-c", _SERVE, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.version = str(self._answer()["version"])

    def __call__(self, path: str) -> float:
        """Return the score of a video file."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(path) + "\n")
        self._process.stdin.flush()
        return float(self._answer())

    def __enter__(self) -> DataJuicerMotion:
        """Return the process."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("Data-Juicer's process ended without an answer")
        return json.loads(line)


def data_juicer_python() -> str | None:
    """Return a Python that has Data-Juicer: the one that ``PLANISH_DATA_JUICER_PYTHON`` names, or this one, or None."""
    for python in (os.environ.get(VARIABLE), sys.executable):
        if (
            python
            and subprocess.run([python, "-c", "import data_juicer"], capture_output=True, check=False).returncode == 0
        ):
            return python
    return None
