"""How fast 2:4 pre-training is: feed-forward networks, forward and backward, beside the same network compiled dense.

One optimizer step is one sample: weights are packed once, then each micro-step runs forward and backward and adds to
the gradients, then the masked decay; the mask search counts with one part in ``mask_interval``. Both sides compute in
bfloat16, are compiled, and replay CUDA graphs; they are timed in turns in one process. The layers are those that
``planish.apply(model, "pretrain24", execution="sparse")`` makes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from planish.benchmark import (
    BenchmarkOptions,
    BenchmarkResult,
    Measurement,
    Row,
    collect,
    interleave,
    write_result,
)
from planish.errors import PlanishError, UnsupportedError
from planish_kernels.formats.sparse24_cusparselt import Sparse24CuSparseLt
from planish_kernels.matmul import matmul
from torch import Tensor, nn

from planish_pretrain24 import masks, packs
from planish_pretrain24.benchmark.ffn_oracle import oracle_failures
from planish_pretrain24.benchmark.kernel_shares import kernel_shares
from planish_pretrain24.config import Pretrain24Config
from planish_pretrain24.execution import cannot
from planish_pretrain24.masked_decay import decay_masked_gradients
from planish_pretrain24.sparsifier import Pretrain24
from planish_pretrain24.state import layers

NAME = "pretrain24"
DENSE = "compiled dense bf16"
DECAY = 6e-5


@dataclass(frozen=True)
class Settings:
    """Sizes of a run."""

    widths: tuple[int, ...] = (1024, 2048, 4096)
    gated_widths: tuple[int, ...] = (4096,)
    tokens: int = 16384
    accumulations: tuple[int, ...] = (1, 8)
    rounds: int = 15


QUICK = Settings(widths=(1024,), gated_widths=(), tokens=4096, accumulations=(1,), rounds=5)


class FeedForward(nn.Module):
    """``fc2(gelu(fc1(x)))`` without biases, width d to 4d and back, as in GPT-2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width, bias=False)
        self.fc2 = nn.Linear(4 * width, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[tokens, width]`` to the same."""
        return self.fc2(nn.functional.gelu(self.fc1(hidden), approximate="tanh"))


class GatedFeedForward(nn.Module):
    """``down(silu(gate(x)) * up(x))`` without biases, width d to 4d and back, as in Llama."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, 4 * width, bias=False)
        self.up_proj = nn.Linear(width, 4 * width, bias=False)
        self.down_proj = nn.Linear(4 * width, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[tokens, width]`` to the same."""
        return self.down_proj(nn.functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class Case:
    """One network under one accumulation: the same weights, sparse and dense."""

    def __init__(self, kind: type[nn.Module], width: int, tokens: int, device: str) -> None:
        torch._dynamo.reset()
        self.width, self.tokens = width, tokens
        torch.manual_seed(width)
        # Held by a container, as in a model: transforms replace modules inside of it.
        self.dense = nn.Sequential(kind(width)).to(device, torch.bfloat16)
        self.sparse = nn.Sequential(kind(width)).to(device, torch.bfloat16)
        self.sparse.load_state_dict(self.dense.state_dict())
        self.config = Pretrain24Config(execution="sparse", decay=DECAY, dense_finish=0.0)
        transform = Pretrain24(self.config)
        transform.apply(self.sparse, transform.plan(self.sparse))
        transform.on_train_start(self.sparse, 1_000_000)
        packs.refresh_all(self.sparse)
        self.inputs = [
            torch.randn(tokens, width, device=device, dtype=torch.bfloat16).requires_grad_() for _ in range(2)
        ]
        self.grads = [torch.randn(tokens, width, device=device, dtype=torch.bfloat16) for _ in range(2)]
        self._compiled = {id(net): torch.compile(net, dynamic=False) for net in (self.dense, self.sparse)}

    def step(self, net: nn.Module, accumulation: int) -> None:
        """One optimizer step without the optimizer: gradients of weights and inputs."""
        compiled = self._compiled[id(net)]
        sparse = net is self.sparse
        net.zero_grad(set_to_none=True)
        if sparse:
            packs.refresh_all(net)
        for micro_step in range(accumulation):
            hidden = self.inputs[micro_step % 2]
            hidden.grad = None
            compiled(hidden).backward(self.grads[micro_step % 2])
        if sparse:
            decay_masked_gradients(net, DECAY)

    def search_masks(self) -> None:
        """Search all masks, as every ``mask_interval`` steps."""
        for _, layer, state in layers(self.sparse):
            masks.refresh(layer, state)

    def peak_bytes(self, net: nn.Module) -> int:
        """Most memory in use during a step, less what the other network and the inputs hold."""
        self.step(net, 1)
        net.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        other = self.sparse if net is self.dense else self.dense
        foreign = sum(t.nbytes for t in (*other.parameters(), *other.buffers(), *self.inputs, *self.grads))
        if other is self.sparse:
            foreign += _packed_bytes(self.sparse)
        torch.cuda.reset_peak_memory_stats()
        self.step(net, 1)
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - foreign
        net.zero_grad(set_to_none=True)
        return peak


def _packed_bytes(net: nn.Module) -> int:
    found = 0
    for _, _, state in layers(net):
        for pack in (state.packs.along_inputs, state.packs.along_outputs) if state.packs is not None else ():
            found += 0 if pack is None else pack.nbytes
    return found


def _plus(one: Measurement, other: Measurement, share: float) -> Measurement:
    return Measurement(
        median=one.median + share * other.median, p20=one.p20 + share * other.p20, p80=one.p80 + share * other.p80
    )


def network_rows(kind: type[nn.Module], width: int, settings: Settings, device: str) -> Iterator[Row]:
    """Time, memory and shares of one network."""
    case = Case(kind, width, settings.tokens, device)
    label = "mlp" if kind is FeedForward else "swiglu"
    memory = {name: case.peak_bytes(net) for name, net in (("sparse", case.sparse), ("dense", case.dense))}
    for accumulation in settings.accumulations:
        work: dict[str, Callable[[], Any]] = {
            "sparse": lambda count=accumulation: case.step(case.sparse, count),  # type: ignore[misc]
            "dense": lambda count=accumulation: case.step(case.dense, count),  # type: ignore[misc]
        }
        times = interleave(work, device=device, rounds=settings.rounds, graph=True)
        search = interleave({"search": case.search_masks}, device=device, rounds=5, graph=True)["search"]
        ours = _plus(times["sparse"], search, 1 / case.config.mask_interval)
        shares = {
            name: kernel_shares(lambda net=net: case.step(net, accumulation))  # type: ignore[misc]  # noqa: B023
            for name, net in (("sparse", case.sparse), ("dense", case.dense))
        }
        yield Row.compare(
            f"ffn/{label}/d{width}/tokens{settings.tokens}/accumulation{accumulation}",
            ours,
            {DENSE: times["dense"]},
            against=DENSE,
            target=1.4 if width == 4096 and accumulation == 8 else None,
            extra={"kernel_ms": shares, "mask_search_ms": search.median, "mask_interval": case.config.mask_interval},
        )
        case.dense.zero_grad(set_to_none=True)
        case.sparse.zero_grad(set_to_none=True)
    weights = sum(p.numel() for p in case.sparse.parameters())
    mask_bits = 8 * sum(state.mask.nbytes for _, _, state in layers(case.sparse)) / weights
    yield Row.compare(
        f"ffn/{label}/d{width}/tokens{settings.tokens}",
        Measurement.of([memory["sparse"] / 2**20]),
        {DENSE: Measurement.of([memory["dense"] / 2**20])},
        against=DENSE,
        metric="peak memory of a step",
        unit="MiB",
        extra={"mask_bits_per_weight": mask_bits, "packs_MiB": _packed_bytes(case.sparse) / 2**20},
    )


def matmul_rows(width: int, settings: Settings, device: str) -> Iterator[Row]:
    """Each of the six matmuls of a plain network on its own, ours beside cuBLAS."""
    tokens, wide = settings.tokens, 4 * width
    for name, (out, into) in {"1": (wide, width), "2": (width, wide)}.items():
        weight = torch.randn(out, into, device=device, dtype=torch.bfloat16)
        hidden = torch.randn(tokens, into, device=device, dtype=torch.bfloat16)
        grad = torch.randn(tokens, out, device=device, dtype=torch.bfloat16)
        by_rows = Sparse24CuSparseLt.encode(weight)
        by_cols = Sparse24CuSparseLt.encode(weight, dim=0)
        estimate = Sparse24CuSparseLt.encode_gradient(grad, 1, 2).T
        pairs: Mapping[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
            f"forward{name}": (lambda: matmul(hidden, by_rows.T), lambda: hidden @ weight.t()),  # noqa: B023
            f"input_grad{name}": (lambda: matmul(grad, by_cols), lambda: grad @ weight),  # noqa: B023
            f"weight_grad{name}": (lambda: matmul(estimate, hidden), lambda: grad.t() @ hidden),  # noqa: B023
        }
        for matmul_name, (sparse, dense) in pairs.items():
            times = interleave({"sparse": sparse, "dense": dense}, device=device, rounds=settings.rounds, graph=True)
            yield Row.compare(
                f"matmul/d{width}/tokens{tokens}/{matmul_name}",
                times["sparse"],
                {"cublas bf16": times["dense"]},
                against="cublas bf16",
                # Half the multiplications at the rate that dense bfloat16 reaches in registers, counted as dense.
                floor=2e3 * tokens * out * into / SPARSE_CEILING,
            )


SPARSE_CEILING = 1.8e15
"""Operations a second of ``wgmma.sp`` on bfloat16, counted as dense, from registers alone on an H200 (measured)."""


def packer_rows(width: int, settings: Settings, device: str) -> Iterator[Row]:
    """The packers beside the library's compressor and the time that their bytes take."""
    from planish_kernels.cusparselt.layout import packed_numel
    from planish_kernels.cusparselt.multiply import compress
    from planish_kernels.cusparselt.op import mvue_pack, pack_
    from planish_kernels.mask24 import transposable_mask
    from planish_kernels.mask24.bits import pack_mask

    source = torch.empty(2**28, device=device, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    copied = interleave({"copy": partial(target.copy_, source)}, device=device, rounds=10)["copy"].median
    bytes_per_ms = 2 * source.nbytes / copied
    wide = 4 * width
    weight = torch.randn(wide, width, device=device, dtype=torch.bfloat16)
    mask = transposable_mask(weight)
    bits, masked = pack_mask(mask), weight * mask
    packed = [weight.new_empty(packed_numel(wide, width, weight.dtype)) for _ in range(2)]
    both = {
        "fused": lambda: pack_(weight, packed[0], packed[1], mask=bits),
        "library": lambda: (compress(masked), compress(masked.t())),
    }
    times = interleave(both, device=device, rounds=settings.rounds)
    floor = (weight.nbytes + bits.nbytes + 2 * packed[0].nbytes) / bytes_per_ms
    yield _packer_row(f"pack/weight {wide}x{width}, both orientations", times, floor)
    for channels in (wide, width):
        grad = torch.randn(settings.tokens, channels, device=device, dtype=torch.bfloat16)
        seed = torch.tensor(1, device=device)
        estimates = {
            "fused": lambda: mvue_pack(grad, seed, seed),  # noqa: B023
            # What the library alone would have to do, without drawing anything.
            "library": lambda: compress(grad.t()),  # noqa: B023
        }
        times = interleave(estimates, device=device, rounds=settings.rounds)
        floor = grad.nbytes * (1 + 9 / 16) / bytes_per_ms
        yield _packer_row(f"pack/gradient {settings.tokens}x{channels}, drawn and transposed", times, floor)


def _packer_row(case: str, times: Mapping[str, Measurement], floor: float) -> Row:
    peer = "cusparseLtSpMMACompress2"
    return Row.compare(case, times["fused"], {peer: times["library"]}, against=peer, floor=floor)


def run(settings: Settings, *, device: str, command: str, say: Callable[[str], None] = print) -> BenchmarkResult:
    """Check, then measure.

    Raises:
        UnsupportedError: The machine has no GPU on which the 2:4 kernels run.
    """
    if not device.startswith("cuda"):
        raise UnsupportedError(f"the pretrain24 benchmark measures 2:4 kernels of CUDA GPUs, and {device} is none")
    probe = nn.Linear(128, 128, device=device, dtype=torch.bfloat16)
    refusal = cannot(probe, Pretrain24Config(execution="sparse"))
    if refusal is not None:
        raise UnsupportedError(f"the pretrain24 benchmark has no 2:4 kernels to measure here: {refusal}")
    failures = oracle_failures(torch.device(device))
    rows: list[Row] = []
    for failure in failures:
        say(f"oracle: {failure}")
    sections: list[Iterator[Row]] = []
    for kind, widths in ((FeedForward, settings.widths[::-1]), (GatedFeedForward, settings.gated_widths)):
        sections += [network_rows(kind, width, settings, device) for width in widths]
    sections += [matmul_rows(width, settings, device) for width in settings.widths]
    sections += [packer_rows(settings.widths[-1], settings, device)]
    for section in sections:
        for row in section:
            rows.append(row)
            gain = "" if row.gain is None or failures else f"  {row.gain:.2f}x"
            say(f"{row.case}: {row.ours.median:.3f} {row.unit}{gain}")
        torch.cuda.empty_cache()
    return collect(NAME, rows, oracle_passed=not failures, command=command, notes=[*failures, *_shortfalls(rows)])


def _shortfalls(rows: list[Row]) -> Iterator[str]:
    """Say where sparse does not pay, and where a target was missed."""
    for row in rows:
        if row.gain is None or row.metric != "time" or not row.case.startswith("ffn/"):
            continue
        if row.gain < 1:
            yield f"{row.case}: slower than dense ({row.gain:.2f}x); execution='auto' keeps such layers dense"
        elif row.target is not None and row.gain < row.target:
            yield f"{row.case}: {row.gain:.2f}x of {row.target}x; extra.kernel_ms says where the time goes"


def bench(options: BenchmarkOptions) -> BenchmarkResult:
    """``planish bench pretrain24``."""
    settings = QUICK if options.quick else Settings()
    return run(settings, device=options.device, command=options.command, say=lambda line: print(line, file=sys.stderr))


def main(arguments: list[str] | None = None) -> int:
    """``python3 -m planish_pretrain24.benchmark.ffn_speed --json PATH``: 0; 1: an oracle failed; 2: it cannot run."""
    parser = argparse.ArgumentParser(prog="python3 -m planish_pretrain24.benchmark.ffn_speed", description=__doc__)
    parser.add_argument("--json", type=Path, help="result file")
    parser.add_argument("--quick", action="store_true", help="one small size, to see that it works")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    command = f"planish bench {NAME} --device {given.device}" + (" --quick" if given.quick else "")
    try:
        result = run(QUICK if given.quick else Settings(), device=given.device, command=command)
        if given.json is not None:
            write_result(result, given.json)
    except PlanishError as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if result.oracle_passed else 1


if __name__ == "__main__":
    sys.exit(main())
