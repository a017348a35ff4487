"""Clips as a data set knows them: ids, cutting, the released tables, splits and checks."""

from planish_egovid.clips.frame_rate import rational_fps, to_frame, to_seconds
from planish_egovid.clips.ids import ClipId, ClipIdError, parse_clip_id
from planish_egovid.clips.integrity import Finding, check_clips
from planish_egovid.clips.kinematic_span import kinematic_clip
from planish_egovid.clips.narrations import NarrationSegmenter, mean_gap
from planish_egovid.clips.released_csv import ReleasedRow, read_egovid_csv, write_egovid_csv
from planish_egovid.clips.released_exchange import export_egovid_csv, import_egovid_csv
from planish_egovid.clips.segmenter import Narration, SegmentConfig, Segmenter, Source, make_segmenter
from planish_egovid.clips.split import part_of, shared_sources, split

__all__ = [
    "ClipId",
    "ClipIdError",
    "Finding",
    "Narration",
    "NarrationSegmenter",
    "ReleasedRow",
    "SegmentConfig",
    "Segmenter",
    "Source",
    "check_clips",
    "export_egovid_csv",
    "import_egovid_csv",
    "kinematic_clip",
    "make_segmenter",
    "mean_gap",
    "parse_clip_id",
    "part_of",
    "rational_fps",
    "read_egovid_csv",
    "shared_sources",
    "split",
    "to_frame",
    "to_seconds",
    "write_egovid_csv",
]
