"""Deciding all scored clips of a folder under a policy: from stored scores alone, without a look at any video."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from planish.atomic import replacing, write_text
from planish.config import Config
from planish.errors import DataError, PlanishError, PluginError
from planish.filtering.funnel import Funnel, FunnelCounter
from planish.filtering.identity import FilterIdentity
from planish.filtering.policy import policy_text
from planish.interfaces.data_filter import DataFilter, Decision, Row

if TYPE_CHECKING:
    import pyarrow as pa

DECISIONS = "decisions.parquet"
POLICY = "policy.yaml"
FUNNEL = "funnel.json"
_METADATA = b"planish"
_BATCH = 16_384


class Scores(Protocol):
    """What deciding needs of a store of scores; :class:`planish.filtering.store.ScoreStore` is one."""

    folder: Path
    """Folder that the decisions are written to."""

    @property
    def identity(self) -> FilterIdentity:
        """What the scores belong to."""

    def rows(self, data_filter: DataFilter) -> Iterator[Row]:
        """Return the rows of all scored clips, in an order that does not change."""


def decide_all(data_filter: DataFilter, store: Scores, policy: Config) -> Funnel:
    """Decide every scored clip and write ``decisions.parquet``, ``policy.yaml`` and ``funnel.json`` to the folder.

    The policy is first settled over all rows, which is where quantiles become numbers; then row after row is decided
    and written.

    Args:
        data_filter: The filter that made the scores.
        store: Its scores.
        policy: An instance of the filter's ``Policy``, such as :func:`planish.filtering.policy.read_policy` returns.

    Raises:
        DataError: There are no scores.
        PluginError: The filter cannot decide one of its own rows.
        WorkError: The folder cannot be written.
    """
    import pyarrow.parquet as pq

    counter = FunnelCounter()
    settled = _settle(data_filter, store, policy)
    given, used = policy.model_dump(mode="json"), settled.model_dump(mode="json")
    schema = _schema(_stamp(store.identity, used))
    with replacing(store.folder / DECISIONS) as beside, pq.ParquetWriter(beside, schema) as writer:
        for batch in _decided(data_filter, store.rows(data_filter), settled, counter):
            writer.write_batch(batch.as_record_batch(schema))
        if counter.clips == 0:
            raise DataError(f"{store.folder} holds no scores; run 'planish filter' on it first")
    funnel = counter.funnel(given, used)
    write_text(store.folder / POLICY, _policy_file(policy, settled, counter.clips))
    write_text(store.folder / FUNNEL, funnel.model_dump_json(indent=2) + "\n")
    return funnel


def read_decisions(folder: Path, identity: FilterIdentity) -> tuple[pa.Table, Funnel]:
    """Return what :func:`decide_all` wrote: clip_id, keep, reason and rules of every clip, and the funnel.

    Args:
        folder: Folder of the run.
        identity: What the scores belong to that must have been decided.

    Raises:
        DataError: Nothing was decided there, a file is damaged, the two do not belong together, or the decisions are
            about other scores.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    again = "run 'planish filter decide' on the folder"
    for name in (DECISIONS, FUNNEL):
        if not (folder / name).is_file():
            raise DataError(f"{folder} has no {name}: nothing was decided there; {again}")
    try:
        funnel = Funnel.model_validate_json((folder / FUNNEL).read_bytes())
        table = pq.read_table(folder / DECISIONS)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"the decisions in {folder} cannot be read: {error}; {again}") from None
    stamp = json.loads((table.schema.metadata or {}).get(_METADATA, b"{}"))
    if stamp.get("policy") != funnel.settled or table.num_rows != funnel.clips:
        raise DataError(f"{DECISIONS} and {FUNNEL} in {folder} are of different runs; {again}")
    if stamp.get("scores") != identity.key:
        raise DataError(
            f"{DECISIONS} in {folder} is about the scores {stamp.get('scores')}, not {identity.key}; {again}"
        )
    return table, funnel


@dataclass
class _Batch:
    clip_ids: list[str]
    decisions: list[Decision]

    def as_record_batch(self, schema: pa.Schema) -> pa.RecordBatch:
        import pyarrow as pa

        columns = [
            pa.array(self.clip_ids, pa.string()),
            pa.array([d.keep for d in self.decisions], pa.bool_()),
            pa.array([d.reason for d in self.decisions], pa.string()),
            pa.array([list(d.rules) for d in self.decisions], pa.list_(pa.string())),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=schema)


def _decided(data_filter: DataFilter, rows: Iterator[Row], settled: Config, counter: FunnelCounter) -> Iterator[_Batch]:
    batch = _Batch([], [])
    for row in rows:
        try:
            decision = data_filter.decide(row, settled)
        except PlanishError:
            raise
        except Exception as error:
            raise PluginError(
                f"{data_filter.name} cannot decide its own row of clip {row.clip_id!r}: {type(error).__name__}: "
                f"{error}; report it to the plugin's authors"
            ) from error
        counter.count(decision, row.error)
        batch.clip_ids.append(row.clip_id)
        batch.decisions.append(decision)
        if len(batch.clip_ids) == _BATCH:
            yield batch
            batch = _Batch([], [])
    if batch.clip_ids:
        yield batch


def _settle(data_filter: DataFilter, store: Scores, policy: Config) -> Config:
    if type(data_filter).settle is DataFilter.settle:
        return policy  # it would read every row for nothing
    return data_filter.settle(policy, store.rows(data_filter))


def _stamp(identity: FilterIdentity, settled: dict[str, Any]) -> bytes:
    """Return what ties the file to the scores and to the policy that they were decided under."""
    return json.dumps({"scores": identity.key, "policy": settled}).encode()


def _schema(stamp: bytes) -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("clip_id", pa.string(), nullable=False),
            pa.field("keep", pa.bool_(), nullable=False),
            pa.field("reason", pa.string(), nullable=False),
            pa.field("rules", pa.list_(pa.string()), nullable=False),
        ],
        metadata={_METADATA: stamp},
    )


def _policy_file(policy: Config, settled: Config, clips: int) -> str:
    text = policy_text(policy)
    if settled == policy:
        return text
    lines = policy_text(settled).splitlines()
    return f"{text}\n# Settled over {clips:,} clips:\n" + "".join(f"#   {line}\n" for line in lines)
