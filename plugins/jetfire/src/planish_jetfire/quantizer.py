"""Jetfire: INT8 training as a planish quantizer."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import torch
from planish import targets as targeting
from planish.errors import CompositionError, ConfigError, UnsupportedError, did_you_mean
from planish.interfaces import Claim, Plan, PlannedModule, Quantizer
from planish.structure import stores_transposed
from planish_kernels.nn import EncodedLinear
from torch import Tensor, nn

from planish_jetfire import execution
from planish_jetfire.config import MATMULS, UNMEASURED, JetfireConfig
from planish_jetfire.execution import FORMATS
from planish_jetfire.flow.arithmetic import Arithmetic
from planish_jetfire.flow.block import swap, swap_back
from planish_jetfire.flow.block_state import BlockState
from planish_jetfire.flow.handover import NORM, OUT, PASS, PROJECTION
from planish_jetfire.linear.block_linear import BlockLinear
from planish_jetfire.linear.encoders import following_encoders
from planish_jetfire.linear.sparse_encoders import quantize_sparse, restore_sparse
from planish_jetfire.linear.sparse_weight_codes import SparseWeightCodes
from planish_jetfire.planning import Candidate, candidates, refusal
from planish_jetfire.state import CHILD, QuantizationState, states
from planish_jetfire.structure import NotTaken, TransformerBlock, find_blocks
from planish_jetfire.weight_codes import WeightCodes

_FLOW = "tensor.flow"
"""Claimed on a block that computes as one."""
_OWN = "matmul.format"
"""Claimed on a linear: one number format for its operands."""


class Jetfire(Quantizer):
    """INT8 (or FP8) training with a scale for each square block of a tensor (Xi et al., ICML 2024).

    ``flow="block"``: inside a transformer block every tensor between operators, and all that is saved for backward, is
    quantized; the attention itself stays in 16 or 32 bits. ``flow="linear"``: the three matmuls of linears are
    quantized, and nothing else. Master weights stay the model's own parameters. In evaluation nothing is quantized.

    All state is in buffers of a child module ``jetfire`` of each layer and block, and may be missing in a checkpoint.
    """

    name: ClassVar[str] = "jetfire"
    summary: ClassVar[str] = "INT8 training with a quantized data flow"
    Config = JetfireConfig
    survives: ClassVar[frozenset[str]] = frozenset({"deepcopy", "pickle", "compile", "ddp"})

    config: JetfireConfig

    def plan(self, model: nn.Module, targets: Sequence[str] | None = None) -> Plan:
        """Say what would be quantized, in which flow, and why not the rest.

        Args:
            model: The model.
            targets: Glob patterns over module names. Linears that they match are taken, output heads if named exactly;
                a block computes as one where they match all of its linears. None: the linears of attention and
                feed-forward networks.

        Raises:
            CompositionError: A pattern matches no module.
            UnsupportedError: ``flow="block"``, and no block can be had; the message says why.
        """
        looked = list(candidates(model, targets, min_features=self.config.min_features))
        taken = {candidate.name: candidate for candidate in looked if candidate.accepted}
        blocks, refused = self._blocks(model, taken)
        if self.config.flow == "block" and not blocks and taken:
            why = "; ".join(f"{one.name or '(model)'}: {one.reason}" for one in refused[:3])
            raise UnsupportedError(
                f"jetfire: flow='block', and no block of {type(model).__name__} can compute as one "
                f"({why or 'it holds no attention beside a feed-forward network'}); flow='linear' quantizes the "
                "matmuls of any linear"
            )
        device = execution.device_of(_device(model))
        reference = execution.why_reference(self.config, device)
        planned = self._planned(model, looked, blocks, refused, device)
        notes = (*self._notes(reference, blocks, taken), *execution.sparse_notes(taken.values(), self.config, device))
        return Plan(self.name, self.config.model_dump(mode="json"), tuple(planned), notes)

    def _blocks(
        self, model: nn.Module, taken: Mapping[str, Candidate]
    ) -> tuple[list[TransformerBlock], list[NotTaken]]:
        if not taken or self.config.flow == "linear" or set(self.config.matmuls) != set(MATMULS):
            return [], []
        blocks, refused = [], []
        for found in find_blocks(model):
            if isinstance(found, NotTaken):
                refused.append(found)
                continue
            missing = [name for name in map(found.qualified, found.linears) if name not in taken]
            encoded = [n for n in found.linears if isinstance(model.get_submodule(found.qualified(n)), EncodedLinear)]
            if missing:
                refused.append(NotTaken(found.name, f"its linear {missing[0]!r} is not quantized"))
            elif encoded:
                refused.append(NotTaken(found.name, f"another transform encodes the matmuls of {encoded[0]}"))
            else:
                blocks.append(found)
        return blocks, refused

    def _planned(
        self,
        model: nn.Module,
        looked: Sequence[Candidate],
        blocks: Sequence[TransformerBlock],
        refused: Sequence[NotTaken],
        device: torch.device,
    ) -> list[PlannedModule]:
        backend = "reference" if execution.why_reference(self.config, device) else "triton"
        inside = {block.qualified(name): block for block in blocks for name in block.linears}
        planned = [
            PlannedModule(block.name, True, block.describe(), (Claim(_FLOW),), {"flow": "block"}) for block in blocks
        ]
        planned += [
            PlannedModule(one.name, False, f"cannot compute as one block: {one.reason}")
            for one in refused
            if self.config.flow != "linear"
        ]
        for candidate in looked:
            if not candidate.accepted:
                planned.append(PlannedModule(candidate.name, False, candidate.reason))
                continue
            flow = "block" if candidate.name in inside else "linear"
            about = execution.details(self.config, flow=flow, backend=backend)
            reason = candidate.reason
            if execution.takes_rows(candidate.module, self.config):
                about = {**about, **execution.sparse_details(candidate.module, self.config, device)}
                reason += "; another transform keeps its weight 2:4"
            planned.append(PlannedModule(candidate.name, True, reason, self._claims(candidate.name in inside), about))
        order = {name: place for place, (name, _) in enumerate(model.named_modules())}
        return sorted(planned, key=lambda entry: order[entry.name])

    def _claims(self, in_block: bool) -> tuple[Claim, ...]:
        """What is claimed on a linear. A block that was asked for by name shares the matmuls inside of it with none."""
        alone = in_block and self.config.flow == "block"
        return (*(Claim(f"matmul.{name}", exclusive=alone) for name in self.config.matmuls), Claim(_OWN))

    def _notes(
        self, reference: str | None, blocks: Sequence[TransformerBlock], taken: Mapping[str, Candidate]
    ) -> list[str]:
        config = self.config
        notes = [
            f"{config.code} codes, one scale for each {config.block}x{config.block} block (preset {config.preset})"
        ]
        if config.preset in UNMEASURED:
            notes.append(UNMEASURED[config.preset])
        if reference:
            notes.append(f"everything is computed by the plain torch reference, slower than dense: {reference}")
        inside = sum(len(block.linears) for block in blocks)
        if config.flow == "auto" and len(taken) > inside:
            if set(config.matmuls) != set(MATMULS):
                notes.append("flow='auto' is linear, since a block needs all three matmuls quantized")
            else:
                count = len(taken) - inside
                notes.append(f"{count} linear{'s' if count > 1 else ''} outside of blocks that compute as one")
        return notes

    def apply(self, model: nn.Module, plan: Plan) -> None:
        """Perform the plan: parameters and modules stay the same objects; linears are replaced by encoded ones.

        Raises:
            CompositionError: The plan does not fit the model.
        """
        linears = [(entry, self._linear(model, entry)) for entry in plan.touched if entry.claims[0].aspect != _FLOW]
        wanted = [entry.name for entry in plan.touched if entry.claims[0].aspect == _FLOW]
        found = (
            {block.name: block for block in find_blocks(model) if isinstance(block, TransformerBlock)} if wanted else {}
        )
        for name in wanted:
            if name not in found:
                raise CompositionError(
                    f"jetfire: the plan has {name or '(model)'!r} compute as one block, which it cannot any more; plan "
                    "again on this model"
                )
            planned = {entry.name for entry, _ in linears}
            missing = [part for part in map(found[name].qualified, found[name].linears) if part not in planned]
            if missing:
                raise CompositionError(f"jetfire: the plan has the block {name!r}, but not its linear {missing[0]!r}")
        for index, (entry, layer) in enumerate(linears):
            self._quantize(model, entry.name, layer, index)
        for index, name in enumerate(wanted):
            self._join(model, found[name], len(linears) + index)

    def _linear(self, model: nn.Module, entry: PlannedModule) -> nn.Module:
        modules = dict(model.named_modules())
        if entry.name not in modules:
            raise CompositionError(
                f"jetfire: the plan names {entry.name!r}, which {type(model).__name__} does not have"
                f"{did_you_mean(entry.name, modules)}; plan again on this model"
            )
        reason = refusal(entry.name, modules[entry.name], {}, min_features=1)
        if reason is not None:
            raise CompositionError(f"jetfire: the plan names {entry.name!r}, but {reason}; plan again on this model")
        return modules[entry.name]

    def _seed(self, index: int) -> int:
        return (self.config.seed << 32) + index

    def _quantize(self, model: nn.Module, name: str, layer: nn.Module, index: int) -> None:
        config = self.config
        weight = layer.weight
        assert isinstance(weight, Tensor)
        state = QuantizationState(
            weight.device, seed=self._seed(index), rounding=config.rounding, start_step=config.start_step
        ).train(layer.training)
        form = FORMATS[config.code]
        if isinstance(layer, EncodedLinear):
            if execution.takes_rows(layer, config):
                quantize_sparse(layer, state, form, config.block, config.matmuls)
            else:
                state.before = layer.encoders
                layer.encoders = layer.encoders.then(following_encoders(form, config.block, state, config.matmuls))
            layer.add_module(CHILD, state)
            return
        targeting.replace(model, name, BlockLinear.of(layer, state, WeightCodes(form, config.block), config.matmuls))

    def _join(self, model: nn.Module, structure: TransformerBlock, index: int) -> None:
        config, block = self.config, model.get_submodule(structure.name)
        linears = {name: block.get_submodule(name) for name in structure.linears}
        weight = linears[structure.out].weight
        assert isinstance(weight, Tensor)
        state = BlockState(
            weight.device,
            structure,
            Arithmetic(FORMATS[config.code], config.block, config.rounding),
            seed=self._seed(index),
            start_step=config.start_step,
            keeps_residual=config.residual == "dual",
            recomputes_activation=config.recompute_activation,
            transposed=frozenset(name for name, layer in linears.items() if layer.transposed_weight),
            hidden_name=next(iter(inspect.signature(block.forward).parameters)),
            original=type(block),
        ).train(block.training)
        roles = {name: PASS for name in structure.linears} | {structure.out: OUT}
        roles |= {name: PROJECTION + i for i, name in enumerate(structure.projections)}
        for name, layer in linears.items():
            layer.handover, layer.role = state.handover, roles[name]  # type: ignore[assignment]
        for i, name in enumerate(structure.norms):
            norm = block.get_submodule(name)
            swap(norm, "norm")
            norm.handover, norm.role = state.handover, NORM if i == 0 and structure.is_pre_norm else PASS  # type: ignore[assignment]
        swap(block, "block")
        block.add_module(CHILD, state)

    def on_train_start(self, model: nn.Module, total_steps: int) -> None:
        """Learn the rank, see that weights are whole, and rely on the other hooks from now on.

        Raises:
            UnsupportedError: The parameters are sharded (FSDP).
            ConfigError: ``total_steps`` is not positive.
        """
        if total_steps < 1:
            raise ConfigError(f"total_steps is {total_steps}; a run has at least one optimizer step")
        distributed = torch.distributed
        is_parallel = distributed.is_available() and distributed.is_initialized()
        rank = distributed.get_rank() if is_parallel else 0
        for name, module, state in states(model):
            if not isinstance(state, BlockState):
                _refuse_shards(name, module)
            state.rank = rank
        for codes, _ in _weight_codes(model):
            codes.is_driven = True
            codes.invalidate()  # the method before may have changed its masks

    def on_gradients(self, model: nn.Module, step: int) -> None:
        """Expect weights to change: their codes are made anew after the optimizer step."""
        for codes, _ in _weight_codes(model):
            codes.invalidate()

    @torch.no_grad()
    def on_step(self, model: nn.Module, step: int) -> Mapping[str, float]:
        """Count steps, and quantize the new weights, once for all micro-steps; there are no metrics."""
        for _, _, state in states(model):
            state.set_steps(step)
        for codes, weights in _weight_codes(model):
            if codes.is_used and not weights[0].is_meta:
                codes.fill(weights)
        return {}

    def rebuildable(self, model: nn.Module, missing: Collection[str]) -> Collection[str]:
        """Everything of its own: without it, random draws begin anew."""
        own = {f"{name}.{CHILD}.{key}".lstrip(".") for name, _, state in states(model) for key in state.state_dict()}
        return own & set(missing)

    def finish(self, model: nn.Module) -> None:
        """Put the original classes back: the master weights were the model's own all along."""
        for name, module, state in list(states(model)):
            if isinstance(state, BlockState):
                for norm in map(module.get_submodule, state.structure.norms):
                    swap_back(norm)
                    del norm.handover, norm.role
                swap_back(module)
                del module._modules[CHILD]
            elif isinstance(module, BlockLinear):
                targeting.replace(model, name, module.to_original())
            else:
                assert isinstance(module, EncodedLinear)
                restore_sparse(module, state)
                del module._modules[CHILD]


def _weight_codes(model: nn.Module) -> list[tuple[WeightCodes | SparseWeightCodes, list[Tensor]]]:
    """The quantized weights of all layers and blocks, with the masters [out, in]."""
    found: list[tuple[WeightCodes | SparseWeightCodes, list[Tensor]]] = []
    for _, module, state in states(model):
        if isinstance(state, BlockState):
            for codes, names in state.all_codes:
                found.append((codes, [_logical(module.get_submodule(name)) for name in names]))
        elif isinstance(module, BlockLinear):
            found.append((module.codes, [_logical(module)]))
        elif state.sparse_codes is not None:
            found.append((state.sparse_codes, [_logical(module)]))
    return found


def _logical(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.t() if stores_transposed(layer) or getattr(layer, "transposed_weight", False) else weight


def _device(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _refuse_shards(name: str, layer: nn.Module) -> None:
    weight = layer._parameters.get("weight")
    if weight is None or weight.dim() != 2 or "DTensor" in (type(weight).__name__ + type(weight.data).__name__):
        raise UnsupportedError(
            f"jetfire: the weight of {name!r} is sharded (FSDP or tensor parallelism); blocks are cut from whole "
            "weights. Train with DDP"
        )
