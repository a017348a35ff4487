"""Settles torch's vector math, and lets Triton kernels run where there is no GPU.

Triton reads the variable once, when any test first imports it.
"""

import os

import torch
from planish.vector_math import settle_vector_math

settle_vector_math()
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
