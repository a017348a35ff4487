"""Quantized matmuls of a linear layer, whatever it is part of."""
