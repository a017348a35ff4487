"""FP8 blocks: codes in float8 e4m3, one scale a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from planish_kernels.formats.block_scaled import BlockScaled


@dataclass(frozen=True, eq=False)
class BlockFloat8(BlockScaled):
    """float8 codes of four exponent and three mantissa bits (e4m3fn), largest 448. See ``BlockScaled``."""

    code_dtype: ClassVar[torch.dtype] = torch.float8_e4m3fn
    largest: ClassVar[float] = 448.0
