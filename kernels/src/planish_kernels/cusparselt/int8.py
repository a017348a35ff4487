"""INT8 2:4 products on cuSPARSELt: exact sums of codes in INT32, without scales."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from planish_kernels.cusparselt.int8_self_test import INT8_MATMUL, INT8_PACKER
from planish_kernels.cusparselt.op import layout_verified
from planish_kernels.runtime.capability import cusparselt_available
from planish_kernels.runtime.self_test import passes
from planish_kernels.runtime.support import YES, Support, no
from planish_kernels.runtime.tracing import constant_while_tracing

TOKEN_MULTIPLE = 16
"""Rows of the dense operand are filled up to a multiple of it: cuSPARSELt wants 16 bytes."""


def int8_products_work(device: torch.device) -> Support:
    """Whether INT8 2:4 products on ``device`` go through cuSPARSELt: it is there, and its self-test passed."""
    return _answer(_products_refusal(device))


def int8_packer_works(device: torch.device) -> Support:
    """Whether the fused packer writes what cuSPARSELt on ``device`` reads."""
    return _answer(_packer_refusal(device))


def _answer(refusal: str) -> Support:
    return no(refusal, worth_warning=False) if refusal else YES


@constant_while_tracing
def _products_refusal(device: torch.device) -> str:
    if device.type != "cuda":
        return f"cuSPARSELt runs on CUDA tensors, these are on {device.type}"
    present = cusparselt_available()
    return present.reason or passes(INT8_MATMUL, device).reason


@constant_while_tracing
def _packer_refusal(device: torch.device) -> str:
    works = int8_products_work(device)
    return works.reason or layout_verified(device).reason or passes(INT8_PACKER, device).reason


@torch.library.custom_op("planish::sparse24_int8_multiply", mutates_args=())
def int8_multiply(packed: Tensor, rows: int, cols: int, codes: Tensor, wide: bool) -> Tensor:
    """``codes @ unpacked.T`` of int8, summed in INT32.

    Args:
        packed: int8 buffer of ``[rows, cols]``, on a CUDA device.
        rows: of the packed matrix.
        cols: of the packed matrix.
        codes: int8 ``[tokens, cols]``; any number of tokens.
        wide: whether to return the sums as they are, int32, instead of rounded to bfloat16.

    Returns:
        ``[tokens, rows]``, row-major.
    """
    from planish_kernels.cusparselt.algorithms import plan_for
    from planish_kernels.cusparselt.plan import Problem

    tokens = codes.shape[0]
    if tokens % TOKEN_MULTIPLE:
        codes = F.pad(codes, (0, 0, 0, -tokens % TOKEN_MULTIPLE))
    codes = codes.contiguous()
    if codes.data_ptr() % 16:
        codes = codes.clone()
    dtype = torch.int32 if wide else torch.bfloat16
    out = torch.empty((codes.shape[0], rows), dtype=dtype, device=codes.device)
    problem = Problem(rows, codes.shape[0], cols, torch.int8, dtype, dense_transposed=True, out_transposed=True)
    with torch.cuda.device(packed.device):
        plan_for(problem, packed, codes, out).run(packed, codes, out)
    # A custom op may return no view of what it allocated unless it is all of it.
    return out if codes.shape[0] == tokens else out[:tokens].clone()


@int8_multiply.register_fake
def _(packed: Tensor, rows: int, cols: int, codes: Tensor, wide: bool) -> Tensor:
    return codes.new_empty((codes.shape[0], rows), dtype=torch.int32 if wide else torch.bfloat16)
