"""Each clause of each suite catches an implementation that violates just this clause, with a sentence that helps."""

import pytest
import torch
from broken import attention, data_filter, filter_engine, language_model, quantizer, sparsifier, transform, video_model
from broken.case import Broken, clauses, violations
from planish import testing

BROKEN = [
    *transform.BROKEN,
    *sparsifier.BROKEN,
    *quantizer.BROKEN,
    *attention.BROKEN,
    *language_model.BROKEN,
    *video_model.BROKEN,
    *data_filter.BROKEN,
    *filter_engine.BROKEN,
]
SUITES = [
    testing.SparsifierContract,
    testing.QuantizerContract,
    testing.AttentionContract,
    testing.LanguageModelContract,
    testing.VideoModelContract,
    testing.DataFilterContract,
    testing.FilterEngineContract,
]


def name(case: Broken) -> str:
    return f"{case.suite.kind}-{case.clause}-{case.make_suite().plugin.__name__}"


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=name(case), marks=[pytest.mark.gpu] if case.gpu else []) for case in BROKEN]
)
def test_exactly_the_violated_clause_fails(case, tmp_path):
    if case.gpu and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    found = violations(case.make_suite(), tmp_path)
    assert set(found) == {case.clause}, found
    assert case.says in found[case.clause]
    assert not found[case.clause].startswith("crashed")


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.kind)
def test_every_clause_has_a_broken_implementation(suite):
    caught = {getattr(case.suite, case.clause) for case in BROKEN}
    missed = [clause for clause in clauses(suite) if getattr(suite, clause) not in caught]
    assert not missed


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.kind)
def test_every_clause_is_a_sentence(suite):
    for clause in clauses(suite):
        text = " ".join((getattr(suite, clause).__doc__ or "").split())
        assert text.endswith("."), clause
