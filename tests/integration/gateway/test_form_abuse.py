"""Forms that no honest client sends: every one is answered below 500, at once, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from converter.common.bus import Bus
from converter.common.topology import ACTIVE_JOBS, IDEMPOTENCY, JOBS_BY_USER, MODELS, bucket_key, bucket_stream

from .conftest import Form, GatewayProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

END = b"--b--\r\n"


def part(disposition: str, content: bytes = b"x", more: bytes = b"") -> bytes:
    return b"--b\r\nContent-Disposition: " + disposition.encode() + b"\r\n" + more + b"\r\n" + content + b"\r\n"


def field(name: str, value: str = "x") -> bytes:
    return part(f'form-data; name="{name}"', value.encode())


GOOD = b"".join(
    field(name, value)
    for name, value in {"user_id": "abuser", "platform": "720", "model_id": "40000", "version": "0001"}.items()
)
NESTED = b"--c\r\nContent-Disposition: file; filename=m.onnx\r\n\r\nx\r\n--c--\r\n"

BODIES: dict[str, bytes] = {
    "10,000 fields": field("user_id") * 10_000 + END,
    "10,000 files": part('form-data; name="ref_images"; filename="a.png"', b"\x89PNG\r\n\x1a\n") * 10_000 + END,
    "10,000 empty parts": b"--b\r\n\r\n\r\n" * 10_000 + END,
    "a header of 1 MB": part('form-data; name="user_id"', more=b"X: " + b"a" * 1_000_000 + b"\r\n") + END,
    "a name of 1 MB": field("a" * 1_000_000) + END,
    "a file name of 1 MB": part(f'form-data; name="model"; filename="{"a" * 1_000_000}.onnx"') + END,
    "10,000 headers": part('form-data; name="user_id"', more=b"X: a\r\n" * 10_000) + END,
    "a header without a colon": part('form-data; name="user_id"', more=b"X\r\n") + END,
    "a folded header": part('form-data; name="user_id"', more=b"X: a\r\n b\r\n") + END,
    "no disposition": b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n" + END,
    "two dispositions": part('form-data; name="user_id"', more=b'Content-Disposition: form-data; name="a"\r\n') + END,
    "an empty name": field("") + END,
    "a field twice": GOOD + field("user_id", "other") + END,
    "a file where a field belongs": GOOD + part('form-data; name="platform"; filename="a"') + END,
    "a field where a file belongs": GOOD + field("model") + END,
    "filename* with a path": GOOD + part("form-data; name=\"model\"; filename*=UTF-8''..%2f..%2fetc%2fpasswd") + END,
    "filename* in no charset": GOOD + part("form-data; name=\"model\"; filename*=nonsense''%ff%fe") + END,
    "a path": GOOD + part('form-data; name="model"; filename="../../../etc/passwd"') + END,
    "control characters": GOOD + part('form-data; name="model"; filename="\x00\x07\x1b[2J.onnx"') + END,
    "a line break in a name": GOOD + part('form-data; name="a\rb"') + END,
    "a nested form": GOOD + part('form-data; name="model"', NESTED, b"Content-Type: multipart/mixed; boundary=c\r\n"),
    "a nested form as the model": GOOD + part('form-data; name="model"; filename="m.onnx"', NESTED) + END,
    "a transfer encoding": part('form-data; name="user_id"', b"eA==", b"Content-Transfer-Encoding: base64\r\n") + END,
    "cut in a header": GOOD + b"--b\r\nContent-Dispo",
    "cut in a field": GOOD + b'--b\r\nContent-Disposition: form-data; name="targets"\r\n\r\nne',
    "cut in a file": GOOD + part('form-data; name="model"; filename="m.onnx"', b"\x08\x08")[:-3],
    "no end": GOOD,
    "a preamble": b"hello\r\n" + GOOD + END,
    "only line breaks": b"\r\n" * 1000,
    "bare line feeds": (GOOD + END).replace(b"\r\n", b"\n"),
    "another boundary": GOOD.replace(b"--b", b"--c") + b"--c--\r\n",
    "the end twice": GOOD + END + END,
    "JSON nested without end": GOOD + field("quantization", "[" * 60_000) + END,
    "JSON objects without end": GOOD + field("preprocess", '{"mean":' * 8_000) + END,
    "JSON of one huge number": GOOD + field("quantization", '{"percentile": ' + "9" * 60_000 + "}") + END,
    "JSON with a key twice": GOOD + field("quantization", '{"mode": 1, "mode": 2}') + END,
    "JSON that is no number": GOOD + field("quantization", '{"percentile": NaN}') + END,
    "JSON with lone surrogates": GOOD + field("quantization", '{"\\ud800": 1}') + END,
    "JSON of another kind": GOOD + field("quantization", '"text"') + END,
}


@pytest.fixture(autouse=True)
def nothing_is_left(stored: Callable[[], list[str]]) -> Iterator[None]:
    before = stored()
    yield
    assert stored() == before


def request(gateway: GatewayProcess, framing: str, boundary: str = "; boundary=b") -> bytes:
    return (
        f"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.issuer.token(client_id='abuser')}\r\n"
        f"Connection: close\r\nIdempotency-Key: abuse\r\n"
        f"Content-Type: multipart/form-data{boundary}\r\n{framing}\r\n\r\n"
    ).encode()


async def answered(gateway: GatewayProcess, sent: bytes, *, gone: bool = False) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        writer.write(sent)
        if gone:
            writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_abuse_is_refused_and_leaves_nothing(
    gateway: GatewayProcess,
    shared_bus: Bus,
    body: bytes,
    chunked: bool,  # noqa: FBT001 - a case
):
    if chunked:
        pieces = [body[start : start + 4099] for start in range(0, len(body), 4099)]
        framed = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces) + b"0\r\n\r\n"
        answer = await answered(gateway, request(gateway, "Transfer-Encoding: chunked") + framed)
    else:
        answer = await answered(gateway, request(gateway, f"Content-Length: {len(body)}") + body)
    assert answer.startswith(b"HTTP/1.1 4"), answer[:300]
    for bucket in (ACTIVE_JOBS, JOBS_BY_USER, MODELS):
        assert await shared_bus.subjects(bucket_stream(bucket), bucket_key(bucket, "abuser.>")) == []
    held = await shared_bus.last(bucket_stream(IDEMPOTENCY), bucket_key(IDEMPOTENCY, "abuser.*"))
    assert held is None or not held.data


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 1000000",
        "Content-Length: -1",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
        "Content-Length: " + "9" * 30,
        "Content-Length: 1e3",
        "Transfer-Encoding: identity",
    ],
)
async def test_a_wrong_length_never_makes_a_job(gateway: GatewayProcess, shared_bus: Bus, framing: str):
    answer = await answered(gateway, request(gateway, framing) + GOOD, gone=True)
    assert b"HTTP/1.1 5" not in answer[:12], answer[:300]
    assert not answer.startswith(b"HTTP/1.1 2")
    assert await shared_bus.subjects(bucket_stream(JOBS_BY_USER), bucket_key(JOBS_BY_USER, "abuser.>")) == []


@pytest.mark.parametrize(
    "boundary", ["", "; boundary=", "; boundary=" + "b" * 1000, '; boundary="a b', "; boundary=\x01"]
)
async def test_a_bad_boundary_is_refused(gateway: GatewayProcess, boundary: str):
    framing = f"Content-Length: {len(GOOD + END)}"
    answer = await answered(gateway, request(gateway, framing, boundary) + GOOD + END)
    assert answer.startswith(b"HTTP/1.1 4"), answer[:300]


async def test_an_honest_form_is_still_taken(gateway: GatewayProcess, form: Form, model: bytes, stored: object):
    async with gateway.client() as client:
        answer = await client.post("/api/v1/jobs?dry_run=true", data=form.fields(), files={"model": ("m.onnx", model)})
    assert answer.json()["valid"]
