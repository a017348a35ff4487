"""Benchmark programs of this package."""
