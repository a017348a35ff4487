"""Counter-based random numbers: the same in torch and in Triton, on every device and whatever the launch grid."""

from planish_kernels.philox.words import element_uniforms, group_uniforms, philox, rounding_noise

__all__ = ["element_uniforms", "group_uniforms", "philox", "rounding_noise"]
