"""map_stages: a filter inside one's own Ray Data pipeline."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("ray")

import ray
import ray_filters
from planish.errors import ConfigError
from planish.interfaces.data_filter import Clip
from planish_ray.stages import map_stages

pytestmark = pytest.mark.usefixtures("ray_on_two_cores")


def manifest(folder: Path, **columns: list) -> str:
    names = [f"clip{i}" for i in range(13)]
    texts = [{3: "unreadable", 7: "die", 9: "raise"}.get(i) for i in range(13)]
    table = {"id": names, "path": [f"/none/{i}" for i in range(13)], "text": texts, "camera": ["head"] * 13, **columns}
    pq.write_table(pa.table(table), folder / "manifest.parquet")
    return str(folder / "manifest.parquet")


@pytest.mark.parametrize("kind", [ray_filters.Counting, ray_filters.Staged])
def test_columns_stand_beside_those_of_the_manifest(tmp_path: Path, kind) -> None:
    data_filter = kind(offset=2)
    dataset = map_stages(ray.data.read_parquet(manifest(tmp_path)), data_filter, batch_size=4)
    found = {row["id"]: row for row in dataset.filter(lambda row: row["camera"] == "head").take_all()}
    assert len(found) == 13
    clips = [Clip(f"clip{i}", f"/none/{i}") for i in range(13) if i not in (3, 7, 9)]
    for row in data_filter.score(clips):
        assert found[row.clip_id].items() >= {**row.model_dump(exclude={"clip_id"}), "camera": "head"}.items()
    assert {name: row["error"] for name, row in found.items() if row["error"]} == {
        "clip3": "cannot read /none/3",
        "clip7": "worker killed by signal 9 (SIGKILL); out of memory?",
        "clip9": "RuntimeError: this clip makes the stage raise",
    }
    assert found["clip7"]["parts"] is None


def test_columns_of_the_same_name_are_refused(tmp_path: Path) -> None:
    dataset = map_stages(ray.data.read_parquet(manifest(tmp_path, share=[0.5] * 13)), ray_filters.Counting())
    with pytest.raises(Exception, match="column 'share' of the dataset is a column of the filter too"):
        dataset.take_all()


def test_clips_without_path_are_refused(tmp_path: Path) -> None:
    dataset = map_stages(ray.data.read_parquet(manifest(tmp_path)).drop_columns(["path"]), ray_filters.Counting())
    with pytest.raises(Exception, match="column 'path' is not among id, text, camera"):
        dataset.take_all()


def test_no_workers_are_refused() -> None:
    with pytest.raises(ConfigError, match="workers is 0; expected more than 0"):
        map_stages(ray.data.from_items([{"id": "a", "path": "b"}]), ray_filters.Counting(), workers=0)
