"""INT8 blocks: codes from -127 to 127, one scale a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from planish_kernels.formats.block_scaled import BlockScaled


@dataclass(frozen=True, eq=False)
class BlockInt8(BlockScaled):
    """int8 codes, symmetric: -127 … 127, no zero point. See ``BlockScaled``."""

    code_dtype: ClassVar[torch.dtype] = torch.int8
    largest: ClassVar[float] = 127.0
