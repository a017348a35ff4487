"""Plans and options: what is taken, in which flow, and why not the rest."""

import planish
import pytest
import torch
from planish.errors import CompositionError, ConfigError, UnsupportedError
from planish.interfaces import Plan
from planish.testing.tiny_transformer import TinyBlock, TinyTransformer
from planish_jetfire import Jetfire, JetfireConfig
from planish_jetfire.structure import NotTaken, TransformerBlock, find_blocks
from torch import Tensor, nn


def _reason(model: nn.Module, name: str, targets: list[str] | None = None, **options: object) -> str:
    plan = planish.plan(model, Jetfire(options), targets=targets)
    (entry,) = [entry for entry in plan.modules if entry.name == name]
    assert not entry.touched
    return entry.reason


def _flows(plan: Plan) -> dict[str, str]:
    return {entry.name: entry.details["flow"] for entry in plan.touched}


def test_blocks_are_taken_whole_and_heads_are_left(tiny) -> None:
    plan = planish.plan(tiny(), Jetfire())
    flows = _flows(plan)
    assert set(flows.values()) == {"block"}
    assert len(flows) == 2 * 8
    assert "layers.0" in flows
    assert "lm_head" not in flows
    assert "pre-norm transformer block (LayerNorm, gated silu)" in next(
        entry.reason for entry in plan.touched if entry.name == "layers.0"
    )
    assert any("plain torch reference" in note for note in plan.notes)


def test_flow_linear_touches_linears_alone(tiny) -> None:
    flows = _flows(planish.plan(tiny(), Jetfire({"flow": "linear"})))
    assert set(flows.values()) == {"linear"}
    assert len(flows) == 2 * 7


def test_targets_that_leave_out_part_of_a_block_make_its_rest_linear(tiny) -> None:
    plan = planish.plan(tiny(), Jetfire(), targets=["layers.0", "layers.1.mlp.*"])
    flows = _flows(plan)
    assert {name for name, flow in flows.items() if flow == "block"} == {n for n in flows if n.startswith("layers.0")}
    assert {name for name, flow in flows.items() if flow == "linear"} == {
        f"layers.1.mlp.{name}_proj" for name in ("gate", "up", "down")
    }
    why = next(entry.reason for entry in plan.skipped if entry.name == "layers.1")
    assert why == "cannot compute as one block: its linear 'layers.1.attn.q_proj' is not quantized"


def test_a_head_is_taken_when_it_is_named_exactly(tiny) -> None:
    assert "lm_head" in _flows(planish.plan(tiny(), Jetfire(), targets=["lm_head"]))
    assert "lm_head" not in _flows(planish.plan(tiny(), Jetfire(), targets=["*"]))


def test_two_matmuls_cannot_make_a_block(tiny) -> None:
    plan = planish.plan(tiny(), Jetfire({"matmuls": ["weight_grad", "forward"]}))
    assert set(_flows(plan).values()) == {"linear"}
    assert plan.touched[0].details["input_grad"] == "dense"
    assert plan.touched[0].details["weight_grad"].startswith("int8/32")
    assert any("all three matmuls" in note for note in plan.notes)


@pytest.mark.parametrize("preset", ["ampere", "ada", "hopper"])
def test_presets_say_what_they_chose_and_that_it_is_not_measured(tiny, preset: str) -> None:
    plan = planish.plan(tiny(), Jetfire({"preset": preset}))
    code, side = ("float8", 128) if preset == "hopper" else ("int8", 32)
    assert any(f"{side}x{side} block (preset {preset})" in note for note in plan.notes)
    assert any("not measured" in note for note in plan.notes)
    assert plan.touched[1].details["forward"] == f"{code}/{side}, reference"


def test_what_is_given_beside_a_preset_holds() -> None:
    config = JetfireConfig(preset="hopper", block=64, code="int8")
    assert (config.block, config.code) == (64, "int8")
    assert JetfireConfig(**config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"block": 16}, "block: input should be 32, 64 or 128"),
        ({"block": 33}, "block: input should be 32, 64 or 128"),
        ({"preset": "turing"}, "preset: input should be 'paper', 'ampere', 'ada' or 'hopper'"),
        ({"code": "int4"}, "code: input should be 'int8' or 'float8'"),
        ({"matmuls": []}, "name at least one matmul"),
        ({"matmuls": ["backward"]}, "input should be 'forward', 'input_grad' or 'weight_grad'"),
        ({"flow": "block", "matmuls": ["forward"]}, "flow='block' quantizes all three matmuls"),
        ({"start_step": -1}, "start_step"),
        ({"residual": "fp8"}, "residual: input should be 'dual' or 'int8'"),
        ({"blok": 32}, "blok: unknown field; did you mean 'block'"),
    ],
)
def test_a_wrong_option_is_named(options: dict, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        Jetfire(options)
    assert says in str(error.value)


class _Changed(TinyBlock):
    """A block that joins its parts in another way."""

    def __init__(self, how: str) -> None:
        super().__init__(32, 64, 2, True)
        self.how = how
        if how == "scaled":
            self.scale = nn.Parameter(torch.full((32,), 0.1))
        if how == "relu":
            self.mlp.act_fn = nn.ReLU()
        if how == "third norm":
            self.last = nn.LayerNorm(32)
        if how == "dropout":
            self.drop = nn.Dropout(0.1)
        if how == "extra linear":
            self.attn.gate = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "parallel":
            return x + self.attn(self.attn_norm(x)) + self.mlp(self.mlp_norm(x))
        if self.how == "halved":
            return super().forward(x) * 0.5
        return super().forward(x)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("parallel", "joins its parts in another way"),
        ("halved", "joins its parts in another way"),
        ("relu", "joins its parts in another way"),
        ("scaled", "it has the parameter scale"),
        ("third norm", "it has 3 norms of its width, expected two"),
        ("dropout", "drop drops out 0.1 of a branch; set it to 0"),
        ("extra linear", "it has 5 linears"),
    ],
)
def test_a_block_that_is_not_understood_falls_to_the_linear_flow_with_the_reason(how: str, says: str) -> None:
    model = nn.Sequential(_Changed(how))
    assert says in _reason(model, "0")
    assert set(_flows(planish.plan(model, Jetfire())).values()) == {"linear"}
    with pytest.raises(UnsupportedError, match="flow='block', and no block of Sequential can compute as one"):
        planish.plan(model, Jetfire({"flow": "block"}))


def test_hooks_inside_a_block_are_a_reason(tiny) -> None:
    model = tiny()
    model.layers[0].mlp.up_proj.register_forward_hook(lambda *_: None)
    calls: list[int] = []
    model.layers[1].attn_norm.register_forward_hook(lambda *_: calls.append(1))
    assert "mlp.up_proj has hooks" in _reason(model, "layers.0")
    assert not calls, "planning calls nobody's hooks"


def test_every_linear_that_is_left_alone_has_its_reason() -> None:
    class Odd(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * 2

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(32, 64), nn.Linear(64, 32)
            self.odd, self.small, self.table = Odd(32, 32), nn.Linear(32, 8), nn.Embedding(9, 32)
            self.conv, self.norm = nn.Conv1d(32, 32, 1), nn.LayerNorm(32)
            self.tied, self.twin = nn.Linear(32, 32), nn.Linear(32, 32)
            self.twin.weight = self.tied.weight
            self.wrapped = nn.utils.parametrizations.weight_norm(nn.Linear(32, 32))
            self.attention = nn.MultiheadAttention(32, 2)
            self.other = nn.Linear(32, 32)

    model = Mixed()
    assert "computes something else" in _reason(model, "odd", ["*"])
    assert "out_features 8 is too small (min_features is 32)" in _reason(model, "small")
    assert "an embedding" in _reason(model, "table")
    assert "a convolution" in _reason(model, "conv")
    assert "a LayerNorm" in _reason(model, "norm", ["*"])
    assert "tied to twin.weight" in _reason(model, "tied")
    assert "parametrised" in _reason(model, "wrapped")
    assert "reads its weight itself" in _reason(model, "attention.out_proj")
    assert "name it in targets" in _reason(model, "other")
    assert "other" in _flows(planish.plan(model, Jetfire(), targets=["other"]))
    model.fc1.half()
    model.fc1.weight.requires_grad_(False)
    assert "fc1" in _flows(planish.plan(model, Jetfire()))
    model.fc1.weight = nn.Parameter(torch.zeros(64, 32, dtype=torch.int8), requires_grad=False)
    assert "its weight is torch.int8" in _reason(model, "fc1")


def test_a_plan_for_a_block_that_changed_since_is_refused(tiny) -> None:
    model = tiny()
    plan = planish.plan(model, Jetfire())
    model.layers[1].attn.gate = nn.Linear(32, 32)
    before = dict(model.named_modules())
    with pytest.raises(CompositionError, match=r"'layers\.1' compute as one block, which it cannot any more"):
        Jetfire().apply(model, plan)
    assert dict(model.named_modules()) == before


def test_finding_draws_nothing_and_changes_nothing() -> None:
    model = TinyTransformer()
    state, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    assert all(isinstance(found, TransformerBlock) for found in find_blocks(model))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())


def test_a_shared_feed_forward_network_is_no_part_of_a_block() -> None:
    model = TinyTransformer(tied_mlp=True)
    plan = planish.plan(model, Jetfire())
    assert "tied" in _reason(model, "layers.0.mlp.up_proj")
    assert set(_flows(plan).values()) == {"linear"}
    assert not any(isinstance(found, NotTaken) and not found.reason for found in find_blocks(model))
