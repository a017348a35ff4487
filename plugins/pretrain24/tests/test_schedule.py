"""When masks are searched, packs are filled, decay is added, and training turns dense."""

import copy
import math

import pytest
import torch
from planish_pretrain24 import Pretrain24
from planish_pretrain24.masks import search
from planish_pretrain24.schedule import dense_from, searches_masks
from planish_pretrain24.state import layers, logical_weight


@pytest.mark.parametrize(
    ("total", "share", "expected"),
    [(300, 1 / 6, 250), (300_000, 1 / 6, 250_000), (7, 1 / 6, 5), (300, 0.17, 249), (10, 0.0, None), (10, 0.99, 0)],
)
def test_the_switch_is_at_the_floor_of_the_sparse_share(total: int, share: float, expected: int | None) -> None:
    assert dense_from(total, share) == expected


def test_masks_are_searched_at_multiples_of_the_interval() -> None:
    assert [step for step in range(0, 130) if searches_masks(step, 40)] == [40, 80, 120]


def test_masks_change_only_at_multiples_of_the_interval(mlp, train, start) -> None:
    model = mlp()
    live = start(model, 20, mask_interval=4, dense_finish=0.0, decay=0.01)
    seen = [{name: state.mask.clone() for name, _, state in layers(model)}]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    train(model, live, optimizer, 12, each=lambda step: seen.append({n: s.mask.clone() for n, _, s in layers(model)}))
    changed = [s for s in range(1, 13) if any(not torch.equal(seen[s][n], seen[s - 1][n]) for n in seen[0])]
    assert changed == [4, 8, 12]


def test_masks_are_those_of_the_current_dense_weight(mlp, train, start) -> None:
    model = mlp()
    live = start(model, 20, mask_interval=4, dense_finish=0.0)
    train(model, live, torch.optim.AdamW(model.parameters(), lr=0.02), 4)
    for _, layer, state in layers(model):
        assert torch.equal(state.mask, search(logical_weight(layer, state), "fst"))
        blocks = state.kept().view(state.out_features // 4, 4, state.in_features // 4, 4)
        assert (blocks.sum(1) == 2).all()
        assert (blocks.sum(3) == 2).all()
        dropped = layer.weight[state.dropped()]
        assert (dropped != 0).all(), "dropped weights keep their values and can return"


def test_the_mode_switches_at_five_sixths_and_nothing_else_does(mlp, train, start) -> None:
    model = mlp()
    live = start(model, 12, mask_interval=100)
    phases = []
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    before = {}

    def watch(step: int) -> None:
        phases.append({state.dense for *_, state in layers(model)})
        if step == 9:
            before.update({name: state.mask.clone() for name, _, state in layers(model)})

    metrics = train(model, live, optimizer, 12, each=watch)
    assert phases == [{False}] * 9 + [{True}] * 3
    assert [m.get("density") for m in metrics] == [None] * 9 + [1.0, None, None]
    assert all(torch.equal(state.mask, before[name]) for name, _, state in layers(model))
    assert live.transform.masks(model) == {}
    x = torch.randn(4, 16)
    for _, layer, _ in layers(model):
        if layer.in_features == 16:
            assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))


def test_decay_is_added_after_clipping_to_dropped_weights_only(mlp, start) -> None:
    model = mlp()
    live = start(model, 10, decay=0.25, dense_finish=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    kept = copy.deepcopy({name: p.grad for name, p in model.named_parameters()})
    live.on_gradients(0)
    touched = set()
    for name, layer, state in layers(model):
        expected = kept[f"{name}.weight"] + 0.25 * torch.where(state.kept(), 0, layer.weight)
        torch.testing.assert_close(layer.weight.grad, expected, rtol=0, atol=1e-7)
        assert torch.equal(layer.weight.grad[state.kept()], kept[f"{name}.weight"][state.kept()])
        touched.add(f"{name}.weight")
    for name, parameter in model.named_parameters():
        assert name in touched or torch.equal(parameter.grad, kept[name])


def test_decay_is_exactly_zero_after_the_switch(mlp, train, start) -> None:
    model = mlp()
    live = start(model, 6, decay=0.25, dense_finish=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    train(model, live, optimizer, 3)
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    live.on_gradients(3)
    assert all(torch.equal(p.grad, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("method", ["sste", "virtual"])
def test_other_methods_have_no_decay(mlp, start, method: str) -> None:
    model = mlp()
    live = start(model, 6, method=method, decay=0.25)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    live.on_gradients(0)
    assert all(bool((p.grad == 1).all()) for p in model.parameters())


def test_layers_without_a_gradient_are_passed_over(mlp, start) -> None:
    model = mlp()
    start(model, 6, decay=0.25).on_gradients(0)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_flip_rate_of_equal_masks_is_zero_and_of_complements_one(mlp, start) -> None:
    model = mlp()
    live = start(model, 8, mask_interval=2, layer_metrics=True)
    assert live.on_step(2)["flip_rate"] == 0
    for _, _, state in layers(model):
        state.mask.bitwise_not_()
    metrics = live.on_step(4)
    assert metrics.pop("density") == 0.5
    assert set(metrics.values()) == {0.5}, "every bit flipped within an interval of two steps"
    assert sum(name.startswith("flip_rate/") for name in metrics) == 5


def test_the_global_flip_rate_weighs_layers_by_size(mlp, start) -> None:
    model = mlp()
    live = start(model, 8, mask_interval=1)
    found = {name: (state.out_features * state.in_features) for name, _, state in layers(model)}
    first = next(iter(found))
    dict((n, s) for n, _, s in layers(model))[first].mask.bitwise_not_()
    metrics = live.on_step(1)
    assert metrics["flip_rate"] == pytest.approx(found[first] / sum(found.values()))
    assert metrics[f"flip_rate/{first}"] == 1.0


def test_metrics_come_with_the_mask_searches(mlp, train, start) -> None:
    model = mlp()
    live = start(model, 20, mask_interval=3, dense_finish=0.0)
    metrics = train(model, live, torch.optim.SGD(model.parameters(), lr=0.1), 7)
    assert [bool(m) for m in metrics] == [False, False, True, False, False, True, False]
    assert all(math.isfinite(v) and isinstance(v, float) for m in metrics for v in m.values())


def test_the_virtual_method_leaves_the_run_as_it_is(mlp, train, start) -> None:
    plain, watched = mlp(), mlp()
    live = start(watched, 8, method="virtual", mask_interval=2)
    assert [type(m) for n, m in watched.named_modules() if "sparsity" not in n] == [type(m) for m in plain.modules()]
    train(plain, None, torch.optim.AdamW(plain.parameters(), lr=0.02), 8)
    metrics = train(watched, live, torch.optim.AdamW(watched.parameters(), lr=0.02), 8)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))
    assert metrics[-1]["flip_rate"] > 0
    assert live.transform.masks(watched) == {}
    live.finish()
    assert plain.state_dict().keys() == watched.state_dict().keys()


def test_the_observer_has_the_interval_of_the_method() -> None:
    observer = Pretrain24(decay="auto", mask_interval=7, search_steps=40).observer()
    assert observer.config.method == "virtual"
    assert observer.config.mask_interval == 7
    assert not observer.needs_search


@pytest.mark.parametrize("total", [0, -3])
def test_a_run_without_steps_is_refused(mlp, start, total: int) -> None:
    with pytest.raises(ValueError, match="total_steps is"):
        start(mlp(), total)
