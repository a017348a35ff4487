"""Where a model comes from: the packages it needs, and the folder or hub that its weights are read from."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from planish.errors import PlanishError, UnsupportedError

logger = logging.getLogger("planish_egovid")


def require(package: str, extra: str) -> None:
    """Make sure that a package can be imported, without importing it.

    Args:
        package: Import name, such as ``"transformers"``.
        extra: The extra of planish-egovid that brings it.

    Raises:
        UnsupportedError: The package is not installed; the message has the install line.
    """
    try:
        found = importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # blocked in sys.modules, or half initialised
        found = False
    if not found:
        raise UnsupportedError(
            f"this backend needs the package {package!r}, which is not installed; pip install 'planish-egovid[{extra}]'"
        )


def announce(what: str, model: str) -> None:
    """Say what is about to be loaded, and from where; a download is said as a warning, because it takes a while.

    Args:
        what: Such as ``"CLIP"``.
        model: A folder, or an id on the Hugging Face hub.
    """
    if Path(model).is_dir():
        logger.info("%s: loading %s from that folder", what, model)
        return
    from huggingface_hub import constants, try_to_load_from_cache

    cached = try_to_load_from_cache(model, "config.json")
    if isinstance(cached, str):
        logger.info("%s: loading %s from the cache %s", what, model, constants.HF_HUB_CACHE)
    elif not constants.HF_HUB_OFFLINE:
        logger.warning(
            "%s: downloading %s from %s into %s; set HF_HUB_OFFLINE=1 to forbid it",
            what,
            model,
            constants.ENDPOINT,
            constants.HF_HUB_CACHE,
        )


@contextmanager
def explained(what: str, model: str, field: str) -> Iterator[None]:
    """Turn what a library raises while it loads a model into one clear line.

    Args:
        what: Such as ``"CLIP"``.
        model: A folder, or an id on the Hugging Face hub.
        field: The option that names it, such as ``"model"``.

    Raises:
        UnsupportedError: The model could not be loaded.
    """
    try:
        yield
    except PlanishError:
        raise
    except ImportError as error:
        raise UnsupportedError(f"{what} needs a package that cannot be imported: {error}") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if Path(model).exists():
            advice = "check that it holds what the library saved"
        elif os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
            advice = "HF_HUB_OFFLINE forbids downloads; unset it once, or name a local copy"
        else:
            advice = "check the id and the network, or name a local copy"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnsupportedError(f"{field}: cannot load {what} {model!r}: {reason}; {advice}") from error
