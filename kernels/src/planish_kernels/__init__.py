"""Linear algebra with encoded operands: sparse and quantized formats, their kernels, and an oracle for each.

Importing the package imports nothing heavy; take what you need from its folders, for example
``from planish_kernels.formats import Sparse24`` or ``from planish_kernels.nn import EncodedLinear``.
"""

__version__ = "0.1.0"
