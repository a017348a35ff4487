"""Whole transformer blocks, forward and backward, in the block flow beside the same block in bfloat16, compiled.

A block is compiled alone and called as its model calls it. Compiled with its model it would attend otherwise: traced,
transformers cannot see that no sequence is packed, hands a mask of all pairs to the attention in place of the word
"causal", and the half of them that lies above the diagonal is computed, on either side.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import planish
import torch
from planish.benchmark import Measurement, Row, interleave
from planish.errors import PlanishError
from planish.plugins.manager import default_registry
from planish.recipe.model import build_named
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from planish_jetfire import Jetfire, saved_bytes
from planish_jetfire.flow.block_state import BlockState

COMPILED = "compiled bfloat16"
PLAIN = "bfloat16, not compiled"
FORMATS: Mapping[str, Mapping[str, Any]] = {
    "float8 of 128": {"block": 128, "code": "float8"},
    "int8 of 128": {"block": 128, "code": "int8"},
    "int8 of 32": {"block": 32, "code": "int8"},
}
TIME_TARGET, MEMORY_TARGET = 1.25, 1.49
SETTLING_MS = 150.0
"""Least time of a sample on a GPU: its clock follows the power that work draws, some ten milliseconds later, so that a
single call would run at the clock of whatever ran before it."""


def one_block(family: str, width: int, length: int, device: str) -> nn.Module:
    """A model of one block without head: ``inputs_embeds`` [batch, length, width] to hidden states.

    Raises:
        ConfigError: Nothing installed builds it.
    """
    heads = max(1, width // 128)
    if family == "gpt2":
        config: dict[str, Any] = {
            "n_embd": width, "n_layer": 1, "n_head": heads, "n_positions": length, "resid_pdrop": 0.0,
            "embd_pdrop": 0.0, "attn_pdrop": 0.0,
        }  # fmt: skip
    else:
        config = {
            # 11008 at a width of 4096.
            "hidden_size": width, "intermediate_size": 43 * width // 16, "num_hidden_layers": 1,
            "num_attention_heads": heads, "num_key_value_heads": heads, "max_position_embeddings": length,
        }  # fmt: skip
    torch.manual_seed(width)
    shared = {"vocab_size": 64, "bos_token_id": None, "eos_token_id": None}
    model = build_named(family, {**shared, **config}, default_registry()).to(device, torch.bfloat16)
    return model.base_model  # type: ignore[return-value]


class BlockStep:
    """Forward and backward of one block, quantized or not."""

    def __init__(self, net: nn.Module, options: Mapping[str, Any] | None, hidden: Tensor, grad: Tensor) -> None:
        self.net, self.hidden, self.grad = net.train(), hidden.clone().requires_grad_(), grad
        self.block = next(module for module in net.modules() if isinstance(module, nn.ModuleList))[0]
        self.extra = _arguments(net, self.block, hidden)
        self.live: planish.LiveTransform | None = None
        if options is not None:
            self.live = planish.apply(net, Jetfire({**options, "flow": "block"}))
            self.live.on_train_start(1_000)
        self.run: Callable[..., Any] = self.block

    def compile(self) -> None:
        """Compile the block from here on."""
        if self.live is not None:
            # As after an optimizer step, so that the graph reads codes and makes none. Without gradients: nothing of
            # autograd may stem from outside of the stream of a capture.
            with torch.no_grad():
                self.forward()
            self.quantize_weights()
        self.run = torch.compile(self.block, dynamic=False)

    def forward(self) -> Tensor:
        """Hidden states out."""
        return self._forward(self.run)

    def _forward(self, run: Callable[..., Any]) -> Tensor:
        out = run(self.hidden, **self.extra)
        return out if isinstance(out, Tensor) else out[0]

    def step(self) -> None:
        """Gradients of weights and input, anew."""
        self.net.zero_grad(set_to_none=True)
        self.hidden.grad = None
        self.forward().backward(self.grad)  # type: ignore[no-untyped-call]

    def quantize_weights(self) -> None:
        """What an optimizer step costs beside the optimizer."""
        assert self.live is not None
        self.live.on_gradients(0)
        self.live.on_step(1)

    def saved_mebibytes(self, *, compiled: bool = False) -> Measurement:
        """What autograd holds between forward and backward, without parameters, codes of weights, and inputs."""
        own = [*self.net.parameters(), *self.net.buffers(), self.hidden]
        own += [leaf for leaf in tree_leaves(self.extra) if isinstance(leaf, Tensor)]
        if self.live is not None:
            for module in self.net.modules():
                if isinstance(module, BlockState):
                    own += [t for codes, _ in module.all_codes for t in (codes.codes, codes.scales) if t is not None]
        run = self.forward if compiled else functools.partial(self._forward, self.block)
        return Measurement.of([saved_bytes(run, exclude=own) / 2**20])


@torch.no_grad()
def _arguments(net: nn.Module, block: nn.Module, hidden: Tensor) -> dict[str, Any]:
    """What the model hands to its block beside the hidden state: positions, and no mask; no cache."""
    found: list[dict[str, Any]] = []

    def note(_: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        names = list(inspect.signature(type(block).forward).parameters)[1 : 1 + len(positional)]
        found.append({**dict(zip(names, positional, strict=True)), **named})

    with block.register_forward_pre_hook(note, with_kwargs=True):
        net(inputs_embeds=hidden, use_cache=False)
    (arguments,) = found
    return {name: value for name, value in arguments.items() if value is not hidden and name != "hidden_states"}


def block_rows(
    family: str, width: int, tokens: int, length: int, *, device: str, rounds: int, notes: list[str]
) -> Iterator[Row]:
    """Time and saved activations of one block in each format."""
    on_gpu = device.startswith("cuda")
    hidden, grad = (torch.randn(tokens // length, length, width, device=device, dtype=torch.bfloat16) for _ in range(2))
    case = f"block/{family}/h{width}/tokens{tokens}"
    dense = BlockStep(one_block(family, width, length, device), None, hidden, grad)
    steps = {"dense": dense}
    for name, options in FORMATS.items():
        try:
            steps[name] = BlockStep(one_block(family, width, length, device), options, hidden, grad)
        except PlanishError as error:
            notes.append(f"{case}/{name} was left out: {error}")
    ours = [name for name in steps if name != "dense"]
    work: dict[str, Callable[[], Any]] = {PLAIN: dense.step, **{n: steps[n].step for n in ours}}
    if on_gpu:
        torch._dynamo.reset()
        compiled = BlockStep(one_block(family, width, length, device), None, hidden, grad)
        work[COMPILED] = compiled.step
        for step in (compiled, *(steps[name] for name in ours)):
            step.compile()
    against = COMPILED if on_gpu else PLAIN
    times = interleave(work, device=device, rounds=rounds, graph=on_gpu, shortest_ms=SETTLING_MS if on_gpu else 1.0)
    # After the times: a forward pass outside of the stream of a capture would spoil it.
    saved_by_dense = dense.saved_mebibytes()
    for name in ours:
        # A graph too: in a training loop the host is ahead of the GPU, and its launches cost nothing.
        packing = interleave({"pack": steps[name].quantize_weights}, device=device, rounds=5, graph=on_gpu)["pack"]
        yield Row.compare(
            f"{case}/{name}",
            _plus(times[name], packing),
            {n: took for n, took in times.items() if n not in ours},
            against=against,
            target=TIME_TARGET if name.endswith("128") else None,
            extra={"quantizing_weights_ms": packing.median, "forward_and_backward_ms": times[name].median},
        )
        # As in the paper, which compiles nothing; a compiler keeps less, and computes it again in the backward pass.
        yield Row.compare(
            f"{case}/{name}",
            steps[name].saved_mebibytes(),
            {PLAIN: saved_by_dense},
            against=PLAIN,
            metric="saved activations",
            unit="MiB",
            target=MEMORY_TARGET,
        )
        if on_gpu:
            yield Row.compare(
                f"{case}/{name}, both compiled",
                steps[name].saved_mebibytes(compiled=True),
                {COMPILED: compiled.saved_mebibytes(compiled=True)},
                against=COMPILED,
                metric="saved activations",
                unit="MiB",
            )


def _plus(one: Measurement, other: Measurement) -> Measurement:
    return Measurement(median=one.median + other.median, p20=one.p20 + other.p20, p80=one.p80 + other.p80)
