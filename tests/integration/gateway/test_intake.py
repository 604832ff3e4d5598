from __future__ import annotations

import asyncio
import hashlib
import signal
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from .conftest import Form, GatewayProcess, StartGateway, becomes

pytestmark = pytest.mark.asyncio(loop_scope="module")

Stored = Callable[[], list[str]]
MEBIBYTE = 1024 * 1024


@pytest.fixture(autouse=True)
def nothing_is_left(stored: Stored) -> Iterator[None]:
    """Whatever a test does, no unfinished upload stays, and no input of a job that was refused."""
    before = stored()
    yield
    assert [name for name in stored() if ".uploads" in name] == []
    jobs = {name.split("/")[1] for name in set(stored()) - set(before)}
    assert len(jobs) <= 1


def error(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    details: dict[str, Any] = answer.json()["error"]["details"]
    return details


def messages(details: dict[str, Any]) -> dict[str, str]:
    return {problem["field"]: problem["message"] for problem in details["fields"]}


async def send(
    gateway: GatewayProcess, body: bytes, content_type: str = "multipart/form-data; boundary=b"
) -> httpx.Response:
    async with gateway.client() as client:
        return await client.post("/api/v1/jobs", content=body, headers={"Content-Type": content_type})


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    named = f'name="{name}"' + (f'; filename="{filename}"' if filename is not None else "")
    return b"--b\r\nContent-Disposition: form-data; " + named.encode() + b"\r\n\r\n" + content + b"\r\n"


END = b"--b--\r\n"


def fields(form: Form) -> bytes:
    return b"".join(part(name, value.encode()) for name, value in form.fields().items())


async def test_all_bad_fields_are_named_at_once_before_the_model_is_read(
    gateway: GatewayProcess, form: Form, model: bytes
):
    bad = {"user_id": "a b", "platform": "999", "model_id": "0", "version": "xyz", "quantization": "{"}
    async with gateway.client() as client:
        answer = await form.post(client, model + bytes(100 * MEBIBYTE), **bad)
    assert set(messages(error(answer, 400, "validation_error"))) == set(bad)
    assert answer.headers["connection"] == "close"


async def test_a_held_lock_is_told_to_a_client_that_holds_back_the_rest_of_its_model(
    gateway: GatewayProcess, form: Form, model: bytes
):
    async with gateway.client() as client:
        assert (await form.post(client, model)).status_code == 201
        token = client.headers["authorization"].encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = b"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    writer.write(head + b"Authorization: " + token + b"\r\nContent-Length: 50000000\r\n\r\n")
    writer.write(fields(form) + part("model", model, "m.onnx").removesuffix(b"\r\n"))
    async with asyncio.timeout(10):
        assert (await reader.readline()).startswith(b"HTTP/1.1 409 ")
    writer.close()
    await writer.wait_closed()


async def test_fields_after_the_model_are_checked_too(gateway: GatewayProcess, form: Form, model: bytes):
    body = part("model", model, "m.onnx") + part("platform", b"1") + part("odd", b"1") + END
    details = error(await send(gateway, body), 400, "validation_error")
    assert set(messages(details)) == {"user_id", "platform", "model_id", "version", "odd"}


@pytest.mark.parametrize("unreadable", [b"x" * 65537, b"\xff"])
async def test_a_field_that_cannot_be_read_is_named_with_the_others(gateway: GatewayProcess, unreadable: bytes):
    body = part("platform", b"1") + part("model_id", b"0") + part("preprocess", unreadable) + END
    details = error(await send(gateway, body), 400, "validation_error")
    assert set(messages(details)) == {"platform", "model_id", "preprocess"}


async def test_a_name_that_is_no_utf_8_is_told_without_the_parser_s_own_words(gateway: GatewayProcess):
    body = part("model", b"x", "\0").replace(b"\0", b"\xe9.onnx") + END
    answer = await send(gateway, body)
    assert "UTF-8" in error(answer, 400, "invalid_multipart")["hint"]
    assert "UnicodeDecodeError" not in answer.text


async def test_a_missing_model_is_told(gateway: GatewayProcess, form: Form):
    details = error(await send(gateway, fields(form) + END), 400, "invalid_multipart")
    assert messages(details)["model"].startswith("missing; allowed: an ONNX file")


@pytest.mark.parametrize(
    ("filename", "content", "found"),
    [
        ("m.onnx", b"just some words\n", "looks like plain text"),
        ("m.onnx", b"\x89PNG\r\n\x1a\n" + bytes(1000), "looks like a PNG image"),
        ("m.onnx", b"PK\x03\x04" + bytes(1000), "looks like a ZIP archive"),
        ("m.onnx", b"", "is empty"),
        ("m.onnx", b"\x08", "is cut off"),
        ("m.txt", b"\x08\x08", "names that end with .onnx"),
        ("", b"\x08\x08", "names that end with .onnx"),
    ],
)
async def test_a_file_that_is_no_model_is_told_what_it_is(
    gateway: GatewayProcess, form: Form, filename: str, content: bytes, found: str
):
    answer = await send(gateway, fields(form) + part("model", content, filename) + END)
    assert found in messages(error(answer, 400, "invalid_multipart"))["model"]


async def test_a_file_of_another_kind_is_refused_by_its_first_bytes(gateway: GatewayProcess, form: Form):
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head(gateway, 400 * MEBIBYTE) + fields(form) + part("model", b"just some words", "m.onnx"))
    async with asyncio.timeout(5):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"looks like plain text" in answer
    writer.close()


@pytest.mark.parametrize("content", [b"words", b"GIF89a" + bytes(50), b"\x89PN", b""])
async def test_an_image_counts_by_its_content(
    gateway: GatewayProcess, form: Form, model: bytes, image: bytes, content: bytes
):
    body = fields(form) + part("ref_images", image, "1.png") + part("ref_images", content, "2.png")
    answer = await send(gateway, body + part("model", model, "m.onnx") + END)
    assert "allowed: PNG, JPEG, BMP, WebP" in messages(error(answer, 400, "invalid_multipart"))["ref_images[1]"]


async def test_an_empty_file_input_of_a_browser_is_no_image(gateway: GatewayProcess, form: Form, model: bytes):
    body = fields(form) + part("ref_images", b"", "") + part("model", model, "m.onnx") + END
    assert (await send(gateway, body)).json()["ref_images_count"] == 0


async def test_limits_are_told(start_gateway: StartGateway, form: Form, model: bytes, image: bytes):
    gateway = await start_gateway(
        MULTIPART_MODEL_MAX_BYTES=str(len(model)),
        MULTIPART_REF_IMAGE_MAX_BYTES=str(len(image)),
        MULTIPART_REF_IMAGES_MAX_COUNT="2",
    )
    images = [part("ref_images", image, f"{number}.png") for number in range(3)]
    good = part("model", model, "m.onnx")
    answer = await send(gateway, fields(form) + part("model", model + b"\x72\x00", "m.onnx") + END)
    assert error(answer, 413, "file_too_large")["limit_bytes"] == len(model)
    answer = await send(gateway, fields(form) + good + part("ref_images", image + b"x", "1.png") + END)
    assert error(answer, 413, "file_too_large")["limit_bytes"] == len(image)
    answer = await send(gateway, fields(form) + good + b"".join(images) + END)
    assert error(answer, 400, "invalid_multipart")["limit"] == 2
    assert (await send(gateway, fields(form) + good + b"".join(images[:2]) + END)).status_code == 201


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(gateway: GatewayProcess):
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head(gateway, 10**12))
    assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    writer.close()


def head(gateway: GatewayProcess, content_length: int) -> bytes:
    return (
        f"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.issuer.token()}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {content_length}\r\n\r\n"
    ).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b--\r\n",
        b"--x\r\n",
        b"nonsense",
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\nContent-Disposition: attachment; name=a\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\nA: " + b"a" * 100_000 + b"\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\n" + b"A: b\r\n" * 100 + b"\r\nx\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n--b--\r\n',
        part("model", b"\x08\x08", "m.onnx"),
        part("model", b"text field") + END,
        part("other", b"x", "file.bin") + END,
        part("a", b"x") * 1000 + END,
        part("user_id", b"\xff\xfe") + END,
        part("user_id", b"a" * 100_000) + END,
    ],
)
async def test_a_form_that_does_not_parse_is_a_400(gateway: GatewayProcess, body: bytes):
    answer = await send(gateway, body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] in {"invalid_multipart", "validation_error"}


async def test_two_models_are_refused(gateway: GatewayProcess, form: Form, model: bytes):
    answer = await send(gateway, fields(form) + part("model", model, "m.onnx") * 2 + END)
    assert "twice" in messages(error(answer, 400, "invalid_multipart"))["model"]


@pytest.mark.parametrize("content_type", ["", "application/json", "multipart/mixed; boundary=b", "text/plain"])
async def test_another_media_type_is_a_415(gateway: GatewayProcess, content_type: str):
    error(await send(gateway, b"{}", content_type), 415, "unsupported_media_type")


@pytest.mark.parametrize("boundary", ["", "; boundary=", f"; boundary={'b' * 500}"])
async def test_a_form_needs_a_boundary(gateway: GatewayProcess, boundary: str):
    error(await send(gateway, b"", f"multipart/form-data{boundary}"), 400, "invalid_multipart")


async def test_a_digest_is_verified(gateway: GatewayProcess, form: Form, model: bytes):
    digest = hashlib.sha256(model).hexdigest()
    async with gateway.client() as client:
        details = error(await form.post(client, model, model_sha256="0" * 64), 400, "digest_mismatch")
        assert details["found_sha256"] == digest
        assert (await form.post(client, model, model_sha256=digest)).status_code == 201


async def test_hostile_names_stay_names(
    gateway: GatewayProcess, form: Form, model: bytes, image: bytes, stored: Stored, storage_dir: Path
):
    hostile = ["../../../etc/passwd.png", "a\x1b[31m.png", "..", "con:.png", "x" * 500 + ".png", ".hidden.png"]
    body = fields(form) + b"".join(part("ref_images", image, name) for name in hostile)
    answer = await send(gateway, body + part("model", model, "../../\x1b[0mm.onnx") + END)
    assert answer.status_code == 201, answer.text
    assert answer.json()["model"]["filename"] == "_[0mm.onnx"
    with zipfile.ZipFile(storage_dir / f"jobs/{answer.json()['job_id']}/input/ref_images.zip") as archive:
        assert len(archive.namelist()) == len(hostile)
        for number, name in enumerate(archive.namelist()):
            assert name.startswith(f"{number:03d}_")
            assert len(name) < 100
            assert not set(name) & set("/\\:\x1b")


async def test_a_client_that_vanishes_leaves_nothing(
    gateway: GatewayProcess,
    form: Form,
    model: bytes,
    stored: Stored,
):
    before = stored()
    for cut in (200, 900, len(fields(form)) + 50_000):
        body = fields(form) + part("model", model, "m.onnx") + END
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(head(gateway, len(body)) + body[:cut])
        await writer.drain()
        if cut > 1000:
            await becomes(lambda: stored() != before)
        writer.transport.abort()
        await becomes(lambda: stored() == before)


async def test_a_gateway_that_stops_in_the_middle_of_an_upload_leaves_nothing(
    start_gateway: StartGateway,
    form: Form,
    model: bytes,
    stored: Stored,
):
    gateway = await start_gateway(SHUTDOWN_GRACE_SECONDS="1")
    before = stored()
    async with gateway.client() as client:
        unfinished = asyncio.create_task(client.post("/api/v1/jobs", content=stalled(form, model), headers=MULTIPART))
        await becomes(lambda: stored() != before)
        gateway.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await gateway.process.wait() == 0
        unfinished.cancel()
        await asyncio.wait({unfinished})
    assert stored() == before


MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}


async def stalled(form: Form, model: bytes) -> AsyncIterator[bytes]:
    """A form that stops in the middle of its model and never goes on."""
    yield fields(form) + part("model", model, "m.onnx")[:50_000]
    await asyncio.Event().wait()


async def test_past_the_upload_limit_a_client_is_told_when_to_come_back(
    start_gateway: StartGateway,
    form: Form,
    new_form: Callable[[], Form],
    model: bytes,
    stored: Stored,
):
    gateway = await start_gateway(MAX_CONCURRENT_UPLOADS="1", UPLOAD_RETRY_AFTER_SECONDS="7")
    before = stored()
    async with gateway.client() as client:
        first = asyncio.create_task(client.post("/api/v1/jobs", content=stalled(form, model), headers=MULTIPART))
        await becomes(lambda: stored() != before)
        refused = await new_form().post(client, model)
        error(refused, 503, "service_busy")
        assert refused.headers["retry-after"] == "7"
        first.cancel()
        await asyncio.wait({first})
        await becomes(lambda: stored() == before)
        assert (await new_form().post(client, model)).status_code == 201


async def test_memory_stays_flat_under_a_large_upload(
    gateway: GatewayProcess, form: Form, model: bytes, stored: Stored, storage_dir: Path
):
    """300 MB to stay quick; the contract's largest model is 500 MB."""
    size = 300 * MEBIBYTE
    doc_string = b"\x32" + _varint(size) + bytes(size % MEBIBYTE)

    async def body() -> AsyncIterator[bytes]:
        yield fields(form) + part("model", model + doc_string, "m.onnx")[:-2]
        for _ in range(size // MEBIBYTE):
            yield bytes(MEBIBYTE)
        yield b"\r\n" + END

    process = psutil.Process(gateway.process.pid)
    idle = process.memory_info().rss
    peak = idle
    async with gateway.client() as client:
        uploading = asyncio.create_task(client.post("/api/v1/jobs", content=body(), headers=MULTIPART, timeout=100))
        while not uploading.done():
            peak = max(peak, process.memory_info().rss)
            await asyncio.wait({uploading}, timeout=0.01)
    answer = uploading.result()
    assert answer.status_code == 201, answer.text
    assert answer.json()["model"]["size_bytes"] > size
    assert peak - idle < 100 * MEBIBYTE
    (storage_dir / f"jobs/{answer.json()['job_id']}/input/model.onnx").unlink()


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


async def test_a_storage_directory_that_is_gone_is_a_misconfiguration(
    start_gateway: StartGateway, form: Form, model: bytes, tmp_path: Path
):
    directory = tmp_path / "storage"
    gateway = await start_gateway(LOCAL_STORAGE_DIR=str(directory))
    directory.rename(tmp_path / "elsewhere")
    async with gateway.client() as client:
        assert error(await form.post(client, model), 500, "misconfiguration")["hint"]
