"""The data filters of this package; each is imported at first use, with what it alone needs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planish_egovid.filters.axes_filter import AxesFilter, AxisFilter
    from planish_egovid.filters.clarity import Clarity
    from planish_egovid.filters.consistency import Consistency
    from planish_egovid.filters.egovid import EgoVid
    from planish_egovid.filters.kinematics import Kinematics
    from planish_egovid.filters.motion import Motion
    from planish_egovid.filters.text import Text

__all__ = ["AxesFilter", "AxisFilter", "Clarity", "Consistency", "EgoVid", "Kinematics", "Motion", "Text"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "axes_filter" if name in ("AxesFilter", "AxisFilter") else name.lower()
    return getattr(import_module(f"{__name__}.{module}"), name)
