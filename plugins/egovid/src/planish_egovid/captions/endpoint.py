"""EndpointCaptions: a model behind an endpoint that speaks OpenAI's chat completions, such as vLLM's server."""

from __future__ import annotations

import base64
import json
import logging
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from planish.config import Config
from planish.errors import ConfigError, WorkError
from pydantic import Field

from planish_egovid.captions.prompts import DESCRIBE, VERSION, condensing
from planish_egovid.captions.validation import MOST_WORDS

logger = logging.getLogger("planish_egovid")

LONGEST_WAIT_S = 60.0


class EndpointConfig(Config):
    """Where the model is, and how patiently it is asked."""

    base_url: str = Field(
        "http://localhost:8000/v1", pattern=r"^https?://", description="address before /chat/completions"
    )
    model: str = Field("", description="name of the model that sees; must be given")
    text_model: str | None = Field(None, description="name of the model that condenses; null: the same")
    api_key_env: str | None = Field(
        None, min_length=1, description="environment variable that holds the key, such as OPENAI_API_KEY; null: no key"
    )
    timeout_s: float = Field(120.0, gt=0, le=3600, description="longest wait for an answer")
    retries: int = Field(5, ge=0, le=20, description="further tries after a time-out, a full queue or a server's error")
    backoff_s: float = Field(1.0, ge=0, le=60, description="wait before the first further try; doubled each time")
    parallel: int = Field(4, ge=1, le=256, description="requests under way at the same time")
    describe_tokens: int = Field(1024, ge=1, description="longest description, in tokens")
    condense_tokens: int = Field(128, ge=1, description="longest phrase, in tokens")


class EndpointCaptions:
    """A :class:`~planish_egovid.captions.backend.CaptionBackend` over HTTP; frames travel as JPEG. Thread-safe."""

    looks_at_frames = True

    def __init__(
        self, config: EndpointConfig, words: int = MOST_WORDS, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Check the options; nothing is sent yet.

        Args:
            config: Where the model is.
            words: Longest phrase that is asked for.
            sleep: Waits between tries.

        Raises:
            ConfigError: No model is named, or the variable with the key is not set.
        """
        if not config.model:
            raise ConfigError(f"endpoint.model: name the model that {config.base_url} serves")
        self._key = None
        if config.api_key_env is not None:
            self._key = os.environ.get(config.api_key_env)
            if not self._key:
                raise ConfigError(f"endpoint.api_key_env: the environment variable {config.api_key_env} is not set")
        self._config, self._words, self._sleep = config, words, sleep
        self.parallel = config.parallel
        host = urllib.parse.urlsplit(config.base_url).netloc.rsplit("@", 1)[-1]
        models = config.model if config.text_model is None else f"{config.model}+{config.text_model}"
        self.name = f"endpoint/{host}/{models}/prompts-{VERSION}"

    def describe(self, frames: NDArray[np.uint8]) -> str:
        """Send the frames and return the model's description, decoded greedily."""
        content: list[dict[str, Any]] = [{"type": "text", "text": DESCRIBE}]
        content += [{"type": "image_url", "image_url": {"url": _jpeg_url(frame)}} for frame in frames]
        return self._ask(self._config.model, content, self._config.describe_tokens)

    def condense(self, text: str, verb: str | None, noun: str | None, *, complaint: str | None = None) -> str:
        """Send a text and return the model's phrase, decoded greedily."""
        prompt = condensing(text, verb, noun, self._words, complaint)
        return self._ask(self._config.text_model or self._config.model, prompt, self._config.condense_tokens)

    def _ask(self, model: str, content: Any, tokens: int) -> str:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": tokens,
        }
        answer = self._posted(json.dumps(body).encode())
        try:
            said = json.loads(answer)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise WorkError(f"{self._config.base_url} gave no chat completion: {answer[:200]!r}") from error
        # Some servers give null where a model says nothing.
        return said if isinstance(said, str) else ""

    def _posted(self, body: bytes) -> bytes:
        """Post, and try again where that may help.

        Raises:
            ConfigError: The endpoint refuses the request itself: address, key or model are wrong.
            WorkError: All tries failed.
        """
        url = f"{self._config.base_url.rstrip('/')}/chat/completions"
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        reason = ""
        for attempt in range(self._config.retries + 1):
            wait = min(self._config.backoff_s * 2**attempt, LONGEST_WAIT_S) * random.uniform(0.5, 1.0)
            try:
                request = urllib.request.Request(url, data=body, headers=headers, method="POST")
                with urllib.request.urlopen(request, timeout=self._config.timeout_s) as response:
                    received: bytes = response.read()
                    return received
            except urllib.error.HTTPError as error:
                said = error.read(500).decode("utf-8", "replace").strip()
                reason = f"HTTP {error.code} {error.reason}: {said}".rstrip(": ")
                if error.code in (401, 403, 404):
                    raise ConfigError(f"{url} refuses: {reason}; check base_url, model and api_key_env") from None
                if error.code not in (408, 409, 425, 429) and error.code < 500:
                    raise WorkError(f"{url} refuses this request: {reason}") from None
                wait = _asked_wait(error.headers.get("Retry-After"), wait)
            except OSError as error:  # refused, reset, timed out
                reason = str(getattr(error, "reason", None) or error) or type(error).__name__
            if attempt < self._config.retries:
                logger.info("%s: %s; trying again in %.1f s", url, reason, wait)
                self._sleep(wait)
        raise WorkError(f"{url} failed {self._config.retries + 1} times, at last with: {reason}")


def _asked_wait(header: str | None, otherwise: float) -> float:
    try:
        return min(max(float(header or ""), 0.0), LONGEST_WAIT_S)
    except ValueError:  # absent, or a date
        return otherwise


def _jpeg_url(frame: NDArray[np.uint8]) -> str:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
    if not done:
        raise WorkError(f"OpenCV cannot write a frame of shape {frame.shape} as JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
