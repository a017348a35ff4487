"""How a clause of a contract fails: with one sentence, without a traceback of the suite itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest


def require(condition: object, sentence: str) -> None:
    """Fail the running test with ``sentence`` unless ``condition`` is truthy."""
    __tracebackhide__ = True
    if not condition:
        pytest.fail(sentence, pytrace=False)


def not_claimed(sentence: str) -> NoReturn:
    """Skip the running test: the plugin does not claim what the clause demands."""
    pytest.skip(sentence)


@contextmanager
def refusal(errors: type[Exception], *naming: str, when: str) -> Iterator[None]:
    """Demand that the block raises one of planish's errors.

    Args:
        errors: The error that is expected.
        naming: Words of which each must stand in the message.
        when: What the block does, for the sentence that a violation prints.
    """
    __tracebackhide__ = True
    try:
        yield
    except errors as error:
        for word in naming:
            require(word in str(error), f"when {when}, the error must name {word!r}; it reads: {error}")
        return
    except Exception as error:
        pytest.fail(
            f"when {when}, raise {errors.__name__} with a sentence for the user; found {type(error).__name__}: {error}",
            pytrace=False,
        )
    pytest.fail(f"when {when}, raise {errors.__name__}; nothing was raised", pytrace=False)
