"""State: resume, accumulation, ranks, start_step, checkpoints of the dense model, copies, hooks that come late."""

import copy
import pickle
import warnings
from collections.abc import Callable

import planish
import pytest
import torch
from planish.errors import ConfigError, UnsupportedError
from planish.testing.tiny_transformer import TinyAttention, TinyTransformer
from planish_jetfire import Jetfire
from planish_jetfire.flow.block_state import BlockState
from planish_jetfire.state import states
from torch import Tensor, nn

FLOWS = ["block", "linear"]


@pytest.mark.parametrize("flow", FLOWS)
def test_a_resumed_run_is_bit_exact(tiny: Callable, train: Callable, start: Callable, flow: str) -> None:
    options = {"flow": flow, "start_step": 2}
    straight = tiny()
    live = start(straight, **options)
    optimizer = torch.optim.AdamW(straight.parameters(), lr=1e-2)
    expected = train(straight, live, optimizer, 4, micro=2)
    kept = copy.deepcopy((straight.state_dict(), optimizer.state_dict()))
    expected += train(straight, live, optimizer, 3, first=4, micro=2)

    resumed = tiny()
    live = start(resumed, **options)
    resumed.load_state_dict(kept[0])
    optimizer = torch.optim.AdamW(resumed.parameters(), lr=1e-2)
    optimizer.load_state_dict(kept[1])
    assert train(resumed, live, optimizer, 3, first=4, micro=2) == expected[4:]
    ours, theirs = resumed.state_dict(), straight.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("flow", FLOWS)
def test_state_dicts_are_interchangeable_with_those_of_the_dense_model(
    tiny: Callable, train: Callable, start: Callable, flow: str
) -> None:
    model, dense = tiny(), tiny()
    live = start(model, flow=flow)
    train(model, live, torch.optim.SGD(model.parameters(), lr=0.1), 2)
    state = model.state_dict()
    own = {name for name in state if ".jetfire." in name}
    assert set(state) - own == set(dense.state_dict())
    assert all(state[name].numel() == 1 for name in own)
    assert {name.rpartition(".")[2] for name in own} == {"seed", "draws", "steps"}
    dense.load_state_dict({name: value for name, value in state.items() if name not in own})
    torch.manual_seed(9)
    other = TinyTransformer()
    model.load_state_dict(other.state_dict())  # strict: nothing of ours is missed
    ids = torch.arange(16).view(2, 8)
    model.eval()
    assert torch.equal(model(ids).logits, other(ids).logits)
    model.train()
    live.on_gradients(2)
    live.on_step(3)
    assert torch.isfinite(model(ids, ids).loss)


def test_a_saved_model_loads_with_and_without_the_state(tiny: Callable, registry, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    model = tiny()
    planish.apply(model, "jetfire", registry=registry)
    planish.save(model, tmp_path / "m", registry=registry)
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    plain = {name: value for name, value in tensors.items() if ".jetfire." not in name}
    assert len(plain) < len(tensors)
    save_file(plain, tmp_path / "m" / "model.safetensors")
    again = planish.load(tmp_path / "m", tiny(), registry=registry)
    ids = torch.arange(16).view(2, 8)
    again.train(), model.train()
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_a_root_block_has_state_keys_that_planish_can_rebuild(registry, tmp_path) -> None:
    from planish.testing.tiny_transformer import TinyBlock

    block = TinyBlock(32, 64, 2, True)
    live = planish.apply(block, "jetfire", registry=registry)
    missing = [name for name in block.state_dict() if "jetfire." in name]
    assert "jetfire.seed" in missing
    assert set(live.transform.rebuildable(block, missing)) == set(missing)


@pytest.mark.parametrize("flow", FLOWS)
def test_start_step_trains_dense_first(tiny: Callable, train: Callable, start: Callable, flow: str) -> None:
    model, dense = tiny(), tiny()
    live = start(model, flow=flow, start_step=3)
    exact = train(dense, None, torch.optim.SGD(dense.parameters(), lr=0.3), 5)
    found = train(model, live, torch.optim.SGD(model.parameters(), lr=0.3), 5)
    assert found[:3] == exact[:3]
    assert found[3] != exact[3]


@pytest.mark.parametrize("flow", FLOWS)
def test_draws_depend_on_seed_rank_layer_and_count(tiny: Callable, start: Callable, flow: str) -> None:
    ids = torch.arange(32).view(2, 16)

    def gradient(rank: int = 0, draws: int = 0, seed: int = 0, **options: object) -> Tensor:
        model = tiny()
        start(model, flow=flow, seed=seed, **options)
        for *_, state in states(model):
            state.rank = rank
            state.draws.fill_(draws)
        model(ids, ids).loss.backward()
        return model.layers[0].mlp.up_proj.weight.grad

    first = gradient()
    assert torch.equal(first, gradient())
    assert not torch.equal(first, gradient(rank=1))
    assert not torch.equal(first, gradient(draws=16))
    assert not torch.equal(first, gradient(seed=1))
    assert torch.equal(gradient(stochastic=False), gradient(stochastic=False, rank=1, seed=4))
    model = tiny()
    start(model, flow=flow)
    seeds = [int(state.seed) for *_, state in states(model)]
    assert len(set(seeds)) == len(seeds)


def test_torch_manual_seed_and_global_draws_do_not_matter(tiny: Callable, start: Callable) -> None:
    ids, grads = torch.arange(32).view(2, 16), []
    for seed in (1, 2):
        model = tiny()
        start(model)
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        model(ids, ids).loss.backward()
        assert torch.equal(torch.get_rng_state(), state)
        grads.append(model.layers[0].attn.q_proj.weight.grad)
    assert torch.equal(*grads)


@pytest.mark.parametrize("flow", FLOWS)
def test_without_stochastic_rounding_micro_steps_add_up(tiny: Callable, start: Callable, flow: str) -> None:
    ids, grads = torch.randint(0, 64, (4, 32)), []
    for parts in (1, 2):
        model = tiny()
        start(model, flow=flow, stochastic=False)
        for part in ids.chunk(parts):
            (model(part, part).loss / parts).backward()
        grads.append([p.grad for p in model.parameters()])
    # 64 tokens a part: the blocks of a part are blocks of the whole, and halving a gradient keeps its codes.
    for whole, summed in zip(*grads, strict=True):
        torch.testing.assert_close(summed, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("flow", FLOWS)
def test_copies_and_pickles_train_on_alike_and_apart(
    tiny: Callable, train: Callable, start: Callable, flow: str
) -> None:
    model = tiny()
    live = start(model, flow=flow)
    train(model, live, torch.optim.SGD(model.parameters(), lr=0.1), 2)
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    ids = torch.arange(32).view(2, 16)
    model(ids, ids).loss.backward()
    for twin in twins:
        assert [type(m).__name__ for m in twin.modules()] == [type(m).__name__ for m in model.modules()]
        twin.zero_grad()
        twin(ids, ids).loss.backward()
    model.zero_grad()
    one, two = twins
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    handovers = {
        id(state.handover) for m in (model, *twins) for *_, state in states(m) if isinstance(state, BlockState)
    }
    assert len(handovers) == (6 if flow == "block" else 0)


def test_a_block_is_still_what_it_was_to_whoever_asks(tiny: Callable, start: Callable) -> None:
    from planish.testing.tiny_transformer import TinyBlock

    model = tiny()
    kinds = [type(module).__name__ for module in model.layers[0].modules() if not isinstance(module, nn.Linear)]
    start(model, flow="block")
    block = model.layers[0]
    assert isinstance(block, TinyBlock)
    assert isinstance(block.attn_norm, nn.LayerNorm)
    found = [type(m).__name__ for m in block.modules() if not isinstance(m, nn.Linear | BlockState)]
    assert [name for name in found if name != "QuantizationState"] == kinds


def test_layers_inside_a_block_can_be_called_by_themselves(tiny: Callable, start: Callable) -> None:
    model, dense = tiny(), tiny()
    start(model, flow="block")
    x = torch.randn(2, 8, 32)
    for path in ("attn", "mlp", "attn_norm", "attn.q_proj"):
        found = model.layers[0].get_submodule(path)(x)
        expected = dense.layers[0].get_submodule(path)(x)
        assert float((found - expected).detach().norm() / expected.detach().norm()) < 0.03


def test_hooks_that_come_late_send_the_block_through_its_layers(tiny: Callable, start: Callable) -> None:
    model = tiny()
    start(model, flow="block")
    seen: list[Tensor] = []
    handle = model.layers[0].mlp_norm.register_forward_hook(lambda m, args, output: seen.append(output))
    x = torch.randn(2, 8, 32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.layers[0](x)
        model.layers[0](x)
    assert torch.isfinite(seen[0]).all()
    assert seen[0].shape == x.shape
    assert sum("layers.0.mlp_norm has hooks" in str(w.message) for w in caught) == 1
    handle.remove()
    model.layers[0](x)
    assert len(seen) == 2
    outer: list[Tensor] = []
    model.layers[0].register_forward_hook(lambda m, args, output: outer.append(output))
    assert torch.equal(model.layers[0](x), outer[0])


class _TwoFaced(TinyAttention):
    """Computes as it should until it is told otherwise."""

    how = ""

    def forward(self, hidden: Tensor) -> Tensor:
        if self.how == "other input":
            return super().forward(hidden * 2)
        if self.how == "no output projection":
            return hidden
        return super().forward(hidden) + (self.o_proj(hidden) if self.how == "twice" else 0)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("other input", "projects something else"),
        ("no output projection", "did not call its output projection attn.o_proj"),
        ("twice", "twice"),
    ],
)
def test_an_attention_that_does_something_else_is_found_out(
    tiny: Callable, start: Callable, how: str, says: str
) -> None:
    model = tiny()
    model.layers[0].attn.__class__ = _TwoFaced
    start(model, flow="block")
    model.layers[0].attn.how = how
    ids = torch.arange(16).view(2, 8)
    with pytest.raises(UnsupportedError, match=says):
        model(ids)
    model.layers[0].attn.how = ""
    assert torch.isfinite(model(ids).logits).all(), "an error leaves nothing half open"


def test_a_hidden_state_of_another_width_is_an_error(tiny: Callable, start: Callable) -> None:
    model = tiny()
    start(model, flow="block")
    with pytest.raises(ValueError, match=r"\(2, 8, 16\), expected \[..., features=32\]"):
        model.layers[0](torch.randn(2, 8, 16))


def test_a_run_has_steps_and_whole_weights(tiny: Callable) -> None:
    live = planish.apply(tiny(), Jetfire())
    with pytest.raises(ConfigError, match="total_steps is 0"):
        live.on_train_start(0)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_finite_shows_in_the_output_and_the_gradients(
    tiny: Callable, start: Callable, flow: str, value: float
) -> None:
    model = tiny()
    start(model, flow=flow)
    with torch.no_grad():
        model.embed_tokens.weight[3, 5] = value
    ids = torch.full((2, 16), 3)
    loss = model(ids, ids).loss
    assert not torch.isfinite(loss)
    loss.backward()
    assert not torch.isfinite(model.layers[0].mlp.up_proj.weight.grad).all()


@pytest.mark.parametrize("flow", FLOWS)
def test_zeros_and_constant_rows_stay_finite(tiny: Callable, start: Callable, flow: str) -> None:
    model = tiny()
    start(model, flow=flow)
    with torch.no_grad():
        model.embed_tokens.weight.zero_()
        model.embed_positions.weight.fill_(0.5)
        model.layers[0].attn.v_proj.weight.zero_()
    ids = torch.arange(32).view(2, 16)
    model(ids, ids).loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
