"""Recipes: one YAML file that says which model, data, transforms and trainer make a run."""

from planish.recipe.compose import compose
from planish.recipe.model import build_model
from planish.recipe.schema import ModelSpec, Recipe, TransformSpec
from planish.recipe.source import json_schema, read_recipe

__all__ = ["ModelSpec", "Recipe", "TransformSpec", "build_model", "compose", "json_schema", "read_recipe"]
