from __future__ import annotations

import asyncio
import socket

import pytest

from converter.devstack.loopback import HOST, ReservedPorts, http_status, origin


def test_a_port_that_somebody_has_is_not_taken_again():
    with socket.create_server((HOST, 0)) as server, ReservedPorts() as ports, ReservedPorts() as others:
        taken = server.getsockname()[1]
        got = ports.take(taken)
        assert got != taken
        assert others.take(got) != got
    with ReservedPorts() as ports:
        assert ports.take(got) == got


def test_connections_that_a_server_closed_do_not_keep_its_port():
    with ReservedPorts() as ports:
        port = ports.take()
        with socket.create_server((HOST, port)) as server, socket.create_connection((HOST, port)):
            server.accept()[0].close()
    with ReservedPorts() as ports:
        assert ports.take(port) == port


async def test_a_server_can_listen_on_a_reserved_port_and_come_back_to_it():
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    with ReservedPorts() as ports:
        port = ports.take()
        assert await http_status(origin(port)) is None
        for _ in range(2):
            async with await asyncio.start_server(answer, HOST, port):
                assert await http_status(f"{origin(port)}/health") == 204
                with pytest.raises(OSError, match="in use"):
                    socket.create_server((HOST, port))
