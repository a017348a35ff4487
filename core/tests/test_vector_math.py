"""Vector functions are settled by one call of one element each."""

import torch
from planish.vector_math import _FUNCTIONS, settle_vector_math
from torch.utils._python_dispatch import TorchDispatchMode


class Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[tuple[str, torch.dtype], int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if args and isinstance(args[0], torch.Tensor):
            self.seen[func.overloadpacket.__name__, args[0].dtype] = args[0].numel()
        return out


def test_every_function_is_called_once_on_one_element() -> None:
    with Calls() as calls:
        settle_vector_math()
    for name in _FUNCTIONS:
        for dtype in (torch.float32, torch.float64):
            assert calls.seen[name, dtype] == 1


def test_the_functions_of_mkl_are_among_them() -> None:
    # What ATen's vml.h hands to MKL on contiguous tensors.
    handed = [
        "acos",
        "asin",
        "atan",
        "cos",
        "erf",
        "erfc",
        "erfinv",
        "exp",
        "log",
        "log10",
        "log1p",
        "log2",
        "sin",
        "sqrt",
        "tan",
        "tanh",
        "lgamma",
        "expm1",
        "trunc",
    ]
    assert set(handed) <= set(_FUNCTIONS)
