"""The tables of the documentation's section "Measured", drawn from the two result files and nothing else.

A page has a pair of comments for each result, ``<!-- measured: NAME -->`` and ``<!-- /measured -->``; what stands
between them is replaced.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from planish.atomic import replacing
from planish.benchmark import BenchmarkResult, Row, read_result
from planish.errors import DataError, PlanishError

from planish_pretrain24.benchmark.ffn_speed import DENSE

_VARIANTS = {
    "dense": "dense, masks only observed",
    "ste": "STE: transposable masks, no decay",
    "fst": "FST, sparse to the end",
    "fst+finish": "FST, dense finish",
    "fst-mvue-off": "FST, sparse to the end, dense weight gradient",
    "sste": "S-STE",
    "sste-dynamic-scale": "S-STE, scale recomputed after every step",
}
_SHORT = {"dense": "dense", "ste": "STE", "fst": "FST", "sste": "S-STE"}


def learning(result: BenchmarkResult) -> str:
    """The tables of the learning experiment, as Markdown.

    Raises:
        DataError: A method of the tables has no run.
    """
    runs: dict[str, dict[int, Mapping[str, Any]]] = {variant: {} for variant in _VARIANTS}
    search: Mapping[str, Any] | None = None
    for row in result.rows:
        if row.metric == "mu":
            search = row.extra["search"]
        elif row.extra["variant"] in runs:
            runs[row.extra["variant"]][row.extra["seed"]] = row.extra
    lacking = [variant for variant, group in runs.items() if not group]
    if lacking or search is None:
        raise DataError(f"{result.benchmark} holds no run of {', '.join(lacking) or 'find_decay'}; run it first")
    losses = {variant: [run["val_loss"] for run in group.values()] for variant, group in runs.items()}
    flips = {variant: _mean([run["flip_rate_tail"] for run in group.values()]) for variant, group in runs.items()}
    dense = _mean(losses["dense"])
    settings = runs["dense"][0]["settings"]
    lines = [
        f"A GPT of width {settings['width']} with {settings['layers']} layers, {settings['steps']} steps of "
        f"{settings['batch']} windows of {settings['length']} bytes, masks searched every {settings['mask_interval']} "
        f"steps, {len(runs['dense'])} seeds. {_machine(result)}. At this width matmuls are emulated: these are results "
        "of the methods, not of the kernels.",
        "",
        *_table(
            (
                "method",
                "final validation loss, nats per byte: mean (lowest to highest)",
                "above dense",
                "flip rate, last sixth",
            ),
            [
                (
                    label,
                    f"{_mean(losses[v]):.4f} ({min(losses[v]):.4f} to {max(losses[v]):.4f})",
                    "–" if v == "dense" else f"{100 * (_mean(losses[v]) / dense - 1):.1f} %",
                    f"{flips[v]:.2e}",
                )
                for v, label in _VARIANTS.items()
            ],
        ),
        "",
        "Flip rates in the last sixth, from the highest: "
        + ", ".join(_SHORT[v] for v in sorted(_SHORT, key=lambda v: -flips[v]))
        + ". Seed by seed, the final losses of FST:",
        "",
        *_table(
            ("seed", "sparse to the end", "dense finish", "difference", "dense weight gradient", "difference"),
            [
                (
                    str(seed),
                    f"{(sparse := runs['fst'][seed]['val_loss']):.4f}",
                    f"{(finished := runs['fst+finish'][seed]['val_loss']):.4f}",
                    f"{finished - sparse:+.4f}",
                    f"{(exact := runs['fst-mvue-off'][seed]['val_loss']):.4f}",
                    f"{exact - sparse:+.4f}",
                )
                for seed in sorted(runs["fst"])
            ],
        ),
        "",
        f"The search of the decay (`decay: auto`), over steps {search['first_step']} to {search['steps']} of seed 0; "
        f"the dense run's flip rate there is {search['dense_flip_rate']:.2e}, and {search['chosen']:g} was chosen:",
        "",
        *_table(
            ("decay", *(f"{trial['decay']:g}" for trial in search["trials"])),
            [
                ("μ", *(f"{trial['mu']:.2f}" for trial in search["trials"])),
                ("feasible", *("yes" if trial["feasible"] else "no" for trial in search["trials"])),
            ],
        ),
        "",
        "The scale of S-STE, mean over layers and seeds:",
        "",
        *_scales(runs),
    ]
    return "\n".join(lines)


def _scales(runs: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[str]:
    curves = {
        variant: {
            at[0][0]: _mean([rate for _, rate in at])
            for at in zip(*(run["scale"] for run in runs[variant].values()), strict=True)
        }
        for variant in ("sste", "sste-dynamic-scale")
    }
    steps = list(curves["sste"])
    shown = sorted({*steps[:: max(1, len(steps) // 6)], steps[-1]})
    return _table(
        ("step", *map(str, shown)),
        [
            (label, *(f"{curves[variant][step]:.4f}" for step in shown))
            for variant, label in (("sste", "frozen"), ("sste-dynamic-scale", "recomputed"))
        ],
    )


def speed(result: BenchmarkResult) -> str:
    """The tables of the speed benchmark, as Markdown."""
    times = [row for row in result.rows if row.case.startswith("ffn/") and row.metric == "time"]
    memory = [row for row in result.rows if row.metric.startswith("peak memory")]
    return "\n".join(
        [
            f"Forward and backward of whole feed-forward networks (`mlp`: d to 4d and back, GELU; `swiglu`: gated), "
            f"with packing, masked decay and a share of the mask search, beside the same network compiled dense in "
            f"bfloat16, both in CUDA graphs. {_machine(result)}.",
            "",
            *_table(
                ("network", "d", "tokens", "micro-steps", "dense, ms", "2:4, ms", "gain"),
                [
                    (*_case(row), f"{row.peers[DENSE].median:.2f}", f"{row.ours.median:.2f}", f"{_gain(row):.2f}×")
                    for row in times
                ],
            ),
            "",
            "Each matmul on its own against cuBLAS (1: the linear that widens, 2: the one that narrows):",
            "",
            *_matmuls(result),
            "",
            "Where the time of an optimizer step goes, in ms on the GPU:",
            "",
            *_shares(times),
            "",
            "Packing, beside the library's own compressor, which only compresses and draws no estimate:",
            "",
            *_table(
                ("operand", "fused, ms", "cusparseLtSpMMACompress2, ms"),
                [
                    (
                        row.case.removeprefix("pack/"),
                        f"{row.ours.median:.3f}",
                        f"{row.peers['cusparseLtSpMMACompress2'].median:.2f}",
                    )
                    for row in result.rows
                    if row.case.startswith("pack/")
                ],
            ),
            "",
            "Peak memory of one micro-step, with weights, gradients and activations:",
            "",
            *_table(
                (
                    "network",
                    "d",
                    "tokens",
                    "dense, MiB",
                    "2:4, MiB",
                    "of which packed weights, MiB",
                    "mask, bits a weight",
                ),
                [
                    (
                        *_case(row)[:3],
                        f"{row.peers[DENSE].median:.0f}",
                        f"{row.ours.median:.0f}",
                        f"{row.extra['packs_MiB']:.0f}",
                        f"{row.extra['mask_bits_per_weight']:g}",
                    )
                    for row in memory
                ],
            ),
        ]
    )


def _case(row: Row) -> tuple[str, str, str, str]:
    """Network, width, tokens and micro-steps of ``ffn/mlp/d4096/tokens16384/accumulation8``."""
    _, network, width, tokens, *accumulation = row.case.split("/")
    micro_steps = accumulation[0].removeprefix("accumulation") if accumulation else ""
    return network, width.removeprefix("d"), tokens.removeprefix("tokens"), micro_steps


def _gain(row: Row) -> float:
    if row.gain is None:
        raise DataError(f"{row.case} has no gain: the oracle check failed where it was measured")
    return row.gain


def _matmuls(result: BenchmarkResult) -> list[str]:
    gains: dict[str, dict[str, str]] = {}
    for row in result.rows:
        if row.case.startswith("matmul/"):
            _, width, tokens, matmul = row.case.split("/")
            head = f"d {width.removeprefix('d')}, {tokens.removeprefix('tokens')} tokens"
            gains.setdefault(head, {})[matmul] = f"{_gain(row):.2f}×"
    names = list(next(iter(gains.values())))
    return _table(("", *names), [(head, *(found[name] for name in names)) for head, found in gains.items()])


def _shares(times: Sequence[Row]) -> list[str]:
    widest = max(int(_case(row)[1]) for row in times)
    chosen = [row for row in times if _case(row)[0] == "mlp" and int(_case(row)[1]) == widest]
    columns = [(row, side) for row in chosen for side in ("dense", "sparse")]
    kinds: dict[str, float] = {}
    for row, side in columns:
        for kind, took in row.extra["kernel_ms"][side].items():
            kinds[kind] = max(kinds.get(kind, 0.0), took)
    heads = [
        f"{'2:4' if side == 'sparse' else 'dense'}, {n} micro-step{'s' if n != '1' else ''}"
        for row, side in columns
        for n in [_case(row)[3]]
    ]
    cells = [
        (kind, *(f"{row.extra['kernel_ms'][side].get(kind, 0.0):.2f}" for row, side in columns))
        for kind in sorted(kinds, key=lambda kind: -kinds[kind])
    ]
    total = ("all", *(f"{sum(row.extra['kernel_ms'][side].values()):.2f}" for row, side in columns))
    return _table((f"mlp, d {widest}", *heads), [*cells, total])


def _machine(result: BenchmarkResult) -> str:
    commit = f", commit `{result.commit[:12]}`" if result.commit else ""
    return f"{result.hardware.gpu}, torch {result.versions['torch']}{commit}, `{result.command}`"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---", *(["---:"] * (len(heads) - 1))], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


SECTIONS: Mapping[str, Callable[[BenchmarkResult], str]] = {"pretrain24-learning": learning, "pretrain24": speed}
"""Name of a result file -> what draws its tables."""


def filled(page: str, results: Mapping[str, BenchmarkResult]) -> str:
    """The page with the tables of these results between its comments.

    Raises:
        DataError: The page has no place for one of them.
    """
    for name, result in results.items():
        place = re.compile(rf"(<!-- measured: {re.escape(name)} -->\n).*?(<!-- /measured -->)", re.DOTALL)
        if not place.search(page):
            raise DataError(f"the page has no comment <!-- measured: {name} --> with <!-- /measured --> after it")
        tables = SECTIONS[name](result)
        page = place.sub(lambda found, tables=tables: f"{found[1]}{tables}\n{found[2]}", page)  # type: ignore[misc]
    return page


def _results(folder: Path) -> Iterator[tuple[str, BenchmarkResult]]:
    for name in SECTIONS:
        yield name, read_result(folder / f"{name}.json")


def main(arguments: list[str] | None = None) -> int:
    """``python3 -m planish_pretrain24.benchmark.measured_tables docs/benchmarks docs/plugins/pretrain24.md``."""
    parser = argparse.ArgumentParser(
        prog="python3 -m planish_pretrain24.benchmark.measured_tables", description=__doc__
    )
    parser.add_argument("results", type=Path, help="folder that has pretrain24.json and pretrain24-learning.json")
    parser.add_argument("page", type=Path, help="Markdown page to fill")
    given = parser.parse_args(arguments)
    try:
        page = filled(given.page.read_text(), dict(_results(given.results)))
        with replacing(given.page) as beside:
            beside.write_text(page)
    except PlanishError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
