"""INT8 training and 2:4 sparsity on one model: the sparse weight is what is quantized, by rows."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import planish
import pytest
import torch
from planish.api import applied, finish
from planish.errors import CompositionError
from planish.interfaces import RunOptions
from planish.plugins.manager import default_registry
from planish.recipe import read_recipe
from planish.recipe.compose import compose
from planish.recipe.schema import TransformSpec
from planish_kernels.formats import BlockInt8, RowInt8, Sparse24, Transposed
from planish_kernels.formats.sparse24_cusparselt import Sparse24CuSparseLt
from planish_kernels.matmul import matmul
from torch import nn

transformers = pytest.importorskip("transformers")

SPARSE = {
    "use": "pretrain24",
    "targets": ["*.mlp.*"],
    "config": {"mask_interval": 2, "decay": 1e-2, "dense_finish": 0.0},
}
INT8 = {"use": "jetfire"}
RECIPE = Path(__file__).parents[1] / "examples" / "int8_sparse.yaml"


def with_config(spec: dict, **config: object) -> dict:
    return {**spec, "config": {**spec.get("config", {}), **config}}


def llama(**sizes: int) -> nn.Module:
    torch.manual_seed(0)
    small = {
        "vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 32,
    }  # fmt: skip
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**small, **sizes}))


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=64, n_embd=64, n_layer=2, n_head=4, n_positions=32, resid_pdrop=0,
                                embd_pdrop=0, attn_pdrop=0)
    )  # fmt: skip


def composed(model: nn.Module, *specs: dict) -> list:
    return compose(model, [TransformSpec.model_validate(spec) for spec in specs])


def train(model: nn.Module, live: list, steps: int, first: int = 0, length: int = 23, total: int = 0) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    device = next(model.parameters()).device
    tokens = torch.randint(0, 64, (4, length), generator=torch.Generator().manual_seed(1)).to(device)
    for one in live:
        one.on_train_start(total or steps)
    losses = []
    for step in range(first, first + steps):
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        for one in live:
            one.on_gradients(step)
        optimizer.step()
        optimizer.zero_grad()
        for one in live:
            one.on_step(step + 1)
        losses.append(loss.item())
    return losses


def is_transposable(mask: torch.Tensor) -> bool:
    blocks = mask.reshape(mask.shape[0] // 4, 4, mask.shape[1] // 4, 4)
    return bool((blocks.sum(1) == 2).all() and (blocks.sum(3) == 2).all())


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.detach().double() - exact.double()).norm() / exact.double().norm())


# ------------------------------------------------------------------ the plan


def test_the_plan_says_what_runs_where_and_why() -> None:
    model = llama().train()
    live = composed(model, SPARSE, INT8)
    plan = live[1].plan
    assert len(plan.touched) == 14
    rows = [entry for entry in plan.touched if ".mlp." in entry.name]
    blocks = [entry for entry in plan.touched if ".self_attn." in entry.name]
    assert len(rows) == 6
    for entry in plan.touched:
        assert entry.details["flow"] == "linear", "a block whose feed-forward linears are sparse cannot compute as one"
    for entry in rows:
        assert entry.details["forward"] == entry.details["input_grad"] == "int8 rows x 2:4, reference"
        assert entry.details["weight_grad"] == "2:4 gradient, not quantized"
        assert "2:4" in entry.reason
    for entry in blocks:
        assert {entry.details[name] for name in ("forward", "input_grad", "weight_grad")} == {"int8/32, reference"}
    said = str(plan)
    assert "6 linears have 2:4 weights of another transform" in said
    assert "6 of them are computed by the reference: cuSPARSELt runs on CUDA tensors" in said


def test_the_plan_follows_the_options() -> None:
    model = llama().train()
    live = composed(model, with_config(SPARSE, mvue="off"), with_config(INT8, matmuls=["forward", "weight_grad"]))
    (entry,) = [entry for entry in live[1].plan.touched if entry.name == "model.layers.0.mlp.up_proj"]
    assert entry.details["forward"] == "int8 rows x 2:4, reference"
    assert entry.details["input_grad"] == "dense"
    assert entry.details["weight_grad"] == "int8/32, reference"
    other = llama().train()
    live = composed(other, with_config(SPARSE, method="sste"), INT8)
    (entry,) = [entry for entry in live[1].plan.touched if entry.name == "model.layers.0.mlp.up_proj"]
    assert entry.details["forward"] == "int8 rows x 2:4, reference"
    assert entry.details["input_grad"] == "int8/32, reference", "thresholded weights are 2:4 along the inputs only"
    live = composed(llama(), SPARSE, with_config(INT8, code="float8"))
    assert not any("rows" in str(entry.details) for entry in live[1].plan.touched), "there is no sparse float8 product"


def test_a_wrong_order_changes_nothing() -> None:
    model = llama()
    before = {name: type(module) for name, module in model.named_modules()}
    with pytest.raises(CompositionError, match="put pretrain24 before jetfire"):
        composed(model, INT8, SPARSE)
    assert {name: type(module) for name, module in model.named_modules()} == before
    assert not list(applied(model))


def test_a_block_asked_for_by_name_is_refused_before_anything_is_changed() -> None:
    model = llama()
    before = {name: type(module) for name, module in model.named_modules()}
    with pytest.raises(CompositionError, match=r"both change matmul\.forward of 'model.layers.0.mlp"):
        composed(model, SPARSE, with_config(INT8, flow="block"))
    assert {name: type(module) for name, module in model.named_modules()} == before
    composed(model, {**SPARSE, "targets": ["*.layers.0.mlp.*"]}, {**INT8, "targets": ["*.layers.1.*"]})


# ------------------------------------------------------------------ one layer


def test_operands_are_the_masked_weight_in_rows() -> None:
    model = llama().train()
    composed(model, SPARSE, INT8)
    layer = model.model.layers[0].mlp.up_proj
    weight = layer.weight.detach()
    masked = weight * layer.sparsity.kept()
    forward = layer.encoders.forward.right.encode(weight, contraction=1)
    assert isinstance(forward, RowInt8)
    assert isinstance(forward.values, Sparse24)
    assert torch.equal(forward.values.dense_mask(), layer.sparsity.kept())
    assert torch.equal(forward.decode(), RowInt8.encode(masked).decode())
    backward = layer.encoders.input_grad.right.encode(weight, contraction=0)
    assert isinstance(backward, Transposed)
    assert torch.equal(backward.decode(), RowInt8.encode(masked.t()).decode().t())
    model.eval()
    assert torch.equal(layer.encoders.forward.right.encode(weight, contraction=1), masked), (
        "evaluation is not quantized"
    )


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_layer_computes_the_products_of_its_operands(make) -> None:
    """Without random draws: output and input gradient against float64 products of what the operands decode to."""
    model = make().train()
    sparse, int8 = with_config(SPARSE, mvue="off"), with_config(INT8, stochastic=False)
    live = composed(model, sparse, int8)
    for one in live:
        one.on_train_start(10)
    layer = model.model.layers[0].mlp.up_proj if make is llama else model.transformer.h[0].mlp.c_fc
    weight = layer.weight.detach().t() if layer.transposed_weight else layer.weight.detach()
    masked = weight * layer.sparsity.kept()
    x = torch.randn(3, 7, layer.in_features, requires_grad=True)
    grad = torch.randn(3, 7, layer.out_features)
    output = layer(x)
    output.backward(grad)
    rows = x.detach().reshape(-1, layer.in_features)
    grads = grad.reshape(-1, layer.out_features)
    exact = RowInt8.encode(rows).decode().double() @ RowInt8.encode(masked).decode().double().t()
    if layer.bias is not None:
        exact = exact + layer.bias.double()
    assert relative(output.detach().reshape(exact.shape), exact) < 1e-6
    exact = RowInt8.encode(grads).decode().double() @ RowInt8.encode(masked.t()).decode().double().t()
    assert relative(x.grad.reshape(exact.shape), exact) < 1e-6
    found = layer.weight.grad.t() if layer.transposed_weight else layer.weight.grad
    exact = BlockInt8.encode(grads).decode().double().t() @ BlockInt8.encode(rows).decode().double()
    assert relative(found, exact) < 1e-6, "jetfire's weight gradient, since the sparsifier leaves it dense"
    assert relative(found, grads.double().t() @ rows.double()) > 1e-3


def test_the_estimated_weight_gradient_is_not_quantized() -> None:
    model = llama().train()
    live = composed(model, SPARSE, INT8)
    alone = llama().train()
    before = composed(alone, SPARSE)
    for one in (*live, *before):
        one.on_train_start(10)
    x, grad = torch.randn(40, 64), torch.randn(40, 128)
    for each in (model, alone):
        each.model.layers[0].mlp.up_proj(x).backward(grad)
    ours, theirs = (each.model.layers[0].mlp.up_proj.weight.grad for each in (model, alone))
    assert torch.equal(ours, theirs), "the draws and the product are the sparsifier's"


def test_gradients_of_the_input_are_unbiased() -> None:
    model = llama().train()
    live = composed(model, SPARSE, INT8)
    for one in live:
        one.on_train_start(10)
    layer = model.model.layers[0].mlp.up_proj
    grad = torch.randn(4, 128)
    backward = layer.encoders.input_grad.right.encode(layer.weight.detach(), contraction=0)
    expected = grad.double() @ backward.decode().double()
    draws = torch.stack([
        matmul(layer.encoders.input_grad.left.encode(grad, contraction=1), backward).double() for _ in range(600)
    ])  # fmt: skip
    z = (draws.mean(0) - expected) / (draws.std(0) / 600**0.5)
    # 256 numbers that are nearly normal: the mean of |z| is 0.80 +- 0.04.
    assert abs(float(z.abs().mean()) - 0.8) < 0.2
    assert float(z.abs().max()) < 5


# ------------------------------------------------------------------ training


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("method", ["fst", "sste"])
def test_it_trains_keeps_its_masks_and_finishes(make, method: str) -> None:
    model = make().train()
    classes = {name: type(module) for name, module in model.named_modules()}
    live = composed(model, with_config(SPARSE, method=method), INT8)
    losses = train(model, live, 12)
    assert losses[-1] < losses[0] - 0.3
    masks = live[0].transform.masks(model)
    assert len(masks) == (6 if make is llama else 4)
    for mask in masks.values():
        if method == "fst":
            assert is_transposable(mask)
    finish(model)
    assert {name: type(module) for name, module in model.named_modules()} == classes
    assert not any(module._forward_pre_hooks for module in model.modules())
    weight = model.model.layers[0].mlp.up_proj.weight if make is llama else model.transformer.h[0].mlp.c_fc.weight.t()
    assert ((weight != 0).reshape(-1, 4).sum(1) <= 2).all()


def test_a_step_follows_new_weights_and_masks() -> None:
    model = llama().train()
    live = composed(model, SPARSE, INT8)
    layer = model.model.layers[0].mlp.up_proj
    train(model, live, 2)
    codes = layer.jetfire.sparse_codes
    assert not codes.is_stale
    buffers = [tensor.data_ptr() for operand in codes.operands for tensor in operand.tensors().values()]
    mask = layer.sparsity.kept().clone()
    with torch.no_grad():
        layer.weight.copy_(layer.weight.roll(1, 1))
    train(model, live, 2, first=2)
    assert not torch.equal(layer.sparsity.kept(), mask)
    operand = layer.encoders.forward.right.encode(layer.weight.detach(), contraction=1)
    masked = layer.weight.detach() * layer.sparsity.kept()
    assert torch.equal(operand.decode(), RowInt8.encode(masked).decode())
    assert buffers == [t.data_ptr() for one in codes.operands for t in one.tensors().values()], "in place, for graphs"


def test_weights_changed_without_the_hooks_are_quantized_anew() -> None:
    model = llama().train()
    composed(model, SPARSE, INT8)
    layer = model.model.layers[0].mlp.up_proj
    x = torch.randn(4, 64)
    first = layer(x)
    layer.weight.data.mul_(2)  # leaves no trace in the version counter
    assert relative(layer(x), 2 * first) < 1e-6


def test_the_dense_finish_is_quantized_in_blocks() -> None:
    model = llama().train()
    live = composed(model, with_config(SPARSE, dense_finish=0.5), INT8)
    layer = model.model.layers[0].mlp.up_proj
    train(model, live, 4, total=8)
    assert layer.sparsity.dense
    operand = layer.encoders.forward.right.encode(layer.weight.detach(), contraction=1)
    assert isinstance(operand, BlockInt8)
    assert torch.equal(operand.decode(), BlockInt8.encode(layer.weight.detach()).decode())
    left = layer.encoders.forward.left.encode(torch.randn(5, 64), contraction=1)
    assert isinstance(left, BlockInt8)
    assert isinstance(layer.encoders.weight_grad.left.encode(torch.randn(5, 128), contraction=0), BlockInt8)
    losses = train(model, live, 4, first=4, total=8)
    assert losses[-1] < losses[0]
    finish(model)
    assert model.model.layers[0].mlp.up_proj.weight.count_nonzero() > 0.9 * layer.weight.numel()


def test_before_its_start_step_only_the_sparsifier_acts() -> None:
    model, alone = llama().train(), llama().train()
    live = composed(model, SPARSE, with_config(INT8, start_step=3))
    before = composed(alone, SPARSE)
    assert train(model, live, 3, total=6) == train(alone, before, 3, total=6)
    assert train(model, live, 3, first=3, total=6) != train(alone, before, 3, first=3, total=6)


def test_states_are_those_of_the_dense_model_and_resume_is_exact() -> None:
    dense = llama()
    model = llama().train()
    live = composed(model, SPARSE, INT8)
    own = {name for name in model.state_dict() if ".sparsity." in name or ".jetfire." in name}
    assert model.state_dict().keys() - own == dense.state_dict().keys()
    train(model, live, 3, total=6)
    saved = copy.deepcopy(model.state_dict())
    dense.load_state_dict({name: tensor for name, tensor in saved.items() if name not in own})
    rest = train(model, live, 3, first=3, total=6)
    resumed = llama().train()
    again = composed(resumed, SPARSE, INT8)
    resumed.load_state_dict(saved)
    assert train(resumed, again, 3, first=3, total=6) == rest
    fresh = llama().train()
    composed(fresh, SPARSE, INT8)
    missing, unexpected = fresh.load_state_dict(dense.state_dict(), strict=False)
    assert not unexpected
    assert set(missing) <= own


def test_a_copy_and_a_pickle_train_on_alike() -> None:
    model = llama().train()
    live = composed(model, SPARSE, INT8)
    train(model, live, 2, total=6)
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    rest = train(model, live, 2, first=2, total=6)
    for other in others:
        assert train(other, list(applied(other)), 2, first=2, total=6) == rest


def test_autocast_and_activation_checkpointing() -> None:
    model = llama().train()
    live = composed(model, SPARSE, INT8)
    for one in live:
        one.on_train_start(10)
    layer = model.model.layers[0].mlp.up_proj
    x = torch.randn(8, 64)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
        checkpointed = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    assert output.dtype is torch.bfloat16
    assert torch.equal(output, checkpointed)
    checkpointed.float().square().sum().backward()
    assert layer.weight.grad.dtype is torch.float32
    assert layer.weight.grad.isfinite().all()
    exact = (
        RowInt8.encode(x.bfloat16()).decode().double()
        @ RowInt8.encode(layer.weight.detach() * layer.sparsity.kept()).decode().double().t()
    )
    assert relative(output.detach(), exact) < 5e-3


def test_a_compiled_layer_has_no_graph_break_and_follows_steps() -> None:
    model = llama().train()
    live = composed(model, SPARSE, with_config(INT8, stochastic=False))
    layer = model.model.layers[0].mlp
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 5, 64, requires_grad=True)
    for steps in (0, 2):
        if steps:
            train(model, live, steps)
        results = []
        for run in (compiled, layer):
            x.grad = None
            for state in (module for module in layer.modules() if hasattr(module, "draws")):
                state.draws.fill_(5)
            output = run(x)
            output.square().sum().backward()
            results.append((output.detach(), x.grad.clone()))
        for ours, eager in zip(*results, strict=True):
            torch.testing.assert_close(ours, eager)


def test_explain_names_the_kernels() -> None:
    model = llama().train()
    live = composed(model, SPARSE, INT8)
    for one in live:
        one.on_train_start(10)
    layer = model.model.layers[0].mlp.up_proj
    chosen = layer.explain(16)
    assert chosen["forward"].kernel == chosen["input_grad"].kernel == "row_int8_sparse24/cpu"
    assert model.model.layers[0].self_attn.q_proj.explain(16)["forward"].kernel == "decode and multiply"


# ------------------------------------------------------------------ the packed path, its product by definition


@pytest.fixture
def library_by_definition(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """cuSPARSELt made to look present on the CPU: all but its product of codes is what runs on a GPU."""
    from planish_kernels.cusparselt import int8, layout, op
    from planish_kernels.matmul import row_int8_cusparselt
    from planish_kernels.runtime.support import YES

    multiplied: list[tuple[int, int]] = []

    def multiply(packed: torch.Tensor, rows: int, cols: int, codes: torch.Tensor, wide: bool) -> torch.Tensor:
        if not torch.compiler.is_compiling():
            multiplied.append((rows, cols))
        sums = codes.float() @ layout.unpack(packed, rows, cols).float().t()
        return sums.to(torch.int32) if wide else sums.to(torch.bfloat16)

    monkeypatch.setattr(op, "cusparselt_available", lambda: YES)
    monkeypatch.setattr(int8, "_products_refusal", lambda device: "")
    monkeypatch.setattr(row_int8_cusparselt, "int8_multiply", multiply)
    return multiplied


@pytest.mark.parametrize("make", [llama, gpt2])
def test_packed_weights_train_as_the_reference_does(make, library_by_definition, monkeypatch) -> None:
    model = make().train()
    live = composed(model, SPARSE, INT8)
    details = {entry.details["forward"] for entry in live[1].plan.touched if ".mlp." in entry.name}
    assert details == {"int8 rows x 2:4, cusparselt"}
    losses = train(model, live, 5)
    layer = model.model.layers[0].mlp.up_proj if make is llama else model.transformer.h[0].mlp.c_fc
    assert layer.explain(16)["forward"].kernel == "row_int8_sparse24/cusparselt"
    for operand in layer.jetfire.sparse_codes.operands:
        assert isinstance(operand.values, Sparse24CuSparseLt)
    layers = 6 if make is llama else 4
    assert len(library_by_definition) == 5 * 2 * layers, "forward and input gradient of each layer and step"
    monkeypatch.undo()
    reference = make().train()
    live = composed(reference, SPARSE, INT8)
    assert train(reference, live, 5) == pytest.approx(losses, rel=1e-5)


def test_packed_weights_compile(library_by_definition) -> None:
    model = llama().train()
    live = composed(model, SPARSE, with_config(INT8, stochastic=False))
    mlp = model.model.layers[0].mlp
    torch._dynamo.reset()
    compiled = torch.compile(mlp, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 5, 64, requires_grad=True)
    for steps in (0, 2):
        if steps:
            train(model, live, steps)
        results = []
        for run in (compiled, mlp):
            x.grad = None
            with torch.autocast("cpu", torch.bfloat16):
                output = run(x)
            output.float().square().sum().backward()
            results.append((output.detach(), x.grad.clone()))
        for ours, eager in zip(*results, strict=True):
            # A compiler may leave a rounding to bfloat16 out, which moves codes that are on the edge.
            assert relative(ours, eager) < 2e-2
    torch._dynamo.reset()


# ------------------------------------------------------------------ the recipe


def test_the_recipe_runs_shortened(tmp_path: Path) -> None:
    small = [
        "trainer.max_steps=24", "trainer.warmup_steps=2", "trainer.val_interval=8", "data.max_bytes=300000",
        "data.val_batches=2", "data.batch_size=4", f"report={tmp_path / 'out'}",
    ]  # fmt: skip
    recipe = read_recipe(RECIPE, small)
    assert [spec.use for spec in recipe.transforms] == ["pretrain24", "jetfire"]
    registry = default_registry()
    result = registry.load(recipe.runner, "runner")(dict(recipe.trainer)).run(
        recipe, registry, RunOptions(progress=False)
    )
    variant = result.report["variants"]["composed"]
    assert [plan["use"] for plan in variant["plans"]] == ["pretrain24", "jetfire"]
    assert "int8 rows x 2:4" in str(variant["plans"][1])
    losses = variant["series"]["loss"]["values"]
    assert losses[-1] < losses[0] - 0.3
    assert variant["series"]["density"]["values"] == [0.5, 1.0, 1.0], "the second half is dense"
    model = planish.load(tmp_path / "out" / "model")
    assert not any("jetfire" in name or "sparsity" in name for name in model.state_dict())
    assert torch.isfinite(model(torch.arange(8).view(1, -1)).logits).all()
    sparse = planish.load(tmp_path / "out" / "sparse")
    assert [live.plan.use for live in applied(sparse)] == ["pretrain24", "jetfire"]
    layer = sparse.model.layers[0].mlp.up_proj
    assert is_transposable(layer.sparsity.kept())
    assert layer.train().explain(8)["forward"].kernel == "row_int8_sparse24/cpu"


# ------------------------------------------------------------------ on the device

on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")]


def _on_kernels(model: nn.Module) -> None:
    from planish_kernels.formats.row_int8 import why_not_packed

    reason = why_not_packed(128, 64, torch.device("cuda"))
    if reason:
        pytest.skip(reason)


class TestOnTheGpu:
    pytestmark = on_gpu

    def test_the_plan_names_the_kernel_and_it_runs(self) -> None:
        model = llama().train().cuda()
        _on_kernels(model)
        live = composed(model, SPARSE, INT8)
        details = {entry.details["forward"] for entry in live[1].plan.touched if ".mlp." in entry.name}
        assert details == {"int8 rows x 2:4, cusparselt"}
        for one in live:
            one.on_train_start(10)
        chosen = model.model.layers[0].mlp.up_proj.explain(64)
        assert chosen["forward"].kernel == chosen["input_grad"].kernel == "row_int8_sparse24/cusparselt"

    @pytest.mark.parametrize("make", [llama, gpt2])
    @pytest.mark.parametrize("execution", ["sparse", "emulate"])
    def test_the_kernels_compute_what_the_cpu_computes(self, make, execution: str) -> None:
        """Without random draws, in float32: a layer on the device and its copy on the CPU."""
        _on_kernels(llama())
        model = make().train()
        specs = with_config(SPARSE, mvue="off", execution=execution), with_config(INT8, stochastic=False)
        on_cpu, on_device = copy.deepcopy(model), model.cuda()
        results = []
        for each in (on_cpu, on_device):
            if each is on_cpu:
                live = composed(each, with_config(specs[0], execution="emulate"), specs[1])
            else:
                live = composed(each, *specs)
            for one in live:
                one.on_train_start(10)
            layer = each.model.layers[0].mlp.up_proj if make is llama else each.transformer.h[0].mlp.c_fc
            device = layer.weight.device
            generator = torch.Generator().manual_seed(1)
            x = torch.randn(37, layer.in_features, generator=generator).to(device).requires_grad_()
            layer(x).backward(torch.randn(37, layer.out_features, generator=generator).to(device))
            with torch.no_grad():
                results.append([t.detach().cpu() for t in (layer(x), x.grad, layer.weight.grad)])
        for name, ours, exact in zip(("output", "input grad", "weight grad"), *results[::-1], strict=True):
            assert relative(ours, exact) < 1e-5, name

    @pytest.mark.parametrize("mvue", ["exact", "off"])
    @pytest.mark.parametrize("execution", ["sparse", "auto"])
    def test_it_trains_under_autocast(self, execution: str, mvue: str) -> None:
        model = llama(hidden_size=128, intermediate_size=256).train().cuda()
        _on_kernels(model)
        live = composed(model, with_config(SPARSE, execution=execution, mvue=mvue), INT8)
        for one in live:
            one.on_train_start(40)
        layer = model.model.layers[0].mlp.up_proj
        assert layer.sparsity.packs is None, "the quantizer packs for itself"
        assert layer.sparsity.on_kernels == (execution == "sparse")
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        tokens = torch.randint(0, 64, (16, 32), generator=torch.Generator().manual_seed(1)).cuda()
        losses = []
        for step in range(40):
            with torch.autocast("cuda", torch.bfloat16):
                loss = model(input_ids=tokens, labels=tokens).loss
            loss.backward()
            for one in live:
                one.on_gradients(step)
            optimizer.step()
            optimizer.zero_grad()
            for one in live:
                one.on_step(step + 1)
            losses.append(loss.item())
        assert losses[-1] < losses[0] - 1
        model.eval()
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            assert model(input_ids=tokens).logits.isfinite().all()
        finish(model)

    def test_a_model_moved_after_it_was_composed(self) -> None:
        _on_kernels(llama())
        model = llama().train()
        live = composed(model, with_config(SPARSE, execution="sparse"), INT8)
        model.cuda()
        losses = train(model, live, 4)
        assert losses[-1] < losses[0]
        assert model.model.layers[0].mlp.up_proj.explain(64)["forward"].kernel == "row_int8_sparse24/cusparselt"

    def test_a_captured_step_draws_anew_at_each_replay(self) -> None:
        model = llama().train().cuda()
        _on_kernels(model)
        live = composed(model, with_config(SPARSE, mvue="off"), INT8)
        for one in live:
            one.on_train_start(10)
        mlp = model.model.layers[0].mlp
        x = torch.randn(64, 64, device="cuda", requires_grad=True)
        x.grad = torch.zeros_like(x)

        def step() -> None:
            x.grad.zero_()
            mlp(x).square().sum().backward()

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        graph.replay()
        first = x.grad.clone()
        graph.replay()
        assert first.isfinite().all()
        assert not torch.equal(x.grad, first)
