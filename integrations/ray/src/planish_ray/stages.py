"""The stages of a data filter as a part of one's own Ray Data pipeline."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from typing import Any, cast

import pyarrow as pa
from planish.errors import ConfigError, DataError
from planish.filtering.row_schema import BOOKKEEPING, row_schema
from planish.interfaces.data_filter import Clip, DataFilter
from planish.interfaces.engine import FilterJob

from planish_ray.execution import add_segments
from planish_ray.isolated_stages import Lost
from planish_ray.segment import fit, segments_of
from planish_ray.stage_worker import packs_table, pickled_works


def map_stages(
    dataset: Any,
    data_filter: DataFilter,
    *,
    workers: int | None = None,
    batch_size: int | None = None,
    timeout_s: float | None = 600.0,
) -> Any:
    """Return a dataset with the filter's columns beside those of a dataset of clips.

    Nothing runs yet. Stages without a GPU run in a pool of actors, each stage with a GPU in another; a clip that cannot
    be scored, that takes its process down or that takes too long has a text in ``error`` and null in the filter's other
    columns.

    Args:
        dataset: A ``ray.data.Dataset`` with a row a clip, such as a manifest that ``ray.data.read_parquet`` reads. Of
            its columns ``id`` and ``path`` (text) must be there; ``start_s``, ``end_s`` (seconds) and ``text`` may be;
            ``extra.NAME`` becomes the clip's ``extra["NAME"]``. All columns stay.
        data_filter: The filter; its class must be importable on the machines of the cluster.
        workers: Workers of the stages without a GPU; None for one a core.
        batch_size: Clips that travel together; None for what the first stage takes at a time.
        timeout_s: Seconds that a clip may take; None for no limit.

    Returns:
        A ``ray.data.Dataset``; its rows are in no particular order.

    Raises:
        ConfigError: A number is out of bounds.
        UnsupportedError: A stage asks for more GPUs than the cluster has.
        DataError: When it runs: a clip lacks an id or a path, or two columns have the same name. Ray Data wraps it.
        WorkError: When it runs: the filter cannot be built on a worker. Ray Data wraps it.
    """
    import ray

    for name, value in (("workers", workers), ("batch_size", batch_size), ("timeout_s", timeout_s)):
        if value is not None and value <= 0:
            raise ConfigError(f"{name} is {value}; expected more than 0")
    if not ray.is_initialized():
        ray.init()
    stages = data_filter.stages()
    size = batch_size or stages[0].batch_size
    have = ray.cluster_resources()
    cpus = have.get("CPU", 1.0)
    # What reads the clips needs a core, which pools that reserved them all would never give.
    segments = fit(
        segments_of(stages),
        cpus=max(cpus - 1.0, cpus / 2),
        gpus=have.get("GPU", 0.0),
        workers=workers or max(1, int(cpus // max(stages[0].cpus, 1.0))),
    )
    schema = pa.schema([field for field in row_schema(data_filter.Columns) if field.name not in BOOKKEEPING.names])
    packs = dataset.repartition(target_num_rows_per_block=size).map_batches(
        _pack, batch_size=size, batch_format="pyarrow", num_cpus=0, fn_kwargs={"taken": schema.names}
    )
    packs = add_segments(
        packs, FilterJob.of(data_filter), segments, result="values", pack_size=size, timeout_s=timeout_s
    )
    return packs.map_batches(_unpack, batch_size=1, batch_format="pyarrow", num_cpus=0, fn_kwargs={"schema": schema})


def _pack(table: pa.Table, taken: list[str]) -> pa.Table:
    clash = [name for name in table.column_names if name in taken and name != "clip_id"]
    if clash:
        raise DataError(f"column {clash[0]!r} of the dataset is a column of the filter too; rename or drop it first")
    clips = [_clip(values) for values in table.to_pylist()]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return packs_table([0], [pickled_works(clips)], [sink.getvalue().to_pybytes()])


def _unpack(table: pa.Table, schema: pa.Schema) -> pa.Table:
    from planish.errors import WorkError

    (row,) = table.to_pylist()
    if row["failure"]:
        raise WorkError(row["failure"])
    results = [
        {"error": result.error} if isinstance(result, Lost) else cast(dict[str, Any], pickle.loads(result))
        for result in pickle.loads(row["data"])
    ]
    made = pa.ipc.open_stream(row["context"]).read_all()
    for field in schema:
        if field.name == "clip_id":
            continue
        values = [_stored(result.get(field.name), field) for result in results]
        made = made.append_column(field, pa.array(values, field.type))
    return made


def _stored(value: Any, field: pa.Field) -> Any:
    import json

    is_json = bool(field.metadata) and field.metadata.get(b"encoding") == b"json"
    return json.dumps(value) if is_json and value is not None else value


def _clip(values: Mapping[str, Any]) -> Clip:
    for name in ("id", "path"):
        if not isinstance(values.get(name), str):
            found = f"is {values[name]!r}" if name in values else f"is not among {', '.join(values)}"
            raise DataError(f"column {name!r} {found}; a clip needs an id and a path, as text")
    start, end = _seconds(values, "start_s"), _seconds(values, "end_s")
    extra = {name.removeprefix("extra."): value for name, value in values.items() if name.startswith("extra.")}
    return Clip(values["id"], values["path"], start or 0.0, end, values.get("text"), extra)


def _seconds(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, int | float):
        raise DataError(f"clip {values['id']!r}: {name} is {value!r}; expected seconds as a number, or null")
    return float(value)
