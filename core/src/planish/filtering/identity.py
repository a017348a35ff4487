"""FilterIdentity: what stored scores belong to, so that a changed filter never passes for the old one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions, version
from typing import Any

from pydantic import BaseModel

from planish.interfaces.data_filter import DataFilter


@dataclass(frozen=True)
class FilterIdentity:
    """A data filter, the version of its metrics and its options. The policy is no part of it.

    Attributes:
        filter: Name of the filter.
        metric_version: Its ``DataFilter.metric_version``.
        params_hash: SHA-256 of its options, see :func:`params_hash`.
        distribution: Distribution that brought the filter; for information, two versions of it share scores.
        version: Version of the distribution.
    """

    filter: str
    metric_version: int
    params_hash: str
    distribution: str = ""
    version: str = ""

    @classmethod
    def of(cls, data_filter: DataFilter, distribution: str | None = None, version: str | None = None) -> FilterIdentity:
        """Return the identity of a filter.

        Args:
            data_filter: The filter.
            distribution: Distribution that brought it; None to look it up by the module of the class.
            version: Version of the distribution.
        """
        if distribution is None:
            distribution, version = _origin(type(data_filter).__module__)
        params = scoring_params(data_filter.config)
        return cls(data_filter.name, data_filter.metric_version, params_hash(params), distribution, version or "")

    @property
    def key(self) -> str:
        """Name of the folder of scores: equal exactly for filters whose scores may stand side by side."""
        return f"{self.filter}-v{self.metric_version}-{self.params_hash[:12]}"


def scoring_params(config: BaseModel) -> dict[str, Any]:
    """Return the options that scores depend on, as JSON values.

    A field that is declared with ``json_schema_extra={"decides_scores": False}``, such as a batch size, is left out, in
    nested options too: it may change without anything being scored again.
    """
    params: dict[str, Any] = config.model_dump(mode="json")
    _leave_out(config, params)
    return params


def _leave_out(config: BaseModel, params: dict[str, Any]) -> None:
    for name, field in type(config).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("decides_scores") is False:
            params.pop(name, None)
        elif isinstance(value := getattr(config, name), BaseModel):
            _leave_out(value, params[name])


def params_hash(params: Any) -> str:
    """Return the SHA-256 of options as canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(params, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _origin(module: str) -> tuple[str, str]:
    """Return the distribution of a module and its version; empty strings for a module that no distribution brought."""
    names = packages_distributions().get(module.partition(".")[0], [])
    return (names[0], version(names[0])) if names else ("", "")
