"""Callbacks that apply plugins to the model of any LightningModule."""

from planish_lightning.callbacks.apply_transforms import ApplyTransforms
from planish_lightning.callbacks.attention import ReplaceAttention
from planish_lightning.callbacks.compose import Compose
from planish_lightning.callbacks.quantize import Quantize
from planish_lightning.callbacks.sparsify import Sparsify
from planish_lightning.callbacks.transform_callback import TransformCallback

__all__ = ["ApplyTransforms", "Compose", "Quantize", "ReplaceAttention", "Sparsify", "TransformCallback"]
