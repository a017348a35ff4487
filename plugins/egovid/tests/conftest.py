"""Clips that many tests look at."""

from __future__ import annotations

from planish_egovid.testing.fixtures import *  # noqa: F403
