"""A record of everything about a model, and about the process's random state, that planning must leave alone."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass
class Snapshot:
    """What a model was like at one moment.

    Attributes:
        tensors: Qualified name -> (tensor, its value then, requires_grad, gradient) of each parameter and buffer.
        modules: Qualified name -> (module, its class then).
        modes: Qualified name -> training mode.
        hooks: ``"module: registry"`` -> identifiers of the hooks in it.
        random: State of torch's, Python's and numpy's global generators.
    """

    tensors: dict[str, tuple[Tensor, Tensor, bool, Tensor | None]] = field(default_factory=dict)
    modules: dict[str, tuple[nn.Module, type]] = field(default_factory=dict)
    modes: dict[str, bool] = field(default_factory=dict)
    hooks: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    random: tuple[bytes, Any, bytes] = (b"", None, b"")

    @classmethod
    def of(cls, model: nn.Module) -> Snapshot:
        """Return the record of ``model`` as it is now."""
        made = cls()
        named = [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]
        for name, tensor in named:
            made.tensors[name] = (tensor, tensor.detach().clone(), tensor.requires_grad, tensor.grad)
            for registry in ("_backward_hooks", "_post_accumulate_grad_hooks"):
                made.hooks[f"{name}: {registry}"] = tuple(getattr(tensor, registry, None) or ())
        for name, module in model.named_modules(remove_duplicate=False):
            made.modules[name] = (module, type(module))
            made.modes[name] = module.training
            for registry, hooks in vars(module).items():
                if registry.endswith("_hooks") and hasattr(hooks, "__len__"):
                    made.hooks[f"{name}: {registry}"] = tuple(hooks)
        made.random = random_state()
        return made

    def changed_tensor(self, now: Snapshot) -> str:
        """Return which parameter or buffer differs from ``now``, or an empty string."""
        for name in self.tensors.keys() ^ now.tensors.keys():
            return name
        for name, (tensor, value, requires_grad, grad) in self.tensors.items():
            other, other_value, other_requires_grad, other_grad = now.tensors[name]
            same = tensor is other and requires_grad == other_requires_grad and grad is other_grad
            if not (same and value.dtype == other_value.dtype and _equal(value, other_value)):
                return name
        return ""

    def changed_module(self, now: Snapshot) -> str:
        """Return which module was replaced, added, removed or changed its class, or an empty string."""
        for name in self.modules.keys() ^ now.modules.keys():
            return name
        for name, (module, kind) in self.modules.items():
            if now.modules[name][0] is not module or now.modules[name][1] is not kind:
                return name or "(model)"
        return ""

    def changed_mode(self, now: Snapshot) -> str:
        """Return which module changed its training mode, or an empty string."""
        return next((name or "(model)" for name, mode in self.modes.items() if now.modes.get(name) != mode), "")

    def changed_hooks(self, now: Snapshot) -> str:
        """Return where hooks were added or removed, or an empty string."""
        names = sorted(self.hooks.keys() | now.hooks.keys())
        return next((name for name in names if self.hooks.get(name, ()) != now.hooks.get(name, ())), "")


def random_state() -> tuple[bytes, Any, bytes]:
    """Return the state of torch's, Python's and numpy's global generators, comparable with ``==``."""
    return (
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        np.random.get_state(legacy=True)[1].tobytes(),  # type: ignore[index]
    )


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and (first.is_meta or torch.equal(first, second))
