"""Clips a second, from the time that a call on several clips takes."""

from __future__ import annotations

from collections.abc import Mapping

from planish.benchmark import Measurement, Row


def rate(milliseconds: Measurement, clips: int) -> Measurement:
    """Return clips a second where a call on ``clips`` clips takes so many milliseconds."""
    return Measurement(
        median=1e3 * clips / milliseconds.median,
        # A slow call is a low rate: the percentiles change places.
        p20=1e3 * clips / milliseconds.p80,
        p80=1e3 * clips / milliseconds.p20,
    )


def rate_row(
    case: str,
    times: Mapping[str, Measurement],
    clips: Mapping[str, int],
    *,
    against: str,
    target: float | None = None,
    extra: Mapping[str, object] | None = None,
) -> Row:
    """Return a row of clips a second.

    Args:
        case: What was measured.
        times: Name -> milliseconds a call; ``"ours"`` and peers.
        clips: Name -> clips of a call.
        against: The peer that the gain refers to.
        target: The gain that was asked for.
        extra: What else belongs to the row.
    """
    rates = {name: rate(time, clips[name]) for name, time in times.items()}
    return Row.compare(
        case,
        rates.pop("ours"),
        rates,
        against=against,
        metric="rate",
        unit="clips/s",
        better="higher",
        target=target,
        extra=extra,
    )
