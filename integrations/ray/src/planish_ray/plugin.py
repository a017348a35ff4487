"""What this distribution offers to planish."""

from __future__ import annotations

import planish
from planish.plugins.hookspecs import Register


@planish.hookimpl
def planish_register_filter_engines(register: Register) -> None:
    """Register the engine."""
    register("ray", "planish_ray.engine:RayEngine", "Ray Data: streaming, actor pools, per-stage resources")
