"""The cuSPARSELt route to the sparse tensor cores: its packed layout, packers that write it, and cached plans."""

from planish_kernels.cusparselt.layout import packed_numel
from planish_kernels.cusparselt.op import layout_verified, matmul_works, mvue_pack, pack_

__all__ = ["layout_verified", "matmul_works", "mvue_pack", "pack_", "packed_numel"]
