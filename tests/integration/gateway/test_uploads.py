"""Resumable uploads, also as an independent client makes them (tuspy)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import signal
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tusclient.client import TusClient
from waiting import eventually

from converter.client import AsyncClient, Bearer, Order
from converter.client.sending import RESUMABLE_FROM_BYTES
from converter.client.uploading import Unfinished
from converter.common.identifiers import uuid7
from converter.common.storage import ArtifactStore, open_local
from converter.gateway.uploads import PIECE_BYTES, Uploads

from .conftest import Form, GatewayProcess, StartGateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = TUS | {"Content-Type": "application/offset+octet-stream"}
MEBIBYTE = 1 << 20


@pytest.fixture
def large_model(model: bytes) -> bytes:
    """A model of 10 MB: one with a long documentation."""
    return model + b"\x32\x80\x80\x80\x05" + b" " * (10 * MEBIBYTE)


async def begun(client: httpx.AsyncClient, size: int, **headers: str) -> str:
    answer = await client.post("/api/v1/uploads", headers={**TUS, "Upload-Length": str(size), **headers})
    assert (answer.status_code, answer.content) == (201, b""), answer.text
    return str(answer.headers["location"])


async def sent(client: httpx.AsyncClient, path: str, offset: int, content: bytes, **headers: str) -> httpx.Response:
    return await client.patch(path, content=content, headers={**BYTES, "Upload-Offset": str(offset), **headers})


async def test_the_client_begins_anew_where_the_upload_that_it_remembers_is_gone(
    gateway: GatewayProcess, model: bytes, tmp_path: Path
):
    content = model + b"\x32\x80\x80\x80\x0a" + b" " * (20 * MEBIBYTE)
    (file := tmp_path / "large.onnx").write_bytes(content)
    assert len(content) > RESUMABLE_FROM_BYTES
    unfinished = Unfinished(tmp_path / "kept", gateway.url, file, hashlib.sha256(content).hexdigest())
    unfinished.remember(uuid7())
    unfinished.close()
    order = Order(model=file, user_id="remembers", platform="720", model_id=40001)
    async with AsyncClient(gateway.url, Bearer(gateway.issuer.token())) as client:
        job = await client.submit(order, unfinished_in=tmp_path / "kept")
    assert job.model.size_bytes == len(content)


async def arrived(client: httpx.AsyncClient, path: str) -> int:
    return int((await client.head(path, headers=TUS)).headers["upload-offset"])


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert answer.headers["tus-resumable"] == "1.0.0"
    details: dict[str, Any] = answer.json()["error"]["details"]
    return details


async def test_the_server_says_what_it_can_do(gateway: GatewayProcess):
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        of_all, of_one = [await client.options(path) for path in ("/api/v1/uploads", f"/api/v1/uploads/{uuid7()}")]
    for answer in (of_all, of_one):
        assert answer.status_code == 204
        assert (answer.headers["tus-resumable"], answer.headers["tus-version"]) == ("1.0.0", "1.0.0")
        assert set(answer.headers["tus-extension"].split(",")) == {"creation", "termination", "expiration", "checksum"}
        assert answer.headers["tus-max-size"] == str(500 * MEBIBYTE)
        assert "sha1" in answer.headers["tus-checksum-algorithm"].split(",")
        assert answer.headers["cache-control"] == "no-store"
    assert of_all.headers["allow"] == "OPTIONS, POST"
    assert of_one.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"


async def test_every_answer_names_the_protocol(gateway: GatewayProcess, start_gateway: StartGateway):
    strict = await start_gateway(API_V1_RATE_LIMIT_MAX="1")
    scope = "converter:job.read"
    async with gateway.client(client_id="a", scope=scope) as reader, strict.client(client_id="b") as often:
        refusals = {
            401: await reader.post("/api/v1/uploads", headers={"Authorization": "none"}),
            403: await reader.post("/api/v1/uploads", headers=TUS),
            404: await reader.get(f"/api/v1/uploads/{uuid7()}/more", headers=TUS),
            405: await reader.put("/api/v1/uploads", headers=TUS),
            429: [await often.post("/api/v1/uploads", headers=TUS) for _ in range(2)][-1],
        }
        other = await reader.get("/api/v1/uploads-of-others")
    for status, answer in refusals.items():
        assert (answer.status_code, answer.headers["tus-resumable"]) == (status, "1.0.0")
    assert refusals[429].headers["ratelimit-remaining"] == "0"
    assert "tus-resumable" not in other.headers


async def test_an_independent_client_resumes_at_another_gateway_and_the_job_has_its_model(
    start_gateway: StartGateway, form: Form, large_model: bytes, tmp_path: Path
):
    first, second = await start_gateway(), await start_gateway()
    headers = {"Authorization": f"Bearer {first.issuer.token()}"}
    nine_tenths = len(large_model) * 9 // 10

    def start() -> str:
        uploader = TusClient(f"{first.url}/api/v1/uploads", headers=headers).uploader(
            file_stream=io.BytesIO(large_model), chunk_size=2 * MEBIBYTE, metadata={"filename": "detector.onnx"}
        )
        uploader.upload(stop_at=nine_tenths)
        return str(uploader.url)

    def go_on(url: str) -> int:
        uploader = TusClient(f"{second.url}/api/v1/uploads", headers=headers).uploader(
            file_stream=io.BytesIO(large_model), chunk_size=2 * MEBIBYTE, url=url.replace(first.url, second.url)
        )
        began_at = uploader.offset
        uploader.upload()
        return int(began_at)

    url = await asyncio.to_thread(start)
    first.process.send_signal(signal.SIGKILL)
    assert await asyncio.to_thread(go_on, url) >= nine_tenths
    upload_id = url.rpartition("/")[2]
    async with second.client() as client:
        answer = await client.post("/api/v1/jobs", files=fields_alone(form.fields(model_upload_id=upload_id)))
        assert answer.status_code == 201, answer.text
        assert answer.json()["model"] == {
            "filename": "detector.onnx",
            "size_bytes": len(large_model),
            "sha256": hashlib.sha256(large_model).hexdigest(),
        }
        refused(await client.get(f"/api/v1/uploads/{upload_id}", headers=TUS), 404, "upload_not_found")


def fields_alone(fields: dict[str, Any]) -> dict[str, tuple[None, str]]:
    """Makes httpx send a multipart form without a file."""
    return {name: (None, value) for name, value in fields.items()}


async def test_what_arrived_before_a_connection_broke_is_kept(gateway: GatewayProcess, large_model: bytes):
    async with gateway.client() as client:
        path = await begun(client, len(large_model))
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        head = f"PATCH {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {client.headers['authorization']}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in BYTES.items())
        head += f"Upload-Offset: 0\r\nContent-Length: {len(large_model)}\r\n\r\n"
        cut = 9 * MEBIBYTE + 123
        writer.write(head.encode() + large_model[:cut])
        await writer.drain()
        writer.write_eof()
        writer.close()

        async def is_kept() -> bool:
            return await arrived(client, path) == cut

        await eventually(is_kept)
        answer = await sent(client, path, cut, large_model[cut:])
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(len(large_model)))
        assert await arrived(client, path) == len(large_model)
        await client.delete(path, headers=TUS)


async def test_a_request_that_continues_elsewhere_is_refused(gateway: GatewayProcess):
    async with gateway.client() as client:
        path = await begun(client, 10)
        assert (await sent(client, path, 0, b"abcd")).status_code == 204
        for offset in (0, 3, 5, 10):
            refused(await sent(client, path, offset, b""), 409, "upload_offset_mismatch")
            refused(await sent(client, path, offset, bytes(11)), 409, "upload_offset_mismatch")
        refused(await sent(client, path, 4, b"x" * 7), 413, "file_too_large")
        refused(await sent(client, path, 4, b"x", **{"Content-Type": "text/plain"}), 415, "unsupported_media_type")
        assert await arrived(client, path) == 4


async def test_two_writers_of_one_place_end_in_one_upload(gateway: GatewayProcess):
    async with gateway.client() as client:
        path = await begun(client, 8)
        answers = await asyncio.gather(*(sent(client, path, 0, bytes([65 + n]) * 8) for n in range(4)))
        assert sorted(answer.status_code for answer in answers) == [204, 409, 409, 409]
        assert await arrived(client, path) == 8


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
async def test_bytes_with_a_wrong_checksum_are_not_kept(gateway: GatewayProcess, algorithm: str):
    content = b"0123456789"
    good = base64.b64encode(hashlib.new(algorithm, content).digest()).decode()
    async with gateway.client() as client:
        path = await begun(client, len(content))
        answer = await sent(client, path, 0, content[::-1], **{"Upload-Checksum": f"{algorithm} {good}"})
        refused(answer, 460, "checksum_mismatch")
        assert await arrived(client, path) == 0
        assert (await sent(client, path, 0, content, **{"Upload-Checksum": f"{algorithm} {good}"})).status_code == 204
        answer = await sent(client, path, 10, b"", **{"Upload-Checksum": "crc32 AAAA"})
        refused(answer, 400, "validation_error")


async def test_an_upload_belongs_to_its_client(gateway: GatewayProcess, form: Form, model: bytes):
    async with gateway.client() as client, gateway.client(client_id="other") as other:
        path = await begun(client, len(model))
        absent = path[:-4] + ("0000" if path[-4:] != "0000" else "0001")
        assert (await sent(client, path, 0, model)).status_code == 204
        for method in ("GET", "PATCH", "DELETE"):
            headers = BYTES | {"Upload-Offset": str(len(model))}
            answers = [await other.request(method, where, headers=headers) for where in (path, absent)]
            for answer in answers:
                refused(answer, 404, "upload_not_found")
        fields = form.fields(model_upload_id=path.rpartition("/")[2])
        answer = await other.post("/api/v1/jobs", files=fields_alone(fields))
        assert answer.json()["error"]["details"]["fields"][0]["message"] == "names no upload"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upload-Length": "5", "Tus-Resumable": "0.2.2"}, 412),
        ({}, 400),
        ({"Upload-Length": "-1"}, 400),
        ({"Upload-Length": "9" * 30}, 400),
        ({"Upload-Length": "999999999999"}, 413),
        ({"Upload-Length": "5", "Upload-Metadata": "filename !!"}, 400),
        ({"Upload-Length": "5", "Upload-Metadata": "filename " + base64.b64encode(b"a.exe").decode()}, 400),
        ({"Upload-Length": "5", "Upload-Metadata": "x" * 5000}, 400),
    ],
)
async def test_a_bad_beginning_is_refused(gateway: GatewayProcess, headers: dict[str, str], status: int):
    async with gateway.client() as client:
        answer = await client.post("/api/v1/uploads", headers={**TUS, **headers})
    assert answer.status_code == status, answer.text
    assert answer.headers["tus-resumable"] == "1.0.0"


async def test_every_bad_header_is_named(gateway: GatewayProcess):
    async with gateway.client(client_id="c") as client:
        path = await begun(client, 4)
        beginning = {"Upload-Length": "x", "Upload-Metadata": "filename !"}
        piece = {"Upload-Offset": "x", "Upload-Checksum": "crc32 AAAA"}
        for answer, bad in (
            (await client.post("/api/v1/uploads", headers=TUS | beginning), beginning),
            (await client.patch(path, content=b"a", headers=BYTES | piece), piece),
        ):
            details = refused(answer, 400, "validation_error")
            assert [field["field"] for field in details["fields"]] == list(bad)


async def test_a_header_in_two_lines_is_read_whole(gateway: GatewayProcess):
    metadata = [f"filename {base64.b64encode(b'a.onnx').decode()}", "relativePath"]
    async with gateway.client(client_id="c") as client:
        lengths = [*TUS.items(), ("Upload-Length", "5"), ("Upload-Length", "6")]
        details = refused(await client.post("/api/v1/uploads", headers=lengths), 400, "validation_error")
        assert [field["field"] for field in details["fields"]] == ["Upload-Length"]
        lines = [*TUS.items(), ("Upload-Length", "5"), *(("Upload-Metadata", line) for line in metadata)]
        path = (await client.post("/api/v1/uploads", headers=lines)).headers["location"]
        assert (await client.head(path, headers=TUS)).headers["upload-metadata"] == ", ".join(metadata)


async def test_the_type_of_a_piece_may_have_parameters_and_any_case(gateway: GatewayProcess):
    async with gateway.client(client_id="c") as client:
        path = await begun(client, 4)
        for offset, kind in enumerate(("application/offset+octet-stream; a=b", "Application/Offset+Octet-Stream")):
            assert (await sent(client, path, offset, b"a", **{"Content-Type": kind})).status_code == 204
        other = await sent(client, path, 2, b"a", **{"Content-Type": "application/octet-stream"})
        refused(other, 415, "unsupported_media_type")


async def test_a_read_only_token_uploads_nothing(gateway: GatewayProcess):
    async with gateway.client(scope="converter:job.read") as client:
        answer = await client.post("/api/v1/uploads", headers={**TUS, "Upload-Length": "5"})
    assert answer.status_code == 403


async def test_a_job_takes_only_a_finished_upload_of_a_model(gateway: GatewayProcess, form: Form, model: bytes):
    async with gateway.client() as client:
        path = await begun(client, len(model))
        fields = form.fields(model_upload_id=path.rpartition("/")[2])
        await sent(client, path, 0, model[:100])
        answer = await client.post("/api/v1/jobs", files=fields_alone(fields))
        assert "100 of" in answer.json()["error"]["details"]["fields"][0]["message"]
        await sent(client, path, 100, bytes(len(model) - 100))
        answer = await client.post("/api/v1/jobs", files=fields_alone(fields))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_multipart")
        answer = await client.post("/api/v1/jobs", data=fields, files={"model": ("m.onnx", model)})
        assert answer.json()["error"]["code"] == "validation_error"
        assert (await client.delete(path, headers=TUS)).status_code == 204


async def test_what_the_client_said_of_its_upload_is_told_again(gateway: GatewayProcess):
    metadata = f"filename {base64.b64encode(b'detector.onnx').decode()},relativePath"
    async with gateway.client() as client:
        path = await begun(client, 5, **{"Upload-Metadata": metadata})
        assert (await client.head(path, headers=TUS)).headers["upload-metadata"] == metadata


async def test_a_repeated_request_finds_its_job_though_the_upload_is_used_up(
    gateway: GatewayProcess, form: Form, model: bytes
):
    async with gateway.client() as client:
        path = await begun(client, len(model))
        await sent(client, path, 0, model)
        fields, headers = form.fields(model_upload_id=path.rpartition("/")[2]), {"Idempotency-Key": form.user_id}
        first = await client.post("/api/v1/jobs", files=fields_alone(fields), headers=headers)
        again = await client.post("/api/v1/jobs", files=fields_alone(fields), headers=headers)
    assert first.status_code == 201, first.text
    assert (again.status_code, again.json()["job_id"]) == (201, first.json()["job_id"])


async def test_a_repeated_request_may_name_another_upload_of_the_same_model_or_none(
    gateway: GatewayProcess, form: Form, model: bytes
):
    digest = {"model_sha256": hashlib.sha256(model).hexdigest()}
    async with gateway.client() as client:

        async def posted(**upload: str) -> httpx.Response:
            files, headers = fields_alone(form.fields(**digest, **upload)), {"Idempotency-Key": form.user_id}
            return await client.post("/api/v1/jobs", files=files, headers=headers)

        async def uploaded() -> str:
            path = await begun(client, len(model))
            await sent(client, path, 0, model)
            return path.rpartition("/")[2]

        first = await posted(model_upload_id=await uploaded())
        again = [await posted(), await posted(model_upload_id=await uploaded())]
    assert first.status_code == 201, first.text
    assert [answer.json().get("job_id") for answer in again] == [first.json()["job_id"]] * 2


async def test_a_method_may_be_named_in_a_header(gateway: GatewayProcess):
    async with gateway.client() as client:
        path = await begun(client, 4)
        headers = {**BYTES, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
        assert (await client.post(path, content=b"abcd", headers=headers)).status_code == 204
        assert await arrived(client, path) == 4
        answer = await client.post(path, headers={**TUS, "X-HTTP-Method-Override": "DELETE"})
        assert answer.status_code == 204
        answer = await client.post("/api/v1/jobs", headers={"X-HTTP-Method-Override": "GET"})
        assert answer.status_code == 415


async def test_a_terminated_upload_leaves_nothing(
    gateway: GatewayProcess, stored: Callable[[], list[str]], model: bytes
):
    before = stored()
    async with gateway.client() as client:
        path = await begun(client, len(model))
        await sent(client, path, 0, model)
        assert stored() != before
        assert (await client.delete(path, headers=TUS)).status_code == 204
        refused(await client.delete(path, headers=TUS), 404, "upload_not_found")
    assert stored() == before


async def test_an_upload_past_its_time_is_gone_and_its_bytes_are_swept(
    start_gateway: StartGateway, model: bytes, tmp_path: Path
):
    objects = tmp_path / "objects"
    gateway = await start_gateway(RESUMABLE_UPLOAD_TTL_HOURS="0.001", LOCAL_STORAGE_DIR=str(objects))
    async with gateway.client() as client:
        path = await begun(client, len(model))
        await sent(client, path, 0, model)

        async def is_gone() -> bool:
            return (await client.head(path, headers=TUS)).status_code == 404

        await eventually(is_gone, within_s=30)
    assert await Uploads(open_local(objects), timedelta(hours=0.001)).sweep() == 1
    assert not (objects / "uploads").exists()


async def keys(store: ArtifactStore) -> AsyncIterator[str]:
    async for info in store.list():
        yield info.object_key


async def test_a_sweep_spares_what_is_young_and_takes_what_a_crash_has_left(tmp_path: Path):
    store = open_local(tmp_path / "objects")
    young, old = Uploads(store, timedelta(hours=1)), Uploads(store, timedelta(0))
    upload = await young.create("visiona", 2 * PIECE_BYTES, "m.onnx")

    async def body() -> Any:  # noqa: ANN401 - an asynchronous generator
        yield bytes(PIECE_BYTES)
        yield b"tail"

    assert await young.append(upload, 0, body()) == PIECE_BYTES + 4
    assert await young.sweep() == 0
    (info_key,) = [key async for key in keys(store) if key.endswith("/info")]
    await store.delete(info_key)
    assert await young.sweep() == 0
    assert await old.sweep() == 1
    assert [key async for key in keys(store)] == []


async def test_a_client_may_have_so_many_uploads_and_room_comes_back(
    start_gateway: StartGateway, form: Form, model: bytes, tmp_path: Path
):
    gateway = await start_gateway(
        RESUMABLE_UPLOADS_MAX_COUNT="2", UPLOAD_RETRY_AFTER_SECONDS="7", LOCAL_STORAGE_DIR=str(tmp_path / "objects")
    )
    headers = TUS | {"Upload-Length": str(len(model))}
    async with gateway.client() as client, gateway.client(client_id="other") as other:
        answers = await asyncio.gather(*(client.post("/api/v1/uploads", headers=headers) for _ in range(10)))
        paths = [answer.headers["location"] for answer in answers if answer.status_code == 201]
        assert len(paths) == 2
        (reason, *_) = [answer for answer in answers if answer.status_code != 201]
        assert reason.headers["retry-after"] == "7"
        details = refused(reason, 429, "rate_limit_exceeded")
        assert (details["open_uploads"], details["open_uploads_limit"]) == (2, 2)
        assert "DELETE" in details["hint"]
        await begun(other, len(model))

        assert (await client.delete(paths[0], headers=TUS)).status_code == 204
        await begun(client, len(model))
        await sent(client, paths[1], 0, model)
        refused(await client.post("/api/v1/uploads", headers=headers), 429, "rate_limit_exceeded")
        used = form.fields(model_upload_id=paths[1].rpartition("/")[2])
        assert (await client.post("/api/v1/jobs", files=fields_alone(used))).status_code == 201
        await begun(client, len(model))


async def test_a_clients_uploads_may_have_so_many_bytes_together(start_gateway: StartGateway, tmp_path: Path):
    gateway = await start_gateway(
        MULTIPART_MODEL_MAX_BYTES="1000",
        RESUMABLE_UPLOADS_MAX_BYTES="1500",
        LOCAL_STORAGE_DIR=str(tmp_path / "objects"),
    )
    async with gateway.client() as client:
        await begun(client, 1000)
        answer = await client.post("/api/v1/uploads", headers=TUS | {"Upload-Length": "501"})
        details = refused(answer, 429, "rate_limit_exceeded")
        assert (details["open_uploads_bytes"], details["open_uploads_limit_bytes"]) == (1000, 1500)
        await begun(client, 500)


async def test_an_upload_takes_a_slot_while_its_bytes_come_and_none_while_it_rests(
    start_gateway: StartGateway, model: bytes
):
    gateway = await start_gateway(MAX_CONCURRENT_UPLOADS="1")
    async with gateway.client(client_id="d") as client:
        coming, resting = await begun(client, len(model)), await begun(client, len(model))
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(
            f"PATCH {coming} HTTP/1.1\r\nHost: x\r\nAuthorization: {client.headers['authorization']}\r\n"
            "Tus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\n"
            f"Content-Length: {len(model)}\r\n\r\n".encode()
        )

        async def busy() -> httpx.Response | None:
            answer = await sent(client, resting, await arrived(client, resting), b"x")
            return answer if answer.status_code != 204 else None

        answer = await eventually(busy)
        refused(answer, 503, "service_busy")
        assert int(answer.headers["retry-after"]) > 0
        await begun(client, len(model))
        writer.close()

        async def free() -> bool:
            return (await sent(client, resting, await arrived(client, resting), b"x")).status_code == 204

        await eventually(free)
