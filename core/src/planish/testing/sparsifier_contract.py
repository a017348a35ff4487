"""SparsifierContract: the contract of :class:`planish.interfaces.Sparsifier`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

import planish
from planish.api import applied
from planish.testing.clause import require
from planish.testing.comparison import difference
from planish.testing.transform_contract import TransformContract


class SparsifierContract(TransformContract):
    """The whole battery for a sparsifier::

    class TestDemo(SparsifierContract):
        plugin = Demo
        options = {"density": 0.5}
    """

    kind: ClassVar[str] = "sparsifier"

    sparse_at_once: ClassVar[bool] = True
    """Whether there are masks right after ``apply``; False for a method that starts dense, whose masks are then
    examined after ``steps`` of training."""

    def masked(self) -> tuple[nn.Module, Mapping[str, Tensor]]:
        """Return a model in its sparse phase, and its masks."""
        model, live = self.transformed() if self.sparse_at_once else self.trained()
        masks = live.transform.masks(model)  # type: ignore[attr-defined]
        require(
            masks,
            f"masks() is empty {'right after apply()' if self.sparse_at_once else f'after {self.steps} steps'}; "
            "return one mask per sparse parameter, or set sparse_at_once and steps to where the method is sparse",
        )
        return model, masks

    def effective_weight(self, model: nn.Module, name: str) -> Tensor:
        """Return the weight that the model computes with, in the shape of the parameter ``name``.

        Read off the owning linear module's response to the identity matrix. Override for other modules.
        """
        owner = model.get_submodule(name.rpartition(".")[0])
        parameter = model.get_parameter(name)
        inputs = getattr(owner, "in_features", parameter.shape[-1])
        with torch.no_grad():
            basis = torch.cat([torch.zeros(1, inputs), torch.eye(inputs)]).to(parameter)
            response = owner(basis)
        weight: Tensor = response[1:] - response[:1]
        return weight if weight.shape == parameter.shape and inputs != parameter.shape[-1] else weight.T

    # ---- clauses

    def test_masks_are_bool_of_parameter_shape(self) -> None:
        """Each mask is bool, named after a parameter, and of its shape."""
        model, masks = self.masked()
        parameters = dict(model.named_parameters())
        for name, mask in masks.items():
            require(name in parameters, f"masks() names {name!r}, which is no parameter of the model")
            require(
                mask.dtype == torch.bool and mask.shape == parameters[name].shape,
                f"the mask of {name!r} is {mask.dtype} {list(mask.shape)}; expected torch.bool "
                f"{list(parameters[name].shape)}",
            )

    def test_masks_belong_to_planned_modules(self) -> None:
        """Masks lie on the modules that the plan lists as changed, and each of these has one."""
        model, masks = self.masked()
        (live,) = applied(model)
        touched = [line.name for line in live.plan.touched]
        stray = [name for name in masks if not any(name.startswith(f"{module}.") for module in touched)]
        bare = [module for module in touched if not any(name.startswith(f"{module}.") for name in masks)]
        require(not stray, f"masks() has {stray[:3]}, whose modules the plan does not list as changed")
        require(not bare, f"the plan changes {bare[:3]}, for which masks() has no mask")

    def test_masks_are_the_zeros_of_the_effective_weight(self) -> None:
        """The model computes with zeros where the mask is False, and with nonzero weights where it is True."""
        model, masks = self.masked()
        model.eval()
        for name, given in masks.items():
            mask, weight = given.bool(), self.effective_weight(model, name)
            leaked = int((weight[~mask] != 0).sum())
            lost = int(((weight == 0) & mask & (model.get_parameter(name) != 0)).sum())
            require(not leaked, f"{leaked} entries of {name!r} are masked out and yet take part in the forward pass")
            require(not lost, f"{lost} entries of {name!r} are kept by the mask and yet zero in the forward pass")

    def test_density_is_the_share_of_kept_entries(self) -> None:
        """``density`` is a float in (0, 1): the kept entries among all entries of sparse parameters."""
        model, masks = self.masked()
        (live,) = applied(model)
        found = live.transform.density(model)  # type: ignore[attr-defined]
        expected = sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())
        require(
            isinstance(found, float) and abs(found - expected) < 1e-6,
            f"density() is {found!r}; the masks keep {expected:.6f} of their entries",
        )
        require(
            0 < expected < 1, f"the masks keep {expected:.6f} of their entries; expected more than 0 and less than 1"
        )

    def test_masks_are_read_only(self) -> None:
        """Asking for masks and writing into the answer changes nothing in the model."""
        model, masks = self.masked()
        before = self.evaluate(model)
        for mask in masks.values():
            mask.zero_()
        require(
            torch.equal(self.evaluate(model), before),
            "writing into a tensor that masks() returned changed the model; return a copy",
        )

    def test_masks_survive_a_checkpoint(self, tmp_path: Path) -> None:
        """A loaded model has the saved one's masks."""
        model, live = self.trained()
        masks = live.transform.masks(model)  # type: ignore[attr-defined]
        registry = self.own_registry()
        planish.save(model, tmp_path / "masked", registry=registry)
        again = planish.load(tmp_path / "masked", self.make_model(), registry=registry)
        (live,) = applied(again)
        gap = difference(live.transform.masks(again), masks)  # type: ignore[attr-defined]
        require(not gap, f"of the masks after save and load, {gap}; keep them in buffers")

    def test_finished_masks_are_the_zeros_of_the_weights(self) -> None:
        """After ``finish`` the masks are empty (a dense model), or match the zeros of the stored parameters."""
        model, live = self.trained()
        planish.finish(live)
        for name, mask in live.transform.masks(model).items():  # type: ignore[attr-defined]
            parameter = model.get_parameter(name)
            leaked = int((parameter[~mask] != 0).sum())
            require(not leaked, f"the finished {name!r} has {leaked} nonzero entries where its mask is False")
