"""RAFT by its parts against RAFT's own forward, on a stand-in of torchvision's interface and on torchvision itself."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from planish.errors import ConfigError, UnsupportedError
from planish_egovid.flow.backend import FlowBackend, raft_backend
from planish_egovid.flow.raft_config import RaftConfig

torch = pytest.importorskip("torch")

from planish_egovid.flow.raft import RaftFlow, load_raft, padding, upsampled  # noqa: E402
from planish_egovid.flow.raft_refinement import Refinement, looked_up  # noqa: E402
from planish_egovid.testing.stand_in_raft import StandInCorrelation, StandInRaft, StandInUpdate  # noqa: E402

CPU = RaftConfig(device="cpu", updates=3, pairs=4)


def clip_of(frames: int, height: int = 136, width: int = 160, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(0, 256, (frames, -(-height // 8), -(-width // 8), 3))
    return np.kron(drawn, np.ones((1, 8, 8, 1))).astype(np.uint8)[:, :height, :width]


def by_forward(model: Any, clip: np.ndarray, updates: int = 3) -> np.ndarray:
    """The published loop: one pair at a time, padded centred by repeating edges."""
    height, width = clip.shape[1:3]
    y, x = (max(128, -(-side // 8) * 8) - side for side in (height, width))
    pads = ((0, 0), (y // 2, y - y // 2), (x // 2, x - x // 2), (0, 0))
    images = torch.from_numpy(np.pad(clip, pads, mode="edge")).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    with torch.inference_mode():
        flows = [
            model(images[i : i + 1], images[i + 1 : i + 2], num_flow_updates=updates)[-1] for i in range(len(clip) - 1)
        ]
    found = torch.cat(flows)[:, :, y // 2 : y // 2 + height, x // 2 : x // 2 + width]
    return found.permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module")
def model() -> StandInRaft:
    return StandInRaft().eval()


def test_flows_are_those_of_forward(model: StandInRaft) -> None:
    clips = [clip_of(6), clip_of(3, 140, 165, seed=1), clip_of(2, 64, 72, seed=2)]
    for clip, flow in zip(clips, RaftFlow(CPU, model).flows(clips), strict=True):
        expected = by_forward(model, clip)
        assert flow.dtype == np.float32
        assert flow.shape == (len(clip) - 1, *clip.shape[1:3], 2)
        assert np.abs(expected).max() > 1, "a stand-in that finds no motion would hide mistakes"
        np.testing.assert_allclose(flow, expected, atol=1e-4)


def test_each_frame_is_encoded_once(model: StandInRaft) -> None:
    backend = RaftFlow(CPU, model)
    model.encoded = 0
    list(backend.flows([clip_of(15)]))
    assert model.encoded == 15, "forward would encode 28"


def test_pairs_of_several_clips_go_through_together_and_stay_apart(model: StandInRaft) -> None:
    clips = [clip_of(frames, seed=frames) for frames in (3, 1, 0, 5, 2)]
    clips.append(clip_of(4, 64, 72, seed=9))
    alone = list(RaftFlow(CPU, model).flows(clips))
    backend = RaftFlow(CPU, model)
    assert [len(group) for group in backend._groups(clips)] == [1] * 6, "on a processor: each by itself"
    backend._on_gpu = True
    assert [[len(clip) for clip in group] for group in backend._groups(clips)] == [[3, 1, 0], [5], [2], [4]]
    groups = list(backend._groups(clips))
    backend._on_gpu = False
    together = [flow for group in groups for flow in backend._start(group).arrays()]
    assert [len(flow) for flow in together] == [2, 0, 0, 4, 1, 3]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_clip_has_the_same_bits_beside_others(model: StandInRaft) -> None:
    clips = [clip_of(4, seed=seed) for seed in range(3)]
    together = list(RaftFlow(CPU, model).flows(clips))
    for clip, flow in zip(clips, together, strict=True):
        np.testing.assert_array_equal(next(RaftFlow(CPU, model).flows([clip])), flow)


def test_nothing_gives_nothing(model: StandInRaft) -> None:
    backend = RaftFlow(CPU, model)
    assert list(backend.flows([])) == []
    shapes = [flow.shape for flow in backend.flows([clip_of(1), clip_of(0)])]
    assert shapes == [(0, 136, 160, 2), (0, 136, 160, 2)]


def test_padding_is_kept_on_request(model: StandInRaft) -> None:
    clip = clip_of(3, 140, 165)
    (kept,) = RaftFlow(CPU, model, keeps_padding=True).flows([clip])
    (cut,) = RaftFlow(CPU, model).flows([clip])
    assert kept.shape == (2, 144, 168, 2)
    np.testing.assert_array_equal(kept[:, 2:142, 1:166], cut)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(540, 960, (0, 0, 2, 2)), (544, 960, (0, 0, 0, 0)), (541, 955, (2, 3, 1, 2)), (100, 129, (3, 4, 14, 14))],
)
def test_pictures_are_padded_as_by_the_authors(height: int, width: int, expected: tuple[int, ...]) -> None:
    assert padding(height, width) == expected


def test_upsampling_without_a_mask_interpolates() -> None:
    flow = torch.arange(8.0).reshape(1, 2, 2, 2)
    fine = upsampled(flow, None)
    assert fine.shape == (1, 2, 16, 16)
    assert fine[0, 0, 0, 0] == 0
    assert fine[0, 1, -1, -1] == 8 * 7


def test_short_memory_halves_the_pairs(model: StandInRaft, caplog: pytest.LogCaptureFixture) -> None:
    class Short(StandInCorrelation):
        def build_pyramid(self, fmap1: Any, fmap2: Any) -> None:
            if len(fmap1) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            super().build_pyramid(fmap1, fmap2)

    short = StandInRaft().eval()
    short.load_state_dict(model.state_dict())
    short.corr_block = Short()
    backend = RaftFlow(CPU, short)
    (flow,) = backend.flows([clip_of(4)])
    np.testing.assert_allclose(flow, by_forward(model, clip_of(4)), atol=1e-4)
    assert backend.pairs == 1
    assert "memory is short" in caplog.text


def test_bfloat16_keeps_coordinates_exact(model: StandInRaft) -> None:
    (exact,) = RaftFlow(CPU, model).flows([clip_of(4)])
    (short,) = RaftFlow(CPU.model_copy(update={"dtype": "bfloat16"}), model).flows([clip_of(4)])
    difference = np.abs(exact - short)
    assert 0 < np.median(difference) < 0.05 * np.abs(exact).max()
    assert torch.get_float32_matmul_precision() == "highest", "settings are put back"


def test_parts_are_compiled_on_request(model: StandInRaft, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda part: (compiled.append(part), part)[1])
    RaftFlow(CPU, model)
    assert not compiled, "by itself on a GPU alone"
    RaftFlow(CPU.model_copy(update={"compiled": True}), model)
    assert compiled == [model.feature_encoder, model.context_encoder, model.update_block]
    assert isinstance(model.update_block, StandInUpdate), "the model itself is not changed"


def pyramid_of(pairs: int, height: int, width: int, levels: int = 3) -> list[Any]:
    """Random levels, each half the size of the one before."""
    generator = torch.Generator().manual_seed(pairs)
    return [
        torch.randn(pairs * height * width, 1, height >> level, width >> level, generator=generator)
        for level in range(levels)
    ]


@pytest.mark.parametrize("radius", [1, 4])
def test_lookups_are_those_of_a_sampler(radius: int) -> None:
    pairs, height, width = 2, 12, 17
    pyramid = pyramid_of(pairs, height, width)
    at = torch.rand(pairs, 2, height, width, generator=torch.Generator().manual_seed(1)) * 30 - 6
    at[0, :, 0, 0] = torch.tensor([3.0, 5.0])
    steps = torch.arange(-radius, radius + 1.0)
    window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1)
    expected = []
    for level, volume in enumerate(pyramid):
        places = at.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2).double() / 2**level + window.double()
        last = torch.tensor([volume.shape[3] - 1, volume.shape[2] - 1])
        sampled = torch.nn.functional.grid_sample(volume.double(), 2 * places / last - 1, align_corners=True)
        expected.append(sampled.reshape(pairs, height, width, -1))
    found = looked_up(pyramid, radius, at, torch.float32)
    assert found.is_contiguous(memory_format=torch.channels_last)
    # Weights are differences of float32 positions of up to 30: 2^-24 * 32, times values of some 4.
    torch.testing.assert_close(found.double(), torch.cat(expected, -1).permute(0, 3, 1, 2), atol=3e-5, rtol=0)
    assert looked_up(pyramid, radius, at, torch.bfloat16).dtype is torch.bfloat16


def test_far_and_broken_positions_read_nothing() -> None:
    at = torch.full((1, 2, 4, 4), 1e30)
    at[0, 0, 1], at[0, 1, 2], at[0, 0, 3] = -torch.inf, torch.inf, -7.0
    assert not looked_up(pyramid_of(1, 4, 4, 1), 2, at, torch.float32).any()
    looked_up(pyramid_of(1, 4, 4, 1), 2, torch.full((1, 2, 4, 4), torch.nan), torch.float32)


def assert_close_in_short(found: Any, exact: list[np.ndarray]) -> None:
    for flow, expected in zip(found, exact, strict=True):
        difference = np.abs(flow - expected)
        assert 0 < np.median(difference) < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("laid_out", [True, False], ids=["torchvision's correlations", "own correlations"])
def test_parts_are_compiled_for_any_number_of_pairs(monkeypatch: pytest.MonkeyPatch, laid_out: bool) -> None:
    torch._dynamo.reset()  # it remembers which sides have varied
    model = StandInRaft(pyramid=laid_out).eval()
    model.feature_encoder._forward_hooks.clear()  # the stand-in's count of images would be compiled as a constant
    traced: list[Any] = []
    compile_ = torch.compile

    def counting(function: Any) -> Any:
        return compile_(function, backend=lambda graph, inputs: (traced.append(function), graph.forward)[1])

    monkeypatch.setattr(torch, "compile", counting)
    clips = [clip_of(frames, seed=frames) for frames in (6, 4, 5, 2, 3, 8, 2, 7)]
    exact = list(RaftFlow(CPU, model).flows(clips))
    short = RaftFlow(CPU.model_copy(update={"dtype": "bfloat16", "compiled": True, "pairs": 64}), model)
    assert_close_in_short(short.flows(clips), exact)
    assert short._refinement is not None
    assert short._refinement._looks_up == laid_out
    assert len(traced) == 3, "each encoder and the step once, whatever the number of pairs"
    # One side of one level after the other.
    for height, width in ((128, 160), (144, 160), (144, 168), (144, 176), (136, 160)):
        others = [clip_of(frames, height, width, seed=frames) for frames in (3, 5)]
        assert_close_in_short(short.flows(others), list(RaftFlow(CPU, model).flows(others)))
    assert len(traced) == 6, "once more for all other sizes"
    assert next(model.update_block.parameters()).dtype is torch.float32, "the model itself is not changed"


@pytest.mark.parametrize("looks_up", [True, False], ids=["lookup given", "model's own lookup"])
def test_refinement_in_a_short_format_without_a_compiler(looks_up: bool) -> None:
    model = StandInRaft(pyramid=True).eval()
    clips = [clip_of(frames, seed=frames) for frames in (4, 3)]
    exact = list(RaftFlow(CPU, model).flows(clips))
    asked: list[int] = []

    def lookup(pyramid: Any, radius: int, at: Any, dtype: Any) -> Any:
        asked.append(len(at))
        return looked_up(pyramid, radius, at, dtype)

    backend = RaftFlow(CPU.model_copy(update={"dtype": "bfloat16"}), model)
    assert backend._refinement is None, "a processor keeps autocast, and with it its bits"
    backend._refinement = Refinement(model, torch.bfloat16, compiled=False, lookup=lookup if looks_up else None)
    assert_close_in_short(backend.flows(clips), exact)
    assert asked == ([3, 3, 3, 2, 2, 2] if looks_up else [])


def test_the_name_says_what_ran(model: StandInRaft) -> None:
    backend = RaftFlow(CPU, model)
    assert backend.name == "raft-large/own/3/float32"
    assert backend.pixels == "rgb"
    assert isinstance(backend, FlowBackend)


# What follows is about loading torchvision's model.


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A module with the names of torchvision that are used."""
    from enum import Enum
    from importlib.machinery import ModuleSpec

    class Entry:
        url = "https://download.pytorch.org/models/raft_large_C_T_V2-1bb1363a.pth"

        def get_state_dict(self, *, progress: bool, check_hash: bool) -> Any:
            assert check_hash
            return {name: tensor + 1 for name, tensor in StandInRaft().state_dict().items()}

    class Weights(Enum):
        C_T_V1 = "1"
        C_T_V2 = "2"
        DEFAULT = "2"

        @property
        def url(self) -> str:
            return Entry.url

        def get_state_dict(self, *, progress: bool, check_hash: bool) -> Any:
            return Entry().get_state_dict(progress=progress, check_hash=check_hash)

    root: Any = ModuleType("torchvision")
    models: Any = ModuleType("torchvision.models")
    flow: Any = ModuleType("torchvision.models.optical_flow")
    root.__spec__ = ModuleSpec("torchvision", None)
    flow.raft_large = lambda *, weights: StandInRaft()
    flow.Raft_Large_Weights = Weights
    root.models, models.optical_flow = models, flow
    for module in (root, models, flow):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return flow


def test_published_weights_are_announced_and_loaded(torchvision: Any, caplog: pytest.LogCaptureFixture) -> None:
    backend = raft_backend(RaftConfig(device="cpu"))
    assert backend.name == "raft-large/C_T_V2/20/float32"
    assert "downloading https://download.pytorch.org" in caplog.text
    expected = StandInRaft().state_dict()["mask_predictor.weight"] + 1
    torch.testing.assert_close(backend.model.state_dict()["mask_predictor.weight"], expected)  # type: ignore[attr-defined]


def test_weights_are_read_from_a_file(torchvision: Any, tmp_path: Path) -> None:
    state = {name: tensor * 2 for name, tensor in StandInRaft().state_dict().items()}
    torch.save(state, tmp_path / "mine.pth")
    config = RaftConfig(device="cpu", weights=str(tmp_path / "mine.pth"))
    torch.testing.assert_close(load_raft(config).state_dict()["mask_predictor.bias"], state["mask_predictor.bias"])
    assert RaftFlow(config).name == "raft-large/mine.pth/20/float32"


def test_weights_that_do_not_exist_are_said(torchvision: Any) -> None:
    with pytest.raises(ConfigError, match="is no file; torchvision has these for raft_large: C_T_V1, C_T_V2"):
        load_raft(RaftConfig(weights="C_T_V9", device="cpu"))


def test_weights_of_another_model_are_said(torchvision: Any, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "mine.pth")
    with pytest.raises(UnsupportedError, match=r"cannot load RAFT .*check that it holds"):
        load_raft(RaftConfig(weights=str(tmp_path / "mine.pth"), device="cpu"))


def test_missing_torchvision_is_said_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'planish-egovid\[raft\]'"):
        load_raft(RaftConfig(device="cpu"))


@pytest.mark.parametrize("name", ["raft_large", "raft_small"])
def test_torchvision_itself(name: str) -> None:
    pytest.importorskip("torchvision", reason="torchvision (extra raft) is not installed")
    from torchvision.models import optical_flow

    torch.manual_seed(0)
    real = getattr(optical_flow, name)(weights=None).eval()
    clip = clip_of(3, 130, 141)
    (flow,) = RaftFlow(CPU.model_copy(update={"model": name}), real).flows([clip])
    expected = by_forward(real, clip)
    # Random weights blow the flow up over the updates; relative to it, float32 is right to 1e-4.
    np.testing.assert_allclose(flow, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("laid_out", [True, False], ids=["torchvision's correlations", "own correlations"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 5e-2)])
def test_a_gpu_agrees_with_the_processor(dtype: str, tolerance: float, laid_out: bool, compiled: bool) -> None:
    # The same weights: seeds are alike.
    model, on_gpu = (StandInRaft(pyramid=laid_out).eval() for _ in range(2))
    clips = [clip_of(frames, seed=frames) for frames in (3, 5, 2)]
    expected = list(RaftFlow(CPU, model).flows(clips))
    config = CPU.model_copy(update={"device": "cuda", "dtype": dtype, "compiled": compiled})
    for one, other in zip(expected, RaftFlow(config, on_gpu).flows(clips), strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance * np.abs(one).max())
