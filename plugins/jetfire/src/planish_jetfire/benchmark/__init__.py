"""Benchmark programs of INT8 training: how it learns, and how fast it is."""
