"""Choosing modules by glob patterns."""

import pytest
from planish.errors import CompositionError
from planish.targets import match, replace, tied_parameters
from tiny_plugins import TinyNet
from torch import nn


@pytest.fixture
def model():
    return nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"mlp": TinyNet(4, 2, False)}) for _ in range(2)])})


def test_a_match_brings_what_lies_inside(model):
    found = match(model, ["*.mlp"])
    assert "layers.0.mlp" in found
    assert "layers.1.mlp.up" in found
    assert found["layers.0.mlp.down"] is model.layers[0].mlp.down


def test_a_star_crosses_dots_and_order_is_the_models(model):
    assert list(match(model, ["*.down", "*.up"])) == [
        "layers.0.mlp.up",
        "layers.0.mlp.down",
        "layers.1.mlp.up",
        "layers.1.mlp.down",
    ]


def test_a_sibling_with_the_same_beginning_is_not_inside():
    model = nn.ModuleDict({"mlp": nn.Linear(2, 2), "mlp2": nn.Linear(2, 2)})
    assert list(match(model, ["mlp"])) == ["mlp"]


def test_a_pattern_that_matches_nothing_names_the_nearest_module(model):
    with pytest.raises(
        CompositionError, match=r"'layers.0.mpl' matches no module of ModuleDict; did you mean 'layers.0.mlp'"
    ):
        match(model, ["*.up", "layers.0.mpl"])
    with pytest.raises(CompositionError, match=r"modules are named like 'layers', 'layers\.0'"):
        match(model, ["zzzzzzzzzz"])


def test_replace_puts_a_module_in_place(model):
    new = nn.Identity()
    replace(model, "layers.1.mlp.up", new)
    assert model.layers[1].mlp.up is new
    top = nn.Sequential(nn.Linear(1, 1))
    replace(top, "0", new)
    assert top[0] is new


def test_tied_parameters_name_each_other():
    assert tied_parameters(TinyNet(4, 2, True)) == {"embed.weight": ["head.weight"], "head.weight": ["embed.weight"]}
    assert tied_parameters(TinyNet(4, 2, False)) == {}
