"""ModelTransform: what quantizers and sparsifiers have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import ClassVar

from torch import nn

from planish.config import Config as PluginConfig
from planish.interfaces.plan import Plan
from planish.interfaces.plugin import Plugin

Trial = Callable[["ModelTransform", int], list[dict[str, float]]]
"""``trial(transform, steps)``: train a fresh copy of the model under ``transform`` for ``steps`` optimizer steps, on
the run's own data order and seed, and return the metrics of each step."""

Progress = Callable[[int, int, str], None]
"""``progress(done, total, what)``: called as work goes on; ``total`` is 0 where it is not known."""


class ModelTransform(Plugin):
    """Changes a model in place, in four phases: *plan, apply, step, finish*.

    A transform object holds its options and nothing else that matters: state lives in parameters and buffers of the
    modules that it put into the model, so that ``state_dict`` carries it and a resumed run continues bit-exactly.
    A transform therefore finds its modules by walking the model that it is handed.
    """

    interface_version: ClassVar[int] = 1
    Config: ClassVar[type[PluginConfig]]
    """Options of the transform; a nested class that derives from :class:`planish.Config`."""

    survives: ClassVar[frozenset[str]] = frozenset({"deepcopy", "pickle"})
    """What a transformed model is claimed to survive: of ``deepcopy``, ``pickle``, ``compile``, ``ddp``, ``fsdp``.
    The contract suite tests what is claimed."""

    @abstractmethod
    def plan(self, model: nn.Module, targets: Sequence[str] | None = None) -> Plan:
        """Say what :meth:`apply` would change, without changing anything.

        Args:
            model: The model, untouched: neither its parameters, nor its buffers, hooks, mode or random state change.
            targets: Glob patterns over qualified module names; None for what the method's paper would choose.

        Returns:
            Every module that would be touched, and for every matched module that would not, why.

        Raises:
            CompositionError: A pattern matches no module.
        """

    @abstractmethod
    def apply(self, model: nn.Module, plan: Plan) -> None:
        """Perform the plan in place, before the optimizer exists.

        Parameters keep their identity wherever the method allows it. When it raises, the model is as it was.
        """

    def on_train_start(self, model: nn.Module, total_steps: int) -> None:
        """Learn how many optimizer steps the run will have, before the first one (also after a resume)."""

    def on_gradients(self, model: nn.Module, step: int) -> None:
        """Change gradients before optimizer step ``step`` (from 0): they are accumulated, unscaled and clipped."""

    def on_step(self, model: nn.Module, step: int) -> Mapping[str, float]:
        """Drive schedules after ``step`` optimizer steps are done (from 1); return finite metrics by name."""
        return {}

    @property
    def needs_search(self) -> bool:
        """Whether :meth:`search` has an option to choose before this transform can be applied."""
        return False

    def search(self, trial: Trial, progress: Progress | None = None) -> ModelTransform:
        """Choose open options by short trial runs, and return the transform that has them."""
        return self

    def observer(self) -> ModelTransform | None:
        """Return a transform that changes nothing and reports on a baseline what this one reports, or None."""
        return None

    def rebuildable(self, model: nn.Module, missing: Collection[str]) -> Collection[str]:
        """Of the tensors that a checkpoint lacks, those that :meth:`rebuild` derives from the rest; none by default.

        Args:
            model: The model that the transform was applied to, before the checkpoint's tensors are in it.
            missing: Names in the model's ``state_dict``.
        """
        return ()

    def rebuild(self, model: nn.Module, names: Collection[str]) -> None:
        """Derive the tensors that :meth:`rebuildable` named, when those of the checkpoint are in the model."""

    @abstractmethod
    def finish(self, model: nn.Module) -> None:
        """Turn the model into its deployable form, in place. A second call changes nothing."""
