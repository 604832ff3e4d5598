"""A download from a server, or through a proxy, that answers and gives nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from converter.client import Bearer, Client
from converter.client.errors import NotFound, NotTheContract

JOB_ID = "0190f0f0-0000-7000-8000-000000000001"
JOB = {
    "job_id": JOB_ID,
    "user_id": "u",
    "client_id": "c",
    "status": "completed",
    "platform": "720",
    "model_id": 1,
    "version": "0001",
    "model": {"filename": "m.onnx", "size_bytes": 3, "sha256": "0" * 64},
    "options": {"targets": "onnx"},
    "artifacts": {
        "onnx": {
            "filename": "m.onnx",
            "media_type": "application/octet-stream",
            "size_bytes": 3,
            "sha256": "0" * 64,
            "created_at": "2026-01-01T00:00:00Z",
        }
    },
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-01T00:00:00Z",
}
LINK = {"url": "/api/v1/downloads/x", "expires_at": "2026-01-01T00:00:00Z"}
EXPIRED = LINK | {"url": "/api/v1/downloads/expired"}


class Empty(BaseHTTPRequestHandler):
    """A gateway in all but the bytes of its artifacts."""

    link = LINK

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(json.dumps(self.link).encode())

    def do_GET(self) -> None:
        if self.path == EXPIRED["url"]:
            self._answer(b'{"error": {"code": "link_expired", "message": "It is past its time."}}', 410)
            return
        self._answer(b"" if "downloads" in self.path else json.dumps(JOB).encode())

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def _answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Late(Empty):
    """Each of its links is past its time, as where two machines' clocks do not agree."""

    link = EXPIRED


@pytest.fixture
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), request.param) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("address", "problem", "says"),
    [(Empty, NotTheContract, "no byte"), (Late, NotFound, "past its time")],
    indirect=["address"],
)
def test_a_download_that_brings_nothing_is_given_up(
    address: str, tmp_path: Path, problem: type[Exception], says: str
) -> None:
    with Client(address, auth=Bearer("token")) as client, pytest.raises(problem, match=says):
        client.download(JOB_ID, tmp_path)
    assert not list(tmp_path.iterdir())
