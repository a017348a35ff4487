"""What ``torch.compile`` should know about a function, said without importing ``torch._dynamo``.

That import takes seconds and brings Triton, and is not needed before something is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def constant_while_tracing(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Have ``torch.compile`` call the function while tracing, and take its result as a constant.

    ``torch.compiler.assume_constant_result`` sets this same mark, but imports the compiler in order to.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
