"""What an S3 server and the way to it can do wrong, and what the store makes of it.

A relay stands before a real server. It answers single requests itself, loses or delays answers, or cuts connections.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from converter.common.storage import (
    ArtifactStore,
    BucketMissing,
    ByteRange,
    ObjectNotFound,
    StorageUnavailable,
    Timeouts,
    open_s3,
)
from converter.contracts.job import StoredObject
from converter.devstack.seaweedfs import SeaweedFs

PART = 8 << 20
QUICK_TO_REPEAT = Timeouts(connect_s=3, idle_s=10, call_s=20, repeat_after_s=(0, 0.01))
BROKEN = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"


class Request(NamedTuple):
    """What a rule decides by."""

    method: str
    target: str

    @property
    def is_completion(self) -> bool:
        return self.method == "POST" and "uploadId=" in self.target

    @property
    def is_part(self) -> bool:
        return self.method == "PUT" and "partNumber=" in self.target

    @property
    def is_creation(self) -> bool:
        return self.method == "POST" and "uploads=" in self.target


def http(status: str, body: bytes = b"", **headers: str) -> bytes:
    fields = {"Content-Length": str(len(body)), "Connection": "close"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def xml(status: str, body: bytes) -> bytes:
    return http(status, body, Content_Type="application/xml")


class Deliver(NamedTuple):
    """Let the request through after `wait`, with another last byte if `damaged`, and its answer if `answer`."""

    wait: Callable[[], Awaitable[object]] | None = None
    answer: bool = True
    damaged: bool = False


CUT = None
"""End the connection with the request half read."""
Rule = Callable[[Request], "Deliver | bytes | None"]


def through(_: Request) -> Deliver:
    return Deliver()


class Relay:
    """Speaks HTTP, one request for each connection; `rule` says what happens to it: `Deliver`, an answer, or `CUT`."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self.rule: Rule = through
        self.seen: list[Request] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            request = Request(method, target)
            self.seen.append(request)
            match self.rule(request):
                case None:
                    writer.transport.abort()
                case bytes() as answer:
                    await reader.readexactly(content_length(head))
                    writer.write(answer)
                    await writer.drain()
                case Deliver() as deliver:
                    body = await reader.readexactly(content_length(head))
                    if deliver.wait is not None:
                        await deliver.wait()
                    answer = await self._forward(head, body[:-1] + b"?" if deliver.damaged else body)
                    if deliver.answer:
                        writer.write(answer)
                        await writer.drain()
        writer.close()

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            writer.write(head[:-2] + b"Connection: close\r\n\r\n" + body)
            return await reader.read(-1)
        finally:
            writer.close()


def content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


@asynccontextmanager
async def serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """An address at which `serve` handles connections, all of which end with the context."""
    connections: set[asyncio.Task[None]] = set()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            connections.discard(task)

    server = await asyncio.start_server(tracked, "127.0.0.1", 0, limit=1 << 20)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@pytest.fixture
async def relay(seaweedfs: SeaweedFs) -> Relay:
    return Relay(seaweedfs.port)


@pytest.fixture
async def relayed(relay: Relay) -> AsyncIterator[ArtifactStore]:
    async with (
        serving(relay.serve) as address,
        open_s3(
            address, "converter", access_key="test-key", secret_key="test-secret", timeouts=QUICK_TO_REPEAT
        ) as store,
    ):
        yield store


def always(which: Callable[[Request], bool], outcome: Deliver | bytes | None) -> Rule:
    return lambda request: outcome if which(request) else Deliver()


def once(which: Callable[[Request], bool], outcome: Deliver | bytes | None) -> Rule:
    outcomes = iter([outcome])
    return lambda request: next(outcomes, Deliver()) if which(request) else Deliver()


async def content(store: ArtifactStore, key: str) -> bytes:
    async with store.open(key) as download:
        return b"".join([chunk async for chunk in download.chunks])


async def assert_nothing_left(s3: ArtifactStore, prefix: str) -> None:
    assert [info async for info in s3.list(prefix)] == []
    assert [upload async for upload in s3.open_uploads(prefix)] == []


@pytest.mark.parametrize(
    "which",
    [
        pytest.param(lambda request: request.is_completion, id="completion"),
        pytest.param(lambda request: request.is_part, id="part"),
        pytest.param(lambda request: request.is_creation, id="creation"),
    ],
)
@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(xml("200 OK", BROKEN), id="200 with an error body"),
        pytest.param(http("200 OK", b"<html>a proxy's page", Content_Type="text/html"), id="200 from a proxy"),
        pytest.param(xml("503 Slow Down", BROKEN), id="503"),
        pytest.param(http("502 Bad Gateway", b"<html>no", Content_Type="text/html"), id="502 from a proxy"),
        pytest.param(xml("500 Internal Server Error", b"<Err"), id="500 cut off"),
        pytest.param(xml("403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>"), id="403"),
        pytest.param(http("301 Moved Permanently", Location="http://127.0.0.1:9/"), id="redirect"),
        pytest.param(CUT, id="reset"),
    ],
)
async def test_a_large_object_whose_upload_fails_leaves_nothing(
    relay: Relay,
    relayed: ArtifactStore,
    s3: ArtifactStore,
    prefix: str,
    which: Callable[[Request], bool],
    outcome: bytes | None,
) -> None:
    relay.rule = always(which, outcome)

    with pytest.raises(StorageUnavailable) as failed:
        await relayed.put(prefix + "a", bytes(PART + 1))

    assert failed.value.address.startswith("http://127.0.0.1:")
    await assert_nothing_left(s3, prefix)


@pytest.mark.parametrize(
    "which",
    [
        pytest.param(lambda request: request.is_completion, id="completion"),
        pytest.param(lambda request: request.is_part, id="part"),
    ],
)
@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(xml("503 Slow Down", BROKEN), id="503"),
        pytest.param(CUT, id="reset"),
        pytest.param(Deliver(answer=False), id="answer lost"),
    ],
)
async def test_a_large_object_survives_one_fault(
    relay: Relay,
    relayed: ArtifactStore,
    s3: ArtifactStore,
    prefix: str,
    which: Callable[[Request], bool],
    outcome: Deliver | bytes | None,
) -> None:
    relay.rule = once(which, outcome)
    data = os.urandom(2 * PART + 5)

    stored = await relayed.put(prefix + "a", data)

    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert await content(s3, prefix + "a") == data
    assert [upload async for upload in s3.open_uploads(prefix)] == []


async def test_a_completion_that_fails_under_status_200_is_repeated(
    relay: Relay, relayed: ArtifactStore, s3: ArtifactStore, prefix: str
) -> None:
    relay.rule = once(lambda request: request.is_completion, xml("200 OK", BROKEN))
    await relayed.put(prefix + "a", bytes(PART))
    assert await content(s3, prefix + "a") == bytes(PART)


async def test_a_small_object_whose_answer_is_lost_is_recognised_as_ours(
    relay: Relay, relayed: ArtifactStore, s3: ArtifactStore, prefix: str
) -> None:
    relay.rule = once(lambda request: request.method == "PUT", Deliver(answer=False))

    await relayed.put(prefix + "a", b"whole")

    assert [request.method for request in relay.seen] == ["PUT", "PUT", "HEAD"]
    assert await content(s3, prefix + "a") == b"whole"


async def test_a_small_object_that_is_damaged_on_its_way_is_sent_again(
    relay: Relay, relayed: ArtifactStore, s3: ArtifactStore, prefix: str
) -> None:
    relay.rule = once(lambda request: request.method == "PUT", Deliver(damaged=True))
    await relayed.put(prefix + "a", b"whole")
    assert await content(s3, prefix + "a") == b"whole"

    relay.rule = always(lambda request: request.method == "PUT", Deliver(damaged=True))
    with pytest.raises(StorageUnavailable):
        await relayed.put(prefix + "b", b"whole")
    assert [info.object_key async for info in s3.list(prefix)] == [prefix + "a"]


async def test_a_small_object_that_is_never_answered_is_taken_back(
    relay: Relay, relayed: ArtifactStore, s3: ArtifactStore, prefix: str
) -> None:
    async with relayed.writer(prefix + "a") as writer:
        await writer.write(b"whole")
        relay.rule = always(lambda _: True, Deliver(answer=False))
        with pytest.raises(StorageUnavailable):
            await writer.commit()
        assert await content(s3, prefix + "a") == b"whole"
        relay.rule = through

    await assert_nothing_left(s3, prefix)


async def test_a_redirected_put_is_not_taken_for_stored(relay: Relay, relayed: ArtifactStore, prefix: str) -> None:
    def elsewhere(request: Request) -> Deliver | bytes:
        if request.method == "PUT":
            return http("301 Moved Permanently", Location="/welcome")
        return http("200 OK", b"welcome") if request.target == "/welcome" else Deliver()

    relay.rule = elsewhere
    with pytest.raises(StorageUnavailable, match="/welcome"):
        await relayed.put(prefix + "a", b"whole")


async def test_parts_that_overtake_each_other_end_in_order(
    relay: Relay, relayed: ArtifactStore, s3: ArtifactStore, prefix: str
) -> None:
    second_is_here = asyncio.Event()

    def second_first(request: Request) -> Deliver:
        if "partNumber=2" in request.target:
            second_is_here.set()
        return Deliver(wait=second_is_here.wait if "partNumber=1" in request.target else None)

    relay.rule = second_first
    data = os.urandom(2 * PART + 5)
    await relayed.put(prefix + "a", data)

    assert await content(s3, prefix + "a") == data


async def test_a_server_that_stops_reading_is_given_up(s3: ArtifactStore, prefix: str) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with (
        serving(stall) as address,
        open_s3(address, "converter", access_key="k", secret_key="s", timeouts=Timeouts(call_s=0.5)) as store,
        asyncio.timeout(10),
    ):
        with pytest.raises(StorageUnavailable):
            await store.put(prefix + "a", bytes(PART - 1))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(http("304 Not Modified"), id="304"),
        pytest.param(http("200 OK", b"short", Content_Length="100"), id="cut off"),
        pytest.param(http("404 Not Found", b"<html>no such site", Content_Type="text/html"), id="404 from a proxy"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end", id="no length"),
        pytest.param(b"not HTTP\r\n\r\n", id="not HTTP"),
        pytest.param(CUT, id="reset"),
    ],
)
async def test_a_bad_download_is_neither_a_short_one_nor_a_missing_object(
    relay: Relay, relayed: ArtifactStore, prefix: str, tmp_path: Path, answer: bytes | None
) -> None:
    await relayed.put(prefix + "a", b"whole")
    relay.rule = always(lambda request: request.method == "GET", answer)

    with pytest.raises(StorageUnavailable):
        await content(relayed, prefix + "a")
    with pytest.raises(StorageUnavailable):
        await relayed.fetch(StoredObject(object_key=prefix + "a", size_bytes=100, sha256="0" * 64), tmp_path / "a")
    assert not (tmp_path / "a").exists()


async def test_a_download_that_stalls_is_given_up(prefix: str) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin")
        await asyncio.Event().wait()

    async with (
        serving(stall) as address,
        open_s3(address, "converter", access_key="k", secret_key="s", timeouts=Timeouts(idle_s=0.3)) as store,
        asyncio.timeout(10),
    ):
        with pytest.raises(StorageUnavailable):
            await content(store, prefix + "a")


async def test_a_range_that_the_server_ignores_is_not_served(relay: Relay, relayed: ArtifactStore, prefix: str) -> None:
    relay.rule = always(lambda request: request.method == "GET", http("200 OK", b"everything"))
    with pytest.raises(StorageUnavailable, match="range"):
        async with relayed.open(prefix + "a", ByteRange(3, 5)):
            pass


async def test_a_copy_that_fails_under_status_200_is_no_copy(
    relay: Relay, relayed: ArtifactStore, s3: ArtifactStore, prefix: str
) -> None:
    source = await relayed.put(prefix + "a", b"whole")
    relay.rule = always(lambda request: request.method == "PUT", xml("200 OK", BROKEN))
    with pytest.raises(StorageUnavailable, match="InternalError"):
        await relayed.copy(source, prefix + "b")
    with pytest.raises(ObjectNotFound):
        await s3.stat(prefix + "b")


@pytest.mark.parametrize(
    "answer",
    [
        b"<DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>",
        BROKEN,
        b"not XML",
    ],
)
async def test_a_deletion_that_fails_under_status_200_is_no_deletion(
    relay: Relay, relayed: ArtifactStore, prefix: str, answer: bytes
) -> None:
    await relayed.put(prefix + "a", b"1")
    relay.rule = always(lambda request: "delete" in request.target, xml("200 OK", answer))
    with pytest.raises(StorageUnavailable):
        await relayed.delete(prefix + "a")


async def test_a_fault_while_tidying_up_does_not_hide_what_went_wrong(
    relay: Relay, relayed: ArtifactStore, prefix: str
) -> None:
    async def receive() -> None:
        async with relayed.writer(prefix + "a") as writer:
            await writer.write(bytes(PART))
            relay.rule = always(lambda request: request.method == "DELETE", CUT)
            raise ConnectionResetError("the client is gone")

    with pytest.raises(ConnectionResetError):
        await receive()


async def test_an_unreachable_server_is_named(seaweedfs: SeaweedFs, unused_tcp_port: int) -> None:
    address = f"http://127.0.0.1:{unused_tcp_port}"
    async with open_s3(address, "converter", access_key="k", secret_key="s", timeouts=QUICK_TO_REPEAT) as store:
        for attempt in (store.probe(), store.put("a", b"1"), store.stat("a"), content(store, "a")):
            with pytest.raises(StorageUnavailable) as failed:
                await attempt
            assert failed.value.address == address
            assert address in str(failed.value)


async def test_a_missing_bucket_is_told_apart(seaweedfs: SeaweedFs) -> None:
    async with open_s3(seaweedfs.url, "elsewhere", access_key="test-key", secret_key="test-secret") as store:
        with pytest.raises(BucketMissing, match="elsewhere"):
            await store.probe()


async def test_wrong_credentials_are_told_without_the_secret(seaweedfs: SeaweedFs) -> None:
    async with open_s3(seaweedfs.url, "converter", access_key="test-key", secret_key="wr0ng") as store:
        with pytest.raises(StorageUnavailable, match="SignatureDoesNotMatch") as failed:
            await store.probe()
    assert "wr0ng" not in str(failed.value)


@pytest.mark.parametrize("address", ["127.0.0.1:9000", "ftp://127.0.0.1", "http://", "http://host/path", "http://h?q"])
async def test_an_address_that_is_none_is_refused(address: str) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(ValueError, match="address"):
            await stack.enter_async_context(open_s3(address, "converter", access_key="k", secret_key="s"))
