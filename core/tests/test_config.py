"""Options and the sentences that wrong ones get."""

import pydantic
import pytest
from planish import Config, ConfigError
from planish.config import validate
from pydantic import Field


class Inner(Config):
    width: int = Field(4, ge=1, le=8, description="how wide")


class Outer(Config):
    rate: float = Field(0.1, gt=0, description="how fast")
    inner: Inner = Field(Inner(), description="the rest")
    many: tuple[Inner, ...] = Field((), description="several")


def test_a_config_is_frozen_and_knows_its_fields():
    with pytest.raises(pydantic.ValidationError):
        Outer().rate = 3
    with pytest.raises(pydantic.ValidationError):
        Outer(speed=3)


def test_validate_passes_an_instance_and_a_mapping():
    given = Outer(rate=2)
    assert validate(Outer, given) is given
    assert validate(Outer, {"rate": 2, "inner": {"width": 5}}) == Outer(rate=2, inner=Inner(width=5))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"rat": 1}, "at.rat: unknown field; did you mean 'rate'?"),
        ({"zzzzzz": 1}, "at.zzzzzz: unknown field; known fields: inner, many, rate"),
        ({"inner": {"widht": 1}}, "at.inner.widht: unknown field; did you mean 'width'?"),
        ({"many": [{"width": 2}, {"widht": 1}]}, "at.many[1].widht: unknown field; did you mean 'width'?"),
        ({"rate": 0}, "at.rate: input should be greater than 0 (found 0)"),
        ({"inner": {"width": 9}}, "at.inner.width: input should be less than or equal to 8 (found 9)"),
        (
            {"rate": "fast"},
            "at.rate: input should be a valid number, unable to parse string as a number (found 'fast')",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_path(values, says):
    with pytest.raises(ConfigError) as error:
        validate(Outer, values, where="at")
    assert str(error.value) == says


def test_every_wrong_field_has_a_line():
    with pytest.raises(ConfigError) as error:
        validate(Outer, {"rate": -1, "inner": {"width": 0}})
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == ["rate", "inner.width"]


def test_long_values_are_cut():
    with pytest.raises(ConfigError) as error:
        validate(Outer, {"rate": "x" * 500})
    assert len(str(error.value)) < 250


def test_a_required_field_is_named():
    class Needs(Config):
        path: str = Field(description="where")

    with pytest.raises(ConfigError, match=r"^data\.path: this field is required$"):
        validate(Needs, {}, where="data")


def test_a_required_field_under_a_misspelt_name_is_one_mistake():
    class Needs(Config):
        text: str = Field(description="what")
        size: int = Field(description="how much")

    with pytest.raises(ConfigError) as error:
        validate(Needs, {"txt": "x"}, where="data")
    assert str(error.value).splitlines() == [
        "data.size: this field is required",
        "data.txt: unknown field; did you mean 'text'?",
    ]
