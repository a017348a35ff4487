"""What this distribution registers: the runner behind ``planish run``, and models of Transformers."""

from __future__ import annotations

from planish.plugins.hookspecs import Register, hookimpl


@hookimpl
def planish_register_runners(register: Register) -> None:
    """Offer the runner."""
    register("lightning", "planish_lightning.runner.runner:LightningRunner", "trains language models with Lightning")


@hookimpl
def planish_register_model_sources(register: Register) -> None:
    """Offer the architectures of Transformers."""
    register(
        "transformers",
        "planish_lightning.models.transformers_source:TransformersSource",
        "architectures and saved models of Hugging Face Transformers",
    )
