"""What ``planish doctor`` says of decoders and optional backends."""

from __future__ import annotations

import importlib.util

import pytest
from planish_egovid import diagnostics


def test_findings_are_complete_and_say_how_to_mend_what_is_missing() -> None:
    found = diagnostics.checks()
    assert all(set(finding) == {"name", "ok", "detail", "fix"} for finding in found)
    assert [finding["name"] for finding in found if not finding["ok"] and not finding["fix"]] == []
    by_name = {finding["name"]: finding for finding in found}
    for needed in ("PyAV", "h264 video", "hevc video", "vp9 video", "av1 video", "OpenCV"):
        assert by_name[needed]["ok"], by_name[needed]


def test_a_missing_backend_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    really = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("open_clip", "dover") else really(name)
    )
    by_name = {finding["name"]: finding for finding in diagnostics.checks()}
    assert by_name["open-clip-torch"] == {
        "name": "open-clip-torch",
        "ok": False,
        "detail": "not installed; CLIP of open_clip (text.backend=open_clip) needs it",
        "fix": "pip install 'planish-egovid[open-clip]'",
    }
    assert "clarity_proxy does not need it" in by_name["DOVER"]["detail"]


def test_an_ffmpeg_without_a_decoder_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "_DECODERS", {"h264": ("no-such-decoder",)})
    (finding,) = diagnostics._decoders()
    assert not finding["ok"]
    assert "no decoder" in finding["detail"]
