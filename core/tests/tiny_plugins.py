"""Plugins of every kind that the core's own tests need, each as small as its interface allows."""

from __future__ import annotations

import math
import os
import time
from typing import Literal

import planish
import torch
from planish.errors import DataError, WorkError
from planish.interfaces import (
    Claim,
    LanguageModel,
    Plan,
    PlannedModule,
    Quantizer,
    Runner,
    RunResult,
    Sparsifier,
)
from planish.targets import match, tied_parameters
from pydantic import Field
from torch import nn


@planish.hookimpl
def planish_register_quantizers(register):
    register("round", "tiny_plugins:Round", "round weights to a grid when finished")


@planish.hookimpl
def planish_register_sparsifiers(register):
    register("prune", "tiny_plugins:Prune", "keep the largest weights")
    register("thin", "tiny_plugins:Thin", "keep the largest weights, by another name")


@planish.hookimpl
def planish_register_language_models(register):
    register("tiny", "tiny_plugins:Tiny", "embedding, one layer, tied head")


@planish.hookimpl
def planish_register_runners(register):
    register("loop", "tiny_plugins:Loop", "a plain training loop")


@planish.hookimpl
def planish_register_commands(register):
    register("greet", "tiny_plugins:greet", "say hello")


@planish.hookimpl
def planish_register_benchmarks(register):
    register("sums", "tiny_plugins:bench_sums", "torch.sum beside a Python loop")
    register("wrong", "tiny_plugins:bench_wrong", "a method that is fast and wrong")


@planish.hookimpl
def planish_register_diagnostics(register):
    register("tiny-check", "tiny_plugins:diagnose", "one thing that is there and one that is not")


def _plan(transform, model, targets, claims):
    tied = tied_parameters(model)
    modules = []
    chosen = dict(model.named_modules()) if targets is None else match(model, targets)
    for name, module in chosen.items():
        if not isinstance(module, nn.Linear):
            continue
        if f"{name}.weight" in tied:
            modules.append(PlannedModule(name, False, f"weight is tied to {tied[f'{name}.weight'][0]}"))
        else:
            modules.append(PlannedModule(name, True, "a linear layer", claims))
    return Plan(transform.name, transform.config.model_dump(mode="json"), tuple(modules))


class Round(Quantizer):
    """Round weights to multiples of a step."""

    name = "round"
    summary = "round weights to a grid when finished"

    class Config(planish.Config):
        step: float = Field(0.125, gt=0, le=1, description="distance of neighbouring grid points")

    def plan(self, model, targets=None):
        return _plan(self, model, targets, (Claim("weight.values"),))

    def apply(self, model, plan):
        for m in plan.touched:
            model.get_submodule(m.name).register_buffer("step", torch.tensor(self.config.step))

    def finish(self, model):
        for module in model.modules():
            if isinstance(module, nn.Linear) and hasattr(module, "step"):
                module.weight.data = torch.round(module.weight.data / module.step) * module.step


class Prune(Sparsifier):
    """Keep the largest weights of each layer."""

    name = "prune"
    summary = "keep the largest weights"

    class Config(planish.Config):
        density: float = Field(0.5, gt=0, le=1, description="share of weights that stay")
        order: Literal["rows", "all"] = Field("all", description="where the largest are sought")

    def plan(self, model, targets=None):
        return _plan(self, model, targets, (Claim("weight.mask"),))

    def apply(self, model, plan):
        for m in plan.touched:
            weight = model.get_submodule(m.name).weight
            kept = max(1, round(self.config.density * weight.numel()))
            floor = weight.detach().abs().flatten().topk(kept).values[-1]
            model.get_submodule(m.name).register_buffer("mask", weight.detach().abs() >= floor)

    def on_step(self, model, step):
        for module in model.modules():
            if hasattr(module, "mask"):
                module.weight.data.mul_(module.mask)
        return {"density": self.density(model)}

    def masks(self, model):
        return {
            f"{n}.weight": m.mask
            for n, m in model.named_modules()
            if isinstance(getattr(m, "mask", None), torch.Tensor)
        }

    def finish(self, model):
        self.on_step(model, 0)


class Thin(Prune):
    """The same under another name."""

    name = "thin"
    summary = "keep the largest weights, by another name"


class TinyNet(nn.Module):
    def __init__(self, vocab_size, width, tied):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.head = nn.Linear(width, vocab_size, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens):
        hidden = self.embed(tokens)
        return self.head(hidden + self.down(torch.relu(self.up(hidden))))


class Tiny(LanguageModel):
    """A bigram model with one hidden layer."""

    name = "tiny"
    summary = "embedding, one layer, tied head"

    class Config(planish.Config):
        vocab_size: int = Field(32, ge=2, description="number of tokens")
        width: int = Field(8, ge=1, description="size of the hidden state")
        tied: bool = Field(True, description="whether the head shares the embedding's weight")

    def build(self):
        return TinyNet(self.config.vocab_size, self.config.width, self.config.tied)


class Loop(Runner):
    """Train on a counting sequence."""

    name = "loop"
    summary = "a plain training loop"

    class Config(planish.Config):
        max_steps: int = Field(5, ge=1, description="optimizer steps")
        lr: float = Field(1e-2, gt=0, description="learning rate")

    class Data(planish.Config):
        text: str = Field(description="what to train on: 'count', or something that goes wrong")

    def run(self, recipe, registry, options):
        from planish.recipe import build_model, compose
        from planish.report import ReportBuilder

        text = recipe.data["text"]
        if text == "empty":
            raise DataError("data.text: 'empty' holds no text; name a file with text in it")
        if text == "full":
            raise WorkError(f"cannot write {recipe.report}: No space left on device; free space")
        if text == "bug":
            raise RuntimeError("first line\nsecond line")
        report = ReportBuilder(recipe.report, recipe)
        for variant in ("baseline", "composed") if options.baseline else ("composed",):
            torch.manual_seed(recipe.seed)
            model = build_model(recipe.model, registry, trust_code=options.trust_code)
            live = compose(model, recipe.transforms, registry) if variant == "composed" else []
            self._train(model, live, report.variant(variant), interrupt=text == "interrupt")
            report.plans(one.plan for one in live)
        report.write("finished")
        return RunResult(recipe.report, report.report.model_dump(mode="json"))

    def _train(self, model, live, report, interrupt):
        optimizer = torch.optim.SGD(model.parameters(), lr=self.config.lr)
        tokens = torch.arange(16) % model.embed.num_embeddings
        for one in live:
            one.on_train_start(self.config.max_steps)
        loss = math.nan
        for step in range(1, self.config.max_steps + 1):
            begin = time.perf_counter()
            if interrupt and step == 3:
                raise KeyboardInterrupt
            found = nn.functional.cross_entropy(model(tokens[:-1]), tokens[1:])
            optimizer.zero_grad()
            found.backward()
            for one in live:
                one.on_gradients(step - 1)
            optimizer.step()
            metrics = {k: v for one in live for k, v in one.on_step(step).items()}
            loss = found.item()
            report.log(step, metrics, loss=loss, step_ms=1e3 * (time.perf_counter() - begin))
        report.summary(steps=self.config.max_steps, val_loss=loss, val_perplexity=math.exp(loss))
        report.modules(model)


def greet(name: str = "world", loudly: bool = False) -> None:
    """Say hello to NAME."""
    print(f"hello {name}{'!' if loudly else ''}")


def bench_sums(options):
    from planish.benchmark import Row, collect, interleave

    data = torch.arange(200.0)
    numbers = data.tolist()
    right = float(data.sum()) == sum(numbers)
    times = interleave(
        {"ours": data.sum, "python": lambda: math.fsum(numbers)}, device=options.device, rounds=5, shortest_ms=0.05
    )
    row = Row.compare("sum/200", times.pop("ours"), times, against="python", target=1.0)
    return collect("sums", [row], oracle_passed=right, command=options.command, notes=[f"quick={options.quick}"])


def bench_wrong(options):
    from planish.benchmark import Measurement, Row, collect

    fast, slow = Measurement(median=1, p20=1, p80=1), Measurement(median=9, p20=8, p80=10)
    row = Row.compare("nothing", fast, {"right": slow}, against="right")
    return collect("wrong", [row], oracle_passed=False, command=options.command)


def diagnose():
    return [
        {"name": "here", "ok": True, "detail": f"process {os.getpid() > 0}"},
        {"name": "gone", "ok": False, "detail": "not there", "fix": "fetch it"},
    ]
