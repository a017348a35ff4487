"""The hooks that a plugin may implement: one per interface, and one per other door of the product.

A hook is called once, at discovery, with ``register(name, target, summary)``. ``target`` is a string
``"module:attribute"`` that is imported at first use, so that listing plugins costs no import of torch::

    import planish

    @planish.hookimpl
    def planish_register_sparsifiers(register):
        register("pretrain24", "planish_pretrain24.sparsifier:Pretrain24", "2:4 sparse pre-training of FFNs")

A package that must not import planish declares the same marker itself: ``pluggy.HookimplMarker("planish")``.
"""

from __future__ import annotations

from collections.abc import Callable

import pluggy

PROJECT = "planish"
"""pluggy's project name, and the entry-point group in which plugins are found."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Register = Callable[[str, str, str], None]
"""``register(name, "module:attribute", summary)``."""


@hookspec
def planish_register_quantizers(register: Register) -> None:
    """Offer classes that implement :class:`planish.interfaces.Quantizer`."""


@hookspec
def planish_register_sparsifiers(register: Register) -> None:
    """Offer classes that implement :class:`planish.interfaces.Sparsifier`."""


@hookspec
def planish_register_attention(register: Register) -> None:
    """Offer classes that implement :class:`planish.interfaces.AttentionImpl`."""


@hookspec
def planish_register_language_models(register: Register) -> None:
    """Offer classes that implement :class:`planish.interfaces.LanguageModel`."""


@hookspec
def planish_register_video_models(register: Register) -> None:
    """Offer classes that implement :class:`planish.interfaces.VideoModel`."""


@hookspec
def planish_register_data_filters(register: Register) -> None:
    """Offer classes that implement :class:`planish.interfaces.DataFilter`."""


@hookspec
def planish_register_filter_engines(register: Register) -> None:
    """Offer classes that implement :class:`planish.interfaces.FilterEngine`: what ``planish filter`` scores with."""


@hookspec
def planish_register_model_sources(register: Register) -> None:
    """Offer classes that implement :class:`planish.interfaces.ModelSource`: ways to build a model from a recipe."""


@hookspec
def planish_register_runners(register: Register) -> None:
    """Offer classes that implement :class:`planish.interfaces.Runner`: what ``planish run`` hands a recipe to."""


@hookspec
def planish_register_commands(register: Register) -> None:
    """Offer command-line verbs: functions whose signature is read by typer."""


@hookspec
def planish_register_benchmarks(register: Register) -> None:
    """Offer benchmark programs: functions ``(BenchmarkOptions) -> BenchmarkResult``."""


@hookspec
def planish_register_diagnostics(register: Register) -> None:
    """Offer checks for ``planish doctor``: functions that return mappings of ``name``, ``ok``, ``detail``, ``fix``."""
