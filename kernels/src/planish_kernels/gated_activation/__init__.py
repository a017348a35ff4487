"""SwiGLU and GEGLU, forward and backward, for any strides."""

from planish_kernels.gated_activation.op import geglu, swiglu

__all__ = ["geglu", "swiglu"]
