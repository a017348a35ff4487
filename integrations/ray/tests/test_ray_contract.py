"""RayEngine keeps the contract of its interface."""

from __future__ import annotations

from typing import ClassVar

import pytest

pytest.importorskip("ray")

from planish.testing import FilterEngineContract
from planish_ray.engine import RayEngine


@pytest.mark.usefixtures("ray_on_two_cores")
class TestRayEngine(FilterEngineContract):
    plugin = RayEngine
    options: ClassVar = {"workers": 2}
    limited_options: ClassVar = {"timeout_s": 2.0}
    # Ray keeps idle workers; these end with Ray itself, which is the session's here.
    may_stay = (*FilterEngineContract.may_stay, "ray::", "raylet", "default_worker.py", "gcs_server", "log_monitor")
