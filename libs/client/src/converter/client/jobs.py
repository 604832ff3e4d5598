"""The gateway's smaller requests: each a few lines of its contract."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from converter.client.errors import JobDeleted, NotTheContract, PromotionFailed
from converter.client.gateway import Gateway, decoded, job_path, json_body
from converter.client.resources import Health, Job, Page, Promotion, Report

_PAGE = 100
_LOOK_FIRST_S, _LOOK_AT_MOST_S = 0.25, 2.0
_NO_CONTENT = 204


async def job(gateway: Gateway, job_id: str) -> Job:
    """The job as it is now."""
    return await gateway.ask(gateway.call("GET", job_path(job_id)), Job)


async def jobs(gateway: Gateway, user_id: str, status: str | None) -> AsyncGenerator[Job, None]:
    """A user's jobs, newest first, page after page."""
    cursor: str | None = None
    while True:
        params = {"user_id": user_id, "status": status, "limit": _PAGE, "cursor": cursor}
        page = await gateway.ask(gateway.call("GET", "/api/v1/jobs", params=params), Page)
        for found in page.items:
            yield found
        cursor = page.next_cursor
        if cursor is None:
            return


async def report(gateway: Gateway, job_id: str) -> Report:
    """What the stages that have finished found out."""
    return await gateway.ask(gateway.call("GET", job_path(job_id, "report")), Report)


async def report_page(gateway: Gateway, job_id: str) -> str:
    """The report as one HTML page."""
    call = gateway.call("GET", job_path(job_id, "report"), headers={"Accept": "text/html"})
    answer = await gateway.whole(call)
    if not answer.headers.get("content-type", "").startswith("text/html"):
        raise NotTheContract(call.url, "no HTML; this gateway does not write it")
    return answer.content.decode(errors="replace")


async def log(gateway: Gateway, job_id: str, stage: str | None) -> str:
    """What the toolchain has written so far."""
    call = gateway.call("GET", job_path(job_id, "logs"), params={"stage": stage}, headers={"Accept": "text/plain"})
    return (await gateway.whole(call)).content.decode(errors="replace")


async def promote(
    gateway: Gateway, job_id: str, target_object_key: str, source: str | None, *, wait: bool
) -> Promotion:
    """Have an artifact put into the file store; asked for again, it is not uploaded twice."""
    order = {"target_object_key": target_object_key} | ({"source": source} if source else {})
    call = gateway.call("POST", job_path(job_id, "promote"), headers={"Prefer": "respond-async"}, body=json_body(order))
    promotion, pause_s = await gateway.ask(call, Promotion), _LOOK_FIRST_S
    while wait and promotion.status == "pending":
        await gateway.wire.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _LOOK_AT_MOST_S)
        known = {each.promotion_id: each for each in (await job(gateway, job_id)).promotions}
        if promotion.promotion_id not in known:
            raise JobDeleted(job_id)
        promotion = known[promotion.promotion_id]
    if promotion.status == "failed":
        raise PromotionFailed(promotion)
    return promotion


async def cancel(gateway: Gateway, job_id: str) -> Job:
    """End an active job. Asked twice, the second answer would be that it is not active."""
    return await gateway.ask(gateway.call("POST", job_path(job_id, "cancel"), repeatable=False), Job)


async def delete(gateway: Gateway, job_id: str) -> Job | None:
    """Cancel an active job, or delete one that has ended. Asked twice, it would do first one, then the other."""
    call = gateway.call("DELETE", job_path(job_id), repeatable=False)
    answer = await gateway.whole(call)
    return None if answer.status == _NO_CONTENT else decoded(call, answer.content, Job)


async def health(gateway: Gateway) -> Health:
    """How the gateway and what it needs are; also when that is not well."""
    call = gateway.call("GET", "/health")
    async with gateway.wire.send(call) as answer:
        content = await answer.whole()
    return decoded(call, content, Health)
