"""ReplaceAttention: an attention plugin in place of the attention of a Transformers model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
from planish.errors import ConfigError, UnsupportedError
from planish.interfaces import AttentionImpl, AttentionSpec
from planish.plugins.manager import default_registry
from planish.plugins.registry import Registry
from torch import Tensor, nn


class ReplaceAttention(L.Callback):
    """Computes the attention of a Transformers model with an attention plugin for the duration of a run::

        Trainer(callbacks=[ReplaceAttention("fastattention")])
        Trainer(callbacks=[ReplaceAttention("auto")])  # for each problem the fastest that can solve it

    The model must use Transformers' attention interface. Sliding windows, padding and cached generation go through
    the mask that Transformers makes; a purely causal problem is handed over without one. The model is given back its
    own attention at the end: nothing of this is part of a checkpoint.
    """

    def __init__(
        self, use: str | AttentionImpl = "auto", *, module: str | None = None, registry: Registry | None = None
    ) -> None:
        """Create the callback.

        Args:
            use: Name of an installed attention plugin, an implementation, or ``"auto"``.
            module: Attribute of the LightningModule that holds the model; None for every Transformers model in it.
            registry: Where the name is looked up; None for what is installed.

        Raises:
            PluginError: No attention plugin has this name.
        """
        self._registry = registry or default_registry()
        self._module = module
        self.implementation: AttentionImpl | None = None
        if isinstance(use, AttentionImpl):
            self.implementation = use
        elif use != "auto":
            self.implementation = self._registry.load(use, "attention")()
        self._restore: list[Callable[[], None]] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Switch the attention of every Transformers model inside."""
        from transformers import AttentionInterface, PreTrainedModel
        from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

        self._give_back()
        root: nn.Module = pl_module
        if self._module is not None:
            found = getattr(pl_module, self._module, None)
            if not isinstance(found, nn.Module):
                raise ConfigError(f"module: {type(pl_module).__name__} has no submodule {self._module!r}")
            root = found
        models = [m for m in root.modules() if isinstance(m, PreTrainedModel)]
        models = [m for m in models if not any(m is not other and m in set(other.modules()) for other in models)]
        if not models:
            raise UnsupportedError(
                f"ReplaceAttention found no Transformers model in {type(pl_module).__name__}; use it with models "
                "derived from transformers.PreTrainedModel"
            )
        name = f"planish_{id(self):x}"
        AttentionInterface.register(name, self._attend)
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
        for model in models:
            before = model.config._attn_implementation
            model.set_attn_implementation(name)
            if model.config._attn_implementation != name:
                raise UnsupportedError(
                    f"{type(model).__name__} does not use Transformers' attention interface, so its attention cannot "
                    "be replaced"
                )
            self._restore.append(partial(model.set_attn_implementation, before))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the model back its own attention."""
        self._give_back()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the model back its own attention."""
        self._give_back()

    def _give_back(self) -> None:
        while self._restore:
            self._restore.pop()()

    def _attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        **more: Any,
    ) -> tuple[Tensor, None]:
        """Solve one problem; query, key, value [batch, heads, length, head_dim] -> [batch, length, heads, head_dim]."""
        for refused in ("softcap", "s_aux", "position_bias"):
            if more.get(refused) is not None:
                raise UnsupportedError(
                    f"{type(module).__name__} asks for {refused}, which attention plugins do not take; leave "
                    "ReplaceAttention out for this model"
                )
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        bias = None
        if attention_mask is not None:
            bias = _additive(attention_mask, query)
            causal = False  # the mask has it already
        spec = AttentionSpec.of(
            query, key, value, causal=bool(causal), dropout=dropout, bias=bias is not None, scale=scaling
        )
        implementation = self.implementation or self._dispatcher().select(spec)
        output = implementation(query, key, value, spec=spec, bias=bias)
        return output.transpose(1, 2).contiguous(), None

    def _dispatcher(self) -> Any:
        from planish.attention.dispatch import AttentionDispatcher

        if not hasattr(self, "_chosen"):
            self._chosen = AttentionDispatcher(self._registry)
        return self._chosen


def _additive(mask: Tensor, query: Tensor) -> Tensor:
    if mask.dtype.is_floating_point:
        return mask.to(query.dtype)
    return query.new_zeros(mask.shape).masked_fill(~mask, float("-inf"))
