"""Clips that a data-filter plugin keeps, as data for training."""

from planish_lightning.clips.filtered_clips import FilteredClips

__all__ = ["FilteredClips"]
