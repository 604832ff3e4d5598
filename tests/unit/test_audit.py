"""A weakness of a dependency is told, and so is that nobody could be asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import audit
import pytest
from audit import ROOT, Pin

from converter.devstack.loopback import free_ports

WEAK = Pin("PyPI", "msgspec", next(pin.version for pin in audit.pins(ROOT) if pin.name == "msgspec"))
Query = dict[str, Any]


@contextmanager
def advisories(results: list[Query] | None = None, status: int = 200) -> Iterator[tuple[str, list[Query]]]:
    """A service that answers as OSV does, and what it was asked; `results` are given whatever is asked."""
    asked: list[Query] = []

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            asked.extend(queries)
            weak = {"package": {"ecosystem": WEAK.ecosystem, "name": WEAK.name}, "version": WEAK.version}
            told = [
                {"vulns": [{"id": "PYSEC-1", "modified": "2026-01-01T00:00:00Z"}]} if q == weak else {} for q in queries
            ]
            body = json.dumps({"results": told if results is None else results}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/querybatch", asked
        server.shutdown()


def test_every_lock_is_read_whole():
    pins = audit.pins(ROOT)
    pinned = sum(line[0].isalnum() for line in (ROOT / "requirements.lock").read_text().splitlines())
    assert len({pin.name for pin in pins if pin.ecosystem == "PyPI"}) >= pinned
    assert {pin.name for pin in pins} >= {
        "litestar",
        "nats-py",
        "celery",
        "oidc-provider",
        "bullmq",
        "@nats-io/jetstream",
    }
    assert all(pin.version[0].isdigit() for pin in pins)


def test_a_known_weakness_is_told_by_its_name_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with advisories() as (url, asked):
        monkeypatch.setenv("AUDIT_URL", url)
        assert audit.main() == 1
        assert len(asked) == len(audit.pins(ROOT))
        said = capsys.readouterr()
        assert (f"{WEAK}: https://osv.dev/PYSEC-1\n", "known weaknesses: 1") == (said.err, said.out.strip()[-19:])
        monkeypatch.setattr(audit, "ACCEPTED", {"PYSEC-1": "we do not decode what others send"})
        assert audit.main() == 0


@pytest.mark.parametrize("service", [{"status": 405}, {"results": []}, {"results": [{"vulns": "none"}]}])
def test_what_is_no_answer_does_not_count_as_no_weakness(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], service: dict[str, Any]
):
    with advisories(**service) as (url, _):
        monkeypatch.setenv("AUDIT_URL", url)
        assert audit.main() == 0
    assert capsys.readouterr().err.startswith("NOT AUDITED")


@pytest.mark.parametrize(("wanted", "code"), [("", 0), ("required", 1)])
def test_a_service_that_is_away_fails_only_where_it_is_required(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wanted: str, code: int
):
    [port] = free_ports(1)
    monkeypatch.setenv("AUDIT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AUDIT", wanted)
    assert audit.main() == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"NOT AUDITED: nothing is known of {len(audit.pins(ROOT))} dependencies.")
