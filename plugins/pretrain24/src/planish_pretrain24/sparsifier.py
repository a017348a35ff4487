"""Pretrain24: 2:4 sparse pre-training as a planish sparsifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import torch
from planish.api import applied
from planish.errors import CheckpointError, CompositionError, ConfigError, UnsupportedError, did_you_mean
from planish.interfaces import Claim, ModelTransform, Plan, PlannedModule, Sparsifier
from planish.interfaces.transform import Progress, Trial
from planish.structure import find_feed_forwards, stores_transposed
from torch import Tensor, nn

from planish_pretrain24 import execution, gated, masks, packs, replacement
from planish_pretrain24.config import Pretrain24Config
from planish_pretrain24.decay_search import DecaySearch, find_decay
from planish_pretrain24.flip_rate import flip_rates
from planish_pretrain24.masked_decay import decay_masked_gradients
from planish_pretrain24.packs import WeightPacks
from planish_pretrain24.planning import MULTIPLE, candidates, refusal
from planish_pretrain24.schedule import dense_from, searches_masks
from planish_pretrain24.sparse_encoders import is_followed, packed
from planish_pretrain24.state import CHILD, LayerSparsity, attach, layers

_FORMAT = "matmul.format"
"""Claimed by methods that choose the number format of operands: they encode the sparse weight, so they come after."""
_CLAIMS = (
    Claim("weight.mask", before=(_FORMAT,)),
    Claim("matmul.forward", exclusive=False),
    Claim("matmul.input_grad", exclusive=False),
    Claim("matmul.weight_grad", exclusive=False),
)
_OBSERVES = (Claim("weight.mask", exclusive=False, before=(_FORMAT,)),)


class Pretrain24(Sparsifier):
    """2:4 sparse pre-training of feed-forward networks.

    ``fst`` (Hu et al., ICML 2024): every matmul has one 2:4 operand. The weight's mask is transposable, searched every
    ``mask_interval`` steps; masked decay on gradients calms the masks; the last part of the run trains dense.
    ``sste`` (Hu, Zhu, Chen, NeurIPS 2024): a continuous soft threshold in place of masks, sparse to the end.
    ``virtual``: changes nothing, and reports the flip rate of the masks that the dense run would have.

    All state is in buffers of a child module ``sparsity`` of each layer.
    """

    name: ClassVar[str] = "pretrain24"
    summary: ClassVar[str] = "2:4 sparse pre-training of FFNs"
    Config = Pretrain24Config
    survives: ClassVar[frozenset[str]] = frozenset({"deepcopy", "pickle", "compile", "ddp"})

    config: Pretrain24Config
    decay_search: DecaySearch | None = None
    """How ``decay="auto"`` was decided, where it was."""

    def plan(self, model: nn.Module, targets: Sequence[str] | None = None) -> Plan:
        """Say which linears would be trained 2:4, on which kernels, and why not the others.

        Args:
            model: The model.
            targets: Glob patterns over module names; among what they match, feed-forward linears are taken, and any
                linear that is named exactly. None: all feed-forward linears.

        Raises:
            CompositionError: A pattern matches no module.
        """
        planned: list[PlannedModule] = []
        dense: Counter[str] = Counter()
        sparse = 0
        for candidate in candidates(model, targets, min_features=self.config.min_features):
            if not candidate.accepted:
                planned.append(PlannedModule(candidate.name, False, candidate.reason))
                continue
            chosen = execution.choose(candidate.module, self.config)
            if chosen.sparse:
                sparse += 1
            else:
                dense[chosen.reason] += 1
            claims = _OBSERVES if self.config.method == "virtual" else _CLAIMS
            planned.append(PlannedModule(candidate.name, True, candidate.reason, claims, chosen.details))
        return Plan(self.name, self.config.model_dump(mode="json"), tuple(planned), tuple(self._notes(dense, sparse)))

    def _notes(self, dense: Counter[str], sparse: int) -> list[str]:
        notes = []
        if self.config.method != "virtual":
            for reason, count in dense.items():
                layer = "layers keep their" if count > 1 else "layer keeps its"
                notes.append(f"{count} {layer} matmuls dense while the masks train: {reason}")
            if sparse:
                notes.append(execution.WHERE_IT_PAYS)
        if self.config.decay == "auto":
            notes.append("decay='auto': trial runs choose it before training")
        if self.decay_search is not None:
            notes.append(str(self.decay_search))
        return notes

    def apply(self, model: nn.Module, plan: Plan) -> None:
        """Perform the plan: parameters stay the same objects; layers get encoders and a child ``sparsity``.

        Raises:
            ConfigError: ``decay="auto"`` has not been decided by :meth:`search`.
            UnsupportedError: ``execution="sparse"`` cannot be had for a layer on this machine.
            CompositionError: The plan does not fit the model.
        """
        if self.needs_search:
            raise ConfigError(
                "pretrain24: decay='auto' is decided by trial runs, which 'planish run' does before training; in your "
                "own loop call transform.search(trial) or planish_pretrain24.find_decay, or give a number (6e-5 suits "
                "GPT-2 124M)"
            )
        touched = [(entry.name, _linear(model, entry.name)) for entry in plan.touched]
        if self.config.execution == "sparse" and self.config.method != "virtual":
            for name, layer in touched:
                reason = execution.cannot(layer, self.config)
                if reason is not None:
                    raise UnsupportedError(
                        f"pretrain24: execution='sparse' is not possible for {name!r}: {reason}; "
                        "execution='auto' keeps its matmuls dense while its masks train"
                    )
        prepared = [(name, layer, self._state_of(layer, index)) for index, (name, layer) in enumerate(touched)]
        self._fuse_gates(model, {name for name, *_ in prepared})
        for name, layer, state in prepared:
            if state.original is None:
                attach(layer, state)
            else:
                replacement.encode(model, name, layer, state, packed(state, self.config.mvue))
        self._settle_execution(model, training=False)

    def _settle_execution(self, model: nn.Module, *, training: bool) -> None:
        """Give packs to the layers that run on 2:4 kernels, as far as the model has reached its GPU.

        Trainers move a model after its transforms were applied, so this is done again when training starts.
        """
        for name, layer, state in layers(model):
            weight = layer.weight
            assert isinstance(weight, Tensor)
            if not execution.choose(layer, self.config).sparse:
                continue
            if weight.is_cuda or not torch.cuda.is_available():
                state.on_kernels = True
                if is_followed(layer):
                    state.packs = None
                elif state.packs is None:
                    state.packs = WeightPacks(execution.packed_dtype(layer, self.config))
            elif training and self.config.execution == "sparse":
                raise UnsupportedError(
                    f"pretrain24: execution='sparse', and training starts with {name!r} on {weight.device.type}; train "
                    "on a GPU, or choose execution='auto'"
                )

    def _fuse_gates(self, model: nn.Module, touched: set[str]) -> None:
        """Fuse the gated activations of networks whose linears are all under 2:4 training, on machines with a GPU."""
        if self.config.method == "virtual" or not self.config.fuse_gated_activation or not torch.cuda.is_available():
            return
        for network in find_feed_forwards(model):
            if touched.issuperset((*network.expand, network.contract)):
                gated.fuse(model, network)

    def _state_of(self, layer: nn.Module, index: int) -> LayerSparsity:
        weight = layer.weight
        assert isinstance(weight, nn.Parameter)
        virtual = self.config.method == "virtual"
        state = LayerSparsity(
            self.config.method,
            weight,
            transposed=stores_transposed(layer),
            seed=(self.config.seed << 32) + index,
            rebuild_masks=self.config.rebuild_masks,
            original=None if virtual else type(layer),
        )
        masks.initialise(layer, state)
        return state.train(layer.training)

    def on_train_start(self, model: nn.Module, total_steps: int) -> None:
        """Learn the length of the run; let masks and scales follow weights that were loaded after :meth:`apply`.

        Raises:
            UnsupportedError: The parameters are sharded (FSDP).
            ConfigError: ``total_steps`` is not positive.
        """
        if total_steps < 1:
            raise ConfigError(f"total_steps is {total_steps}; a run has at least one optimizer step")
        switch = dense_from(total_steps, self.config.dense_finish) if self.config.method == "fst" else None
        rank = _rank()
        self._settle_execution(model, training=True)
        for name, layer, state in layers(model):
            _refuse_shards(name, layer)
            state.dense_from, state.rank = switch, rank
            if state.is_fresh or (state.masks_missing and state.rebuild_masks):
                masks.initialise(layer, state)
            packs.refresh(layer, state)

    def on_gradients(self, model: nn.Module, step: int) -> None:
        """Add the masked decay to the clipped gradients; nothing after the switch to dense.

        Raises:
            CheckpointError: The run was resumed past step 0 from a checkpoint without masks.
        """
        self._refuse_missing_masks(model, step)
        if self.config.method == "fst" and self.config.decay != "auto":
            decay_masked_gradients(model, self.config.decay)

    def _refuse_missing_masks(self, model: nn.Module, step: int) -> None:
        for name, layer, state in layers(model):
            if not state.masks_missing:
                continue
            if step > 0 and not state.rebuild_masks:
                raise CheckpointError(
                    f"the run is at step {step}, but its checkpoint had no masks ({name}.sparsity.mask); apply "
                    "pretrain24 with rebuild_masks=True to search them anew from its weights"
                )
            masks.initialise(layer, state)
            packs.refresh(layer, state)
            state.masks_missing = False

    def on_step(self, model: nn.Module, step: int) -> Mapping[str, float]:
        """Search masks at multiples of the interval, and turn dense at the switch; only then is anything reported.

        Metrics cost one wait for the device, so they come with the mask searches: ``flip_rate`` and
        ``flip_rate/<layer>`` (per step, in [0, 1]); ``density`` (of the weights computed with).
        """
        searched = searches_masks(step, self.config.mask_interval)
        switched = False
        for _, layer, state in layers(model):
            state.set_steps(step)
            if searched:
                masks.refresh(layer, state)
            if state.dense_from is not None and step >= state.dense_from and not state.dense:
                state.set_dense(True)
                switched = True
            packs.refresh(layer, state)
        metrics: dict[str, float] = {}
        if searched:
            metrics |= flip_rates(model, self.config.mask_interval, by_layer=self.config.layer_metrics)
        if (searched or switched) and self.config.method != "virtual":
            metrics["density"] = 1.0 if any(state.dense for *_, state in layers(model)) else 0.5
        return metrics

    def rebuildable(self, model: nn.Module, missing: Collection[str]) -> Collection[str]:
        """With ``rebuild_masks``, the state of every layer of which a checkpoint has nothing."""
        lacking = set(missing)
        found: set[str] = set()
        for name, _, state in layers(model):
            own = {f"{name}.{CHILD}.{buffer}" for buffer in state.state_dict()}
            if state.rebuild_masks and own <= lacking:
                found |= own
        return found

    def rebuild(self, model: nn.Module, names: Collection[str]) -> None:
        """Search the masks (S-STE: fix the scales) of these layers from the weights that were loaded."""
        for name, layer, state in layers(model):
            if f"{name}.{CHILD}.mask" in names:
                masks.initialise(layer, state)
                packs.refresh(layer, state)
                state.masks_missing = False

    def finish(self, model: nn.Module) -> None:
        """Put plain layers of the original classes back.

        After the dense finish their weights are the dense ones. Before it, and for S-STE, the sparse weights are
        written out: exact zeros, 2:4 along the inputs (fst: along both dimensions), ready for 2:4 inference.
        """
        for name, layer, state in list(layers(model)):
            if not state.dense:
                replacement.write_sparse_weight(layer, state)
            replacement.restore(model, name, layer, state)
        gated.restore(model)

    def masks(self, model: nn.Module) -> Mapping[str, Tensor]:
        """Parameter name -> bool mask (True: kept) of each layer that computes with a sparse weight.

        In a model that was finished sparse, the masks are where its weights are not zero.
        """
        found = masks.kept(model)
        for live in applied(model):
            if live.finished and live.plan.use == self.name and live.plan.config.get("method") != "virtual":
                found |= _finished_masks(model, live.plan)
        return found

    @property
    def needs_search(self) -> bool:
        """Whether ``decay`` is still ``"auto"``."""
        return self.config.decay == "auto"

    def search(self, trial: Trial, progress: Progress | None = None) -> ModelTransform:
        """Choose the decay factor by trial runs; the result's ``decay_search`` holds the table.

        See :func:`planish_pretrain24.find_decay`.
        """
        if not self.needs_search:
            return self
        result = find_decay(trial, config=self.config, progress=progress)
        chosen = Pretrain24(self.config.model_copy(update={"decay": result.chosen}))
        chosen.decay_search = result
        return chosen

    def observer(self) -> Pretrain24:
        """The ``virtual`` method with the same interval: a baseline reports its flip rate with it."""
        return Pretrain24(self.config.model_copy(update={"method": "virtual", "decay": 0.0}))


def _linear(model: nn.Module, name: str) -> nn.Module:
    """The layer that a plan names.

    Raises:
        CompositionError: The model has none such, or it cannot be trained 2:4.
    """
    modules = dict(model.named_modules())
    if name not in modules:
        raise CompositionError(
            f"pretrain24: the plan names {name!r}, which {type(model).__name__} does not have"
            f"{did_you_mean(name, modules)}; plan again on this model"
        )
    refused = refusal(name, modules[name], {}, min_features=MULTIPLE)
    if refused is not None:
        raise CompositionError(f"pretrain24: the plan names {name!r}, but {refused}; plan again on this model")
    return modules[name]


def _rank() -> int:
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def _refuse_shards(name: str, layer: nn.Module) -> None:
    weight = layer._parameters.get("weight")
    sharded = (
        weight is None
        or weight.dim() != 2
        or type(weight).__name__ == "DTensor"
        or "DTensor" in type(weight.data).__name__
    )
    if sharded:
        raise UnsupportedError(
            f"pretrain24: the weight of {name!r} is sharded (FSDP or tensor parallelism); masks are searched over "
            "blocks of whole weights. Train with DDP"
        )


def _finished_masks(model: nn.Module, plan: Plan) -> dict[str, Tensor]:
    found = {}
    for entry in plan.touched:
        weight = model.get_parameter(f"{entry.name}.weight").detach()
        mask = weight != 0
        groups = mask.t() if stores_transposed(model.get_submodule(entry.name)) else mask
        if bool((groups.reshape(groups.shape[0], -1, 4).sum(-1) <= 2).all()):
            found[f"{entry.name}.weight"] = mask
    return found
