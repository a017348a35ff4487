"""Trains a suite's model in two processes over gloo.

The processes are forked from a clean server that has imported torch and nothing has run in, so that a second use
costs no import. They find the suite by file and name: pytest's import mode gives test modules names that a new
process cannot import.
"""

from __future__ import annotations

import importlib.util
import inspect
import multiprocessing
import os
import sys
import tempfile
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

TIMEOUT = 120.0
"""Seconds until two processes that do not answer are given up."""

Answer = dict[str, "dict[str, Tensor] | str"]
"""Wrapper -> parameters and evaluated output by name after training, or what went wrong."""


def run_on_two(suite: type, wrappers: list[str]) -> list[Answer]:
    """Train ``suite``'s transformed model in two processes, half a batch each, and return each one's answer.

    Args:
        suite: A subclass of :class:`planish.testing.transform.subject.TransformSubject`, defined at module level.
        wrappers: Of ``ddp`` and ``fsdp``.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "planish.testing.two_processes"])
    file = inspect.getfile(suite)
    with tempfile.TemporaryDirectory() as folder:
        workers = [
            context.Process(
                target=_work,
                args=(suite.__module__, file, suite.__qualname__, list(sys.path), wrappers, rank, folder),
                daemon=True,
            )
            for rank in range(2)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(TIMEOUT)
        answers: list[Answer] = []
        for rank, worker in enumerate(workers):
            path = Path(folder) / f"answer-{rank}.pt"
            if worker.is_alive():
                worker.terminate()
                worker.join()
                said = f"no answer within {TIMEOUT:.0f} s"
            else:
                said = f"it ended with exit code {worker.exitcode} and without an answer"
            answers.append(torch.load(path) if path.exists() else dict.fromkeys(wrappers, said))
    return answers


def _work(module: str, file: str, qualname: str, path: list[str], wrappers: list[str], rank: int, folder: str) -> None:
    sys.path[:] = path
    torch.set_num_threads(1)
    answer: Answer = {}
    try:
        suite = _find(module, file, qualname)()
        for wrapper in wrappers:
            dist.init_process_group("gloo", f"file://{folder}/{wrapper}", rank=rank, world_size=2)
            try:
                answer[wrapper] = _train(suite, wrapper, rank)
            finally:
                dist.destroy_process_group()
    except Exception as error:
        where = traceback.format_exc().strip().splitlines()[-3].strip()
        for wrapper in wrappers:
            answer.setdefault(wrapper, f"{type(error).__name__}: {error} ({where})")
    written = Path(folder) / f"answer-{rank}.part"
    torch.save(answer, written)
    written.rename(Path(folder) / f"answer-{rank}.pt")
    sys.stdout.flush()
    os._exit(0)  # a peer that failed earlier may have left gloo threads waiting


def _find(module: str, file: str, qualname: str) -> Any:
    loaded: ModuleType | None = sys.modules.get(module)
    if loaded is None:
        try:
            loaded = importlib.import_module(module)
        except ImportError:
            spec = importlib.util.spec_from_file_location(module, file)
            if spec is None or spec.loader is None:
                raise
            loaded = importlib.util.module_from_spec(spec)
            sys.modules[module] = loaded
            spec.loader.exec_module(loaded)
    found: Any = loaded
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def _train(suite: Any, wrapper: str, rank: int) -> dict[str, Tensor]:
    from planish.testing.training import make_optimizer, train

    model, live = suite.transformed()
    live.on_train_start(suite.steps)
    torch.manual_seed(30 + rank)
    called: nn.Module = model
    if wrapper == "ddp":
        called = nn.parallel.DistributedDataParallel(model)
    else:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        called = fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    batches = [suite.split_batch(batch)[rank] for batch in suite.make_batches(suite.steps)]
    train(called, live, make_optimizer(called, suite.learning_rate), batches, suite.loss)
    tensors = {name: _whole(parameter) for name, parameter in model.named_parameters()}
    return tensors | {"(output)": suite.evaluate(called)}


def _whole(tensor: Tensor) -> Tensor:
    """Return the full tensor of a sharded one."""
    gather = getattr(tensor, "full_tensor", None)
    whole: Tensor = tensor if gather is None else gather()
    return whole.detach().clone()
