"""When the health check of NATS's container ends the server: only for what a restart alone mends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "nats-health.sh"
NC = """#!{python}
import shutil, socket, sys
with socket.create_connection((sys.argv[3], int(sys.argv[4]))) as server:
    server.sendall(sys.stdin.buffer.read())
    shutil.copyfileobj(server.makefile("rb"), sys.stdout.buffer)
"""
"""As much of netcat as the script needs, which the server's image has and this machine may not."""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    netcat = tmp_path / "nc"
    netcat.write_text(NC.format(python=sys.executable))
    netcat.chmod(0o700)
    return tmp_path


@pytest.fixture
def server() -> Iterator[subprocess.Popen[bytes]]:
    """What would be ended."""
    with subprocess.Popen(["sleep", "60"]) as running:
        yield running
        running.kill()


@pytest.mark.parametrize(
    ("answer", "code", "ended"),
    [
        (b'{"status":"ok"}', 0, False),
        (b'{"status":"error","error":"failed to be ready for connections after 1ms: server"}', 1, False),
        (b'{"status":"unavailable","error":"JetStream not current with the meta leader"}', 1, False),
        (b'{"status":"unavailable","error":"JetStream stream \'$G > EVENTS\' write error: no space left"}', 1, True),
        (b'{"status":"unavailable","error":"JetStream not enabled (10076)"}', 1, True),
    ],
)
def test_a_server_is_ended_only_for_what_a_restart_mends(
    programs: Path, server: subprocess.Popen[bytes], answer: bytes, code: int, *, ended: bool
):
    class Monitoring(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Monitoring) as monitoring:
        Thread(target=monitoring.handle_request).start()
        command = ["sh", SCRIPT, str(monitoring.server_port), str(server.pid)]
        checked = subprocess.run(command, env={"PATH": f"{programs}:/usr/bin:/bin"}, check=False)
    assert checked.returncode == code
    if ended:
        assert server.wait(10) < 0
    else:
        assert server.poll() is None
