"""Deciding from scores: rules, thresholds, presets."""
