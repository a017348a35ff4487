"""Times operators on INT8 blocks against compiled bfloat16 twins and against a copy of the same bytes.

``python3 -m planish_kernels.benchmarks.block_operators --json PATH [--only TEXT] [--sweep]``; see ``operators24``.
"""

from __future__ import annotations

import sys

from planish_kernels.benchmarks import operators24
from planish_kernels.benchmarks.block_operators_cases import cases


def main(arguments: list[str] | None = None) -> int:
    """Run the program; 0, or 1 if an operator failed or differs from its reference."""
    return operators24.main(arguments, name="block_operators", about=__doc__ or "", of=lambda device: cases(device))


if __name__ == "__main__":
    sys.exit(main())
