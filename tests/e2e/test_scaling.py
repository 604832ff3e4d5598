"""Several processes of a service share the work, and several gateways the rule of one active job for each user.

CHAOS_ROUNDS says how often a hundred posts come at once (`make soak`).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from digits import Digits
from upstream import Upstream
from waiting import eventually

from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.common.lifecycle import State
from converter.contracts.facts import StageCompleted
from converter.contracts.job import JobRecord, Stage
from converter.devstack import demo
from converter.devstack.stack import Stack

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def workers() -> Mapping[str, int]:
    return {"gateway": 3, "bie": 2, "promoter": 2}


def over(state: State) -> bool:
    return isinstance(state, JobRecord) and state.announced


@pytest_asyncio.fixture(loop_scope="module")
async def nothing_converts(stack: Stack) -> AsyncIterator[None]:
    """Without a worker for the first stage an accepted job stays active, and keeps its user's lock."""
    await stack.kill("stage-onnx")
    yield
    await stack.start("stage-onnx")


async def post_raw(http: httpx.AsyncClient, url: str, token: str, user_id: str) -> httpx.Response:
    """One small post; a busy gateway (503) is asked again, as its answer says.

    So is a post whose answer is lost: a gateway waits 5 s for who sends on after an early one, and this may be slower.
    """
    files = {"model": ("digits.onnx", (demo.DATA / "digits_cnn.onnx").read_bytes())}
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": uuid7()}
    while True:
        with suppress(httpx.ReadError):
            data = demo.FIELDS | {"user_id": user_id}
            answer = await http.post(f"{url}/api/v1/jobs", data=data, files=files, headers=headers)
            if not answer.is_error or answer.json()["error"]["code"] not in {"service_busy", "idempotency_in_progress"}:
                return answer
        await asyncio.sleep(0.05)


async def frozen(stack: Stack, name: str) -> bool:
    stat = Path(f"/proc/{stack.pids[name]}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


async def test_two_workers_of_a_stage_share_its_jobs(stack: Stack, digits: Digits) -> None:
    posted = [await digits.post(f"sharing-{number}") for number in range(6)]
    job_log = JobLog(stack.bus, "test")
    workers = set()
    for job in posted:
        await job_log.wait(job.job_id, over, timeout_s=60)
        facts = [event.fact for event in await job_log.history(job.job_id)]
        workers |= {fact.worker for fact in facts if isinstance(fact, StageCompleted) and fact.stage is Stage.BIE}
    assert len(workers) == 2


@pytest.mark.timeout(240 + 10 * ROUNDS)
async def test_of_a_hundred_posts_of_one_user_at_once_one_is_accepted(
    stack: Stack, nothing_converts: None, http: httpx.AsyncClient, token: str
) -> None:
    urls = stack.gateway_urls
    for number in range(ROUNDS):
        posts = (post_raw(http, urls[post % 3], token, f"eager-{number}") for post in range(100))
        answers = await asyncio.gather(*posts)
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses == [201, *[409] * 99]
        (accepted,) = [answer.json() for answer in answers if answer.status_code == httpx.codes.CREATED]
        for answer in answers:
            if answer.status_code == httpx.codes.CONFLICT:
                error = answer.json()["error"]
                assert error["code"] == "user_has_active_job"
                assert error["details"]["active_job_id"] == accepted["job_id"]


async def test_a_gateway_that_sleeps_between_claim_and_creation_has_lost_the_lock(
    stack: Stack, nothing_converts: None, http: httpx.AsyncClient, token: str
) -> None:
    sleeper, others = "api-gateway.1", stack.gateway_urls[1:]
    await stack.kill(sleeper)
    await stack.start(sleeper, env={"FAILPOINT": "before:create:SIGSTOP"})
    sleeping = asyncio.create_task(post_raw(http, stack.gateway_urls[0], token, "drowsy"))

    await eventually(partial(frozen, stack, sleeper))
    during = await asyncio.gather(*(post_raw(http, others[number % 2], token, "drowsy") for number in range(10)))
    assert {answer.status_code for answer in during} == {409}, "within the grace the claim holds"

    async def taken_over() -> httpx.Response | None:
        answers = await asyncio.gather(*(post_raw(http, others[number % 2], token, "drowsy") for number in range(30)))
        accepted = [answer for answer in answers if answer.status_code == httpx.codes.CREATED]
        assert len(accepted) <= 1
        return accepted[0] if accepted else None

    accepted = await eventually(taken_over, within_s=20)
    stack.send_signal(sleeper, signal.SIGCONT)
    refused = await sleeping
    assert refused.status_code == httpx.codes.CONFLICT
    assert refused.json()["error"]["details"]["active_job_id"] == accepted.json()["job_id"]
    await stack.kill(sleeper)
    await stack.start(sleeper)


async def test_a_promoter_that_slept_does_not_overwrite_what_came_after(
    stack: Stack, http: httpx.AsyncClient, token: str, upstream: Upstream, digits: Digits
) -> None:
    posted = await digits.post("promoted")
    job_log, key = JobLog(stack.bus, "test"), "sleepy/model.bin"
    await job_log.wait(posted.job_id, over, timeout_s=60)
    sleeper, other = "promoter.1", "promoter.2"
    await stack.kill(other)
    await stack.kill(sleeper)
    await stack.start(sleeper, env={"FAILPOINT": "before:store:SIGSTOP"})
    await http.post(
        f"{stack.env['GATEWAY_URL']}/api/v1/jobs/{posted.job_id}/promote",
        json={"source": "onnx", "target_object_key": key},
        headers={"Authorization": f"Bearer {token}", "Prefer": "respond-async"},
    )
    await eventually(partial(frozen, stack, sleeper))
    await stack.start(other)

    def uploaded(state: State) -> bool:
        return isinstance(state, JobRecord) and state.promotions[-1].status == "completed"

    await job_log.wait(posted.job_id, uploaded, timeout_s=30)
    await upstream.promote(posted.job_id, source="nef", key=key)
    job = await upstream.job(posted.job_id)
    stack.send_signal(sleeper, signal.SIGCONT)

    async def gave_up() -> bool:
        return "promotion.ended_meanwhile" in stack.log_tail(sleeper)

    await eventually(gave_up)
    assert hashlib.sha256(stack.stored_file(key).read_bytes()).hexdigest() == job.artifacts["nef"].sha256
    await stack.kill(sleeper)
    await stack.start(sleeper)


async def test_everything_goes_on_after_the_event_bus_was_killed(stack: Stack, digits: Digits) -> None:
    await stack.kill("stage-nef")
    posted = await digits.post("outage")
    job_log = JobLog(stack.bus, "test")

    def at_nef(state: State) -> bool:
        return isinstance(state, JobRecord) and state.stage is Stage.NEF

    await job_log.wait(posted.job_id, at_nef, timeout_s=30)
    await stack.kill("nats-server")
    await stack.start("nats-server")
    # A worker that starts on a server that has been away finds everything that it needs.
    await stack.start("stage-nef")
    job = await job_log.wait(posted.job_id, over, timeout_s=60)
    assert isinstance(job, JobRecord)
    assert job.error is None
    assert await digits.post("after-the-outage")
