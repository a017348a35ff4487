"""Cutting at cuts."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from planish.errors import UnsupportedError
from planish_egovid.clips import Source
from planish_egovid.clips import scenes as scenes_module
from planish_egovid.clips.scenes import PySceneDetectSegmenter, SceneSegmenter, scenes
from planish_egovid.testing import write_video
from planish_egovid.video import probe


def video_with_cuts(folder: Path, moving_texture) -> Source:
    """40 frames that slide, a cut, 50 frames that slide faster, a cut, 30 frames."""
    parts = [moving_texture(count, 160, 96, seed, step) for count, seed, step in ((40, 1, 2), (50, 2, 4), (30, 3, 2))]
    path = folder / "film.mp4"
    write_video(path, np.concatenate(parts))
    return Source.of(path, probe(path))


def test_cuts_are_found_to_the_frame(tmp_path: Path, moving_texture) -> None:
    source = video_with_cuts(tmp_path, moving_texture)
    assert SceneSegmenter(min_frames=1).cuts(source) == [40, 90]
    assert [clip.id for clip in SceneSegmenter(min_frames=35).clips(source)] == ["film_0_40", "film_40_90"]


def test_cuts_do_not_depend_on_where_decoding_starts_anew(
    tmp_path: Path, moving_texture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = video_with_cuts(tmp_path, moving_texture)
    monkeypatch.setattr(scenes_module, "_STRETCH_S", 1.5)
    assert SceneSegmenter(min_frames=1).cuts(source) == [40, 90]


def test_sliding_picture_has_no_cut(tmp_path: Path, moving_texture) -> None:
    path = tmp_path / "one.mp4"
    write_video(path, moving_texture(60, 160, 96, step=6))
    assert SceneSegmenter(min_frames=1).cuts(Source.of(path, probe(path))) == []


def test_long_scenes_are_cut_into_equal_parts() -> None:
    found = scenes(Source("a.mp4", Fraction(30), 1000), [100, 110], min_frames=60, max_s=10.0)
    assert [clip.id for clip in found] == ["a_0_100", "a_110_406", "a_406_703", "a_703_1000"]


def test_pyscenedetect_is_asked_for_by_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'planish-egovid\[scenes\]'"):
        PySceneDetectSegmenter()


def test_pyscenedetect_cuts_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def detect(path: str, detector: object) -> list:
        assert (path, detector) == ("a.mp4", ("adaptive", 4.0, 1))
        return [(SimpleNamespace(seconds=s), None) for s in (0.0, 2.0, 6.0)]

    stand_in = ModuleType("scenedetect")
    stand_in.detect = detect
    stand_in.AdaptiveDetector = lambda adaptive_threshold, min_scene_len: (
        "adaptive", adaptive_threshold, min_scene_len,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "scenedetect", stand_in)
    segmenter = PySceneDetectSegmenter(min_frames=80, adaptive_threshold=4.0)
    assert [clip.id for clip in segmenter.clips(Source("a.mp4", Fraction(30), 300))] == ["a_60_180", "a_180_300"]


def test_pyscenedetect_itself_finds_cuts_between_different_pictures(tmp_path: Path, moving_texture) -> None:
    pytest.importorskip("scenedetect")
    parts = [moving_texture(40, 160, 96, seed=1) // 3, 255 - moving_texture(50, 160, 96, seed=2) // 3]
    write_video(tmp_path / "film.mp4", np.concatenate(parts))
    source = Source.of(tmp_path / "film.mp4", probe(tmp_path / "film.mp4"))
    found = PySceneDetectSegmenter(min_frames=1).clips(source)
    assert [clip.id for clip in found] == ["film_0_40", "film_40_90"]
