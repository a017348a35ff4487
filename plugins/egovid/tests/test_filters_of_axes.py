"""Filters made of axes: what they decode, measure, leave out, and pass on."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import av
import cv2
import numpy as np
import pytest
from planish.config import Config
from planish.errors import ConfigError, DataError
from planish.interfaces import Clip, ClipWork, FilterJob, Illustration, Row, Stage
from planish.testing import DataFilterContract
from planish_egovid.axis import Axis
from planish_egovid.filters import AxesFilter, AxisFilter
from planish_egovid.policy import Rule, Threshold
from planish_egovid.testing.encode import write_video
from planish_egovid.video import ClipView, FrameRequest, VideoInfo
from pydantic import Field

Texture = Callable[..., np.ndarray]


class LightConfig(Config):
    stride_s: float = Field(0.1, gt=0, description="seconds between frames")
    backend: str = Field("mean", description="what measures")


class LightColumns(Row):
    light: float | None = Field(None, description="mean luminance, 0 to 1")
    light_frames: int | None = Field(None, description="frames looked at")


class LightAxis(Axis):
    name = "light"
    summary = "how light clips are"
    Config = LightConfig
    Columns = LightColumns
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("light", "light", Threshold(min=0.2, max=0.9), "too dark", "too light", description="mean luminance"),
    )
    cost = 0.01

    def requests(self, clip: Clip, video: VideoInfo, duration_s: float) -> Sequence[FrameRequest]:
        return (self._request(duration_s),)

    def measure(self, view: ClipView) -> dict[str, Any]:
        images = view.frames(self._request(view.duration_s)).images
        if view.clip.text == "refuse":
            raise DataError("this clip cannot be measured")
        if view.clip.text == "break":
            raise KeyError("a bug")
        if view.clip.text == "nan":
            return {"light": float("nan"), "light_frames": len(images)}
        return {"light": view.shared("mean", lambda: float(images.mean()) / 255), "light_frames": len(images)}

    def illustrate(self, view: ClipView, row: Row) -> list[Illustration]:
        return [Illustration("Light", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image/svg+xml")]

    def _request(self, duration_s: float) -> FrameRequest:
        return FrameRequest(tuple(np.arange(0, duration_s, self.config.stride_s).tolist()), "gray", 48)


class RedConfig(Config):
    gain: float = Field(1.0, description="factor")


class RedColumns(Row):
    red: list[float] | None = Field(None, description="mean red of a few frames, 0 to 1")


class RedAxis(Axis):
    """Costly: its numbers come from a further stage that looks at frames in the payload."""

    name = "red"
    summary = "how red clips are"
    Config = RedConfig
    Columns = RedColumns
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("red", "red", Threshold(max=0.6), "", "too red", reduce="max", description="largest mean red"),
    )
    cost = 1.0
    request = FrameRequest((0.0, 0.5), "rgb", 32, "cover")

    def requests(self, clip: Clip, video: VideoInfo, duration_s: float) -> Sequence[FrameRequest]:
        return (self.request,)

    def measure(self, view: ClipView) -> dict[str, Any]:
        view.payload["red/frames"] = view.frames(self.request).images
        return {"red": None}

    def stage(self) -> Stage:
        return Stage("red", self._look, gpus=0.5, batch_size=3)

    def _look(self, works: list[ClipWork]) -> list[ClipWork]:
        for work in works:
            if work.error is None and "red/frames" in work.payload:
                means = work.payload.pop("red/frames")[..., 0].mean(axis=(1, 2)) / 255 * self.config.gain
                work.values["red"] = [float(mean) for mean in means]
        return works


class AlsoRedColumns(Row):
    also_red: bool | None = Field(None, description="whether the stage of the other axis ran")


class AlsoRedAxis(RedAxis):
    """Shares its stage with RedAxis."""

    name = "also_red"
    Columns = AlsoRedColumns
    rules = ()

    def measure(self, view: ClipView) -> dict[str, Any]:
        return {"also_red": True}


class Light(AxisFilter):
    name = "light"
    summary = "how light clips are"
    axis = LightAxis


class LightAndRed(AxesFilter):
    name = "light-and-red"
    summary = "light, then red"
    axis_types = (LightAxis, RedAxis)


class _Contract(DataFilterContract):
    installed = False

    def make_clips(self, folder: Path) -> list[Clip]:
        clips = []
        for i, level in enumerate((20, 120, 250)):
            frames = np.full((20, 32, 48, 3), level, np.uint8)
            frames[:, :, : 10 + 8 * i] //= 2
            write_video(folder / f"{level}.mp4", frames)
            clips.append(Clip(f"c{level}", str(folder / f"{level}.mp4")))
        return clips


class TestLightContract(_Contract):
    plugin = Light
    thresholds: ClassVar = {"light.min": "stricter", "light.max": "looser"}
    threshold_values: ClassVar = {"light.min": (0.0, 0.1, 0.3, 0.5, 0.8, 0.9), "light.max": (0.2, 0.5, 0.8, 1.0)}
    bad_options = ({"stride_s": 0}, {"max_clip_s": -1})


class TestLightAndRedContract(_Contract):
    plugin = LightAndRed
    options: ClassVar = {"red": {"gain": 0.5}}
    thresholds: ClassVar = {"red.max": "looser", "frames_damaged.max": "looser"}
    threshold_values: ClassVar = {"red.max": (0.0, 0.1, 0.2, 0.5), "frames_damaged.max": (0, 1, 5)}
    bad_options = ({"axes": ["green"]}, {"early_exit_thresholds": {"rde": {"min": 1}}})


@pytest.fixture
def clips(tmp_path: Path, moving_texture: Texture) -> list[Clip]:
    """Seven clips of two files, two of them alike, and a file that is none."""
    write_video(tmp_path / "a.mp4", moving_texture(60))
    write_video(tmp_path / "b.mp4", moving_texture(60, seed=5) // 6)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    a, b = str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")
    return [
        Clip("a0", a, 0.0, 1.0), Clip("b0", b, 0.0, 1.0), Clip("a1", a, 1.0, 2.0),
        Clip("bad", str(tmp_path / "bad.mp4")), Clip("b1", b, 0.5, 1.5),
        Clip("a2", a, 0.25, 1.25), Clip("a3", a, 0.25, 1.25),
    ]  # fmt: skip


def test_options_columns_and_policy_follow_from_the_axes() -> None:
    assert set(LightAndRed.Config.model_fields) >= {"light", "red", "axes", "early_exit", "max_clip_s"}
    assert list(LightAndRed.Columns.model_fields)[-3:] == ["light", "light_frames", "red"]
    assert list(LightAndRed.Policy.model_fields) == ["frames_damaged", "light", "red"]
    assert LightAndRed(light={"stride_s": 0.5}).config.light.stride_s == 0.5  # type: ignore[attr-defined]
    assert Light(stride_s=0.5, max_clip_s=9).config.stride_s == 0.5  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"light-and-red.light.stride: unknown field; did you mean 'stride_s'"):
        LightAndRed(light={"stride": 1})


def test_scores_are_those_of_each_axis_alone_with_what_decoding_found(clips: list[Clip]) -> None:
    both, alone = LightAndRed().score(clips), Light().score(clips)
    for row, light, clip in zip(both, alone, clips, strict=True):
        assert row.clip_id == clip.id
        if clip.id == "bad":
            assert "cannot be opened" in str(row.error)
            assert row.model_dump(exclude={"clip_id", "error"}, exclude_none=True) == {}
            continue
        assert (row.light, row.light_frames) == (light.light, light.light_frames)  # type: ignore[attr-defined]
        assert len(row.red) == 2  # type: ignore[attr-defined]
        assert (row.width, row.height, row.fps, row.codec) == (96, 64, 30.0, "h264")  # type: ignore[attr-defined]
        assert (row.frames_expected, row.frames_actual, row.frames_damaged) == (30, 30, 0)  # type: ignore[attr-defined]
    assert both[5].model_dump(exclude={"clip_id"}) == both[6].model_dump(exclude={"clip_id"})


def test_rows_do_not_depend_on_batches_and_travel(clips: list[Clip]) -> None:
    plugin = LightAndRed()
    rows = plugin.score(clips)
    assert [row for clip in clips for row in LightAndRed().score([clip])] == rows
    assert plugin.score(clips[::-1])[::-1] == rows
    assert plugin.score([clips[0], clips[0]]) == [rows[0], rows[0]]
    assert pickle.loads(pickle.dumps(rows)) == rows
    assert FilterJob.of(plugin).build().score(clips) == rows


def test_a_batch_opens_each_file_once_for_all_axes_and_clips(
    clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    really = av.open
    monkeypatch.setattr(av, "open", lambda name, *a, **k: opened.append(name) or really(name, *a, **k))
    LightAndRed().score(clips)
    assert sorted(Path(name).name for name in opened) == ["a.mp4", "b.mp4", "bad.mp4"]


def test_axes_that_are_switched_off_leave_nulls(clips: list[Clip]) -> None:
    plugin = LightAndRed(axes=["light"])
    (row,) = plugin.score(clips[:1])
    assert row.light is not None  # type: ignore[attr-defined]
    assert row.red is None  # type: ignore[attr-defined]
    assert [stage.name for stage in plugin.stages()] == ["decode"]
    assert plugin.decide(row).keep


def test_what_an_axis_raises_concerns_its_clip_alone(clips: list[Clip], caplog: pytest.LogCaptureFixture) -> None:
    marked = [replace(clip, text=text) for clip, text in zip(clips[:3], ("refuse", "break", "nan"), strict=True)]
    refused, broken, nan, fine = LightAndRed().score([*marked, clips[4]])
    assert refused.error == "light: this clip cannot be measured"
    assert broken.error == "light: KeyError: 'a bug'"
    assert "unforeseen" in caplog.text
    assert nan.error is None
    assert nan.light is None  # type: ignore[attr-defined]
    assert nan.red is not None  # type: ignore[attr-defined]
    assert fine.error is None


def test_early_exit_leaves_out_the_costlier_axes_of_clips_that_are_rejected(clips: list[Clip]) -> None:
    rows = {row.clip_id: row for row in LightAndRed(early_exit=True).score(clips)}
    full = {row.clip_id: row for row in LightAndRed().score(clips)}
    assert rows["b0"].light < 0.2  # type: ignore[attr-defined]
    for clip_id, row in rows.items():
        if clip_id == "bad":
            continue
        left_out = clip_id.startswith("b")
        assert row.skipped_axes == (["red"] if left_out else [])  # type: ignore[attr-defined]
        assert row.red == (None if left_out else full[clip_id].red)  # type: ignore[attr-defined]
        assert full[clip_id].skipped_axes is None  # type: ignore[attr-defined]
        assert LightAndRed().decide(row).keep == LightAndRed().decide(full[clip_id]).keep
    own = LightAndRed(early_exit=True, early_exit_thresholds={"light": {"max": 0.01}})
    assert all(row.skipped_axes == ["red"] for row in own.score(clips[:3]))  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"early_exit_thresholds.rde: unknown metric; did you mean 'red'"):
        LightAndRed(early_exit_thresholds={"rde": {"min": 1}})


def test_axes_may_share_a_stage() -> None:
    class Shared(AxesFilter):
        name = "shared"
        summary = "two axes, one model"
        axis_types = (RedAxis, AlsoRedAxis)

    plugin = Shared()
    assert [(stage.name, stage.gpus, stage.batch_size) for stage in plugin.stages()] == [
        ("decode", 0, 16),
        ("red", 0.5, 3),
    ]


def test_clashing_columns_and_metrics_are_refused() -> None:
    with pytest.raises(TypeError, match="light and light both have the column 'light'"):
        type("Twice", (AxesFilter,), {"name": "twice", "summary": "x", "axis_types": (LightAxis, LightAxis)})


def test_an_axis_without_a_backend_says_so_once(clips: list[Clip], caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        Light(backend="none").score(clips[:1])
    assert [r.getMessage() for r in caplog.records].count(
        "axis light has no backend, so what a model would tell stays null; name one with light.backend"
    ) == 1


def test_illustrations_begin_with_a_filmstrip(clips: list[Clip]) -> None:
    plugin = LightAndRed()
    rows = plugin.score(clips)
    film, light = plugin.illustrate(clips[0], rows[0])
    picture = cv2.imdecode(np.frombuffer(film.data, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (64, 4 * 96, 3)
    assert film.caption == "after 0.10, 0.37, 0.60, 0.87 s"
    assert light.title == "Light"
    assert plugin.illustrate(clips[3], rows[3]) == []


def test_presets_name_only_what_the_filter_has() -> None:
    assert LightAndRed.presets.keys() == {"conservative"}
    assert LightAndRed.Policy(**LightAndRed.presets["conservative"]).light == Threshold()  # type: ignore[attr-defined]


def test_files_are_cut_as_the_options_say(clips: list[Clip], tmp_path: Path) -> None:
    """Two seconds make four windows of half a second; whole files keep their path as their name."""
    path = Path(clips[0].path)
    (whole,) = Light().clips_of(path)
    assert (whole.id, whole.path, whole.start_s, whole.end_s) == (str(path), str(path), 0.0, None)
    windows = Light(segment={"method": "windows", "length_s": 0.5}).clips_of(path)
    assert [(clip.start_s, clip.end_s) for clip in windows] == [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5), (1.5, 2.0)]
    assert len({clip.id for clip in windows}) == 4
    assert [row.frames_actual for row in Light().score(windows)] == [15] * 4  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="too short"):
        Light(segment={"method": "windows", "length_s": 9}).clips_of(path)
    with pytest.raises(DataError, match="cannot be opened"):
        Light(segment={"method": "windows"}).clips_of(tmp_path / "bad.mp4")
    with pytest.raises(ConfigError, match=r"light.segment: a file alone holds no narrations"):
        Light(segment={"method": "narrations"})
