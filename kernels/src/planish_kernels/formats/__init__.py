"""Operands in other formats: small immutable holders of tensors that decode to a dense matrix."""

from planish_kernels.formats.block_float8 import BlockFloat8
from planish_kernels.formats.block_int8 import BlockInt8
from planish_kernels.formats.format import Format, Operand, Transposed, decode
from planish_kernels.formats.row_int8 import RowInt8
from planish_kernels.formats.sparse24 import Sparse24

__all__ = ["BlockFloat8", "BlockInt8", "Format", "Operand", "RowInt8", "Sparse24", "Transposed", "decode"]
