"""A token is asked for as seldom as it may be, and again where the issuer could give none just now."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from converter.client import Client, ClientCredentials, tokens
from converter.client.errors import NoToken

LIFE_S = 600


class Issuing(BaseHTTPRequestHandler):
    """An issuer that answers the statuses that it was given, then tokens; and a gateway without jobs."""

    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        self.server.issued += 1
        self._answer(status, {"access_token": f"token-{self.server.issued}", "expires_in": LIFE_S})

    def do_GET(self) -> None:
        self.server.carried.append(self.headers["Authorization"])
        self._answer(200, {"items": [], "next_cursor": None})

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


class Server(ThreadingHTTPServer):
    """What it will answer, and what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Issuing)
        self.statuses: list[int] = []
        self.issued = 0
        self.carried: list[str] = []


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server
        server.shutdown()
        serving.join()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    url = f"http://127.0.0.1:{server.server_port}"
    with Client(url, ClientCredentials(token_url=f"{url}/token", client_id="one", client_secret="s")) as client:
        yield client


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(tokens, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_one_token_serves_until_a_minute_before_its_end(server: Server, client: Client, clock: SimpleNamespace):
    for clock.now in (0, LIFE_S - 61, LIFE_S - 59, LIFE_S):
        assert list(client.jobs("u")) == []
    assert server.carried == ["Bearer token-1"] * 2 + ["Bearer token-2"] * 2


@pytest.mark.parametrize("status", [503, 429])
def test_an_issuer_that_cannot_just_now_is_asked_again(server: Server, client: Client, status: int):
    server.statuses = [status, status]
    assert list(client.jobs("u")) == []
    assert server.carried == ["Bearer token-3"]


def test_an_issuer_that_does_not_know_the_client_is_not_asked_again(server: Server, client: Client):
    server.statuses = [401, 401]
    with pytest.raises(NoToken):
        list(client.jobs("u"))
    assert server.issued == 1
