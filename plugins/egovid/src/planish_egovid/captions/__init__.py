"""Action text for clips: a long description of what is seen, and a short phrase that says what the wearer does.

Importing it imports no torch, and neither do the template and the endpoint backend.
"""

from planish_egovid.captions.backend import CaptionBackend
from planish_egovid.captions.captioning import Caption, caption
from planish_egovid.captions.command import caption_command
from planish_egovid.captions.config import CaptionConfig, caption_backend
from planish_egovid.captions.run import CaptionRow, CaptionSummary, caption_clips

__all__ = [
    "Caption",
    "CaptionBackend",
    "CaptionConfig",
    "CaptionRow",
    "CaptionSummary",
    "caption",
    "caption_backend",
    "caption_clips",
    "caption_command",
]
