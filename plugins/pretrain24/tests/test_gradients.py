"""The three matmuls of a layer under 2:4 training, against float64 references."""

import planish
import pytest
import torch
from planish_kernels.formats.sparse24_cusparselt import Sparse24CuSparseLt
from planish_kernels.nn import EncodedLinear
from planish_pretrain24 import Pretrain24, masks, packs
from planish_pretrain24.encoders import emulated
from planish_pretrain24.packs import WeightPacks
from planish_pretrain24.s_ste import initial_scale, sparse_weight
from planish_pretrain24.sparse_encoders import packed
from planish_pretrain24.state import LayerSparsity, attach, layers, logical_weight
from torch import Tensor, nn


def _soft(weight: Tensor) -> Tensor:
    """S-STE by its definition, in float64."""
    groups = weight.double().view(weight.shape[0], -1, 4)
    threshold = groups.abs().sort(-1).values[..., 1:2]
    soft = groups.sign() * (groups.abs() - threshold).clamp(min=0)
    flat, dense = soft.view_as(weight), weight.double()
    return flat * (dense * flat).sum() / flat.square().sum()


def _layer(method: str, dtype: torch.dtype = torch.float32, mvue: str = "off") -> tuple[EncodedLinear, Tensor]:
    """A layer under a method, and the sparse weight that it should compute with, in float64."""
    model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)).to(dtype)
    planish.apply(model, Pretrain24(method=method, mvue=mvue))
    layer = model[0]
    weight = logical_weight(layer, layer.sparsity)
    reference = torch.where(layer.sparsity.kept(), weight.double(), 0) if method == "fst" else _soft(weight)
    return layer, reference


def _error(found: Tensor, reference: Tensor) -> float:
    found, reference = found.detach().double(), reference.detach()
    return float((found - reference).norm() / reference.norm())


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 8e-3)]
)
@pytest.mark.parametrize("method", ["fst", "sste"])
def test_outputs_and_gradients_are_those_of_the_masked_reference(
    method: str, dtype: torch.dtype, tolerance: float
) -> None:
    layer, weight = _layer(method, dtype)
    if method == "sste":
        tolerance = max(tolerance, 1e-6)  # the scale is float32
    x = torch.randn(3, 7, 32, dtype=dtype, requires_grad=True)
    grad = torch.randn(3, 7, 64, dtype=dtype)
    output = layer(x)
    output.backward(grad)
    x64, g64 = x.detach().double().view(-1, 32), grad.double().view(-1, 64)
    assert _error(output.view(-1, 64), x64 @ weight.t() + layer.bias.double()) < tolerance
    assert _error(x.grad.view(-1, 32), g64 @ weight) < tolerance
    assert _error(layer.weight.grad, g64.t() @ x64) < tolerance, "straight through: not masked, not scaled"
    assert _error(layer.bias.grad, g64.sum(0)) < tolerance


def test_the_gradient_of_the_input_is_the_slope_of_the_loss() -> None:
    layer, _ = _layer("fst", torch.float64)
    x = torch.randn(5, 32, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_expanded_gradients_odd_token_counts_and_strided_inputs() -> None:
    layer, weight = _layer("fst", mvue="exact")
    x = torch.randn(32, 7).t().requires_grad_()
    layer(x).sum().backward()
    assert _error(x.grad, torch.ones(7, 64, dtype=torch.float64) @ weight) < 1e-5
    assert torch.isfinite(layer.weight.grad).all()


def test_a_retained_graph_draws_a_new_estimate() -> None:
    layer, _ = _layer("fst", mvue="exact")
    loss = layer(torch.randn(16, 32)).square().sum()
    first = torch.autograd.grad(loss, layer.weight, retain_graph=True)[0]
    second = torch.autograd.grad(loss, layer.weight)[0]
    assert not torch.equal(first, second)
    assert int(layer.sparsity.draws) == 2


@pytest.mark.parametrize("mvue", ["exact", "approx"])
def test_the_mean_weight_gradient_is_the_dense_one(mvue: str) -> None:
    """2000 draws; the largest of 2048 deviations exceeds 5 standard errors with probability about 0.1 %, seed fixed."""
    layer, _ = _layer("fst", mvue=mvue)
    x, grad = torch.randn(16, 32), torch.randn(16, 64)
    output = layer(x)
    draws = torch.stack(
        [torch.autograd.grad(output, layer.weight, grad, retain_graph=True)[0] for _ in range(2000)]
    ).double()
    expected = grad.double().t() @ x.double()
    standard_error = draws.std(0) / 2000**0.5
    assert ((draws.mean(0) - expected).abs() <= 5 * standard_error + 1e-9).all()
    assert (draws.std(0) > 0).any()


def test_the_exact_estimate_has_less_variance_than_the_approximate_one() -> None:
    spread = {}
    for mvue in ("exact", "approx"):
        torch.manual_seed(0)
        layer, _ = _layer("fst", mvue=mvue)
        x, grad = torch.randn(64, 32), torch.randn(64, 64)
        output = layer(x)
        draws = [torch.autograd.grad(output, layer.weight, grad, retain_graph=True)[0] for _ in range(200)]
        spread[mvue] = float(torch.stack(draws).var(0).sum())
    assert 1.02 < spread["approx"] / spread["exact"] < 1.10


def test_checkpointing_and_autocast_give_the_same_gradients() -> None:
    from torch.utils.checkpoint import checkpoint

    layer, weight = _layer("fst")
    x = torch.randn(8, 32, requires_grad=True)
    grads = []
    for run in (layer, lambda value: checkpoint(layer, value, use_reentrant=False)):
        layer.zero_grad()
        run(x).square().sum().backward()
        grads.append(layer.weight.grad.clone())
    assert torch.equal(*grads)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
    assert output.dtype is torch.bfloat16
    assert _error(output, x.detach().double() @ weight.t() + layer.bias.double()) < 1e-2


def test_the_scale_is_of_least_squared_error_and_about_1_482() -> None:
    weight = torch.randn(512, 1024)
    scale = initial_scale(weight)
    assert float(scale) == pytest.approx(1.482, abs=0.005)

    def error(factor: float) -> float:
        return float((weight - sparse_weight(weight, scale * factor)).double().square().sum())

    assert error(1.0) < min(error(0.99), error(1.01))


def test_the_scale_is_frozen(mlp, train, start) -> None:
    model = mlp()
    live = start(model, 8, method="sste", mask_interval=2)
    before = {name: state.scale.clone() for name, _, state in layers(model)}
    train(model, live, torch.optim.AdamW(model.parameters(), lr=0.05), 6)
    live.on_train_start(8)
    assert all(torch.equal(state.scale, before[name]) for name, _, state in layers(model))


def test_a_loaded_scale_is_not_computed_again(mlp, start) -> None:
    model = mlp()
    start(model, method="sste")
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kept["fc1.sparsity.scale"].fill_(1.25)
    again = mlp()
    live = start(again, method="sste")
    again.load_state_dict(kept)
    live.on_train_start(10)
    assert float(again.fc1.sparsity.scale) == 1.25


# ---- packed operands: the same classes that run on a GPU, multiplied by decoding


def _packed_layer(
    method: str, dtype: torch.dtype = torch.bfloat16
) -> tuple[EncodedLinear, LayerSparsity, EncodedLinear]:
    """A layer on packs, its state, and the emulated layer of the same weight and state."""
    linear = nn.Linear(64, 128, bias=False).to(dtype)
    model = nn.ModuleDict({"layer": linear})
    planish.apply(model, Pretrain24(method=method), targets=["layer"])
    layer = model["layer"]
    state = layer.sparsity
    state.on_kernels, state.packs = True, WeightPacks(torch.bfloat16)
    layer.encoders = packed(state, "exact")
    return layer, state, EncodedLinear.from_linear(linear, emulated(state, "exact"))


@pytest.mark.parametrize("method", ["fst", "sste"])
def test_packed_and_emulated_layers_agree(method: str) -> None:
    layer, state, reference = _packed_layer(method)
    results = []
    for run in (layer, reference):
        state.draws.zero_()
        run.weight.grad = None
        x = torch.randn(70, 64, generator=torch.Generator().manual_seed(4)).to(torch.bfloat16).requires_grad_()
        output = run(x)
        output.backward(torch.randn(70, 128, generator=torch.Generator().manual_seed(5)).to(torch.bfloat16))
        results.append((output, x.grad, run.weight.grad))
    for found, expected in zip(*results, strict=True):
        assert _error(found, expected.double()) < 1e-2


@pytest.mark.parametrize("filled", ["by the step, from the master", "at first use, from autocast's copy"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["fst", "sste"])
def test_packed_operands_hold_the_emulated_ones_exactly(method: str, dtype: torch.dtype, filled: str) -> None:
    """One weight in every matmul of a layer, whichever way it is executed: float32 masters under autocast."""
    master = torch.randn(128, 64) * 0.02
    state = LayerSparsity(method, master, transposed=False, seed=3)
    model = nn.ModuleDict({"layer": nn.Linear(64, 128, bias=False)})
    model["layer"].weight.data.copy_(master)
    attach(model["layer"], state)
    masks.initialise(model["layer"], state)
    state.packs = WeightPacks(dtype)
    if filled.startswith("by the step"):
        packs.refresh_all(model)
        assert not state.packs.is_stale
    copy = master.to(dtype)
    ours, reference = packed(state, "exact"), emulated(state, "exact")
    forward = ours.forward.right.encode(copy, contraction=1)
    assert isinstance(forward, Sparse24CuSparseLt)
    expected = reference.forward.right.encode(copy, contraction=1)
    assert expected.dtype is dtype
    assert 0.4 < float((expected != 0).float().mean()) <= 0.5
    assert torch.equal(forward.decode(), expected)
    backward = ours.input_grad.right.encode(copy, contraction=0)
    backward = backward if isinstance(backward, Tensor) else backward.decode()
    assert torch.equal(backward, expected)
    assert torch.equal(reference.input_grad.right.encode(copy, contraction=0), expected)


@pytest.mark.parametrize("tokens", [128, 70])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_packed_and_emulated_estimates_are_the_same_draw(dtype: torch.dtype, tokens: int) -> None:
    layer, state, reference = _packed_layer("fst")
    grad = torch.randn(tokens, 128).to(dtype)
    for _ in range(2):  # the second draw of both, too
        draws = state.draws.clone()
        ours = layer.encoders.weight_grad.left.encode(grad, contraction=0)
        assert int(state.draws) == int(draws) + 1
        state.draws.copy_(draws)
        theirs = reference.encoders.weight_grad.left.encode(grad, contraction=0)
        assert not isinstance(ours, Tensor)
        assert torch.equal(ours.decode()[:tokens], theirs[:tokens])
        assert not ours.decode()[tokens:].any()


def test_packs_are_filled_once_per_optimizer_step(monkeypatch) -> None:
    filled = []
    fill = WeightPacks.fill
    monkeypatch.setattr(WeightPacks, "fill", lambda self, *a: (filled.append(1), fill(self, *a))[1])
    layer, _, _ = _packed_layer("fst")
    model = nn.ModuleDict({"layer": layer})
    live = Pretrain24()
    live.on_train_start(model, 100)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for step in range(3):
        for _ in range(4):
            layer(torch.randn(8, 64, dtype=torch.bfloat16)).sum().backward()
        optimizer.step()
        live.on_step(model, step + 1)
    assert len(filled) == 1 + 3, "one before the first step, one after each"
    x = torch.randn(8, 64, dtype=torch.bfloat16)
    masked = torch.where(layer.sparsity.kept(), layer.weight, 0)
    torch.testing.assert_close(layer(x), x @ masked.t())


def test_packs_follow_loaded_weights_and_devices() -> None:
    layer, _, _ = _packed_layer("fst")
    x = torch.randn(8, 64, dtype=torch.bfloat16)
    layer(x)
    kept = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    kept["weight"] = -kept["weight"]
    before = layer(x)
    layer.load_state_dict(kept)
    torch.testing.assert_close(layer(x), -before)
    assert not any("pack" in name for name in layer.state_dict())


def test_packed_operands_have_their_formats() -> None:
    layer, state, _ = _packed_layer("fst")
    forward = layer.encoders.forward.right.encode(layer.weight.detach(), contraction=1)
    backward = layer.encoders.input_grad.right.encode(layer.weight.detach(), contraction=0)
    gradient = layer.encoders.weight_grad.left.encode(torch.randn(70, 128).to(torch.bfloat16), contraction=0)
    assert isinstance(forward, Sparse24CuSparseLt)
    assert isinstance(backward.T, Sparse24CuSparseLt)
    assert gradient.shape == (128, 128)
    masked = torch.where(state.kept(), layer.weight, 0)
    assert torch.equal(forward.decode(), masked)
    assert torch.equal(backward.decode(), masked)


def test_a_layer_that_computes_in_another_dtype_is_emulated_with_a_warning(monkeypatch) -> None:
    monkeypatch.setattr("planish_pretrain24.sparse_encoders._WARNED", set())
    layer, state, _ = _packed_layer("fst", torch.float32)
    x = torch.randn(8, 64)
    with pytest.warns(UserWarning, match="autocast"):
        output = layer(x)
    torch.testing.assert_close(output, x @ torch.where(state.kept(), layer.weight, 0).t())


def test_compiled_packed_training_is_eager_training() -> None:
    """Packs that are filled in place, counters and the switch to dense reach compiled code."""
    losses: dict[bool, list[float]] = {}
    for compiled in (False, True):
        torch.manual_seed(0)
        torch._dynamo.reset()
        layer, _, _ = _packed_layer("fst")
        model = nn.ModuleDict({"layer": layer})
        live = Pretrain24(mask_interval=1)
        live.on_train_start(model, 6)
        run = torch.compile(layer, fullgraph=True, backend="aot_eager") if compiled else layer
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        losses[compiled] = []
        for step in range(6):
            x = torch.randn(70, 64, generator=torch.Generator().manual_seed(step)).to(torch.bfloat16)
            loss = run(x).float().square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            live.on_step(model, step + 1)
            losses[compiled].append(loss.item())
        assert int(layer.sparsity.draws) == 5
        assert layer.sparsity.dense
    assert losses[True] == losses[False]
