"""The adapter for DOVER: which frames and pieces it takes, how it fuses, and what it says when DOVER is not there.

DOVER itself is not for everyone to install; a stand-in with the same call signature takes its place.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from math import exp
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from planish.errors import ConfigError, UnsupportedError
from planish.interfaces import ClipWork
from planish_egovid.clarity import dover
from planish_egovid.clarity.axis import ClarityAxis, ClarityConfig
from planish_egovid.clarity.dover import DoverConfig, DoverScorer
from planish_egovid.clarity.dover_views import aesthetic_frames, fragments, technical_frames, whole
from planish_egovid.clarity.fusion import fused
from planish_egovid.testing import HeadMotion, view_of
from planish_egovid.testing.fixtures import rendered

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")


class StandIn(torch.nn.Module):
    """Called like DOVER: a dictionary of views in, a list of raw score maps in the same order out."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.arguments = arguments
        self.gain = torch.nn.Parameter(torch.tensor([0.05, -0.02]))
        self.seen: list[dict[str, tuple[int, ...]]] = []

    def forward(self, views: dict[str, Any]) -> list[Any]:
        self.seen.append({key: tuple(view.shape) for key, view in views.items()})
        pooled = [torch.nn.functional.avg_pool3d(view, (16, 56, 56)).mean(1, keepdim=True) for view in views.values()]
        return [gain * scores for gain, scores in zip(self.gain, pooled, strict=True)]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    package, models = ModuleType("dover"), ModuleType("dover.models")
    package.__path__ = []  # type: ignore[attr-defined]
    models.__spec__ = importlib.util.spec_from_loader("dover.models", None)
    models.DOVER = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dover", package)
    monkeypatch.setitem(sys.modules, "dover.models", models)
    path = tmp_path / "DOVER.pth"
    torch.save(StandIn().state_dict(), path)
    dover._loaded.cache_clear()
    yield path
    dover._loaded.cache_clear()


def test_known_points_of_the_fusion() -> None:
    assert fused(0.1107, -0.08285) == 0.5
    assert fused(0.1107 + 0.07355, -0.08285) == pytest.approx(1 / (1 + exp(-0.6104)))
    assert fused(0.1107, -0.08285 + 0.03774) == pytest.approx(1 / (1 + exp(-0.3896)))
    assert fused(100.0, 0.0) == 1.0
    assert fused(-100.0, 0.0) == 0.0


@pytest.mark.parametrize("frames", [1, 31, 64, 120, 192, 200, 300, 3000])
def test_frames_are_those_of_dovers_samplers(frames: int) -> None:
    technical, aesthetic = technical_frames(frames), aesthetic_frames(frames)
    assert len(technical) == 96
    assert len(aesthetic) == 32
    assert all(0 <= number < frames for number in technical + aesthetic)
    for clip in range(3):
        numbers = np.array(technical[32 * clip : 32 * clip + 32])
        # Every second frame, from within the range that DOVER draws the start from.
        assert (np.diff(numbers) % frames == 2 % frames).all()
        low = frames // 3 * clip
        assert low <= numbers[0] <= low + max(frames // 3 - 64 - 1, 0)
    for part, number in enumerate(aesthetic):
        low = frames // 32 * part
        assert low <= number <= low + max(frames // 32 - 2 - 1, 0)


def test_frames_of_a_four_second_clip_written_out() -> None:
    assert technical_frames(120)[:3] == [0, 2, 4]
    # Clips of 64 frames that begin at 0, 40 and 80 of 120; the last one runs over the end and wraps around.
    assert [technical_frames(120)[i] for i in (0, 31, 32, 63, 64, 83, 84, 95)] == [0, 62, 40, 102, 80, 118, 0, 22]
    assert aesthetic_frames(120) == [3 * i for i in range(32)]


def test_fragments_are_pieces_at_full_resolution_in_their_places() -> None:
    rows, columns = np.meshgrid(np.arange(540), np.arange(960), indexing="ij")
    image = np.stack([rows // 4, columns // 4, (rows + columns) % 256], axis=-1).astype(np.uint8)
    found = fragments(image[None])[0]
    assert found.shape == (224, 224, 3)
    for i in range(7):
        for j in range(7):
            piece = found[32 * i : 32 * i + 32, 32 * j : 32 * j + 32]
            top, left = 77 * i + (77 - 33) // 2, 137 * j + (137 - 33) // 2
            np.testing.assert_array_equal(piece, image[top : top + 32, left : left + 32])


def test_small_pictures_are_enlarged_and_tiny_ones_refused() -> None:
    assert fragments(np.full((2, 90, 160, 3), 7, np.uint8)).tolist() == np.full((2, 224, 224, 3), 7).tolist()
    with pytest.raises(UnsupportedError, match="pieces of 32 px, and the video is 160x20"):
        fragments(np.zeros((1, 20, 160, 3), np.uint8))


def test_whole_pictures_are_squeezed_with_antialiasing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 54, 500, 3)).astype(np.uint8)
    pixels = torch.from_numpy(image).permute(0, 3, 1, 2).float()
    expected = torch.nn.functional.interpolate(pixels, (224, 224), mode="bilinear", antialias=True)
    difference = np.abs(whole(image) - expected.permute(0, 2, 3, 1).numpy())
    assert difference.max() <= 1.5


def scored(path: Path, seed: int = 0) -> dict[str, Any]:
    axis = ClarityAxis(ClarityConfig(dover=DoverConfig(checkpoint=str(path), device="cpu")))
    view = view_of(rendered(HeadMotion(), 64, 30.0, 240, 136, seed).frames, axis)
    stage = axis.stage()
    assert stage is not None
    (work,) = stage.run([ClipWork(view.clip, axis.measure(view), view.payload)])
    assert not work.payload
    axis.Columns(clip_id="a", **work.values)
    return work.values


def test_the_score_is_the_fusion_of_the_networks_two_means(installed: Path) -> None:
    values = scored(installed)
    frames = rendered(HeadMotion(), 64, 30.0, 240, 136).frames
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    technical = ((fragments(frames)[technical_frames(64)] - mean) / std).mean() * 0.05
    aesthetic = ((whole(frames)[aesthetic_frames(64)] - mean) / std).mean() * -0.02
    assert values["dover_technical"] == pytest.approx(technical, abs=1e-5)
    assert values["dover_aesthetic"] == pytest.approx(aesthetic, abs=1e-5)
    assert values["dover_score"] == fused(values["dover_technical"], values["dover_aesthetic"])
    assert values["dover_backend"] == "dover/DOVER.pth/float32"
    assert values["clarity_proxy"] is not None
    assert scored(installed) == values


def test_the_network_is_called_as_dover_is_and_clips_do_not_mix(installed: Path) -> None:
    random = np.random.default_rng(0)
    technical = [random.integers(0, 256, (96, 224, 224, 3)).astype(np.uint8) // (i + 1) for i in range(2)]
    aesthetic = [random.integers(0, 256, (32, 224, 224, 3)).astype(np.uint8) // (i + 1) for i in range(2)]
    network = StandIn()
    together = DoverScorer(network, name="x", device="cpu", dtype=torch.float32)
    together.clips = 2
    found = together.raw(technical, aesthetic)
    assert network.seen == [{"technical": (6, 3, 32, 224, 224), "aesthetic": (2, 3, 32, 224, 224)}]
    alone = DoverScorer(StandIn(), name="x", device="cpu", dtype=torch.float32)
    assert alone.clips == 1
    np.testing.assert_allclose(found, alone.raw(technical, aesthetic), atol=1e-6)
    assert alone.raw([], []) == []


def test_the_architecture_is_that_of_the_published_settings(installed: Path) -> None:
    scorer = DoverScorer.load(DoverConfig(checkpoint=str(installed), device="cpu"))
    assert scorer.network.arguments["backbone_preserve_keys"] == "technical,aesthetic"
    assert scorer.network.arguments["backbone"]["technical"]["type"] == "swin_tiny_grpb"
    assert scorer.network.arguments["divide_head"] is True


def test_without_dover_the_error_has_the_install_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    axis = ClarityAxis(ClarityConfig(dover=DoverConfig(checkpoint=str(tmp_path / "DOVER.pth"))))
    monkeypatch.setitem(sys.modules, "dover.models", None)
    with pytest.raises(UnsupportedError, match=r"pip install git\+https://github\.com/VQAssessment/DOVER") as caught:
        axis.stage()
    assert "non-commercial" in str(caught.value)
    # What PyPI calls dover is a tool for version numbers.
    other = ModuleType("dover")
    monkeypatch.setitem(sys.modules, "dover", other)
    monkeypatch.delitem(sys.modules, "dover.models")
    with pytest.raises(UnsupportedError, match="PyPI is something else"):
        axis.stage()


def test_weights_that_are_not_there_or_do_not_fit(installed: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.pth is no file; download DOVER\.pth"):
        DoverScorer.load(DoverConfig(checkpoint=str(tmp_path / "nothing.pth"), device="cpu"))
    torch.save({"other": torch.zeros(2)}, installed)
    with pytest.raises(UnsupportedError, match="DOVER"):
        DoverScorer.load(DoverConfig(checkpoint=str(installed), device="cpu"))


def test_clips_with_an_error_or_without_frames_are_left_alone(installed: Path) -> None:
    stage = dover.dover_stage(DoverConfig(checkpoint="not read.pth", device="cpu"))
    from planish.interfaces import Clip

    works = [ClipWork(Clip("a", "a.mp4"), error="damaged"), ClipWork(Clip("b", "b.mp4"))]
    assert stage.run(works) == works
