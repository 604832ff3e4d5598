"""The Python client against the whole system, over connections that break."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import onnx
import pytest
import pytest_asyncio
from faults import Proxy
from msgspec import structs
from onnx import TensorProto, helper, numpy_helper
from waiting import eventually

from converter.client import AsyncClient, Bearer, Client, ClientCredentials, Order
from converter.client.errors import (
    Conflict,
    DigestMismatch,
    Forbidden,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    NotFound,
    NoToken,
    Unauthenticated,
    UserHasActiveJob,
    WaitTimedOut,
)
from converter.client.resources import JobEvent
from converter.client.sending import RESUMABLE_FROM_BYTES
from converter.common.storage import open_s3
from converter.devstack.demo import DATA
from converter.devstack.stack import Stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

IMAGES = sorted((DATA / "digits_calibration").glob("*.png"))
ORDER = Order(
    model=DATA / "digits_cnn.onnx", images=IMAGES[:4], user_id="nobody", platform="720", model_id=40001, targets="onnx"
)


def ordered(user_id: str, **changes: object) -> Order:
    return structs.replace(ORDER, user_id=user_id, **changes)


def credentials(stack: Stack, **changes: str) -> ClientCredentials:
    env = stack.env
    known = ClientCredentials(
        token_url=env["TOKEN_URL"], client_id=env["CLIENT_ID"], client_secret=env["CLIENT_SECRET"]
    )
    return structs.replace(known, **changes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(stack: Stack) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(stack.env["GATEWAY_URL"], credentials(stack)) as connected:
        yield connected


@pytest_asyncio.fixture(loop_scope="module")
async def proxy(stack: Stack) -> AsyncIterator[Proxy]:
    async with Proxy(urlsplit(stack.env["GATEWAY_URL"]).port or 0) as between:
        yield between


@pytest_asyncio.fixture(loop_scope="module")
async def shaky(stack: Stack, proxy: Proxy) -> AsyncIterator[AsyncClient]:
    """A client whose connections the test can break."""
    async with AsyncClient(f"http://127.0.0.1:{proxy.port}", credentials(stack)) as connected:
        yield connected


@pytest.fixture(scope="module")
def large_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Is uploaded resumably; its weights are noise, so that nothing makes it smaller."""
    weights = np.random.default_rng(1).normal(0, 0.02, (2048, 2200)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2048])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2200])],
        [numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path_factory.mktemp("model") / "large.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    assert path.stat().st_size > RESUMABLE_FROM_BYTES
    return path


def cutting(proxy: Proxy, fraction: float, told: list[int]) -> Callable[[int, int], None]:
    """Cuts every connection once that much is through."""

    def heard(done: int, total: int) -> None:
        told.append(done)
        if done >= fraction * total and not cut:
            cut.append(True)
            proxy.cut()

    cut: list[bool] = []
    return heard


def backward(told: list[int]) -> Iterator[int]:
    return (after for before, after in pairwise(told) if after < before)


async def test_a_large_model_goes_on_where_its_upload_and_its_download_broke(
    stack: Stack, shaky: AsyncClient, proxy: Proxy, large_model: Path, tmp_path: Path
):
    sent: list[int] = []
    broken = asyncio.Event()

    def hold(done: int, total: int) -> None:
        proxy.hold_requests = not broken.is_set() and (proxy.hold_requests or done >= 0.9 * total)
        sent.append(done)

    order = ordered("large", model=large_model, images=[])
    posting = asyncio.create_task(shaky.submit(order, idempotency_key="large", sent=hold))
    await eventually(lambda: partly_stored(stack), within_s=30)
    broken.set()
    proxy.hold_requests = False
    proxy.cut()
    job = await posting
    assert min(backward(sent)) > 0, "it began again"
    assert job.model.sha256 == hashlib.sha256(large_model.read_bytes()).hexdigest()
    await shaky.wait(job.job_id)

    received: list[int] = []
    file = await shaky.download(job.job_id, tmp_path, received=cutting(proxy, 0.3, received))
    assert received == sorted(received), "it began again"
    made = (await shaky.job(job.job_id)).artifacts["onnx"]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == made.sha256
    assert list(tmp_path.iterdir()) == [file]

    again: list[int] = []
    same = await shaky.submit(order, idempotency_key="large", sent=lambda done, _: again.append(done))
    assert same.job_id == job.job_id
    await shaky.submit(order, sent=lambda done, _: again.append(done))
    assert not again, "the gateway has this model"


async def test_an_upload_whose_process_was_ended_goes_on_in_the_next(
    stack: Stack, client: AsyncClient, proxy: Proxy, large_model: Path, tmp_path: Path
):
    model = onnx.load(large_model)
    model.producer_name = "not sent before"
    file, cache, env = tmp_path / "other.onnx", tmp_path / "cache", stack.env
    onnx.save(model, file)
    environ = os.environ | {
        "XDG_CACHE_HOME": str(cache),
        "CONVERTER_URL": f"http://127.0.0.1:{proxy.port}",
        **{f"CONVERTER_{name}": env[name] for name in ("TOKEN_URL", "CLIENT_ID", "CLIENT_SECRET")},
    }
    order = ("submit", file, "--platform", "720", "--model-id", "40001", "--user", "resumed", "--no-wait", "--json")

    async def submitting() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "converter.command", *map(str, order)),
            env=environ,
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    proxy.bytes_per_s = 4_000_000
    first = await submitting()
    await eventually(lambda: partly_stored(stack), within_s=60)
    first.send_signal(signal.SIGINT)
    assert await first.wait() == 130
    (remembered,) = (cache / "converter" / "uploads").iterdir()
    upload_id = remembered.read_text()
    assert upload_id in "".join(await stored_uploads(stack))

    proxy.bytes_per_s = None
    out, _ = await (await submitting()).communicate()
    job = json.loads(out)
    assert job["model"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert upload_id not in "".join(await stored_uploads(stack)), "the job has the upload that was begun"
    assert not remembered.exists()
    await client.cancel(job["job_id"])


async def stored_uploads(stack: Stack) -> list[str]:
    """The keys of what the gateway has kept of uploads, but for the small ones that say what they are."""
    variables = stack.variables
    async with open_s3(
        variables["MINIO_ENDPOINT_URL"],
        variables["MINIO_BUCKET"],
        access_key=variables["MINIO_ACCESS_KEY"],
        secret_key=variables["MINIO_SECRET_KEY"],
    ) as store:
        return [info.object_key async for info in store.list("uploads/") if info.size_bytes > 1_000_000]


async def partly_stored(stack: Stack) -> bool:
    """Whether the gateway has kept a piece of an upload."""
    return bool(await stored_uploads(stack))


async def test_bytes_that_changed_on_the_way_are_not_kept(
    client: AsyncClient, shaky: AsyncClient, proxy: Proxy, tmp_path: Path
):
    job = await client.submit(ordered("changed"))
    await client.wait(job.job_id)
    proxy.change_answers = (b"Conv", b"Cinv")
    with pytest.raises(DigestMismatch):
        await shaky.download(job.job_id, tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_a_job_whose_answer_was_lost_is_not_made_twice(client: AsyncClient, shaky: AsyncClient, proxy: Proxy):
    def lose(done: int, total: int) -> None:
        proxy.lose_answers = proxy.lose_answers or (done == total and not found)

    found: list[str] = []
    posting = asyncio.create_task(shaky.submit(ordered("lost", images=IMAGES), sent=lose))
    found += [await eventually(lambda: newest(client, "lost"), within_s=30)]
    proxy.lose_answers = False
    proxy.cut()
    assert (await posting).job_id == found[0]
    assert [job.job_id async for job in client.jobs("lost")] == found


async def newest(client: AsyncClient, user_id: str) -> str | None:
    async for job in client.jobs(user_id):
        return job.job_id
    return None


async def test_events_go_on_over_a_gateways_end_without_a_gap(stack: Stack, client: AsyncClient):
    job = await client.submit(ordered("followed", images=IMAGES, targets="nef"))
    found: list[JobEvent] = []
    async for event in client.events(job.job_id):
        if isinstance(event, JobEvent):
            found.append(event)
            if len(found) == 2:
                await stack.kill("api-gateway")
                await stack.start("api-gateway")
    assert [event.revision for event in found] == list(range(1, len(found) + 1))
    assert found[-1].kind == "job.completed"
    lines = [line async for line in client.follow_log(job.job_id)]
    assert {line.stage for line in lines} == {"onnx", "bie", "nef"}
    written = await client.log(job.job_id)
    assert all(line.line in written for line in lines)


async def test_where_events_are_refused_the_job_is_looked_at(shaky: AsyncClient, proxy: Proxy):
    proxy.change_requests = (b"/events", b"/absent")
    job = await shaky.submit(ordered("looked-at"))
    kinds: list[str] = []
    done = await shaky.wait(job.job_id, seen=lambda event: kinds.append(getattr(event, "kind", "progress")))
    assert done.status == "completed"
    assert set(kinds) == {"job.looked_at"}


async def test_a_token_that_is_refused_is_renewed_once(shaky: AsyncClient, proxy: Proxy):
    assert await newest(shaky, "renewed") is None
    held = await shaky._gateway._tokens.token()  # noqa: SLF001 - this very token is going to be refused
    proxy.cut()
    signature = held.encode()[-20:]
    proxy.change_requests = (signature, signature[::-1])
    async with AsyncClient(f"http://127.0.0.1:{proxy.port}", Bearer(held)) as holder:
        with pytest.raises(Unauthenticated, match="invalid_token"):
            await newest(holder, "renewed")
    assert await newest(shaky, "renewed") is None


async def test_refusals_are_exceptions_with_their_facts(stack: Stack, client: AsyncClient, tmp_path: Path):
    with pytest.raises(InvalidRequest) as bad:
        await client.submit(ordered("refused", version="zz", model_id=0))
    assert set(bad.value.fields) == {"version", "model_id"}
    assert (bad.value.status, bad.value.code) == (400, "validation_error")
    assert bad.value.request_id

    await stack.kill("stage-onnx")  # so that the job stays active
    job = await client.submit(ordered("refused"))
    with pytest.raises(UserHasActiveJob) as busy:
        await client.submit(ordered("refused"))
    assert busy.value.active_job_id == job.job_id
    with pytest.raises(Conflict, match="source_not_available"):
        await client.download(job.job_id, tmp_path)
    with pytest.raises(WaitTimedOut):
        await client.wait(job.job_id, timeout_s=0.01)
    with pytest.raises(TimeoutError):
        await client.wait(job.job_id, timeout_s=0.01)
    assert (await client.cancel(job.job_id)).status == "cancelled"
    await stack.start("stage-onnx")
    with pytest.raises(JobCancelled):
        await client.wait(job.job_id)
    with pytest.raises(Conflict, match="job_not_active"):
        await client.cancel(job.job_id)
    assert await client.delete(job.job_id) is None
    with pytest.raises(NotFound):
        await client.job(job.job_id)
    with pytest.raises(NotFound):
        await client.job("../../health")

    url = stack.env["GATEWAY_URL"]
    async with AsyncClient(url, credentials(stack, scope="converter:job.read")) as reader:
        with pytest.raises(Forbidden, match="insufficient_scope"):
            await reader.submit(ordered("refused"))
    async with AsyncClient(url, credentials(stack, client_secret="wrong")) as stranger:
        with pytest.raises(NoToken, match="invalid_client"):
            await stranger.job(job.job_id)


async def test_a_job_that_fails_raises_its_error(client: AsyncClient):
    job = await client.submit(ordered("failing", images=IMAGES[:20], targets="nef", quantization={"min_snr_db": 90}))
    with pytest.raises(JobFailed) as failed:
        await client.wait(job.job_id)
    assert failed.value.job.error
    assert failed.value.code == failed.value.job.error.code
    assert failed.value.hint


async def test_the_blocking_client_does_the_same(stack: Stack, tmp_path: Path):
    def session() -> None:
        with Client(stack.env["GATEWAY_URL"], credentials(stack)) as client:
            assert client.dry_run(ordered("blocking")).valid
            job = client.submit(ordered("blocking"))
            assert client.wait(job.job_id, timeout_s=60).status == "completed"
            first = next(client.events(job.job_id))
            assert isinstance(first, JobEvent)
            assert first.revision == 1
            assert next(client.jobs("blocking")).job_id == job.job_id
            assert client.download(job.job_id, tmp_path).name == job.model.filename
            assert client.download_link(job.job_id).url.startswith("http")
            assert list(client.report(job.job_id).stages) == ["onnx"]
            assert next(client.follow_log(job.job_id)).stage == "onnx"
            promotion = client.promote(job.job_id, "blocking/digits.onnx")
            assert promotion.status == "completed"
            assert client.delete(job.job_id) is None
            assert client.health().status == "healthy"

    await asyncio.to_thread(session)
    assert stack.stored_file("blocking/digits.onnx").read_bytes() == (tmp_path / "digits_cnn.onnx").read_bytes()


async def test_the_documented_examples_work_as_they_stand(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    env = stack.env
    given = {
        "gateway_url": env["GATEWAY_URL"],
        "token_url": env["TOKEN_URL"],
        "client_id": env["CLIENT_ID"],
        "client_secret": env["CLIENT_SECRET"],
        "model": str(ORDER.model),
        "images": IMAGES[:4],
        "directory": str(tmp_path),
    }
    text = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
    examples = [part.partition("```")[0] for part in text.split("```python\n")[1:]]
    assert len(examples) == 2
    for example in examples:
        await asyncio.to_thread(exec, compile(example, "docs/client.md", "exec"), dict(given))
    told = capsys.readouterr().out
    assert "digits_cnn.ref.nef" in told
    assert "kind='job.completed'" in told
    assert stack.stored_file("models/alice/digits.nef").exists()
