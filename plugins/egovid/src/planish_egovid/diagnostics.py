"""What this machine can score: the findings of ``planish doctor`` about decoders and optional backends."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypedDict

import av
import cv2
import numpy as np
from av.codec import Codec

from planish_egovid.flow.one_thread import one_thread

_DECODERS = {
    "h264": ("h264",),
    "hevc": ("hevc",),
    "av1": ("libdav1d", "libaom-av1", "av1"),
    "vp9": ("vp9", "libvpx-vp9"),
}

_BACKENDS = (
    # import name, distribution, what it is for, extra
    ("transformers", "transformers", "CLIP (text.backend=clip) and captions", "clip"),
    ("PIL", "pillow", "CLIP and captions", "clip"),
    ("open_clip", "open-clip-torch", "CLIP of open_clip (text.backend=open_clip)", "open-clip"),
    ("torchvision", "torchvision", "RAFT (motion.backend=raft)", "raft"),
    ("pycolmap", "pycolmap", "camera paths by COLMAP (kinematics.visual=colmap)", "colmap"),
    ("scenedetect", "scenedetect-headless", "cuts by PySceneDetect (segment.method=pyscenedetect)", "scenes"),
)


class Finding(TypedDict):
    """One line of the diagnosis: what, whether it is fine, what was found, and how to mend it."""

    name: str
    ok: bool
    detail: str
    fix: str


def checks() -> list[Finding]:
    """Decoders, OpenCV's optical flow (it is run), optional backends, and the GPU that models would run on."""
    return [_pyav(), *_decoders(), _opencv(), *_backends(), _dover(), _gpu()]


def _finding(name: str, ok: bool, detail: str, fix: str = "") -> Finding:
    return Finding(name=name, ok=ok, detail=detail, fix="" if ok else fix)


def _pyav() -> Finding:
    return _finding("PyAV", True, f"{av.__version__}, FFmpeg {av.ffmpeg_version_info}")


def _decoders() -> list[Finding]:
    found = []
    for codec, names in _DECODERS.items():
        there = [name for name in names if _has_decoder(name)]
        detail = f"decoded by {there[0]}" if there else "this FFmpeg has no decoder; such clips get an error"
        found.append(
            _finding(f"{codec} video", bool(there), detail, "pip install --force-reinstall av, for its own FFmpeg")
        )
    return found


def _has_decoder(name: str) -> bool:
    try:
        Codec(name, "r")
    except ValueError:  # av.codec.UnknownCodecError
        return False
    return True


def _opencv() -> Finding:
    if _version("opencv-python") and _version("opencv-python-headless"):
        detail = "opencv-python and opencv-python-headless overwrite each other's files"
        return _finding("OpenCV", False, detail, "pip uninstall opencv-python, then reinstall opencv-python-headless")
    picture = np.random.default_rng(0).integers(0, 256, (64, 96), np.uint8)
    opencv: Any = cv2
    try:
        with one_thread():
            flow = opencv.DISOpticalFlow_create(opencv.DISOPTICAL_FLOW_PRESET_FAST).calc(picture, picture, None)
    except (AttributeError, cv2.error) as error:
        fix = "pip install --upgrade opencv-python-headless"
        return _finding("OpenCV", False, f"{cv2.__version__}: DIS optical flow does not run: {error}", fix)
    still = bool(np.abs(flow).max() < 0.5)
    detail = f"{cv2.__version__}, DIS optical flow {'runs' if still else 'sees a still picture move'}"
    return _finding("OpenCV", still, detail, "pip install --force-reinstall opencv-python-headless")


def _backends() -> list[Finding]:
    found = []
    for package, distribution, what, extra in _BACKENDS:
        there = importlib.util.find_spec(package) is not None
        detail = f"{_version(distribution) or 'found'}, for {what}" if there else f"not installed; {what} needs it"
        found.append(_finding(distribution, there, detail, f"pip install 'planish-egovid[{extra}]'"))
    return found


def _dover() -> Finding:
    # The distribution called dover on PyPI is another thing, and has no such module.
    there = importlib.util.find_spec("dover") is not None and importlib.util.find_spec("dover.models") is not None
    detail = (
        "found, for dover_score" if there else "not installed; dover_score stays null, clarity_proxy does not need it"
    )
    fix = "if its non-commercial licence suits you: pip install git+https://github.com/VQAssessment/DOVER"
    return _finding("DOVER", there, detail, fix)


def _gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        fix = "pip install torch"
        return _finding("GPU for models", False, "torch is not installed; default scoring does not need it", fix)
    import torch

    if not torch.cuda.is_available():
        fix = "run model backends on a machine with a CUDA GPU"
        return _finding("GPU for models", False, "none; CLIP and RAFT would run on the processor, slowly", fix)
    return _finding("GPU for models", True, torch.cuda.get_device_name())


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
