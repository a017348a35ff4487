"""The cleaning experiment: what its figures mean, and that a second call continues the first."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from planish.benchmark import BenchmarkOptions, Measurement, Row, collect, read_result
from planish.errors import ConfigError, DataError, UnsupportedError
from planish_egovid.benchmark import cleaning
from planish_egovid.benchmark.cleaning_clips import HELD_OUT_FROM, KnownClip, MixSpec
from planish_egovid.benchmark.cleaning_decisions import Agreement
from planish_egovid.benchmark.cleaning_plot import plot
from planish_egovid.benchmark.cleaning_rows import compared, learning_notes
from planish_egovid.benchmark.cleaning_training import HeldOut, TrainingSpec, agrees_with_float64, samples, train
from planish_egovid.benchmark.tiny_video_model import TinyVideoModel, flow_matching_loss
from torch import Tensor, nn

SMALL = TrainingSpec(width=8, side=16, frames=4, batch=4, steps=6, warmup=2, checks=2, held_out_samples=16)


def clips_source(count: int, frames: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, frames, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cleaning")


@pytest.fixture(scope="module")
def result_file(folder: Path) -> Path:
    path = folder / "result.json"
    assert cleaning.main(["--clips", str(folder / "clips"), "--json", str(path), "--quick"]) == 0
    return path


def test_a_quick_run_decides_trains_and_says_which_arm_is_which(result_file: Path) -> None:
    result = read_result(result_file)
    assert result.oracle_passed
    values = {(row.case, row.metric): row.ours.median for row in result.rows}
    assert values["decisions", "precision"] >= 0.95
    assert values["decisions", "recall"] >= 0.8
    arms = {row.extra["arm"]: row for row in result.rows if row.metric == "val_loss"}
    assert tuple(arms) == ("everything", "kept", "random")
    assert (arms["everything"].extra["clips"], arms["everything"].extra["spoilt"]) == (12, 6)
    assert arms["kept"].extra["clips"] == arms["random"].extra["clips"] < 12
    assert arms["kept"].extra["spoilt"] <= 1 < arms["random"].extra["spoilt"]
    assert arms["kept"].gain == pytest.approx(arms["random"].ours.median / arms["kept"].ours.median)
    without = [row for row in result.rows if row.case.startswith("decisions without ") and row.metric == "recall"]
    assert without
    assert all(row.ours.median <= values["decisions", "recall"] for row in without)
    assert min(row.ours.median for row in without) < values["decisions", "recall"]
    assert str(result_file.parent) not in json.dumps([row.model_dump() for row in result.rows])


def test_a_second_call_runs_what_is_missing_only(result_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_result(result_file)
    lacking = result_file.with_name("lacking.json")
    kept = [row for row in before.rows if row.extra.get("arm") != "random"]
    lacking.write_text(before.model_copy(update={"rows": kept}).model_dump_json())
    seeds = []

    def counted(spec: TrainingSpec, source: np.ndarray, held_out: np.ndarray, seed: int) -> object:
        seeds.append(seed)
        return train(spec, source, held_out, seed)

    monkeypatch.setattr(cleaning, "train", counted)
    monkeypatch.setattr("planish_egovid.benchmark.cleaning_clips._render", None)
    again = cleaning.run(cleaning.QUICK, result_file.parent / "clips", seeds=1, path=lacking)
    assert seeds == [0]

    def losses(rows: list[Row]) -> dict[str, float]:
        return {row.case: row.ours.median for row in rows if row.metric == "val_loss"}

    assert losses(again.rows) == losses(before.rows)

    longer = replace(cleaning.QUICK, training=replace(cleaning.QUICK.training, steps=3))
    cleaning.run(longer, result_file.parent / "clips", seeds=1, path=lacking)
    assert seeds == [0, 0, 0, 0], "rows of other settings are not continued"


def test_the_figure_is_drawn_from_the_result_alone(result_file: Path, tmp_path: Path) -> None:
    result = read_result(result_file)
    plot(result, tmp_path / "a.svg")
    plot(result, tmp_path / "b.svg")
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn == (tmp_path / "b.svg").read_text()
    assert drawn.startswith("<?xml")
    with pytest.raises(DataError, match="run the cleaning experiment first"):
        plot(collect("other", [], oracle_passed=True), tmp_path / "c.svg")
    assert not (tmp_path / "c.svg").exists()


def test_it_refuses_a_gpu_no_seed_and_too_many_clips(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="--device cpu"):
        cleaning.bench(BenchmarkOptions("cuda"))
    with pytest.raises(ConfigError, match="seeds is 0"):
        cleaning.run(cleaning.QUICK, tmp_path, seeds=0)
    with pytest.raises(ConfigError, match="clips is 4001"):
        MixSpec(clips=4001)
    assert MixSpec(clips=4000).clips + 1000 <= HELD_OUT_FROM, "rooms that clips are cut to are no held-out rooms"


def test_agreement_counts_drops_of_spoilt_clips_as_right() -> None:
    clips = [KnownClip(Path(f"{name}.mp4"), fault) for name, fault in
             [("a", None), ("b", None), ("c", "cut"), ("d", "cut"), ("e", "still")]]  # fmt: skip
    found = Agreement.of({"a": True, "b": False, "c": False, "d": True, "e": False}, clips)
    assert (found.precision, found.recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert found.found == {"cut": (1, 2), "still": (1, 1)}
    nothing = Agreement.of(dict.fromkeys("ab", True), clips[:2])
    assert (nothing.precision, nothing.recall) == (None, None)


class Knowing(nn.Module):
    """Knows the data, so that its velocity is exact."""

    def __init__(self, data: Tensor) -> None:
        super().__init__()
        self.data = data

    def forward(self, video: Tensor, time: Tensor) -> Tensor:
        at = time.view(-1, 1, 1, 1, 1)
        return (self.data - video) / (1 - at)


def test_the_loss_is_that_of_the_velocity_towards_the_data() -> None:
    drawn = torch.Generator().manual_seed(0)
    data, noise = torch.randn(4, 3, 2, 8, 8, generator=drawn), torch.randn(4, 3, 2, 8, 8, generator=drawn)
    time = torch.tensor([0.0, 0.2, 0.5, 0.9])
    assert float(flow_matching_loss(Knowing(data), data, noise, time)) < 1e-9
    zero = TinyVideoModel(8)
    expected = (data - noise).double().square().mean()
    found = flow_matching_loss(zero, data, noise, time).detach()
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert agrees_with_float64()


def test_a_seed_decides_a_run_and_more_steps_lower_its_loss() -> None:
    source = clips_source(6) // 8  # dark noise: a mean to learn
    first, second = train(SMALL, source, source, 3), train(SMALL, source, source, 3)
    assert (first.val_loss, first.curve) == (second.val_loss, second.curve)
    assert train(SMALL, source, source, 4).val_loss != first.val_loss
    longer = train(replace(SMALL, steps=60, learning_rate=3e-3), source, source, 3)
    assert longer.val_loss < 0.8 * first.val_loss
    assert len(longer.by_time) == 4
    assert sum(longer.by_time) / 4 == pytest.approx(longer.val_loss, rel=1e-5)


def test_training_shows_every_clip_before_any_again() -> None:
    source = np.stack([np.full((12, 16, 16, 3), 20 * clip, np.uint8) for clip in range(10)])
    drawn = [batch for _, batch in zip(range(5), samples(SMALL, source, seed=0), strict=False)]
    shown = ((torch.cat(drawn)[:, 0, 0, 0, 0] + 1) * 127.5 / 20).round().int().tolist()
    assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10))
    assert drawn[0].shape == (4, 3, 4, 16, 16)


def test_held_out_samples_do_not_depend_on_the_run() -> None:
    source = clips_source(3)
    torch.manual_seed(1)
    first = HeldOut(SMALL, source)
    torch.manual_seed(2)
    second = HeldOut(SMALL, source)
    for one, other in ((first.data, second.data), (first.noise, second.noise), (first.times, second.times)):
        assert torch.equal(one, other)
    assert sorted(first.times.tolist()) == pytest.approx(((np.arange(16) + 0.5) / 16).tolist())


def row_of(arm: str, seed: int, loss: float) -> Row:
    return Row(
        case=f"{arm}{seed}", metric="val_loss", unit="mse", better="lower", ours=Measurement.of([loss]),
        extra={"arm": arm, "seed": seed, "seconds": 60.0},
    )  # fmt: skip


def test_notes_say_in_how_many_seeds_cleaning_helps() -> None:
    losses = {("kept", 0): 0.8, ("random", 0): 1.0, ("everything", 0): 0.9,
              ("kept", 1): 0.9, ("random", 1): 0.75, ("everything", 1): 1.0}  # fmt: skip
    rows = compared({(seed, arm): row_of(arm, seed, loss) for (arm, seed), loss in losses.items()})
    assert [row.case for row in rows] == ["everything0", "kept0", "random0", "everything1", "kept1", "random1"]
    assert [row.gain for row in rows if row.gain] == [pytest.approx(1.25), pytest.approx(0.75 / 0.9)]
    notes = "\n".join(learning_notes(rows))
    assert "lower loss than random in 1 of 2 seeds; its loss is 0.8000, 1.2000" in notes
    assert "lower loss than everything in 2 of 2 seeds" in notes
    assert "6.0 minutes" in notes
