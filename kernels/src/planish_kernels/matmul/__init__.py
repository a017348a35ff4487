"""Products of operands in any format: a table of kernels, and the reference that decodes and multiplies.

A module here named ``<format>_<backend>.py`` adds its kernels to the table when it is imported; all of them are
imported with this package. They import their compilers (Triton, NVRTC) only when a kernel first runs.
"""

import importlib
import pkgutil

from planish_kernels.matmul.dispatch import MatmulExplanation, explain_matmul, matmul
from planish_kernels.matmul.pattern import Pattern
from planish_kernels.matmul.table import MatmulKernel, matmul_kernels, register_matmul

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "MatmulExplanation",
    "MatmulKernel",
    "Pattern",
    "explain_matmul",
    "matmul",
    "matmul_kernels",
    "register_matmul",
]
