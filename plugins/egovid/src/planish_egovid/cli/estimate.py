"""``planish egovid estimate``: what cleaning so many clips takes."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from planish.cli.output import plain_table, print_json, print_table
from planish.cli.session import Json
from planish.errors import ConfigError


def estimate(
    clips: Annotated[int, typer.Option(min=1, help="Number of clips.")] = 5_000_000,
    result: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rates: a result of 'planish bench egovid --out FILE'.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Clips a second that one core scores; goes before --result.")
    ] = None,
    cores: Annotated[
        list[int] | None, typer.Option(min=1, help="Processor cores; may be given again. Left out: 2, 64 and 1000.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray to count what Ray costs in --result.")] = "local",
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=RATE", help="A model on GPUs and its clips a second on one; may be given again."),
    ] = None,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs, for --model.")] = 0,
    clip_bytes: Annotated[
        float | None, typer.Option(help="Bytes of video a clip; left out: 700 kB, as in Ego4D at 540p.")
    ] = None,
    row_bytes: Annotated[float | None, typer.Option(help="Bytes of stored scores a clip; left out: 400.")] = None,
    as_json: Json = False,
) -> None:
    """Estimate cores, hours and bytes from measured rates.

    Measure on a machine like yours first: planish bench egovid --device cpu --out rates.json.

    Example: planish egovid estimate --clips 5000000 --rate 1.6 --cores 64

    Example: planish egovid estimate --clips 5000000 --rate 1.6 --cores 64 --model clip=500 --gpus 1
    """
    from planish.benchmark import read_result

    from planish_egovid.benchmark.plan_5m import PUBLISHED_GPU_HOURS, Rates, Sizes, plan, rates_of

    if engine not in ("local", "ray"):
        raise ConfigError(f"--engine {engine!r}: expected local or ray")
    if result is not None:
        rates = rates_of(read_result(result), engine=engine)
        if rate is not None:
            rates = replace(rates, core=rate, sources=(f"{rate:g} clips/s a core: --rate", *rates.sources[1:]))
    elif rate is not None:
        rates = Rates(rate, sources=(f"{rate:g} clips/s a core: --rate",))
    else:
        raise ConfigError("no rate; give --rate, or --result with a result of 'planish bench egovid --out FILE'")
    models = tuple(_model(given) for given in model or ())
    rates = replace(rates, models=models)
    default = Sizes()
    sizes = Sizes(
        video=default.video if clip_bytes is None else clip_bytes,
        row=default.row if row_bytes is None else row_bytes,
    )
    plans = [plan(clips, rates, cores=count, gpus=gpus, sizes=sizes) for count in cores or (2, 64, 1000)]
    if as_json:
        print_json({"rates": asdict(rates), "sizes": asdict(sizes), "plans": [asdict(p) for p in plans]})
        return
    table = plain_table("CORES", "GPUS", "CORE HOURS", "GPU HOURS", "TIME", "SET BY", "READ", "READ/S", "SCORES")
    for p in plans:
        table.add_row(
            f"{p.cores:,}", f"{p.gpus:,}", f"{p.core_hours:,.0f}", f"{sum(p.gpu_hours.values()):,.0f}", _time(p.hours),
            p.bound_by, _bytes(p.read_bytes), f"{_bytes(p.read_bytes_per_s)}/s", _bytes(p.stored_bytes),
        )  # fmt: skip
    print(f"{clips:,} clips")
    print_table(table)
    for source in rates.sources:
        print(source)
    for name, per_s in models:
        print(f"{per_s:g} clips/s a GPU: --model {name}")
    if models:
        print(f"{_bytes(plans[0].handed_over_bytes)} of frames travel from processors to GPUs")
    print(
        f"for comparison: {PUBLISHED_GPU_HOURS * clips / 5e6:,.0f} GPU hours at the rates that EgoVid's scripts state "
        "for CLIP, flow, DOVER and EgoVideo"
    )


def _model(given: str) -> tuple[str, float]:
    name, equals, text = given.partition("=")
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not equals or not name or not value > 0:
        raise ConfigError(f"--model {given!r}: expected NAME=RATE, such as clip=500")
    return name, value


def _time(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.3g} {unit}"
