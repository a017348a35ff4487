"""Amounts as a person reads them: a figure and its unit."""

from __future__ import annotations


def size(value: float) -> tuple[str, str]:
    """Return a number of bytes as a figure and its unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return (f"{value:.0f}" if unit == "B" else f"{value:#.3g}".rstrip(".")), unit
        value /= 1024
    return f"{value:,.2f}", "TiB"


def duration(seconds: float) -> tuple[str, str]:
    """Return a number of seconds as a figure and its unit."""
    if seconds < 120:
        return f"{seconds:.1f}", "s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return (f"{hours}:{minutes:02d}", "h") if hours else (f"{int(seconds // 60)}:{int(seconds % 60):02d}", "min")
