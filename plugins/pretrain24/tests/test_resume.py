"""State: resume, accumulation, random draws, checkpoints without masks, ranks."""

import copy

import planish
import pytest
import torch
from planish.api import applied
from planish.errors import CheckpointError
from planish_pretrain24 import Pretrain24
from planish_pretrain24.state import layers


@pytest.mark.parametrize("stop", [3, 5, 9], ids=["between searches", "after a search", "in the dense finish"])
@pytest.mark.parametrize("method", ["fst", "sste"])
def test_a_resumed_run_is_bit_exact(mlp, train, start, method: str, stop: int) -> None:
    options = {"method": method, "mask_interval": 4, "decay": 0.01, "dense_finish": 0.25}
    straight = mlp()
    live = start(straight, 12, **options)
    optimizer = torch.optim.AdamW(straight.parameters(), lr=0.02)
    expected = train(straight, live, optimizer, stop)
    kept = copy.deepcopy((straight.state_dict(), optimizer.state_dict()))
    expected += train(straight, live, optimizer, 12 - stop, first=stop)

    resumed = mlp()
    live = start(resumed, **options)
    resumed.load_state_dict(kept[0])
    optimizer = torch.optim.AdamW(resumed.parameters(), lr=0.02)
    optimizer.load_state_dict(kept[1])
    live.on_train_start(12)
    found = train(resumed, live, optimizer, 12 - stop, first=stop)
    assert found == expected[stop:]
    ours, theirs = resumed.state_dict(), straight.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_accumulation_draws_anew_at_each_micro_step_and_searches_once(mlp, train, start) -> None:
    model = mlp()
    live = start(model, 8, mask_interval=1, dense_finish=0.0)
    train(model, live, torch.optim.SGD(model.parameters(), lr=0.1), 2, micro=4)
    for _, _, state in layers(model):
        assert int(state.draws) == 8
        assert int(state.state_dict()["steps"]) == 2


def test_accumulated_gradients_are_those_of_the_whole_batch(mlp, start) -> None:
    grads = []
    for parts in (1, 4):
        model = mlp()
        start(model, 8, mvue="off")
        x = torch.randn(8, 16, generator=torch.Generator().manual_seed(2))
        for part in x.chunk(parts):
            (model(part).square().sum() / 8).backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for whole, summed in zip(*grads, strict=True):
        torch.testing.assert_close(summed, whole, rtol=1e-5, atol=1e-6)


def _weight_gradient(model: torch.nn.Module) -> torch.Tensor:
    model.zero_grad()
    x = torch.randn(16, 16, generator=torch.Generator().manual_seed(3))
    model(x).square().sum().backward()
    return model.fc1.weight.grad.clone()


def test_draws_depend_on_seed_rank_layer_and_count(mlp, start) -> None:
    def gradient(rank: int = 0, draws: int = 0, seed: int = 0) -> torch.Tensor:
        model = mlp()
        start(model, 8, seed=seed)
        for _, _, state in layers(model):
            state.rank = rank
            state.draws.fill_(draws)
        return _weight_gradient(model)

    first = gradient()
    assert torch.equal(first, gradient())
    assert not torch.equal(first, gradient(rank=1))
    assert not torch.equal(first, gradient(draws=1))
    assert not torch.equal(first, gradient(seed=1))
    model = mlp()
    start(model)
    seeds = {int(state.seed) for *_, state in layers(model)}
    assert len(seeds) == 5


def test_the_gradient_estimate_has_two_of_four_tokens(mlp, start) -> None:
    model = mlp()
    start(model)
    state = model.fc1.sparsity
    encoder = model.fc1.encoders.weight_grad.left
    estimate = encoder.encode(torch.randn(12, 32), contraction=0)
    assert ((estimate != 0).view(3, 4, 32).sum(1) <= 2).all()
    assert int(state.draws) == 1


def test_a_fresh_model_follows_weights_that_are_loaded_after_apply(mlp, start) -> None:
    other = mlp()
    torch.manual_seed(5)
    weights = {name: torch.randn_like(p) for name, p in other.named_parameters()}
    for method in ("fst", "sste"):
        model = mlp()
        live = start(model, method=method)
        model.load_state_dict(weights, strict=False)
        live.on_train_start(10)
        direct = mlp()
        direct.load_state_dict(weights)
        start(direct, method=method)
        for (_, _, ours), (_, _, theirs) in zip(layers(model), layers(direct), strict=True):
            assert torch.equal(ours.mask, theirs.mask)
            assert torch.equal(ours.scale, theirs.scale)


def test_a_dense_checkpoint_is_refused_by_a_strict_load(mlp, start) -> None:
    model = mlp()
    start(model)
    with pytest.raises(RuntimeError, match=r"fc1\.sparsity\.mask"):
        model.load_state_dict(mlp().state_dict())


def test_loading_part_of_a_model_in_mid_run_is_no_resume(mlp, train, start) -> None:
    model = mlp()
    live = start(model, 10)
    train(model, live, torch.optim.SGD(model.parameters(), lr=0.1), 2)
    model.load_state_dict({"fc1.bias": torch.zeros(32)}, strict=False)
    live.on_gradients(2)
    assert not any(state.masks_missing for *_, state in layers(model))


def test_a_run_past_its_start_needs_masks(mlp, start) -> None:
    model = mlp()
    live = start(model)
    model.load_state_dict(mlp().state_dict(), strict=False)
    live.on_train_start(10)
    with pytest.raises(CheckpointError, match=r"step 4.*rebuild_masks=True"):
        live.on_gradients(4)


def test_rebuild_masks_searches_them_from_the_loaded_weights(mlp, start) -> None:
    weights = {name: torch.randn_like(p) for name, p in mlp().named_parameters()}
    model = mlp()
    live = start(model, rebuild_masks=True, mask_interval=3)
    model.load_state_dict(weights)
    live.on_train_start(10)
    live.on_gradients(4)
    expected = mlp()
    expected.load_state_dict(weights)
    start(expected)
    for (_, _, ours), (_, _, theirs) in zip(layers(model), layers(expected), strict=True):
        assert torch.equal(ours.mask, theirs.mask)


def test_masks_cost_one_bit_a_weight(mlp, start) -> None:
    model = mlp()
    start(model)
    for _, layer, state in layers(model):
        assert state.mask.numel() * 8 == layer.weight.numel()
        scalars = [v.numel() for k, v in state.state_dict().items() if k != "mask"]
        assert set(scalars) == {1}


def test_half_precision_keeps_the_scale_exact(mlp, start) -> None:
    model = mlp()
    start(model, method="sste")
    before = [state.scale.clone() for *_, state in layers(model)]
    model.to(torch.bfloat16)
    for scale, (_, _, state) in zip(before, layers(model), strict=True):
        assert torch.equal(state.scale, scale)
    assert torch.isfinite(model(torch.randn(2, 16, dtype=torch.bfloat16))).all()


def test_a_live_model_is_saved_and_loaded(mlp, train, registry, tmp_path) -> None:
    model = mlp()
    live = planish.apply(model, "pretrain24", registry=registry, mask_interval=2, decay=0.01)
    live.on_train_start(12)
    train(model, live, torch.optim.AdamW(model.parameters(), lr=0.02), 11)
    planish.save(model, tmp_path / "live", registry=registry)
    again = planish.load(tmp_path / "live", mlp(), registry=registry)
    x = torch.randn(3, 16)
    assert torch.equal(again(x), model(x)), "the dense finish is carried over"
    assert all(state.dense and state.steps_done == 11 for *_, state in layers(again))


def _without_masks(folder, *, keep: str = "nothing") -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    kept = {name: t for name, t in tensors.items() if ".sparsity." not in name or name.endswith(keep)}
    save_file(kept, folder / "model.safetensors")


@pytest.mark.parametrize("method", ["fst", "sste"])
def test_a_saved_model_without_masks_is_loaded_with_rebuild_masks(mlp, registry, tmp_path, method: str) -> None:
    model = mlp()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    planish.apply(model, "pretrain24", registry=registry, rebuild_masks=True, method=method)
    planish.save(model, tmp_path / "m", registry=registry)
    _without_masks(tmp_path / "m")
    again = planish.load(tmp_path / "m", mlp(), registry=registry)
    x = torch.randn(3, 16)
    assert torch.equal(again(x), model(x)), "masks and scales are those of the loaded weights, before any training"
    (live,) = applied(again)
    live.on_train_start(10)
    live.on_gradients(4)


def test_half_a_state_is_not_rebuilt(mlp, registry, tmp_path) -> None:
    model = mlp()
    planish.apply(model, "pretrain24", registry=registry, rebuild_masks=True)
    planish.save(model, tmp_path / "m", registry=registry)
    _without_masks(tmp_path / "m", keep="fc1.sparsity.mask")
    with pytest.raises(CheckpointError, match=r"lacks 6 tensors \('fc1\.sparsity\."):
        planish.load(tmp_path / "m", mlp(), registry=registry)


def test_without_rebuild_masks_they_are_asked_for(mlp, registry, tmp_path) -> None:
    model = mlp()
    planish.apply(model, "pretrain24", registry=registry)
    planish.save(model, tmp_path / "m", registry=registry)
    _without_masks(tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"lacks 35 tensors \('fc1\.sparsity\.mask'"):
        planish.load(tmp_path / "m", mlp(), registry=registry)


def test_states_of_one_transform_object_are_apart(mlp) -> None:
    transform = Pretrain24()
    first, second = mlp(), mlp()
    planish.apply(first, transform).on_train_start(6)
    planish.apply(second, transform).on_train_start(60)
    assert {state.dense_from for *_, state in layers(first)} == {5}
    assert {state.dense_from for *_, state in layers(second)} == {50}
