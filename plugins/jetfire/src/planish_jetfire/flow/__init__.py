"""Transformer blocks with a quantized data flow."""
