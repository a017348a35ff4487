"""Saving and loading transformed models: safetensors for tensors, ``planish.json`` for how they came about.

Nothing in a checkpoint is code. The folder holds ``model.safetensors`` and ``planish.json``: format version, how the
model is built, each transform with its options, the plan that was carried out, its distribution and version, and
whether it was finished.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from planish import __version__
from planish.api import applied, apply
from planish.atomic import replacing_folder
from planish.errors import CheckpointError, PlanishError, did_you_mean
from planish.interfaces.plan import Plan
from planish.plugins.manager import default_registry
from planish.plugins.registry import TRANSFORMS, Registry
from planish.recipe.model import build_model
from planish.recipe.schema import ModelSpec

FORMAT_VERSION = 1
WEIGHTS = "model.safetensors"
MANIFEST = "planish.json"


def save(
    model: nn.Module, folder: str | Path, *, model_spec: ModelSpec | None = None, registry: Registry | None = None
) -> Path:
    """Save a transformed model, finished or in training, as a folder that :func:`load` reads in one call.

    Args:
        model: The model.
        folder: Where to; an existing checkpoint there is replaced as a whole.
        model_spec: How to build the untransformed model. None: asked of the installed model sources; a model that
            none of them knows is saved without, and :func:`load` must then be given a model to load into.
        registry: Where model sources are looked up; None for what is installed.

    Returns:
        The folder.

    Raises:
        WorkError: The folder cannot be written or the disk is full; an earlier checkpoint there is untouched then.
    """
    folder = Path(folder)
    spec = model_spec or _describe(model, registry or default_registry())
    tensors, aliases = _unshared(model.state_dict())
    manifest = {
        "format_version": FORMAT_VERSION,
        "planish": __version__,
        "model": None if spec is None else spec.model_dump(mode="json", exclude_none=True),
        "tied": aliases,
        "transforms": [
            {
                "use": live.plan.use,
                "distribution": live.distribution,
                "version": live.version,
                "finished": live.finished,
                "plan": live.plan.to_dict(),
            }
            for live in applied(model)
        ],
    }
    with replacing_folder(folder) as beside:
        try:
            save_file(tensors, beside / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(str(error)) from error
        (beside / WEIGHTS).chmod(0o644)
        (beside / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return folder


def load(
    folder: str | Path,
    model: nn.Module | None = None,
    *,
    registry: Registry | None = None,
    trust_code: bool = False,
) -> nn.Module:
    """Load what :func:`save` wrote: build the model, carry out the recorded plans, fill in the tensors.

    Args:
        folder: The checkpoint.
        model: An untransformed model of the same shape to load into; None to build it as the checkpoint says.
        registry: Where plugins are looked up; None for what is installed.
        trust_code: Whether a checkpoint whose model comes from ``module:factory`` may run that function.

    Returns:
        The model; finished transforms are finished, unfinished ones are live (:func:`planish.api.applied`).

    Raises:
        CheckpointError: Damaged or of a newer format; a plugin is missing or older than the one that wrote it; the
            tensors do not fit the model.
        ConfigError: Code would have to run and ``trust_code`` is not set.
    """
    folder = Path(folder)
    registry = registry or default_registry()
    manifest = read_manifest(folder)
    _check_versions(folder, manifest, registry)
    if model is None:
        if manifest["model"] is None:
            raise CheckpointError(
                f"{folder} does not say how its model is built; pass one: planish.load(folder, model)"
            )
        model = build_model(ModelSpec.model_validate(manifest["model"]), registry, trust_code=trust_code)
    for transform in manifest["transforms"]:
        live = apply(model, Plan.from_dict(transform["plan"]), registry=registry)
        if transform["finished"]:
            live.finish()
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} cannot be read: {error}; save the model again") from error
    tensors |= {name: tensors[first] for name, first in manifest["tied"].items() if first in tensors}
    fill(model, tensors, str(folder))
    return model


def fill(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict, strictly, with an error that a person understands.

    Tensors that the transforms of the model can rebuild may be missing (:meth:`ModelTransform.rebuildable`); these are
    asked to, last.

    Raises:
        CheckpointError: Names or shapes differ; the first differences are named.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in tensors]
    rebuilt = []
    for live in applied(model):
        names = set() if live.finished else set(live.transform.rebuildable(model, missing))
        rebuilt.append((live, names))
        missing = [name for name in missing if name not in names]
    unexpected = [name for name in tensors if name not in own]
    if missing or unexpected:
        parts = []
        if missing:
            parts.append(f"lacks {len(missing)} tensors ({missing[0]!r}{did_you_mean(missing[0], unexpected)})")
        if unexpected:
            parts.append(f"has {len(unexpected)} that the model lacks ({unexpected[0]!r})")
        raise CheckpointError(f"{source} {' and '.join(parts)}; it was saved from another model or recipe")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(
                f"{source}: {name!r} has shape {list(tensor.shape)}, the model's has {list(own[name].shape)}; "
                "it was saved from a model of another size"
            )
    # Names were compared above; what is missing now is rebuilt.
    model.load_state_dict(dict(tensors), strict=not any(names for _, names in rebuilt))
    for live, names in rebuilt:
        if names:
            live.transform.rebuild(model, names)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the contents of ``planish.json``.

    Raises:
        CheckpointError: Missing, damaged, or written by a newer planish.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        version = manifest["format_version"]
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is no planish checkpoint: it has no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}: {error}); save the model again") from error
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, this planish reads up to {FORMAT_VERSION}; "
            f"pip install 'planish>={manifest.get('planish', '')}'"
        )
    return manifest


def _check_versions(folder: Path, manifest: Mapping[str, Any], registry: Registry) -> None:
    for transform in manifest["transforms"]:
        wanted, dist = transform["version"], transform["distribution"]
        try:
            entry = registry.find(transform["use"], *TRANSFORMS)
        except PlanishError as error:
            raise CheckpointError(f"{folder} was made with {transform['use']!r} of {dist} {wanted}: {error}") from error
        if _release(entry.version) < _release(wanted):
            raise CheckpointError(
                f"{folder} was made with {dist} {wanted}, installed is {entry.version}; "
                f"run: pip install -U '{dist}>={wanted}'"
            )


def _release(version: str) -> tuple[int, ...]:
    numbers: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def _describe(model: nn.Module, registry: Registry) -> ModelSpec | None:
    for entry in registry.of("model_source"):
        found = registry.load(entry.name, "model_source")().describe(model)
        if found is not None:
            name, config = found
            return ModelSpec(name=name, config=config)
    return None


def _unshared(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors that share no memory, and alias -> name for those that were the same tensor."""
    first: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and key in first:
            aliases[name] = first[key]
            continue
        first[key] = name
        tensors[name] = tensor.detach().contiguous().cpu()
    storages: set[int] = set()
    for name, tensor in tensors.items():
        if tensor.numel() and tensor.untyped_storage().data_ptr() in storages:
            tensors[name] = tensor.clone()
        storages.add(tensors[name].untyped_storage().data_ptr())
    return tensors, aliases
