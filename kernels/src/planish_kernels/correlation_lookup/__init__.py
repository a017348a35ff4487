"""Looking up all-pairs correlations around moving positions, as optical flow networks do in each step."""

from planish_kernels.correlation_lookup.op import correlation_lookup

__all__ = ["correlation_lookup"]
