"""A collector of traces: takes OTLP over HTTP and keeps the spans."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Spanned(NamedTuple):
    """One span. Ids are hexadecimal; `parent` is empty in the span that began its trace."""

    service: str
    name: str
    trace: str
    id: str
    parent: str


class Collector:
    """Listens on `url` while `receiving` is open."""

    def __init__(self) -> None:
        self.spans: list[Spanned] = []
        self.bodies: list[bytes] = []
        """Everything that was exported, as it came."""
        self.url = ""

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode().lower():
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                body = await reader.readexactly(int(fields["content-length"]))
                self._keep(gzip.decompress(body) if fields.get("content-encoding") == "gzip" else body)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()

    def _keep(self, body: bytes) -> None:
        self.bodies.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            [service] = [one.value.string_value for one in resource.resource.attributes if one.key == "service.name"]
            self.spans += [
                Spanned(service, span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                for scope in resource.scope_spans
                for span in scope.spans
            ]
