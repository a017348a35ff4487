"""Products on the device: every position of the packed operand, graphs, compilation, and the algorithm search."""

import json
from pathlib import Path

import pytest
import torch
from planish_kernels.cusparselt import algorithms
from planish_kernels.cusparselt.plan import Problem
from planish_kernels.formats.sparse24_cusparselt import Sparse24CuSparseLt
from planish_kernels.matmul import explain_matmul, matmul
from planish_kernels.runtime import disk_cache


def error(product: torch.Tensor, expected: torch.Tensor) -> float:
    return float((product.double() - expected).norm() / expected.norm())


def operands(
    m: int, k: int, n: int, device: torch.device, dtype: torch.dtype
) -> tuple[Sparse24CuSparseLt, torch.Tensor]:
    sparse = Sparse24CuSparseLt.random(m, k, dtype=dtype, device=device, seed=m + k)
    assert isinstance(sparse, Sparse24CuSparseLt)
    return sparse, torch.randn(k, n, generator=torch.Generator().manual_seed(n)).to(device, dtype)


def test_on_a_cpu_the_reference_runs() -> None:
    sparse, dense = operands(64, 128, 16, torch.device("cpu"), torch.bfloat16)
    assert torch.equal(matmul(sparse, dense), sparse.decode() @ dense)
    chosen = next(row for row in explain_matmul(sparse, dense) if row.chosen)
    assert chosen.backend == "reference"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(64, 64, 8), (192, 320, 264), (1024, 512, 2056)])
def test_every_position(shape: tuple[int, int, int], dtype: torch.dtype, gpu: torch.device) -> None:
    m, k, n = shape
    sparse, dense = operands(m, k, n, gpu, dtype)
    expected = sparse.decode().double() @ dense.double()
    column_major = dense.t().contiguous().t()
    tolerance = 4e-3 if dtype is torch.bfloat16 else 5e-4
    for right in (dense, column_major):
        assert error(matmul(sparse, right, impl="cusparselt"), expected) < tolerance
        assert error(matmul(right.t(), sparse.T, impl="cusparselt"), expected.t()) < tolerance
    wide = matmul(sparse, dense, impl="cusparselt", out_dtype=torch.float32)
    assert wide.dtype is torch.float32
    assert error(wide, expected) < tolerance


@pytest.mark.gpu
def test_other_strides_and_offsets(gpu: torch.device) -> None:
    sparse, dense = operands(128, 192, 64, gpu, torch.bfloat16)
    expected = sparse.decode().double() @ dense.double()
    spread = torch.zeros(192, 128, device=gpu, dtype=torch.bfloat16)[:, ::2]
    spread.copy_(dense)
    offset = torch.zeros(192 * 64 + 1, device=gpu, dtype=torch.bfloat16)[1:].view(192, 64)
    offset.copy_(dense)
    for right in (spread, offset):
        assert error(matmul(sparse, right, impl="cusparselt"), expected) < 4e-3


@pytest.mark.gpu
def test_under_compile_and_in_a_graph(gpu: torch.device) -> None:
    sparse, dense = operands(256, 512, 384, gpu, torch.bfloat16)
    product = torch.compile(lambda x: matmul(x.t(), sparse.T) * 2, fullgraph=True)
    expected = 2 * (sparse.decode().double() @ dense.double()).t()
    assert error(product(dense), expected) < 6e-3
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = matmul(sparse, dense)
    dense.normal_()
    captured.fill_(torch.nan)
    graph.replay()
    assert error(captured, sparse.decode().double() @ dense.double()) < 4e-3


@pytest.mark.gpu
def test_the_search_is_remembered(gpu: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(disk_cache.CACHE_DIR_VARIABLE, str(tmp_path))
    algorithms.forget_plans()
    sparse, dense = operands(256, 320, 512, gpu, torch.bfloat16)
    matmul(sparse, dense, impl="cusparselt")
    (file,) = (tmp_path / "cusparselt").iterdir()
    content = disk_cache.read_cached(file)
    assert content is not None
    assert list(json.loads(content)) == ["256x512x320-bfloat16-bfloat16-nn"]
    algorithms.forget_plans()

    def refuse(*_: object) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr(algorithms, "search", refuse)
    matmul(sparse, dense, impl="cusparselt")
    algorithms.forget_plans()


@pytest.mark.gpu
def test_an_unsearched_capture_warns(gpu: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(disk_cache.CACHE_DIR_VARIABLE, str(tmp_path))
    sparse, dense = operands(128, 128, 72, gpu, torch.bfloat16)
    problem = Problem(128, 72, 128, torch.bfloat16, torch.bfloat16, False, False)
    out = torch.empty(128, 72, device=gpu, dtype=torch.bfloat16)
    algorithms.forget_plans()
    graph = torch.cuda.CUDAGraph()
    with pytest.warns(algorithms.UnsearchedWarning, match="run the model once"), torch.cuda.graph(graph):
        algorithms.plan_for(problem, sparse.packed, dense, out).run(sparse.packed, dense, out)
    graph.replay()
    assert error(out, sparse.decode().double() @ dense.double()) < 4e-3
    algorithms.forget_plans()


@pytest.mark.gpu
def test_declines_with_a_reason(gpu: torch.device) -> None:
    sparse, dense = operands(64, 64, 12, gpu, torch.bfloat16)
    rows = [row for row in explain_matmul(sparse, dense) if row.backend == "cusparselt" and "multiples" in row.reason]
    assert rows
    assert not rows[0].chosen


def test_a_compiled_layer_has_no_graph_break(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encode a gradient and multiply, as in a backward pass; answers about the machine are constants of the graph.

    With cuSPARSELt made to look present, so that every question is asked; the products then run by the reference.
    """
    from planish_kernels.cusparselt import op
    from planish_kernels.runtime.support import YES

    asked = []

    def present() -> object:
        asked.append("present")
        return YES

    monkeypatch.setattr(op, "cusparselt_available", present)
    weight, _ = operands(128, 64, 8, torch.device("cpu"), torch.bfloat16)
    tokens = torch.randn(64, 64, dtype=torch.bfloat16)
    grad = torch.randn(64, 128, dtype=torch.bfloat16)
    seed = torch.tensor(3)

    def layer(tokens: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        estimate = Sparse24CuSparseLt.encode_gradient(grad, seed, seed)
        return matmul(tokens, weight.T), matmul(estimate.T, tokens)

    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for ours, expected in zip(compiled(tokens, grad), layer(tokens, grad), strict=True):
        torch.testing.assert_close(ours, expected)
    assert asked
