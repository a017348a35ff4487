"""How INT8 training learns: validation losses beside full precision, at equal steps, seeds and data.

A small GPT-2 and a small Llama are trained on the standard library's source under each variant:

* ``float32``: the baseline;
* ``jetfire-32``, ``jetfire-128``: this plugin, with blocks of 32 and 128; ``float8-128``: the same flow in float8;
* ``per-token``, ``per-tensor``: INT8 with a scale for each row, or for each tensor, in the same three matmuls;
* each of these with ``+outliers``: two channels of each norm's output are 60 times larger, in a model that computes,
  and without quantization trains, the same;
* ``nearest-gradients``: ``jetfire-32`` with gradients rounded to nearest;
* ``tiled-norm``, ``cut``: two defects of the published kernels, means of norms and codes that are cut off.

Each run is one row of the result file, written as soon as it ends; a second call with the same settings continues.
Validation is in full precision: what is compared is the weights that training found.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import planish
import torch
import torch.nn.functional as F
from planish.benchmark import (
    BenchmarkOptions,
    BenchmarkResult,
    Measurement,
    Row,
    collect,
    read_result,
    write_result,
)
from planish.benchmark.stdlib_bytes import read_corpus, windows
from planish.errors import ConfigError, PlanishError
from planish.plugins.manager import default_registry
from planish.recipe.model import build_named
from planish_kernels.formats import BlockInt8
from torch import Tensor, nn

from planish_jetfire.benchmark.learning_variants import VARIANTS, Trained, variant_of
from planish_jetfire.quantizer import Jetfire

NAME = "jetfire-learning"
MODELS = ("gpt2", "llama")


@dataclass(frozen=True)
class Settings:
    """What decides a run's numbers; rows of other settings are not continued."""

    width: int = 160
    layers: int = 2
    heads: int = 5
    length: int = 64
    batch: int = 8
    steps: int = 500
    warmup: int = 50
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    largest_norm: float = 1.0
    flow: str = "linear"
    validation_batches: int = 64
    corpus_bytes: int = 8_000_000
    device: str = "cpu"

    def rate(self, step: int) -> float:
        """Learning-rate factor at ``step`` (from 0): linear warm-up, then a cosine down to a tenth."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * min(done, 1.0)))


QUICK = Settings(
    width=64, layers=1, heads=2, length=32, batch=4, steps=4, warmup=2, validation_batches=2, corpus_bytes=1_000_000
)
"""Sizes that show that the program works, not how the methods compare."""


def build(model: str, settings: Settings, seed: int) -> nn.Module:
    """A fresh model; the seed decides its weights.

    Raises:
        ConfigError: It is none of ``MODELS``, or nothing installed builds it.
    """
    s = settings
    shared = {"vocab_size": 256, "bos_token_id": None, "eos_token_id": None}
    configs: dict[str, dict[str, Any]] = {
        "gpt2": {
            "n_embd": s.width, "n_layer": s.layers, "n_head": s.heads, "n_positions": s.length, "resid_pdrop": 0.0,
            "embd_pdrop": 0.0, "attn_pdrop": 0.0,
        },
        "llama": {
            # Three matrices of 8/3 the width have as many weights as two of four times the width.
            "hidden_size": s.width, "intermediate_size": 32 * round(s.width / 12), "num_hidden_layers": s.layers,
            "num_attention_heads": s.heads, "num_key_value_heads": s.heads, "max_position_embeddings": s.length,
        },
    }  # fmt: skip
    if model not in configs:
        raise ConfigError(f"model {model!r} is unknown; one of {', '.join(MODELS)}")
    torch.manual_seed(seed)
    return build_named(model, {**shared, **configs[model]}, default_registry()).to(s.device)


class Experiment:
    """What all runs share: the corpus, the loss, the optimizer."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.train, self.held_out = read_corpus(settings.corpus_bytes)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Mean cross-entropy in nats a byte, in bfloat16 on a GPU; ``batch`` int64 ``[batch, length + 1]``."""
        with torch.autocast("cuda", torch.bfloat16, enabled=self.settings.device.startswith("cuda")):
            logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """AdamW with weight decay on matrices only."""
        s = self.settings
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": s.weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=s.learning_rate, betas=(0.9, 0.95))

    @torch.no_grad()
    def validation_loss(self, trained: Trained) -> float:
        """Mean loss over fixed windows of held-out files, in full precision."""
        s = self.settings
        held_out = windows(self.held_out, s.length, s.batch, seed=2**31, device=s.device)
        with trained.evaluating() as model:
            losses = [self.loss(model, batch) for _, batch in zip(range(s.validation_batches), held_out, strict=False)]
        return float(torch.stack(losses).mean())

    def run(self, kind: str, name: str, seed: int) -> dict[str, Any]:
        """Train one model under one variant from start to end; return its losses."""
        s = self.settings
        began, began_cpu = time.perf_counter(), time.process_time()
        model = build(kind, s, seed)
        model.train()
        trained = Trained(model, variant_of(name), flow=s.flow, seed=seed, total_steps=s.steps)
        optimizer = self.optimizer(trained.parameters())
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, s.rate)
        losses: list[Tensor] = []
        data = windows(self.train, s.length, s.batch, seed=seed, device=s.device)
        for step, batch in zip(range(s.steps), data, strict=False):
            loss = self.loss(model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            trained.before_step(step, s.largest_norm)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            losses.append(loss.detach())
            trained.after_step(step + 1)
        curve = torch.stack(losses).float().cpu()
        stride = max(1, s.steps // 50)
        return {
            "model": kind,
            "variant": name,
            "seed": seed,
            "val_loss": self.validation_loss(trained),
            "train_loss": [
                (end, round(float(curve[end - stride : end].mean()), 4)) for end in range(stride, s.steps + 1, stride)
            ],
            "seconds": round(time.perf_counter() - began, 1),
            "cpu_seconds": round(time.process_time() - began_cpu, 1),
        }


def oracle_passed(device: str) -> bool:
    """Whether a linear of the plugin agrees with products of decoded blocks in float64 on this machine."""
    torch.manual_seed(0)
    for block in (32, 128):
        linear = nn.Linear(96, 160).to(device)
        model = nn.Sequential(linear)
        weight, bias = linear.weight.detach().clone(), linear.bias.detach().clone()
        exact = Jetfire({"block": block, "flow": "linear", "stochastic": False})
        planish.apply(model, exact, targets=["0"]).on_train_start(1)
        x, grad = torch.randn(70, 96, device=device), torch.randn(70, 160, device=device)
        leaf = x.clone().requires_grad_()
        output = model(leaf)
        output.backward(grad)
        grad_weight = model.get_parameter("0.weight").grad
        exact_x, exact_weight, exact_grad = (
            BlockInt8.encode(t, block, impl="reference").decode().double() for t in (x, weight, grad)
        )
        for found, expected in (
            (output.detach(), exact_x @ exact_weight.t() + bias),
            (leaf.grad, exact_grad @ exact_weight),
            (grad_weight, exact_grad.t() @ exact_x),
        ):
            assert found is not None
            if float((found.double() - expected).norm() / expected.norm()) > 1e-5:
                return False
    return True


def row_of(found: Mapping[str, Any], settings: Settings) -> Row:
    """One run as a row of the result file."""
    return Row(
        case=f"{found['model']}/{found['variant']}/seed{found['seed']}",
        metric="val_loss",
        unit="nats/byte",
        better="lower",
        ours=Measurement.of([found["val_loss"]]),
        extra={**found, "settings": json.loads(json.dumps(asdict(settings)))},
    )


def baseline_of(variant: str) -> str:
    """The full-precision variant that a variant is held against."""
    return "float32+outliers" if variant.endswith("+outliers") else "float32"


def excesses(rows: Sequence[Row]) -> dict[tuple[str, str], list[float]]:
    """Model and variant -> how far each seed's loss lies above the baseline's of the same seed, as a share of it."""
    losses = {(row.extra["model"], row.extra["variant"], row.extra["seed"]): row.ours.median for row in rows}
    found: dict[tuple[str, str], list[float]] = {}
    for model in MODELS:
        for variant in VARIANTS:
            for seed in sorted({key[2] for key in losses}):
                loss = losses.get((model, variant, seed))
                reference = losses.get((model, baseline_of(variant), seed))
                if loss is not None and reference is not None:
                    found.setdefault((model, variant), []).append(loss / reference - 1)
    return found


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """One line for each model and variant."""
    above = excesses(rows)
    for model in MODELS:
        for variant, spec in VARIANTS.items():
            losses = [r.ours.median for r in rows if (r.extra["model"], r.extra["variant"]) == (model, variant)]
            if not losses:
                continue
            line = f"{model}, {variant}: val_loss {sum(losses) / len(losses):.4f} over {len(losses)} seeds"
            shares = above.get((model, variant), [])
            if shares and variant != baseline_of(variant):
                mean = 100 * sum(shares) / len(shares)
                each = ", ".join(f"{100 * share:+.2f}" for share in shares)
                line += f", {mean:+.2f} % of full precision (by seed {each})"
            yield f"{line}: {spec.label}"


def run(
    settings: Settings,
    *,
    seeds: int = 3,
    variants: Sequence[str] = tuple(VARIANTS),
    models: Sequence[str] = MODELS,
    path: Path | None = None,
    command: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> BenchmarkResult:
    """Run what is missing, and return (and keep writing) the result.

    Args:
        settings: Sizes.
        seeds: How many seeds of each variant, from 0 on.
        variants: Which of ``VARIANTS``.
        models: Which of ``MODELS``.
        path: The result file; rows in it with equal settings are kept. None keeps nothing.
        command: What the result says it came from.
        say: Told one line after each run.

    Raises:
        ConfigError: A variant or model is unknown.
        WorkError: The file cannot be written.
    """
    for name in variants:
        variant_of(name)
    for model in models:
        if model not in MODELS:
            raise ConfigError(f"model {model!r} is unknown; one of {', '.join(MODELS)}")
    as_json = json.loads(json.dumps(asdict(settings)))
    rows: dict[str, Row] = {}
    if path is not None and path.exists():
        rows = {row.case: row for row in read_result(path).rows if row.extra.get("settings") == as_json}
    frame = collect(NAME, [], oracle_passed=oracle_passed(settings.device), command=command)

    def result() -> BenchmarkResult:
        ordered = [rows[case] for case in sorted(rows)]
        return frame.model_copy(update={"rows": ordered, "notes": list(summary(ordered))})

    experiment: Experiment | None = None
    for seed in range(seeds):
        for name in variants:
            for model in models:
                if f"{model}/{name}/seed{seed}" in rows:
                    continue
                experiment = experiment or Experiment(settings)
                row = row_of(experiment.run(model, name, seed), settings)
                rows[row.case] = row
                if path is not None:
                    write_result(result(), path)
                say(f"{row.case}: {row.ours.median:.4f}, {row.extra['cpu_seconds']} s of CPU")
    finished = result()
    if path is not None:
        write_result(finished, path)
    return finished


def bench(options: BenchmarkOptions) -> BenchmarkResult:
    """``planish bench jetfire-learning``: three seeds of all variants, or with ``quick`` one of tiny models."""
    settings = replace(QUICK if options.quick else Settings(), device=options.device)
    return run(settings, seeds=1 if options.quick else 3, command=options.command, say=print)


def main(arguments: list[str] | None = None) -> int:
    """``python3 -m planish_jetfire.benchmark.learning --json PATH``: 0 if all went well, 2 for wrong input."""
    parser = argparse.ArgumentParser(prog="python3 -m planish_jetfire.benchmark.learning", description=__doc__)
    parser.add_argument("--json", type=Path, help="result file; rows that are in it already are not run again")
    parser.add_argument("--plot", type=Path, help="draw the figure here (SVG) from the result")
    parser.add_argument("--quick", action="store_true", help="tiny models and one seed, to see that it works")
    parser.add_argument("--seeds", type=int, help="how many seeds (3; with --quick 1)")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="comma-separated")
    parser.add_argument("--models", default=",".join(MODELS), help="comma-separated")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    sizes = {"width": int, "layers": int, "heads": int, "length": int, "batch": int, "steps": int, "warmup": int,
             "learning_rate": float, "flow": str}  # fmt: skip
    for name, kind in sizes.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind)
    given = parser.parse_args(arguments)
    overrides = {name: getattr(given, name) for name in sizes if getattr(given, name) is not None}
    settings = replace(QUICK if given.quick else Settings(), device=given.device, **overrides)
    seeds = given.seeds if given.seeds is not None else (1 if given.quick else 3)
    command = shlex.join(["python3", "-m", "planish_jetfire.benchmark.learning", *(arguments or sys.argv[1:])])
    try:
        result = run(
            settings, seeds=seeds, variants=given.variants.split(","), models=given.models.split(","), path=given.json,
            command=command, say=lambda line: print(line, flush=True),
        )  # fmt: skip
        if given.plot is not None:
            from planish_jetfire.benchmark.learning_plot import plot

            plot(result, given.plot)
    except PlanishError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for line in result.notes:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
