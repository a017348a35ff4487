"""The benchmark of the model backends runs, on tiny models, and holds back gains where its oracle fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planish.benchmark import BenchmarkOptions, Measurement, read_result
from planish.errors import UnsupportedError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from planish_egovid.benchmark import model_backends  # noqa: E402
from planish_egovid.benchmark.clip_rates import QUICK, ClipCase  # noqa: E402
from planish_egovid.benchmark.raft_rates import QUICK as QUICK_RAFT  # noqa: E402
from planish_egovid.benchmark.raft_rates import RaftCase  # noqa: E402
from planish_egovid.benchmark.rate import rate  # noqa: E402
from planish_egovid.testing.stand_in_raft import StandInRaft  # noqa: E402


def test_a_quick_run_measures_both_models_and_decoding(tmp_path: Path) -> None:
    assert model_backends.main(["--quick", "--device", "cpu", "--json", str(tmp_path / "result.json")]) == 0
    result = read_result(tmp_path / "result.json")
    cases = [row.case.split("/")[0] for row in result.rows]
    assert [cases.count(name) for name in ("clip", "raft", "decode")] == [2, 3, 2]
    assert result.oracle_passed
    assert all(row.ours.median > 0 and row.unit == "clips/s" and row.better == "higher" for row in result.rows)
    assert all(row.gain is None for row in result.rows), "tiny models on a processor are no result"
    assert any("random" in note for note in result.notes)
    assert any("no figure here is a result" in note for note in result.notes)


def test_a_processor_is_refused_without_quick() -> None:
    with pytest.raises(UnsupportedError, match="--quick"):
        model_backends.bench(BenchmarkOptions("cpu", False, ""))


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens where there is no GPU")
def test_a_gpu_that_is_not_there_is_said() -> None:
    with pytest.raises(UnsupportedError, match="no CUDA GPU"):
        model_backends.bench(BenchmarkOptions("cuda", True, ""))


def test_the_loops_compute_what_ours_does() -> None:
    case = ClipCase(QUICK, "cpu")
    assert list(case.faults(torch.bfloat16)) == []
    encoder = case.encoder(torch.float32)
    np.testing.assert_allclose(case.ours(encoder, 3), case.loop(encoder, 3), atol=1e-3)
    flow = RaftCase(StandInRaft(), QUICK_RAFT, "cpu")
    assert list(flow.faults()) == []
    np.testing.assert_allclose(
        next(flow.backend("float32", 6).flows(flow.clips[:1])), flow.loop(flow.clips[0]), atol=1e-4
    )


def test_wrong_scores_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    case = ClipCase(QUICK, "cpu")
    ours = case.ours
    monkeypatch.setattr(case, "ours", lambda *given: [[score + 1 for score in row] for row in ours(*given)])
    assert len(list(case.faults(torch.bfloat16))) == 2
    flow = RaftCase(StandInRaft(), QUICK_RAFT, "cpu")
    loop = flow.loop
    monkeypatch.setattr(flow, "loop", lambda clip: loop(clip)[::-1])
    assert list(flow.faults())


def test_rates_turn_their_percentiles_round() -> None:
    found = rate(Measurement(median=100.0, p20=50.0, p80=200.0), 4)
    assert (found.median, found.p20, found.p80) == (40.0, 20.0, 80.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_quick_run_on_a_gpu() -> None:
    result = model_backends.run(device="cuda", quick=True)
    assert result.oracle_passed, result.notes
