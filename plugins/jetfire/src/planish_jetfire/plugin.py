"""What this distribution offers to planish."""

from __future__ import annotations

import planish
from planish.plugins.hookspecs import Register


@planish.hookimpl
def planish_register_quantizers(register: Register) -> None:
    """Register the quantizer."""
    register("jetfire", "planish_jetfire.quantizer:Jetfire", "INT8 training with a quantized data flow")
