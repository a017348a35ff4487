"""A format as a stranger would write it: int8 codes with one scale per row. Used to test that formats compose."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from planish_kernels.formats import Format
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ScaledInt8(Format):
    codes: Tensor
    scale: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.codes.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.scale.dtype

    @classmethod
    def encode(cls, dense: Tensor) -> ScaledInt8:
        dense = dense.detach()
        scale = dense.abs().amax(1, keepdim=True).clamp_min(1e-6) / 127
        # In bfloat16 the quotient may round to 128, which is no int8.
        return cls((dense / scale).round().clamp(-127, 127).to(torch.int8), scale)

    def decode(self) -> Tensor:
        return self.codes.to(self.scale.dtype) * self.scale


class Int8Encoder:
    """Encodes along either dimension; the scale belongs to what is not contracted."""

    def encode(self, tensor: Tensor, *, contraction: int) -> Format:
        return ScaledInt8.encode(tensor) if contraction == 1 else ScaledInt8.encode(tensor.t()).T
