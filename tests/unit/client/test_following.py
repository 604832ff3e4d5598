"""A job that is followed for longer than a token lives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from converter.client import Bearer, Client
from converter.client.patience import Patience
from converter.client.resources import JobEvent

JOB_ID = "0190f0f0-0000-7000-8000-000000000001"
STREAMS = [
    b'event: end\ndata: {"reason":"token_expired"}\n\n',
    b'id: 7\nevent: job.deleted\ndata: {"job_id":"%s"}\n\n' % JOB_ID.encode(),
]


class Ending(BaseHTTPRequestHandler):
    """A gateway that ends the first stream with its token, and tells what happened in the second."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(self.server.streams.pop(0))  # type: ignore[attr-defined]  # set below

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Ending) as server:
        server.streams = list(STREAMS)  # type: ignore[attr-defined]  # for the handler
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


def test_a_stream_that_ends_with_its_token_is_begun_anew_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is no failure: a person would be told of one."""
    monkeypatch.setattr(Patience, "after", None)
    with Client(address, auth=Bearer("token")) as client:
        assert [event.revision for event in client.events(JOB_ID) if isinstance(event, JobEvent)] == [7]
