"""Which layers are taken, why not the others, and what bad options say."""

import planish
import pytest
import torch
from planish.errors import CompositionError, ConfigError, UnsupportedError
from planish.interfaces import Plan
from planish.structure import find_feed_forwards
from planish_pretrain24 import Pretrain24, execution
from torch import nn


def _reasons(plan: Plan) -> dict[str, str]:
    return {entry.name: entry.reason for entry in plan.skipped}


def _touched(plan: Plan) -> list[str]:
    return [entry.name for entry in plan.touched]


class Attention(nn.Module):
    def __init__(self, q: int, kv: int, width: int = 32) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(width, q), nn.Linear(width, kv)
        self.v_proj, self.o_proj = nn.Linear(width, kv), nn.Linear(q, width)


def test_attention_that_widens_is_no_feed_forward_network() -> None:
    assert find_feed_forwards(Attention(q=64, kv=16)) == []
    model = nn.ModuleDict({"self_attn": Attention(64, 64)})
    assert "attention" in _reasons(planish.plan(model, Pretrain24()))["self_attn.q_proj"]


def test_sequential_and_encoder_layers_are_found_by_shape() -> None:
    model = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 32))
    assert _touched(planish.plan(model, Pretrain24())) == ["0", "2"]
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    assert _touched(planish.plan(layer, Pretrain24())) == ["linear1", "linear2"]


def test_a_bottleneck_is_no_feed_forward_network() -> None:
    assert find_feed_forwards(nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 64))) == []


def test_experts_are_found_and_their_router_is_not() -> None:
    model = nn.ModuleDict(
        {
            "gate": nn.Linear(32, 8, bias=False),
            "experts": nn.ModuleList(
                nn.ModuleDict({"w1": nn.Linear(32, 64), "w2": nn.Linear(64, 32), "w3": nn.Linear(32, 64)})
                for _ in range(2)
            ),
        }
    )
    plan = planish.plan(model, Pretrain24())
    assert len(plan.touched) == 6
    assert "gate" in _reasons(plan)


def test_a_fused_gate_is_found() -> None:
    model = nn.ModuleDict({"gate_up_proj": nn.Linear(32, 128), "down_proj": nn.Linear(64, 32)})
    assert _touched(planish.plan(model, Pretrain24())) == ["gate_up_proj", "down_proj"]


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Linear(64, 66), "out_features 66 is not a multiple of 4"),
        (nn.Linear(66, 64), "in_features 66 is not a multiple of 4"),
        (nn.Linear(8, 64), "in_features 8 is too small"),
        (nn.Conv2d(4, 4, 3), "a convolution"),
        (nn.Embedding(16, 16), "an embedding"),
        (nn.LayerNorm(16), "a LayerNorm"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(32, 32)), "parametrised"),
        (nn.Linear(32, 32, device="meta"), "meta device"),
        (nn.modules.linear.NonDynamicallyQuantizableLinear(32, 32), "feed-forward network"),
    ],
)
def test_every_refusal_says_why(layer: nn.Module, reason: str) -> None:
    model = nn.ModuleDict({"layer": layer, "mlp": nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))})
    assert reason in _reasons(planish.plan(model, Pretrain24(), targets=["*"]))["layer"]


def test_a_tied_weight_is_left_alone() -> None:
    model = nn.ModuleDict({"fc1": nn.Linear(32, 64), "fc2": nn.Linear(64, 32), "other": nn.Linear(32, 64)})
    model["other"].weight = model["fc1"].weight
    plan = planish.plan(model, Pretrain24())
    assert "tied to other.weight" in _reasons(plan)["fc1"]
    assert _touched(plan) == ["fc2"]


def test_a_subclass_with_its_own_forward_is_left_alone() -> None:
    class Noisy(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) + 1

    model = nn.Sequential(Noisy(32, 64), nn.GELU(), nn.Linear(64, 32))
    assert "a Noisy" in _reasons(planish.plan(model, Pretrain24()))["0"]


def test_a_linear_that_is_named_exactly_is_taken_whatever_it_is() -> None:
    model = nn.ModuleDict({"self_attn": Attention(32, 32)})
    assert _touched(planish.plan(model, Pretrain24(), targets=["self_attn.q_proj"])) == ["self_attn.q_proj"]
    assert planish.plan(model, Pretrain24(), targets=["self_attn.*"]).touched == ()


def test_nothing_to_do_is_an_error_that_says_why() -> None:
    with pytest.raises(CompositionError, match="not a multiple of 4"):
        planish.apply(nn.Sequential(nn.Linear(30, 62)), Pretrain24())


@pytest.mark.parametrize("second", ["fst", "sste"])
def test_two_methods_on_one_layer_are_refused(mlp, second: str) -> None:
    model = mlp()
    planish.apply(model, Pretrain24())
    with pytest.raises(CompositionError):
        planish.apply(model, Pretrain24(method=second))


def test_claims_are_exclusive_for_the_mask_alone(mlp) -> None:
    entry = planish.plan(mlp(), Pretrain24()).touched[0]
    assert {claim.aspect: claim.exclusive for claim in entry.claims} == {
        "weight.mask": True,
        "matmul.forward": False,
        "matmul.input_grad": False,
        "matmul.weight_grad": False,
    }


def test_the_plan_says_where_two_of_four_does_not_pay(mlp) -> None:
    plan = planish.plan(mlp(), Pretrain24())
    assert "matmuls dense while the masks train" in plan.notes[0]
    assert plan.touched[0].details["forward"] == "dense, masked weight"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may run it")
def test_sparse_execution_is_refused_without_a_gpu(mlp) -> None:
    model = mlp()
    with pytest.raises(UnsupportedError, match=r"execution='sparse' is not possible for 'fc1'.*execution='auto'"):
        planish.apply(model, Pretrain24(execution="sparse"))
    assert type(model.fc1) is nn.Linear


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"decay": -1.0}, "decay"),
        ({"decay": float("nan")}, "decay"),
        ({"decay": "automatic"}, "decay"),
        ({"decay": True}, "decay"),
        ({"mask_interval": 0}, "mask_interval"),
        ({"dense_finish": 1.0}, "dense_finish"),
        ({"dense_finish": -0.1}, "dense_finish"),
        ({"method": "sr-ste"}, "method"),
        ({"mvue": "none"}, "mvue"),
        ({"seed": -1}, "seed"),
        ({"search_grid": ()}, "search_grid"),
        ({"search_grid": (1e-4, -1.0)}, "search_grid"),
        ({"search_window": 0}, "search_window"),
        ({"freq": 40}, "freq"),
    ],
)
def test_options_out_of_bounds_name_their_field(options: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError, match=rf"^pretrain24\.{field}: ") as caught:
        Pretrain24(options)
    assert "\n" not in str(caught.value)


def test_auto_takes_kernels_from_the_measured_width_and_says_where_they_do_not_pay(monkeypatch) -> None:
    monkeypatch.setattr(execution, "cannot", lambda *_: None)
    monkeypatch.setattr(execution, "_gpu_of", lambda weight: weight.device)
    model = nn.Sequential(nn.Linear(1024, 4096), nn.GELU(), nn.Linear(4096, 1024))
    model = nn.ModuleDict({"wide": model, "narrow": nn.Sequential(nn.Linear(512, 4096), nn.Linear(4096, 512))})
    plan = planish.plan(model, Pretrain24())
    kernels = {entry.name: entry.details["forward"] for entry in plan.touched}
    assert kernels["wide.0"] == kernels["wide.2"] == "cusparselt"
    assert kernels["narrow.0"] == kernels["narrow.1"] == "dense, masked weight"
    assert any("at 512x4096" in note and "masks train" in note for note in plan.notes)
    (tokens,) = [note for note in plan.notes if "slower than dense" in note]
    assert "16384 tokens" in tokens
    alone = planish.plan(model["narrow"], Pretrain24())
    assert not any("slower than dense" in note for note in alone.notes), "nothing runs on 2:4 kernels"


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"decay": "auto", "method": "sste"}, "method 'fst'"),
        ({"decay": "auto", "search_steps": 20, "mask_interval": 40}, "holds no mask search"),
    ],
)
def test_options_that_do_not_go_together_say_so(options: dict[str, object], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        Pretrain24(options)


def test_an_undecided_decay_is_refused_by_apply(mlp) -> None:
    with pytest.raises(ConfigError, match="search"):
        planish.apply(mlp(), Pretrain24(decay="auto"))


def test_sharded_weights_are_refused(mlp, start) -> None:
    model = mlp()
    live = start(model)
    model.fc1.weight.data = torch.empty(0)
    with pytest.raises(UnsupportedError, match=r"'fc1' is sharded.*DDP"):
        live.on_train_start(10)


def test_a_bare_off_of_yaml_turns_the_estimate_off():
    assert Pretrain24(mvue=False).config.mvue == "off"
    with pytest.raises(ConfigError, match="mvue"):
        Pretrain24(mvue=True)
