"""Uploads of 500 MB through the gateway into SeaweedFS: wall time against direct PUTs, and the gateway's memory.

    python benchmarks/uploads.py [--at-once 4] [--megabytes 500]

The model is a real one with a long documentation, so that it is skimmed and hashed as any other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
from joserfc import jwt
from joserfc.jwk import RSAKey

from converter.common.bus import Bus
from converter.common.provision import provision
from converter.common.settings import NatsSettings
from converter.common.storage import open_s3
from converter.common.topology import Tuning
from converter.devstack.demo import DATA
from converter.devstack.nats_server import NatsServer
from converter.devstack.seaweedfs import SeaweedFs

MEBIBYTE = 1 << 20
PIECE = bytes(MEBIBYTE)
BOUNDARY = "b"
AUDIENCE = "kneron-converter"
BUCKET, KEY, SECRET = "converter", "bench-key", "bench-secret"


class Issuer:
    """A key set over HTTP."""

    def __init__(self) -> None:
        self._key = RSAKey.generate_key(2048, {"kid": "main", "use": "sig"})
        self.url = ""

    async def start(self) -> asyncio.Server:
        """Serve on a free port."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    def token(self) -> str:
        """One that may do everything."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": AUDIENCE, "client_id": "bench", "iat": now, "exp": now + 3600}
        claims |= {"scope": "converter:job.read converter:job.write", "sub": "bench"}
        return jwt.encode({"alg": "RS256", "kid": "main"}, claims, self._key)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"keys": [self._key.as_dict(private=False)]}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()


def model_head(size_bytes: int) -> bytes:
    """A model up to the documentation of `size_bytes` that ends it."""
    length = bytearray()
    while size_bytes > 0x7F:  # noqa: PLR2004 - a varint
        length.append(size_bytes & 0x7F | 0x80)
        size_bytes >>= 7
    return (DATA / "digits_cnn.onnx").read_bytes() + b"\x32" + bytes([*length, size_bytes])


async def form(user_id: str, megabytes: int) -> AsyncIterator[bytes]:
    """The body of one request."""
    fields = {"user_id": user_id, "platform": "720", "model_id": "32769", "version": "0001"}
    for name, value in fields.items():
        yield f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    yield f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="model"; filename="m.onnx"\r\n\r\n'.encode()
    yield model_head(megabytes * MEBIBYTE)
    for _ in range(megabytes):
        yield PIECE
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


async def through_gateway(client: httpx.AsyncClient, number: int, megabytes: int) -> None:
    """Post one job."""
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    answer = await client.post(
        "/api/v1/jobs", content=form(f"user-{number}-{time.time_ns()}", megabytes), headers=headers
    )
    if answer.status_code != 201:  # noqa: PLR2004 - created
        raise SystemExit(answer.text)


async def direct(weed: SeaweedFs, number: int, megabytes: int) -> None:
    """Write one object by the same S3 client."""
    async with (
        open_s3(weed.url, BUCKET, access_key=KEY, secret_key=SECRET) as store,
        store.writer(f"direct/{number}-{time.time_ns()}") as writer,
    ):
        for _ in range(megabytes):
            await writer.write(PIECE)
        await writer.commit()


async def measure(weed: SeaweedFs, client: httpx.AsyncClient, gateway: psutil.Process, at_once: int, size: int) -> None:
    """One round, printed."""
    began = time.perf_counter()
    await asyncio.gather(*(direct(weed, number, size) for number in range(at_once)))
    direct_s = time.perf_counter() - began
    idle = peak = gateway.memory_info().rss
    cpu_s = sum(gateway.cpu_times()[:2])
    began = time.perf_counter()
    uploads = asyncio.gather(*(through_gateway(client, number, size) for number in range(at_once)))
    while not uploads.done():
        await asyncio.wait({uploads}, timeout=0.02)
        peak = max(peak, gateway.memory_info().rss)
    await uploads
    wall_s = time.perf_counter() - began
    cpu_s = sum(gateway.cpu_times()[:2]) - cpu_s
    sys.stdout.write(
        f"{at_once} x {size} MB: gateway {wall_s:.1f} s ({at_once * size / wall_s:.0f} MB/s), direct {direct_s:.1f} s, "
        f"ratio {direct_s / wall_s:.2f}; memory idle {idle >> 20} MB, peak +{(peak - idle) >> 20} MB; "
        f"gateway CPU {cpu_s:.1f} s\n"
    )


async def main() -> None:
    """Start what is needed, measure, stop it."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--at-once", type=int, default=4)
    arguments.add_argument("--megabytes", type=int, default=499)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        nats, issuer = NatsServer(Path(directory) / "nats"), Issuer()
        weed = SeaweedFs(Path(directory) / "weed", bucket=BUCKET, access_key=KEY, secret_key=SECRET)
        (Path(directory) / "weed").mkdir()
        await nats.start()
        await weed.start()
        async with await Bus.connect(NatsSettings(nats_url=nats.url), name="provisioner") as bus:
            await provision(bus, Tuning())
        serving = await issuer.start()
        try:
            await _with_gateway(nats, weed, issuer, Path(directory) / "gateway.log", given)
        finally:
            serving.close()
            await weed.kill()
            await nats.kill()


async def _with_gateway(
    nats: NatsServer, weed: SeaweedFs, issuer: Issuer, log: Path, given: argparse.Namespace
) -> None:
    environ = {
        "NATS_URL": nats.url,
        "STORAGE_BACKEND": "minio",
        "MINIO_ENDPOINT_URL": weed.url,
        "MINIO_BUCKET": BUCKET,
        "MINIO_ACCESS_KEY": KEY,
        "MINIO_SECRET_KEY": SECRET,
        "MEMBER_CENTER_ISSUER": issuer.url,
        "MEMBER_CENTER_JWKS_URL": issuer.url,
        "MEMBER_CENTER_TOKEN_URL": issuer.url,
        "KNERON_CONVERTER_AUDIENCE": AUDIENCE,
        "KNERON_CONVERTER_CLIENT_ID": "converter",
        "KNERON_CONVERTER_CLIENT_SECRET": "secret",
        "FILE_ACCESS_AGENT_BASE_URL": issuer.url,
        "FILE_ACCESS_AGENT_AUDIENCE": "files",
        "HOST": "127.0.0.1",
        "PORT": "0",
        "INTERNAL_PORT": "0",
    }
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "converter.gateway"), env=os.environ | environ, stdout=output, stderr=output
        )
    try:
        url = f"http://127.0.0.1:{await _port(log)}"
        headers = {"Authorization": f"Bearer {issuer.token()}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=600, trust_env=False) as client:
            await through_gateway(client, 0, 20)
            await measure(weed, client, psutil.Process(process.pid), given.at_once, given.megabytes)
    finally:
        process.kill()
        await process.wait()


async def _port(log: Path) -> int:
    async with asyncio.timeout(20):
        while True:
            for line in log.read_text().splitlines():
                if '"http.listening"' in line and (entry := json.loads(line))["face"] == "public":
                    return int(entry["port"])
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(main())
