"""Which of cuSPARSELt's kernels is fastest for a problem: timed once, remembered in the process and on disk.

The library's own search takes seconds for large shapes, and its default algorithm loses to a dense matmul (H200,
bfloat16, transposed product), so each algorithm is timed here with a few runs on the caller's operands.
"""

from __future__ import annotations

import functools
import json
import re
import threading
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from planish_kernels.cusparselt.library import CuSparseLtError, library
from planish_kernels.cusparselt.plan import Plan, Problem
from planish_kernels.runtime.disk_cache import cache_dir, read_cached, write_cached

#: Dtypes whose algorithms may all be tried. Of the float16 ones some stop the GPU with an illegal instruction (version
#: 0.8 on an H200, the library's own search too), which ends the process's CUDA context: float16 keeps to the default.
SEARCHED_DTYPES = (torch.bfloat16, torch.int8)

_FINALISTS = 3
_FINAL_ROUNDS = 5
_AGREEMENT = 1e-2

_LOCK = threading.RLock()
_PLANS: dict[tuple[int, Problem], Plan] = {}


class UnsearchedWarning(UserWarning):
    """A product was captured in a CUDA graph before its algorithm was searched: it runs on a slower one."""


def plan_for(problem: Problem, sparse: Tensor, dense: Tensor, out: Tensor) -> Plan:
    """The plan of a problem on the operands' device, with its fastest algorithm.

    The first question about a problem searches: it overwrites ``out`` many times and waits for the device. Inside a
    CUDA graph capture, where that is impossible, the default algorithm is taken with a warning, unless an earlier
    process has left the answer on disk.
    """
    index = sparse.device.index
    plan = _PLANS.get((index, problem))
    if plan is not None:
        return plan
    with _LOCK:
        plan = _PLANS.get((index, problem))
        if plan is None:
            plan = _first_plan(problem, index, sparse, dense, out)
            if plan is not None:
                _PLANS[index, problem] = plan
                return plan
            return Plan(problem, index)
        return plan


def forget_plans() -> None:
    """Drop every plan of this process (those on disk stay)."""
    with _LOCK:
        _PLANS.clear()
        _remembered.cache_clear()


def _first_plan(problem: Problem, index: int, sparse: Tensor, dense: Tensor, out: Tensor) -> Plan | None:
    if problem.dtype not in SEARCHED_DTYPES:
        return Plan(problem, index)
    known = _remembered(index)
    name = _name(problem)
    if name in known:
        try:
            return Plan(problem, index, known[name])
        except CuSparseLtError:
            del known[name]
    if torch.cuda.is_current_stream_capturing():
        warnings.warn(
            f"a 2:4 product {name} is captured in a CUDA graph before its algorithm was searched, and runs on the "
            "default one: run the model once before capturing",
            UnsearchedWarning,
            stacklevel=3,
        )
        return None
    plan = search(problem, sparse, dense, out)
    _remember(index, name, plan.algorithm)
    return plan


def search(problem: Problem, sparse: Tensor, dense: Tensor, out: Tensor) -> Plan:
    """Time every algorithm on these operands and return a plan with the fastest; ``out`` is overwritten.

    An algorithm that fails, or whose product differs from the default's, is passed over.
    """
    index = sparse.device.index
    default = Plan(problem, index)
    default.run(sparse, dense, out)
    expected = out.clone()
    scale = torch.linalg.vector_norm(expected.float())
    timed: list[tuple[float, Plan]] = []
    for algorithm in range(default.algorithms):
        try:
            plan = Plan(problem, index, algorithm) if algorithm else default
            plan.run(sparse, dense, out)
            timed.append((_milliseconds(plan, sparse, dense, out), plan))
        except CuSparseLtError:
            continue
    timed.sort(key=lambda pair: pair[0])
    finalists = [plan for _, plan in timed if _agrees(plan, sparse, dense, out, expected, scale)][:_FINALISTS]
    times: dict[int, list[float]] = {plan.algorithm: [] for plan in finalists}
    for _ in range(_FINAL_ROUNDS):
        for plan in finalists:
            times[plan.algorithm].append(_milliseconds(plan, sparse, dense, out))
    return min(finalists, key=lambda plan: sorted(times[plan.algorithm])[_FINAL_ROUNDS // 2], default=default)


def _agrees(plan: Plan, sparse: Tensor, dense: Tensor, out: Tensor, expected: Tensor, scale: Tensor) -> bool:
    plan.run(sparse, dense, out)
    # Not a number differs from everything: a NaN among the operands must not decide, so it is left out on both sides.
    difference = torch.nan_to_num(out.float() - expected.float(), nan=0.0, posinf=0.0, neginf=0.0)
    return bool(torch.linalg.vector_norm(difference) <= _AGREEMENT * scale.nan_to_num(torch.inf))


def _milliseconds(plan: Plan, sparse: Tensor, dense: Tensor, out: Tensor) -> float:
    cuda: Any = torch.cuda
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    start.record()
    plan.run(sparse, dense, out)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def _name(problem: Problem) -> str:
    layouts = ("nt"[problem.dense_transposed]) + ("nt"[problem.out_transposed])
    dtypes = f"{problem.dtype}-{problem.out_dtype}".replace("torch.", "")
    return f"{problem.m}x{problem.n}x{problem.k}-{dtypes}-{layouts}"


@functools.cache
def _remembered(index: int) -> dict[str, int]:
    """The algorithms that an earlier process found for this GPU and library version; it is the caller's to change."""
    content = read_cached(_path(index))
    if content is None:
        return {}
    try:
        return {str(name): int(algorithm) for name, algorithm in json.loads(content).items()}
    except (ValueError, AttributeError):
        return {}


def _remember(index: int, name: str, algorithm: int) -> None:
    known = _remembered(index)
    known[name] = algorithm
    try:
        others = json.loads(read_cached(_path(index)) or b"{}")
    except ValueError:
        others = {}
    write_cached(_path(index), json.dumps({**others, **known}, indent=0, sort_keys=True).encode())


def _path(index: int) -> Path:
    gpu = re.sub(r"[^A-Za-z0-9]+", "-", torch.cuda.get_device_name(index)).strip("-").lower()
    version = ".".join(map(str, library().version))
    return cache_dir("cusparselt") / f"{gpu}-{version}.json"
