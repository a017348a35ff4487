"""Sparsifier: transforms that set weights to zero by a pattern."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from planish.interfaces.transform import ModelTransform


class Sparsifier(ModelTransform):
    """A transform that keeps a mask over weights."""

    @abstractmethod
    def masks(self, model: nn.Module) -> Mapping[str, Tensor]:
        """Return parameter name -> bool mask of the parameter's shape (True: kept), for each sparse parameter.

        Empty once the model is trained densely again, or finished into a dense model.
        """

    def density(self, model: nn.Module) -> float:
        """Return the share of kept entries among all entries of sparse parameters; 1.0 if there are none."""
        masks = self.masks(model).values()
        total = sum(mask.numel() for mask in masks)
        return sum(int(mask.sum()) for mask in masks) / total if total else 1.0
