"""Modules over encoded operands."""

from planish_kernels.nn.encoded_linear import EncodedLinear, MatmulChoice
from planish_kernels.nn.encoders import (
    Chain,
    Encoder,
    LinearEncoders,
    Operands,
    SparseWeightEncoder,
    chain,
    sparse24_along,
)

__all__ = [
    "Chain",
    "EncodedLinear",
    "Encoder",
    "LinearEncoders",
    "MatmulChoice",
    "Operands",
    "SparseWeightEncoder",
    "chain",
    "sparse24_along",
]
