"""Lets Triton kernels run where there is no GPU: Triton reads this once, when any test first imports it."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
