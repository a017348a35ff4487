"""How 2:4 pre-training learns: the flip-rate picture, and validation losses of all methods at equal steps.

A small GPT is trained on the standard library's source by the same loop, seeds and data order under each variant:

* ``dense``: the baseline, with the flip rate that its masks would have;
* ``ste``: transposable masks and the plain straight-through estimator (decay 0);
* ``fst``: masked decay with the factor that ``find_decay`` chooses, sparse to the end;
* ``fst+finish``: the same, with the last sixth dense;
* ``fst-mvue-off``: ``fst`` with an exact weight gradient;
* ``fst@DECAY``: ``fst`` with that factor, for sweeps (not among the variants that run by default);
* ``sste``: S-STE with its frozen scale; ``sste-dynamic-scale``: the same with the scale recomputed after every step.

Each run is one row of the result file, written as soon as it ends; a second call with the same settings continues.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import planish
import torch
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
from torch import Tensor, nn

from planish_pretrain24.benchmark.tiny_gpt import TinyGPT, next_token_loss
from planish_pretrain24.decay_search import DecaySearch, find_decay
from planish_pretrain24.flip_rate import FLIP_RATE
from planish_pretrain24.s_ste import initial_scale
from planish_pretrain24.sparsifier import Pretrain24
from planish_pretrain24.state import layers, logical_weight
from planish_pretrain24.trial import plain_trial

NAME = "pretrain24-learning"
VARIANTS = ("dense", "ste", "fst", "fst+finish", "fst-mvue-off", "sste", "sste-dynamic-scale")


@dataclass(frozen=True)
class Settings:
    """What decides a run's numbers; rows of other settings are not continued."""

    width: int = 256
    layers: int = 4
    heads: int = 4
    length: int = 256
    batch: int = 32
    steps: int = 3000
    warmup: int = 200
    learning_rate: float = 5e-4
    weight_decay: float = 0.1
    mask_interval: int = 10
    dense_finish: float = 1 / 6
    search_steps: int = 200
    search_grid: tuple[float, ...] = (6e-5, 2e-4, 6e-4, 1e-3, 2e-3, 4e-3, 1e-2)
    validation_batches: int = 40
    corpus_bytes: int = 24_000_000
    device: str = "cpu"

    def rate(self, step: int) -> float:
        """Learning-rate factor at ``step`` (from 0): linear warm-up, then a cosine down to a tenth."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * min(done, 1.0)))


QUICK = Settings(
    width=32, layers=1, heads=2, length=32, batch=4, steps=24, warmup=8, mask_interval=2, search_steps=8,
    search_grid=(6e-5, 2e-3), validation_batches=2, corpus_bytes=1_000_000,
)  # fmt: skip
"""Sizes that show that the program works, not how the methods compare."""


def transform_of(variant: str, settings: Settings, decay: float, seed: int) -> Pretrain24:
    """The transform of a variant.

    Raises:
        ConfigError: There is no such variant.
    """
    options: dict[str, dict[str, Any]] = {
        "dense": {"method": "virtual"},
        "ste": {"decay": 0.0, "dense_finish": 0.0},
        "fst": {"decay": decay, "dense_finish": 0.0},
        "fst+finish": {"decay": decay, "dense_finish": settings.dense_finish},
        "fst-mvue-off": {"decay": decay, "dense_finish": 0.0, "mvue": "off"},
        "sste": {"method": "sste"},
        "sste-dynamic-scale": {"method": "sste"},
    }
    if variant.startswith("fst@"):
        options[variant] = {"decay": variant.removeprefix("fst@"), "dense_finish": 0.0}
    if variant not in options:
        raise ConfigError(f"variant {variant!r} is unknown; one of {', '.join(VARIANTS)}")
    return Pretrain24(
        {"mask_interval": settings.mask_interval, "seed": seed, "layer_metrics": False} | options[variant]
    )


class Experiment:
    """The pieces that all runs share: corpus, model, optimizer, schedule."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.train, self.held_out = read_corpus(settings.corpus_bytes)

    def model(self, seed: int) -> nn.Module:
        """A fresh model; the seed decides its weights."""
        torch.manual_seed(seed)
        s = self.settings
        return TinyGPT(s.width, s.layers, s.heads, s.length).to(s.device)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """AdamW with weight decay on matrices only."""
        s = self.settings
        matrices = [p for p in model.parameters() if p.dim() >= 2]
        others = [p for p in model.parameters() if p.dim() < 2]
        groups = [{"params": matrices, "weight_decay": s.weight_decay}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=s.learning_rate, betas=(0.9, 0.95), fused=s.device.startswith("cuda"))

    def schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Warm-up and cosine over the whole run."""
        return torch.optim.lr_scheduler.LambdaLR(optimizer, self.settings.rate)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Mean cross-entropy, in bfloat16 on a GPU."""
        with torch.autocast("cuda", torch.bfloat16, enabled=self.settings.device.startswith("cuda")):
            return next_token_loss(model, batch)

    def batches(self, seed: int) -> Any:
        """Training windows; the seed decides their order."""
        s = self.settings
        return windows(self.train, s.length, s.batch, seed=seed, device=s.device)

    @torch.no_grad()
    def validation_loss(self, model: nn.Module) -> float:
        """Mean loss in nats a byte over fixed windows of held-out files."""
        s = self.settings
        model.eval()
        held_out = windows(self.held_out, s.length, s.batch, seed=2**31, device=s.device)
        losses = [self.loss(model, batch) for _, batch in zip(range(s.validation_batches), held_out, strict=False)]
        model.train()
        return float(torch.stack(losses).mean())

    def find_decay(self, seed: int = 0) -> DecaySearch:
        """The decay factor for this setting, by trials over the warm-up of the run with this seed."""
        s = self.settings
        trial = plain_trial(
            lambda: self.model(seed), lambda: self.batches(seed), self.loss, self.optimizer, make_schedule=self.schedule
        )
        options = {"mask_interval": s.mask_interval, "search_steps": s.search_steps, "search_grid": s.search_grid}
        return find_decay(trial, config=Pretrain24({"decay": "auto", **options}).config)

    def run(self, variant: str, seed: int, decay: float) -> dict[str, Any]:
        """Train one variant from start to end; return the losses and the curves."""
        s = self.settings
        began = time.perf_counter()
        model = self.model(seed)
        transform = transform_of(variant, s, decay, seed)
        live = planish.apply(model, transform)
        optimizer = self.optimizer(model)
        schedule = self.schedule(optimizer)
        live.on_train_start(s.steps)
        flips: list[tuple[int, float]] = []
        scales: list[tuple[int, float]] = []
        losses: list[Tensor] = []
        loss_at_switch = math.nan
        switch = math.floor(s.steps * (1 - s.dense_finish) + 1e-6)
        for step, batch in zip(range(s.steps), self.batches(seed), strict=False):
            loss = self.loss(model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            live.on_gradients(step)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            losses.append(loss.detach())
            if step + 1 == switch:
                loss_at_switch = self.validation_loss(model)  # of the sparse model, where there is one
            metrics = live.on_step(step + 1)
            if FLIP_RATE in metrics:
                flips.append((step + 1, metrics[FLIP_RATE]))
            if variant == "sste-dynamic-scale":
                _follow_scale(model)
            if variant.startswith("sste") and (step + 1) % (10 * s.mask_interval) == 0:
                scales.append((step + 1, _mean_scale(model)))
        curve = torch.stack(losses).float().cpu()
        stride = max(1, s.steps // 200)
        tail = [rate for step, rate in flips if step > switch] or [math.nan]
        return {
            "variant": variant,
            "seed": seed,
            "decay": transform.config.decay if variant.startswith("fst") else None,
            "val_loss": self.validation_loss(model),
            "val_loss_at_5/6": loss_at_switch,
            "flip_rate_tail": sum(tail) / len(tail),
            "flip_rate": flips,
            "scale": scales,
            "train_loss": [(i + 1, round(float(curve[i]), 4)) for i in range(stride - 1, len(curve), stride)],
            "seconds": round(time.perf_counter() - began, 1),
        }


@torch.no_grad()
def _follow_scale(model: nn.Module) -> None:
    """Recompute every S-STE scale from the current weight: what the paper warns of."""
    for _, layer, state in layers(model):
        state.scale.copy_(initial_scale(logical_weight(layer, state)))


def _mean_scale(model: nn.Module) -> float:
    return float(torch.stack([state.scale for *_, state in layers(model)]).mean())


def oracle_passed(device: str) -> bool:
    """Whether the emulated matmuls agree with float64 masked references on this machine."""
    from planish_kernels.nn import EncodedLinear

    torch.manual_seed(0)
    for method in ("fst", "sste"):
        model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)).to(device)
        planish.apply(model, Pretrain24(method=method, mvue="off", execution="emulate"))
        for _, layer, state in layers(model):
            assert isinstance(layer, EncodedLinear)
            x = torch.randn(12, layer.in_features, device=device, requires_grad=True)
            grad = torch.randn(12, layer.out_features, device=device)
            layer(x).backward(grad)
            weight, bias = logical_weight(layer, state).double(), layer.bias.detach().double()
            if method == "fst":
                sparse = torch.where(state.kept(), weight, 0)
            else:
                groups = weight.abs().view(weight.shape[0], -1, 4)
                threshold = groups.sort(-1).values[..., 1:2]
                soft = ((groups - threshold).clamp(min=0) * weight.view_as(groups).sign()).view_as(weight)
                sparse = soft * (weight * soft).sum() / soft.square().sum()
            expected = {
                "output": (x.detach().double() @ sparse.t() + bias, layer(x).detach()),
                "grad_input": (grad.double() @ sparse, x.grad),
                "grad_weight": (grad.double().t() @ x.detach().double(), layer.weight.grad),
            }
            for reference, found in expected.values():
                assert found is not None
                if float((found.double() - reference).norm() / reference.norm()) > 1e-5:
                    return False
    return True


def row_of(found: Mapping[str, Any], settings: Settings) -> Row:
    """One run as a row of the result file."""
    return Row(
        case=f"gpt-d{settings.width}-l{settings.layers}/{found['variant']}/seed{found['seed']}",
        metric="val_loss",
        unit="nats/byte",
        better="lower",
        ours=Measurement.of([found["val_loss"]]),
        extra={**found, "settings": json.loads(json.dumps(asdict(settings)))},
    )


def search_row(search: DecaySearch, settings: Settings) -> Row:
    """The decay search as a row: mu of the chosen factor, and the table."""
    chosen = next(trial for trial in search.trials if trial.decay == search.chosen)
    return Row(
        case=f"gpt-d{settings.width}-l{settings.layers}/find_decay",
        metric="mu",
        unit="ratio of flip rates",
        better="lower",
        ours=Measurement.of([chosen.mu]),
        extra={"search": json.loads(json.dumps(asdict(search))), "settings": json.loads(json.dumps(asdict(settings)))},
    )


def _worker(variant: str, seed: int, decay: float, settings: Settings) -> Row:
    if settings.device == "cpu":
        torch.set_num_threads(1)
    return row_of(Experiment(settings).run(variant, seed, decay), settings)


def run(
    settings: Settings,
    *,
    seeds: int = 3,
    variants: tuple[str, ...] = VARIANTS,
    path: Path | None = None,
    jobs: int = 1,
    command: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> BenchmarkResult:
    """Run what is missing, and return (and keep writing) the result.

    Args:
        settings: Sizes.
        seeds: How many seeds of each variant, from 0 on.
        variants: Which variants, out of ``VARIANTS``.
        path: The result file; rows in it with equal settings are kept. None keeps nothing.
        jobs: Processes that run at a time.
        command: What the result says it came from.
        say: Told one line after each run.

    Raises:
        ConfigError: A variant is unknown.
        WorkError: The file cannot be written.
    """
    for variant in variants:
        transform_of(variant, settings, 0.0, 0)
    as_json = json.loads(json.dumps(asdict(settings)))
    rows: dict[str, Row] = {}
    if path is not None and path.exists():
        rows = {row.case: row for row in read_result(path).rows if row.extra.get("settings") == as_json}
    frame = collect(NAME, [], oracle_passed=oracle_passed(settings.device), command=command)
    experiment: Experiment | None = None

    def keep(row: Row) -> BenchmarkResult:
        rows[row.case] = row
        ordered = [rows[case] for case in sorted(rows)]
        result = frame.model_copy(update={"rows": ordered, "notes": summary(ordered)})
        if path is not None:
            write_result(result, path)
        return result

    prefix = f"gpt-d{settings.width}-l{settings.layers}"
    known = rows.get(f"{prefix}/find_decay")
    if known is None:
        experiment = Experiment(settings)
        search = experiment.find_decay()
        say(str(search))
        known = search_row(search, settings)
    result = keep(known)
    decay = float(known.extra["search"]["chosen"])
    missing = [(v, s) for s in range(seeds) for v in variants if f"{prefix}/{v}/seed{s}" not in rows]
    if jobs <= 1:
        for variant, seed in missing:
            experiment = experiment or Experiment(settings)
            row = row_of(experiment.run(variant, seed, decay), settings)
            result = keep(row)
            say(_line(row))
        return result
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        pending: list[Future[Row]] = [pool.submit(_worker, v, s, decay, settings) for v, s in missing]
        for done in as_completed(pending):
            result = keep(done.result())
            say(_line(done.result()))
    return result


def _line(row: Row) -> str:
    extra = row.extra
    return (
        f"{row.case}: val_loss {row.ours.median:.4f} (at 5/6: {extra['val_loss_at_5/6']:.4f}), "
        f"flip rate at the end {extra['flip_rate_tail']:.3e}, {extra['seconds']} s"
    )


def summary(rows: list[Row]) -> list[str]:
    """One line for each variant: means over seeds of the loss and of the flip rate in the last sixth."""
    by_variant: dict[str, list[Row]] = {}
    for row in rows:
        if row.metric == "val_loss":
            by_variant.setdefault(row.extra["variant"], []).append(row)
    lines = []
    for variant in sorted(by_variant, key=lambda name: (VARIANTS.index(name) if name in VARIANTS else 99, name)):
        group = by_variant[variant]
        losses = [row.ours.median for row in group]
        tails = [row.extra["flip_rate_tail"] for row in group]
        spread = max(losses) - min(losses)
        lines.append(
            f"{variant}: val_loss {sum(losses) / len(losses):.4f} (range {spread:.4f}, {len(group)} seeds), "
            f"flip rate in the last sixth {sum(tails) / len(tails):.3e} a step"
        )
    return lines


def bench(options: BenchmarkOptions) -> BenchmarkResult:
    """``planish bench pretrain24-learning``: three seeds of all variants, or with ``quick`` one of a tiny model."""
    settings = replace(QUICK if options.quick else Settings(), device=options.device)
    return run(settings, seeds=1 if options.quick else 3, command=options.command, say=print)


def main(arguments: list[str] | None = None) -> int:
    """``python3 -m planish_pretrain24.benchmark.learning --json PATH``: 0 if all went well, 2 for wrong input."""
    parser = argparse.ArgumentParser(prog="python3 -m planish_pretrain24.benchmark.learning", description=__doc__)
    parser.add_argument("--json", type=Path, help="result file; rows that are in it already are not run again")
    parser.add_argument("--plot", type=Path, help="draw the flip-rate figure here (SVG) from the result")
    parser.add_argument("--quick", action="store_true", help="a tiny model and one seed, to see that it works")
    parser.add_argument("--seeds", type=int, help="how many seeds (3; with --quick 1)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time; small models leave a GPU idle alone")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="comma-separated")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name, kind in (("width", int), ("layers", int), ("heads", int), ("length", int), ("batch", int),
                       ("steps", int), ("warmup", int), ("learning-rate", float), ("mask-interval", int),
                       ("search-steps", int)):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind)
    given = parser.parse_args(arguments)
    overrides = {
        field: getattr(given, field)
        for field in ("width", "layers", "heads", "length", "batch", "steps", "warmup", "learning_rate",
                      "mask_interval", "search_steps")
        if getattr(given, field) is not None
    }  # fmt: skip
    settings = replace(QUICK if given.quick else Settings(), device=given.device, **overrides)
    seeds = given.seeds if given.seeds is not None else (1 if given.quick else 3)
    command = shlex.join(["python3", "-m", "planish_pretrain24.benchmark.learning", *(arguments or sys.argv[1:])])
    try:
        result = run(
            settings, seeds=seeds, variants=tuple(given.variants.split(",")), path=given.json, jobs=given.jobs,
            command=command, say=lambda line: print(line, flush=True),
        )  # fmt: skip
        if given.plot is not None:
            from planish_pretrain24.benchmark.flip_rate_plot import plot

            plot(result, given.plot)
    except PlanishError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for line in result.notes:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
