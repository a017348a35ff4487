"""Benchmark programs of 2:4 pre-training: how it learns, and how fast it is."""
