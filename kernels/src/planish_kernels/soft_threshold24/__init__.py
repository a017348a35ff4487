"""S-STE: continuous soft thresholding of weights to 2:4."""

from planish_kernels.soft_threshold24.op import minimum_mse_scale, soft_threshold24

__all__ = ["minimum_mse_scale", "soft_threshold24"]
