"""Several uploads at once into SeaweedFS; the benchmarks' row `upload_memory` measures up to 500 MB each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from converter.common.storage import open_s3
from converter.devstack.seaweedfs import SeaweedFs

from .conftest import Form, StartGateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEBIBYTE = 1 << 20
MEBIBYTES = 48
DOC_STRING = b"\x32\x80\x80\x80\x18"  # field 6 with 48 MiB


async def body(form: Form, model: bytes, mebibytes: int) -> AsyncIterator[bytes]:
    for name, value in form.fields().items():
        yield f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    yield b'--b\r\nContent-Disposition: form-data; name="model"; filename="m.onnx"\r\n\r\n' + model + DOC_STRING
    for _ in range(mebibytes):
        yield bytes(MEBIBYTE)
    yield b"\r\n--b--\r\n"


async def test_four_uploads_at_once_fit_in_little_memory_and_leave_only_what_is_whole(
    start_gateway: StartGateway, new_form: Callable[[], Form], model: bytes, tmp_path: Path
):
    (tmp_path / "weed").mkdir()
    weed = SeaweedFs(tmp_path / "weed", bucket="converter", access_key="key", secret_key="secret")
    await weed.start()
    try:
        gateway = await start_gateway(
            STORAGE_BACKEND="minio",
            MINIO_ENDPOINT_URL=weed.url,
            MINIO_BUCKET="converter",
            MINIO_ACCESS_KEY="key",
            MINIO_SECRET_KEY="secret",
        )
        process = psutil.Process(gateway.process.pid)
        idle = peak = process.memory_info().rss
        async with gateway.client() as client:
            headers = {"Content-Type": "multipart/form-data; boundary=b"}
            whole = [body(new_form(), model, MEBIBYTES) for _ in range(3)]
            short = body(new_form(), model, MEBIBYTES - 1)
            posting = asyncio.gather(
                *(client.post("/api/v1/jobs", content=sent, headers=headers) for sent in [*whole, short])
            )
            while not posting.done():
                await asyncio.wait({posting}, timeout=0.02)
                peak = max(peak, process.memory_info().rss)
            answers = await posting
        assert [answer.status_code for answer in answers] == [201, 201, 201, 400], answers[-1].text
        assert "cut off" in answers[-1].json()["error"]["message"]
        assert peak - idle < 150 * MEBIBYTE
        async with open_s3(weed.url, "converter", access_key="key", secret_key="secret") as store:
            sizes = [info.size_bytes async for info in store.list("jobs/")]
            assert sizes == [len(model) + len(DOC_STRING) + MEBIBYTES * MEBIBYTE] * 3
            assert [upload async for upload in store.open_uploads()] == []
    finally:
        await weed.kill()
