"""INT8 training of transformers: tensors between operators, and all that is saved for backward, in quantized blocks."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planish_jetfire.accounting import SavedTensors, saved_bytes, saved_tensors
    from planish_jetfire.config import JetfireConfig
    from planish_jetfire.quantizer import Jetfire

__all__ = ["Jetfire", "JetfireConfig", "SavedTensors", "saved_bytes", "saved_tensors"]

_HOMES = {
    "JetfireConfig": "config",
    "Jetfire": "quantizer",
    "SavedTensors": "accounting",
    "saved_bytes": "accounting",
    "saved_tensors": "accounting",
}


def __getattr__(name: str) -> Any:
    # Listing plugins imports this package; torch comes with the first name that is used.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"planish_jetfire.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
