"""The sparsifier contract, for both methods of the plugin."""

from typing import Any, ClassVar

from planish.testing import SparsifierContract
from planish_pretrain24 import Pretrain24

_QUICK = {"mask_interval": 2, "min_features": 4}
_AUTO = {"decay": "auto", "search_steps": 8, "search_grid": (1e-3, 1e-1), **_QUICK}


class _Contract(SparsifierContract):
    plugin = Pretrain24
    accumulation_tolerance = None  # each micro-step draws its own estimate of the gradient
    ddp_tolerance = None  # each rank draws its own
    search_options: ClassVar[dict[str, Any] | None] = _AUTO


class TestFst(_Contract):
    options: ClassVar[dict[str, Any]] = {"decay": 1e-3, "dense_finish": 0.0, **_QUICK}


class TestFstWithDenseFinish(_Contract):
    """The clauses on which the phase bears: the search has none, and compiling and DDP see the same layers as above."""

    options: ClassVar[dict[str, Any]] = {"decay": 1e-3, "dense_finish": 0.25, **_QUICK}
    test_survives_compile = test_survives_parallel_training = test_search_returns_a_closed_transform = None


class TestSoftThreshold(_Contract):
    options: ClassVar[dict[str, Any]] = {"method": "sste", **_QUICK}


class TestWithoutGradientEstimate(SparsifierContract):
    """Without random draws, accumulation and data parallelism give what one process gives on the whole batch."""

    plugin = Pretrain24
    options: ClassVar[dict[str, Any]] = {"decay": 1e-3, "mvue": "off", "dense_finish": 0.0, **_QUICK}
    test_survives_compile = None  # one random operator less than above
