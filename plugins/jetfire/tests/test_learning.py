"""The learning experiment: what it compares is what it says, and the program runs, continues, reports and draws."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from planish.benchmark import BenchmarkOptions, read_result
from planish_jetfire.benchmark import learning
from planish_jetfire.benchmark.fake_int8 import FakeInt8, encoders
from planish_jetfire.benchmark.learning_plot import main as draw
from planish_jetfire.benchmark.learning_variants import VARIANTS, Trained, variant_of
from planish_jetfire.benchmark.planted_outliers import CHANNELS, PlantedOutliers
from planish_jetfire.benchmark.tiled_norm import TiledNorm, tile_norms
from planish_kernels.formats import BlockInt8
from planish_kernels.nn import EncodedLinear
from torch import Tensor, nn

pytest.importorskip("transformers", reason="the models are those of Transformers")
pytest.importorskip("planish_lightning", reason="it builds models of Transformers by name")


def tokens() -> Tensor:
    return torch.randint(0, 256, (2, 33), generator=torch.Generator().manual_seed(1))


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    return F.cross_entropy(model(input_ids=batch[:, :-1]).logits.flatten(0, 1), batch[:, 1:].flatten())


def test_blocks_of_the_emulation_are_those_of_the_kernels() -> None:
    matrix = torch.randn(70, 100)
    emulated = FakeInt8("block").encode(matrix, contraction=1)
    exact = BlockInt8.encode(matrix, 32, impl="reference").decode()
    # Scales of the format are rounded up to 17 bits, which turns a code here and there.
    assert float((emulated - exact).norm() / exact.norm()) < 1e-3


@pytest.mark.parametrize(("scales", "bound"), [("tensor", 4e-2), ("token", 2e-2), ("block", 2e-2)])
def test_scales_of_the_emulation(scales: str, bound: float) -> None:
    matrix = torch.randn(64, 64)
    matrix[3] *= 100
    encoded = FakeInt8(scales).encode(matrix, contraction=1)  # type: ignore[arg-type]
    others = torch.arange(64) > 31
    error = float((encoded - matrix)[others].norm() / matrix[others].norm())
    assert (error > 0.2) == (scales == "tensor"), "a large token costs the others where they share a scale"
    assert float((encoded - matrix)[3].norm() / matrix[3].norm()) < bound


def test_gradients_are_drawn_once_for_both_matmuls_and_without_bias() -> None:
    matrix = torch.randn(32, 32)
    encoder = encoders("block", 1).input_grad.left
    assert encoder is not None
    first = encoder.encode(matrix, contraction=1)
    assert encoder.encode(matrix, contraction=0) is first
    total = torch.zeros(32, 32)
    for _ in range(400):
        total += encoder.encode(matrix.clone(), contraction=1)  # type: ignore[arg-type]
    step = float(matrix.abs().max()) / 127
    assert float((total / 400 - matrix).abs().max()) < 5 * 0.5 * step / 400**0.5


@pytest.mark.parametrize("model", learning.MODELS)
@pytest.mark.parametrize("variant", ["per-tensor", "per-token", "cut"])
def test_emulations_train_under_autocast(model: str, variant: str) -> None:
    net = learning.build(model, learning.QUICK, 0).train()
    exact = [parameter.detach().clone() for parameter in net.parameters()]
    trained = Trained(net, variant_of(variant), flow="linear", seed=0, total_steps=1)
    with torch.autocast("cpu", torch.bfloat16):
        loss(net, tokens()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in trained.parameters())
    assert all(torch.equal(p, before) for p, before in zip(net.parameters(), exact, strict=True))


def test_cut_codes_are_too_small() -> None:
    matrix = torch.randn(320, 320)
    cut = FakeInt8("block", cuts=True).encode(matrix, contraction=1)
    drawn = FakeInt8("block", torch.Generator().manual_seed(1), cuts=True).encode(matrix, contraction=1)
    step = float(matrix.abs().max()) / 127
    for found in (cut, drawn):
        assert -0.6 * step < float(((found - matrix) * matrix.sign()).mean()) < -0.25 * step


@pytest.mark.parametrize("model", learning.MODELS)
def test_outliers_change_what_is_quantized_and_not_what_is_trained(model: str) -> None:
    plain, planted = (learning.build(model, learning.QUICK, 0) for _ in range(2))
    seen: list[Tensor] = []
    name = "transformer.h.0.ln_1" if model == "gpt2" else "model.layers.0.input_layernorm"
    outliers = PlantedOutliers(planted)
    planted.get_submodule(name).register_forward_hook(lambda module, given, out: seen.append(out.detach()))
    own = outliers.parameters(planted)
    optimizers = [torch.optim.AdamW(p, lr=1e-3, eps=1e-6) for p in (list(plain.parameters()), own)]
    for _ in range(3):
        for one, optimizer in zip((plain, planted), optimizers, strict=True):
            loss(one, tokens()).backward()
            if one is planted:
                outliers.pull_gradients()
            optimizer.step()
            optimizer.zero_grad()
        outliers.push()
    with torch.no_grad():
        torch.testing.assert_close(loss(planted, tokens()), loss(plain, tokens()), rtol=1e-4, atol=1e-4)
    magnitude = seen[0].abs().amax((0, 1))
    others = [channel for channel in range(len(magnitude)) if channel not in CHANNELS]
    assert magnitude[list(CHANNELS)].min() > 10 * magnitude[others].max()


@pytest.mark.parametrize("is_rms", [False, True])
@pytest.mark.parametrize("width", [128, 160])
def test_the_tiled_norm_is_right_up_to_128_columns(is_rms: bool, width: int) -> None:
    norm = nn.RMSNorm(width, eps=1e-5) if is_rms else nn.LayerNorm(width)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    tiled = TiledNorm(norm)
    x, grad = torch.randn(4, 6, width), torch.randn(4, 6, width)
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    for module, leaf in zip((norm, tiled), leaves, strict=True):
        out = module(leaf)
        torch.testing.assert_close(out, norm(x), rtol=1e-5, atol=1e-5)
        out.backward(grad)
    error = float((leaves[1].grad - leaves[0].grad).norm() / leaves[0].grad.norm())  # type: ignore[operator, union-attr]
    assert error < 1e-5 if width == 128 else error > 1e-3


@pytest.mark.parametrize("model", learning.MODELS)
def test_variants_are_on_the_model_in_training_alone(model: str) -> None:
    batch = tokens()
    plain = learning.build(model, learning.QUICK, 0)
    with torch.no_grad():
        reference = loss(plain, batch)
    for name in ("jetfire-32", "per-token", "per-tensor", "cut"):
        net = learning.build(model, learning.QUICK, 0).train()
        trained = Trained(net, variant_of(name), flow="linear", seed=0, total_steps=10)
        taken = [m for m in net.modules() if isinstance(m, EncodedLinear)]
        assert len(taken) == (4 if model == "gpt2" else 7)
        with torch.no_grad():
            assert loss(net, batch) != reference
            with trained.evaluating() as evaluated:
                assert loss(evaluated, batch) == reference
            assert loss(net, batch) != reference
    assert tile_norms(plain) == 2


def test_the_oracle_holds() -> None:
    assert learning.oracle_passed("cpu")


def test_the_program_writes_rows_continues_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, figure = tmp_path / "learning.json", tmp_path / "learning.svg"
    arguments = ["--quick", "--device", "cpu", "--json", str(path)]
    assert learning.main([*arguments, "--variants", "float32,jetfire-32", "--models", "gpt2"]) == 0
    first = {row["case"]: row for row in json.loads(path.read_text())["rows"]}
    assert learning.main([*arguments, "--plot", str(figure)]) == 0
    result = read_result(path)
    assert result.oracle_passed
    rows = {row.case: row for row in result.rows}
    assert set(rows) == {f"{model}/{name}/seed0" for model in learning.MODELS for name in VARIANTS}
    for case, row in first.items():
        assert rows[case].model_dump(mode="json") == row, "kept, not run again"
    assert rows["llama/jetfire-32/seed0"].ours.median != rows["llama/float32/seed0"].ours.median
    assert figure.read_text().lstrip().startswith("<?xml")
    assert draw([str(path), str(tmp_path / "again.svg")]) == 0
    assert (tmp_path / "again.svg").read_bytes() == figure.read_bytes(), "the figure depends on the file alone"
    assert "of full precision (by seed" in capsys.readouterr().out
    assert learning.main([*arguments, "--steps", "3", "--variants", "float32", "--models", "gpt2"]) == 0
    assert len(read_result(path).rows) == 1, "rows of other settings are not continued"


def test_the_block_flow_runs_too() -> None:
    settings = learning.replace(learning.QUICK, flow="block")
    result = learning.run(settings, seeds=1, variants=["float32", "jetfire-32"], models=["llama"])
    assert len(result.rows) == 2


def test_wrong_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert learning.main(["--quick", "--device", "cpu", "--variants", "flaot32"]) == 2
    assert capsys.readouterr().err.startswith("error: variant 'flaot32' is unknown")
    assert learning.main(["--quick", "--device", "cpu", "--models", "gpt3"]) == 2
    assert capsys.readouterr().err.startswith("error: model 'gpt3' is unknown")
    assert draw([str(tmp_path / "missing.json"), str(tmp_path / "x.svg")]) == 2
    assert not (tmp_path / "x.svg").exists()
    with pytest.raises(ValueError, match="has no block with a norm named"):
        PlantedOutliers(nn.Linear(4, 4))


def test_the_registered_benchmark_runs() -> None:
    result = learning.bench(BenchmarkOptions(device="cpu", quick=True, command="planish bench jetfire-learning"))
    assert result.benchmark == "jetfire-learning"
    assert len(result.rows) == 2 * len(VARIANTS)
