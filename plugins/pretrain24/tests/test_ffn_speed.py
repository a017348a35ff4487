"""The speed benchmark: what can be told without a GPU, and a quick run where there is one."""

import pytest
import torch
from planish.benchmark import BenchmarkOptions, Measurement, Row
from planish.errors import UnsupportedError
from planish_pretrain24.benchmark import ffn_speed
from planish_pretrain24.benchmark.kernel_shares import _kind
from planish_pretrain24.state import layers


def test_refuses_a_cpu() -> None:
    with pytest.raises(UnsupportedError, match="CUDA GPUs"):
        ffn_speed.bench(BenchmarkOptions(device="cpu"))


def test_says_where_sparse_is_slower_and_where_a_target_is_missed() -> None:
    def row(case: str, ours: float, target: float | None) -> Row:
        peers = {ffn_speed.DENSE: Measurement.of([10.0])}
        return Row.compare(case, Measurement.of([ours]), peers, against=ffn_speed.DENSE, target=target)

    rows = [row("ffn/a", 11.0, None), row("ffn/b", 8.0, 1.4), row("ffn/c", 5.0, 1.4), row("matmul/d", 12.0, None)]
    slower, missed = ffn_speed._shortfalls(rows)
    assert slower.startswith("ffn/a: slower than dense (0.91x)")
    assert missed.startswith("ffn/b: 1.25x of 1.4x")


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("_mvue_kernel", "pack gradient"),
        ("_pack_kernel", "pack weight"),
        ("void cusparselt::sparse_gemm", "sparse matmul"),
        ("nvjet_tst_128x256_64x4", "dense matmul"),
        ("triton_poi_fused_gelu_0", "activations and other"),
    ],
)
def test_kernels_are_counted_where_they_belong(kernel: str, kind: str) -> None:
    assert _kind(kernel) == kind


@pytest.mark.gpu
def test_quick_run() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    result = ffn_speed.bench(BenchmarkOptions(device="cuda", quick=True))
    assert result.oracle_passed
    assert any(row.case.startswith("ffn/mlp/d1024") and row.gain is not None for row in result.rows)


def test_the_sparse_network_compiles_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward without a graph break, asking about cuSPARSELt as on a GPU; products by the reference."""
    from planish_kernels.cusparselt import op
    from planish_kernels.runtime.support import YES
    from planish_pretrain24 import execution

    monkeypatch.setattr(execution, "cannot", lambda *_: None)
    monkeypatch.setattr(op, "cusparselt_available", lambda: YES)
    case = ffn_speed.Case(ffn_speed.FeedForward, 64, 128, "cpu")
    eager = case._compiled | {id(case.sparse): case.sparse}
    whole = {id(case.sparse): torch.compile(case.sparse, fullgraph=True, dynamic=False, backend="aot_eager")}
    found = []
    for compiled in (eager, whole):
        case._compiled = compiled
        for _, _, state in layers(case.sparse):
            state.draws.zero_()
        case.step(case.sparse, 2)
        found.append([parameter.grad.clone() for parameter in case.sparse.parameters()])
    for expected, ours in zip(*found, strict=True):
        assert float((ours - expected).norm() / expected.norm()) < 2e-2
