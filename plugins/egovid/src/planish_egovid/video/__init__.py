"""Reading video: what is asked of a clip, decoded once for everyone who asks."""

from planish_egovid.video.config import DecodeConfig
from planish_egovid.video.decode import decode_clips
from planish_egovid.video.errors import ClipDecodeError, ClipRangeError, NoVideoStreamError
from planish_egovid.video.request import FrameRequest, Frames, VideoInfo
from planish_egovid.video.video_file import probe
from planish_egovid.video.view import ClipView, FrameTally

__all__ = [
    "ClipDecodeError",
    "ClipRangeError",
    "ClipView",
    "DecodeConfig",
    "FrameRequest",
    "FrameTally",
    "Frames",
    "NoVideoStreamError",
    "VideoInfo",
    "decode_clips",
    "probe",
]
