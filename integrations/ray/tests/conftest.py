"""One Ray for all tests of the package."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Filters are imported by name in other processes, which get this path.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def _ray_ends() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
    yield
    pytest.importorskip("ray").shutdown()
    patch.undo()


@pytest.fixture
def ray_on_two_cores(_ray_ends: None) -> None:
    """Have Ray running with two cores and what it takes for a GPU; engines find it and leave it so.

    It serves all tests of the process, in whatever order they come; one that ends it has it started again.
    """
    ray = pytest.importorskip("ray")
    if not ray.is_initialized():
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=1,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
