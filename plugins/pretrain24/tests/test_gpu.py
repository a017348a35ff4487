"""On a real GPU: packed layers against emulated ones, training, CUDA graphs, the plan."""

import planish
import pytest
import torch
from planish.plugins.registry import Registry
from planish_kernels.nn import EncodedLinear
from planish_pretrain24 import Pretrain24, gated
from planish_pretrain24.encoders import emulated
from planish_pretrain24.state import layers
from torch import nn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU"),
]


def _needs_sparse_kernels() -> None:
    from planish_pretrain24 import execution

    layer = nn.Linear(2048, 8192, device="cuda", dtype=torch.bfloat16)
    reason = execution.cannot(layer, Pretrain24().config)
    if reason:
        pytest.skip(reason)


class _SwiGlu(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)
        self.act_fn = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


def _model(width: int = 256, inner: int = 512) -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"mlp": _SwiGlu(width, inner)}).cuda()


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.detach().double() - expected.detach().double()).norm() / expected.detach().double().norm())


@pytest.mark.parametrize("method", ["fst", "sste"])
def test_sparse_kernels_compute_what_emulation_computes(method: str) -> None:
    """Without random draws: the same operands in both, so only the order of sums and roundings to bfloat16 differ."""
    _needs_sparse_kernels()
    results = []
    for mode in ("sparse", "emulate"):
        model = _model()
        live = planish.apply(model, Pretrain24(method=method, execution=mode, mvue="off", fuse_gated_activation=False))
        live.on_train_start(100)
        x = torch.randn(1000, 256, device="cuda", generator=torch.Generator("cuda").manual_seed(1)).requires_grad_()
        grad = torch.randn(1000, 256, device="cuda", generator=torch.Generator("cuda").manual_seed(2))
        with torch.autocast("cuda", torch.bfloat16):
            output = model["mlp"](x)
        output.backward(grad.to(output.dtype))
        results.append([output, x.grad, *(p.grad for p in model.parameters())])
    errors = [_error(a, b) for a, b in zip(*results, strict=True)]
    assert max(errors) < 5e-3, errors


@pytest.mark.parametrize("method", ["fst", "sste"])
def test_packed_operands_hold_the_emulated_ones(method: str) -> None:
    _needs_sparse_kernels()
    linear = nn.Linear(256, 512, bias=False, device="cuda")
    model = nn.ModuleDict({"layer": linear})
    live = planish.apply(model, Pretrain24(method=method, execution="sparse"), targets=["layer"])
    live.on_train_start(100)
    layer = model["layer"]
    state = layer.sparsity
    assert not state.packs.is_stale
    reference = emulated(state, "exact")
    copy = layer.weight.detach().bfloat16()
    expected = reference.forward.right.encode(copy, contraction=1)
    for operand in (
        layer.encoders.forward.right.encode(copy, contraction=1),
        layer.encoders.input_grad.right.encode(copy, contraction=0),
    ):
        found = operand if isinstance(operand, torch.Tensor) else operand.decode()
        # Two kernels: one may round a product to the other neighbour.
        assert _error(found, expected) < 1e-4
        assert float((found != expected).float().mean()) < 1e-3


def test_the_packed_estimate_is_the_emulated_draw() -> None:
    """Given one gradient of the output, seed and count: an estimate is a step function of its input, so two gradients
    that differ by a rounding may draw differently, and networks cannot be compared instead."""
    _needs_sparse_kernels()
    model = nn.ModuleDict({"layer": nn.Linear(256, 512, bias=False, device="cuda", dtype=torch.bfloat16)})
    live = planish.apply(model, Pretrain24(execution="sparse"), targets=["layer"])
    live.on_train_start(100)
    layer = model["layer"]
    state = layer.sparsity
    reference = emulated(state, "exact")
    x = torch.randn(1000, 256, device="cuda", dtype=torch.bfloat16)
    grad = torch.randn(1000, 512, device="cuda", dtype=torch.bfloat16)
    state.draws.fill_(7)
    packed_estimate = layer.encoders.weight_grad.left.encode(grad, contraction=0).decode()
    state.draws.fill_(7)
    estimate = reference.weight_grad.left.encode(grad, contraction=0)
    assert not packed_estimate[1000:].any()
    differing = (packed_estimate[:1000] != estimate[:1000]).float().mean()
    assert float(differing) < 1e-4, "the same draws"
    state.draws.fill_(7)
    layer(x).backward(grad)
    expected = packed_estimate[:1000].double().t() @ x.double()
    assert _error(layer.weight.grad, expected) < 5e-3
    assert _error(layer.weight.grad, grad.double().t() @ x.double()) > 0.1, "an estimate, not the dense product"


def test_the_sparse_path_names_its_kernels(registry: Registry) -> None:
    _needs_sparse_kernels()
    model = _model(2048, 4096).to(torch.bfloat16)
    plan = planish.plan(model, Pretrain24())
    assert plan.touched[0].details["forward"] == "cusparselt"
    planish.apply(model, plan, registry=registry)
    layer = model["mlp"].down_proj
    assert isinstance(layer, EncodedLinear)
    chosen = layer.explain(4096)
    assert all("cusparselt" in chosen[name].kernel for name in ("forward", "input_grad", "weight_grad")), chosen


def test_small_layers_stay_dense_and_say_so() -> None:
    plan = planish.plan(_model(), Pretrain24())
    assert "masks train" in plan.notes[0]


@pytest.mark.parametrize("mode", ["sparse", "emulate"])
def test_training_on_the_gpu_lowers_the_loss(mode: str) -> None:
    if mode == "sparse":
        _needs_sparse_kernels()
    model = _model()
    live = planish.apply(model, Pretrain24(execution=mode, mask_interval=5, decay=1e-3))
    assert isinstance(model["mlp"], gated.FusedGatedFeedForward)
    live.on_train_start(60)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x = torch.randn(512, 256, device="cuda")
    losses = []
    for step in range(60):
        with torch.autocast("cuda", torch.bfloat16):
            loss = (model["mlp"](x) - x.roll(1, -1)).float().square().mean()
        loss.backward()
        live.on_gradients(step)
        optimizer.step()
        optimizer.zero_grad()
        live.on_step(step + 1)
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]
    assert all(state.dense for *_, state in layers(model))
    live.finish()
    assert type(model["mlp"]) is _SwiGlu


def test_a_captured_step_draws_anew_at_each_replay() -> None:
    _needs_sparse_kernels()
    model = _model().to(torch.bfloat16)
    live = planish.apply(model, Pretrain24(execution="sparse", fuse_gated_activation=False))
    live.on_train_start(100)
    x = torch.randn(1024, 256, device="cuda", dtype=torch.bfloat16)

    def step() -> None:
        model.zero_grad(set_to_none=False)
        model["mlp"](x).square().sum().backward()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    weight = model["mlp"].down_proj.weight
    graph.replay()
    first = weight.grad.clone()
    graph.replay()
    assert not torch.equal(weight.grad, first)


def test_a_step_waits_for_the_device_only_when_masks_are_searched() -> None:
    model = _model()
    live = planish.apply(model, Pretrain24(mask_interval=10))
    live.on_train_start(100)
    x = torch.randn(64, 256, device="cuda")
    model["mlp"](x).sum().backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(9):
            live.on_gradients(step)
            live.on_step(step + 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert "flip_rate" in live.on_step(10)


def test_the_learning_oracle_holds() -> None:
    from planish_pretrain24.benchmark.learning import oracle_passed

    assert oracle_passed("cuda")
