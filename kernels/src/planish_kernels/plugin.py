"""What this distribution offers to planish: a verb and a diagnosis. Imports neither planish nor torch."""

from __future__ import annotations

from collections.abc import Callable

import pluggy

hookimpl = pluggy.HookimplMarker("planish")

Register = Callable[[str, str, str], None]


@hookimpl
def planish_register_commands(register: Register) -> None:
    """Bring ``planish kernels``."""
    register("kernels", "planish_kernels.cli:kernels", "every operator and backend: available, or why not")


@hookimpl
def planish_register_diagnostics(register: Register) -> None:
    """Bring what ``planish doctor`` says about kernels."""
    register("kernels", "planish_kernels.diagnostics:checks", "GPU, Triton, cuSPARSELt, NVRTC and the self-tests")
