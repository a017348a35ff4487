"""The quantizer contract, for both flows."""

from typing import Any, ClassVar

from planish.testing import QuantizerContract
from planish_jetfire import Jetfire


class _Contract(QuantizerContract):
    plugin = Jetfire
    accumulation_tolerance = None  # each micro-step draws its own rounding of gradients
    ddp_tolerance = None  # each rank draws its own


class TestBlockFlow(_Contract):
    options: ClassVar[dict[str, Any]] = {}


class TestLinearFlow(_Contract):
    options: ClassVar[dict[str, Any]] = {"flow": "linear", "start_step": 3}
