"""Choosing the decay factor by trials."""

import math

import pytest
import torch
from planish.errors import DataError
from planish_pretrain24 import Pretrain24, find_decay, plain_trial
from planish_pretrain24.decay_search import FEASIBLE
from torch import nn


def _trial(rates: dict[float | None, float], seen: list[tuple[str, float, int]] | None = None):
    """A trial whose flip rate is looked up: by decay, None for the dense run; early steps are noise."""

    def trial(transform, steps):
        config = transform.config
        if seen is not None:
            seen.append((config.method, config.decay, steps))
        assert config.dense_finish == 0
        rate = rates[None if config.method == "virtual" else config.decay]
        return [{"flip_rate": rate if step >= steps // 2 else 9.0} for step in range(steps)]

    return trial


def test_the_feasible_factor_nearest_to_0_8_is_chosen() -> None:
    seen: list[tuple[str, float, int]] = []
    rates = {None: 0.1, 1e-5: 0.13, 1e-4: 0.094, 1e-3: 0.078, 1e-2: 0.03}
    found = find_decay(_trial(rates, seen), grid=[1e-3, 1e-5, 1e-2, 1e-4], steps=100)
    assert found.chosen == 1e-3
    assert found.feasible
    assert [(t.decay, round(t.mu, 3), t.feasible) for t in found.trials] == [
        (1e-5, 1.3, False), (1e-4, 0.94, True), (1e-3, 0.78, True), (1e-2, 0.3, False)
    ]  # fmt: skip
    assert seen[0] == ("virtual", 0.0, 100), "one dense reference, shared"
    assert len(seen) == 5
    assert found.first_step == 51
    assert "0.001: 0.78" in str(found)


def test_a_feasible_factor_beats_a_nearer_one_that_is_not() -> None:
    found = find_decay(_trial({None: 1.0, 1e-4: 0.94, 1e-3: 0.55}), grid=[1e-4, 1e-3], steps=100)
    assert found.chosen == 1e-4


def test_no_feasible_factor_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="extend search_grid"):
        found = find_decay(_trial({None: 0.1, 1e-5: 0.2, 1e-4: 0.15}), grid=[1e-5, 1e-4], steps=100)
    assert found.chosen == 1e-4
    assert not found.feasible


@pytest.mark.parametrize(
    ("rates", "match"), [({None: 0.0}, "did not flip"), ({None: math.nan}, "non-finite flip rate")]
)
def test_a_dense_run_without_flips_is_an_error(rates: dict[float | None, float], match: str) -> None:
    with pytest.raises(DataError, match=match):
        find_decay(_trial(rates), grid=[1e-4], steps=100)


def test_a_trial_that_reports_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match="no flip rate"):
        find_decay(lambda transform, steps: [{} for _ in range(steps)], grid=[1e-4], steps=100)


def test_search_returns_a_transform_with_the_factor_and_the_table(mlp) -> None:
    reports = []
    transform = Pretrain24(decay="auto", search_grid=(1e-4, 1e-3), search_steps=80, seed=3)
    chosen = transform.search(_trial({None: 1.0, 1e-4: 0.9, 1e-3: 0.7}), lambda *a: reports.append(a))
    assert chosen.config.decay == 1e-4
    assert chosen.config.seed == 3
    assert not chosen.needs_search
    assert transform.needs_search, "the transform itself stays as it is"
    assert any("mu" in note for note in chosen.plan(mlp()).notes)
    assert [done for done, *_ in reports] == [0, 1, 2, 3]
    assert {total for _, total, _ in reports} == {3}
    assert chosen.search(None) is chosen


def _problem():
    def model() -> nn.Module:
        torch.manual_seed(11)
        return nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def batches():
        generator = torch.Generator().manual_seed(12)
        while True:
            yield torch.randn(32, 32, generator=generator)

    def loss(net: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return (net(batch) - batch.roll(1, -1)).square().mean()

    return model, batches, loss, lambda net: torch.optim.AdamW(net.parameters(), lr=3e-3)


def test_mu_falls_with_the_factor_on_a_real_run() -> None:
    grid = (0.0, 1e-3, 1e-2, 1e-1)
    options = Pretrain24(decay="auto", mask_interval=2, search_steps=60, search_grid=grid).config
    found = find_decay(plain_trial(*_problem()), config=options)
    mus = [trial.mu for trial in found.trials]
    assert mus == sorted(mus, reverse=True)
    assert mus[0] > 1.0, "without decay the masks flip more than the dense run's"
    assert mus[-1] < FEASIBLE[0], "too much of it freezes them"


def test_trials_repeat_themselves() -> None:
    trial = plain_trial(*_problem())
    transform = Pretrain24(mask_interval=2, decay=1e-2, dense_finish=0.0)
    assert trial(transform, 10) == trial(transform, 10)


def test_too_few_batches_are_an_error() -> None:
    model, _, loss, optimizer = _problem()
    with pytest.raises(DataError, match="ended after 2 of 10"):
        plain_trial(model, lambda: [torch.ones(4, 32)] * 2, loss, optimizer)(Pretrain24(mask_interval=2), 10)
