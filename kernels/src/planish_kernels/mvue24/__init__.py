"""Unbiased 2:4 sparsity of gradients with the least variance (MVUE)."""

from planish_kernels.mvue24.op import mvue24, mvue24_pack
from planish_kernels.mvue24.reference import inclusion_probabilities

__all__ = ["inclusion_probabilities", "mvue24", "mvue24_pack"]
