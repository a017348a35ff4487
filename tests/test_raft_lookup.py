"""RAFT of planish-egovid with the lookup of planish-kernels, an argument: the plugin knows no kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from planish_egovid.flow.raft_config import RaftConfig

torch = pytest.importorskip("torch")

from planish_egovid.flow.raft import RaftFlow  # noqa: E402
from planish_egovid.testing.stand_in_raft import StandInRaft  # noqa: E402
from planish_kernels.correlation_lookup import correlation_lookup  # noqa: E402


def clips() -> list[np.ndarray]:
    """Clips of squares, of 5, 3, 1 and 4 pairs."""
    found = []
    for frames in (6, 4, 2, 5):
        drawn = np.random.default_rng(frames).integers(0, 256, (frames, 17, 20, 3))
        found.append(np.kron(drawn, np.ones((1, 8, 8, 1))).astype(np.uint8))
    return found


def assert_flow_is_close(device: str, compiled: bool) -> None:
    config = RaftConfig(device="cpu", dtype="float32", updates=3, pairs=8)
    exact = list(RaftFlow(config, StandInRaft(pyramid=True)).flows(clips()))
    asked: list[int] = []

    def lookup(pyramid: Any, radius: int, at: Any, dtype: Any) -> Any:
        asked.append(radius)
        return correlation_lookup(pyramid, radius, at, dtype)

    short = config.model_copy(update={"device": device, "dtype": "bfloat16", "compiled": compiled})
    backend = RaftFlow(short, StandInRaft(pyramid=True), lookup=lookup if not compiled else correlation_lookup)
    for flow, expected in zip(backend.flows(clips()), exact, strict=True):
        assert 0 < np.median(np.abs(flow - expected)) < 0.05 * np.abs(expected).max()
    assert compiled or asked


def test_the_lookup_of_the_kernels_is_compiled_into_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[Any] = []
    compile_ = torch.compile

    def traced(function: Any) -> Any:
        return compile_(function, backend=lambda graph, inputs: (graphs.append(graph), graph.forward)[1])

    monkeypatch.setattr(torch, "compile", traced)
    assert_flow_is_close("cpu", compiled=True)
    looking = [graph for graph in graphs if "correlation_lookup" in graph.code]
    assert len(looking) == 1, "one graph for all numbers of pairs"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_flow_on_a_gpu_with_the_lookup_of_the_kernels(compiled: bool) -> None:
    assert_flow_is_close("cuda", compiled)
