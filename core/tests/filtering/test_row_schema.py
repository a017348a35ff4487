"""Rows become Arrow tables and come back equal."""

import math
from datetime import UTC, datetime
from typing import Literal

import pyarrow as pa
import pytest
from planish.errors import DataError, PluginError
from planish.filtering.row_schema import BOOKKEEPING, row_schema, to_rows, to_table
from planish.interfaces import Row
from pydantic import BaseModel, Field


class Part(BaseModel):
    name: str
    weight: float


class Everything(Row):
    score: float | None = Field(None, description="a number")
    count: int | None = None
    works: bool | None = None
    word: str | None = None
    level: Literal["low", "high"] | None = None
    values: list[float | None] | None = None
    triple: tuple[float, float, float] | None = None
    nested: list[list[int]] | None = None
    mapping: dict[str, float] | None = None
    part: Part | None = None
    either: int | str | None = None


BESIDE = {
    "sequence": 0,
    "fingerprint": "f",
    "source_size": None,
    "source_mtime_ns": None,
    "source_sha256": None,
    "scored_at": datetime(2026, 1, 2, tzinfo=UTC),
    "filter": "x",
    "metric_version": 1,
    "params_hash": "h",
    "distribution_version": "1",
}


def there_and_back(rows, columns=Everything):
    table = to_table(rows, [BESIDE | {"sequence": n} for n in range(len(rows))], row_schema(columns))
    return list(to_rows(table, columns))


def test_rows_come_back_equal():
    full = Everything(
        clip_id="a",
        score=0.1 + 0.2,
        count=-(2**62),
        works=False,
        word="naïve ✓",
        level="low",
        values=[1.5, None, 1e-310],
        triple=(0.1, 0.2, 0.3),
        nested=[[1, 2], [], [3]],
        mapping={"b": 1.5},
        part=Part(name="n", weight=1 / 3),
        either="7",
    )
    rows = [full, Everything(clip_id="b", error="why not"), Everything(clip_id="c", values=[])]
    assert there_and_back(rows) == rows


def test_not_a_number_is_no_null():
    (row,) = there_and_back([Everything(clip_id="a", score=math.nan, values=[math.inf])])
    assert math.isnan(row.score)
    assert row.values == [math.inf]


def test_types_are_those_of_arrow_where_arrow_has_them():
    schema = row_schema(Everything)
    assert schema.names[: len(Everything.model_fields)] == list(Everything.model_fields)
    assert schema.names[len(Everything.model_fields) :] == BOOKKEEPING.names
    assert schema.field("score").type == pa.float64()
    assert schema.field("score").metadata[b"description"] == b"a number"
    assert schema.field("values").type == pa.list_(pa.float64())
    assert schema.field("triple").type == pa.list_(pa.float64())
    assert schema.field("nested").type == pa.list_(pa.list_(pa.int64()))
    assert schema.field("level").type == pa.string()
    assert b"encoding" not in schema.field("level").metadata
    for name in ("mapping", "part", "either"):
        assert schema.field(name).metadata[b"encoding"] == b"json"
    assert not schema.field("clip_id").nullable
    assert schema.field("works").nullable


def test_a_column_with_a_bookkeeping_name_is_refused():
    class Clash(Row):
        fingerprint: str | None = None

    with pytest.raises(PluginError, match=r"column 'fingerprint' of .*Clash is a name that planish needs"):
        row_schema(Clash)


def test_a_value_beyond_its_column_names_the_column():
    with pytest.raises(DataError, match="column 'count' cannot be stored as int64"):
        there_and_back([Everything(clip_id="a", count=2**70)])


@pytest.mark.parametrize("value", [{"either": "caf\udce9"}, {"part": Part(name="caf\udce9", weight=1.0)}])
def test_text_that_is_not_utf8_names_the_column_even_within_json(value):
    with pytest.raises(DataError, match=f"column '{next(iter(value))}' cannot be stored as string"):
        there_and_back([Everything(clip_id="a", **value)])
    (row,) = there_and_back([Everything(clip_id="a", part=Part(name="café 😀", weight=1.0))])
    assert row.part.name == "café 😀"


def test_rows_of_other_columns_are_refused():
    class More(Everything):
        extra: float | None = None

    class Stricter(Row):
        score: int | None = None

    table = to_table([Everything(clip_id="a", score=0.5)], [BESIDE], row_schema(Everything))
    with pytest.raises(DataError, match=r"no column 'extra'.*metric_version"):
        list(to_rows(table, More))
    with pytest.raises(DataError, match=r"row of clip 'a' is none of .*Stricter \(score: "):
        list(to_rows(table, Stricter))
