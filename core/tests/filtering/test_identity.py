"""What a score's identity depends on: filter, metric version, options that decide scores, and nothing else."""

from planish.config import Config
from planish.filtering.identity import FilterIdentity, params_hash, scoring_params
from ppm_filters import Pictures
from pydantic import Field


class Model(Config):
    name: str = Field("small", description="which")
    batch: int = Field(8, json_schema_extra={"decides_scores": False}, description="clips at a time")


class Options(Config):
    gain: float = Field(1.0, description="factor")
    model: Model = Field(Model(), description="the model")
    speed: int = Field(1, json_schema_extra={"decides_scores": False}, description="of the fan")


class Fast(Pictures):
    name = "fast"
    Config = Options


def test_options_that_do_not_decide_scores_are_left_out():
    assert scoring_params(Options()) == {"gain": 1.0, "model": {"name": "small"}}
    key = FilterIdentity.of(Fast()).key
    assert FilterIdentity.of(Fast(speed=3, model={"batch": 2})).key == key
    assert FilterIdentity.of(Fast(gain=2.0)).key != key
    assert FilterIdentity.of(Fast(model={"name": "large"})).key != key


def test_metric_version_and_name_are_part_of_it():
    class Later(Fast):
        metric_version = 2

    class Other(Fast):
        name = "other"

    assert len({FilterIdentity.of(kind()).key for kind in (Fast, Later, Other)}) == 3


def test_the_hash_is_of_canonical_json():
    assert params_hash({"b": 1, "a": "ü"}) == params_hash({"a": "ü", "b": 1})
    assert params_hash({"a": 1}) != params_hash({"a": 1.5})
