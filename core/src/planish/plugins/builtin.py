"""What the core itself offers, through the same door as every other plugin."""

from __future__ import annotations

from planish.plugins.hookspecs import Register, hookimpl


@hookimpl
def planish_register_attention(register: Register) -> None:
    """Offer torch's own attention, which every other implementation is measured against."""
    register("sdpa", "planish.attention.sdpa:SdpaAttention", "torch's scaled_dot_product_attention, on every device")


@hookimpl
def planish_register_filter_engines(register: Register) -> None:
    """Offer the engine that every machine has: its own cores."""
    register("local", "planish.filtering.local_engine:LocalEngine", "processes on this machine")


@hookimpl
def planish_register_diagnostics(register: Register) -> None:
    """Offer the checks of Python, torch, devices and optional packages."""
    register("machine", "planish.plugins.machine:machine", "Python, torch, devices, optional packages")
