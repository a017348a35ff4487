"""Masked decay on gradients, which lets pruned weights fade while the mask is still moving."""

from planish_kernels.masked_decay.op import masked_decay_

__all__ = ["masked_decay_"]
