"""The endpoint backend against a server on this machine that speaks OpenAI's chat completions."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np
import pytest
from planish.errors import ConfigError, WorkError
from planish_egovid.captions import CaptionBackend
from planish_egovid.captions.endpoint import EndpointCaptions, EndpointConfig

FRAMES = np.full((3, 36, 64, 3), (200, 30, 60), np.uint8)


class Server(ThreadingHTTPServer):
    """Answers with what ``script`` holds, one item a request, and then with "open the drawer"."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[tuple[int, Any, dict[str, str]]] = []
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.delay_s = 0.0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, dict(self.headers), body))
        time.sleep(self.server.delay_s)
        answer: Any = {"choices": [{"message": {"content": "open the drawer"}}]}
        status, content, headers = self.server.script.pop(0) if self.server.script else (200, answer, {})
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
        except OSError:  # the client gave up
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def backend_of(server: Server, waits: list[float] | None = None, **options: Any) -> EndpointCaptions:
    config = EndpointConfig(
        **{"base_url": f"http://127.0.0.1:{server.server_address[1]}/v1", "model": "eyes", "timeout_s": 10, **options}
    )
    return EndpointCaptions(config, 12, sleep=([] if waits is None else waits).append)


def test_frames_and_prompts_arrive(server: Server) -> None:
    backend = backend_of(server, text_model="words")
    assert isinstance(backend, CaptionBackend)
    assert backend.describe(FRAMES) == "open the drawer"
    assert backend.condense("A hand.", "cut", None) == "open the drawer"
    (path, headers, seen), (_, _, asked) = server.seen
    assert path == "/v1/chat/completions"
    assert "Authorization" not in headers
    assert (seen["model"], seen["temperature"], asked["model"]) == ("eyes", 0, "words")
    text, *images = seen["messages"][0]["content"]
    assert text["type"] == "text"
    assert len(images) == 3
    kind, _, data = images[0]["image_url"]["url"].partition(",")
    assert kind == "data:image/jpeg;base64"
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert np.abs(picture[..., ::-1].astype(int) - FRAMES[0]).max() < 8, "red stays red"
    prompt = asked["messages"][0]["content"]
    assert "12 words" in prompt
    assert "cut" in prompt
    assert "noun" not in prompt
    assert backend.name == f"endpoint/127.0.0.1:{server.server_address[1]}/eyes+words/prompts-1"


def test_the_key_comes_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTION_KEY", "opensesame")
    backend = backend_of(server, api_key_env="CAPTION_KEY")
    backend.condense("A hand.", None, None)
    assert server.seen[0][1]["Authorization"] == "Bearer opensesame"
    assert "opensesame" not in backend.name
    monkeypatch.delenv("CAPTION_KEY")
    with pytest.raises(ConfigError, match="CAPTION_KEY is not set"):
        backend_of(server, api_key_env="CAPTION_KEY")


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again_after_longer_and_longer_waits(server: Server, status: int) -> None:
    server.script = [(status, {"error": "busy"}, {})] * 3
    waits: list[float] = []
    assert backend_of(server, waits).condense("A hand.", None, None) == "open the drawer"
    assert len(server.seen) == 4
    assert [0.5 * 2**n <= wait <= 2**n for n, wait in enumerate(waits)] == [True] * 3


def test_a_wait_that_the_server_names_is_kept(server: Server) -> None:
    server.script = [(429, {}, {"Retry-After": "7"}), (429, {}, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})]
    waits: list[float] = []
    backend_of(server, waits).condense("A hand.", None, None)
    assert waits[0] == 7
    assert waits[1] < 3


def test_it_gives_up_with_the_last_reason(server: Server) -> None:
    server.script = [(500, {"error": "on fire"}, {})] * 3
    with pytest.raises(WorkError, match=r"failed 3 times, at last with: HTTP 500 .*on fire"):
        backend_of(server, retries=2).condense("A hand.", None, None)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_key_or_model_ends_at_once(server: Server, status: int) -> None:
    server.script = [(status, {"error": "no such model"}, {})]
    with pytest.raises(ConfigError, match=r"no such model.*check base_url, model and api_key_env"):
        backend_of(server).condense("A hand.", None, None)
    assert len(server.seen) == 1


def test_a_refusal_of_one_request_concerns_that_clip_alone(server: Server) -> None:
    server.script = [(400, {"error": "context too long"}, {})]
    with pytest.raises(WorkError, match="context too long"):
        backend_of(server).condense("A hand.", None, None)
    assert len(server.seen) == 1


def test_a_silent_server_times_out(server: Server) -> None:
    server.delay_s = 0.5
    waits: list[float] = []
    with pytest.raises(WorkError, match=r"failed 2 times, at last with: .*timed out"):
        backend_of(server, waits, timeout_s=0.05, retries=1).condense("A hand.", None, None)
    assert len(waits) == 1


def test_nobody_there(server: Server) -> None:
    with pytest.raises(WorkError, match="Connection refused"):
        backend_of(server, base_url="http://127.0.0.1:9/v1", retries=0).condense("A hand.", None, None)


@pytest.mark.parametrize("answer", [b"<html>", {}, {"choices": []}, {"choices": [{"message": None}]}])
def test_an_answer_of_another_kind_is_said(server: Server, answer: Any) -> None:
    server.script = [(200, answer, {})]
    with pytest.raises(WorkError, match="gave no chat completion"):
        backend_of(server).condense("A hand.", None, None)


def test_null_content_is_an_empty_answer(server: Server) -> None:
    server.script = [(200, {"choices": [{"message": {"content": None}}]}, {})]
    assert backend_of(server).condense("A hand.", None, None) == ""


def test_a_model_must_be_named() -> None:
    with pytest.raises(ConfigError, match=r"endpoint\.model"):
        EndpointCaptions(EndpointConfig())
