"""Clients that do not give up, and write down what they were told."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
from upstream import Refused, fetch_token

from converter.devstack import demo
from converter.devstack.addresses import SCOPES
from converter.devstack.stack import Stack

from .observer import Ledger

DIGITS = (demo.DATA / "digits_cnn.onnx").read_bytes()

AGAIN = {401, 408, 409, 429, 500, 502, 503, 507}
"""Answers after which a client sends the same request again; 409 because its first try may still be under way."""

SWEPT = {"JANITOR_INTERVAL_S": "1", "UPLOAD_LIMIT_HOURS": "0.0015"}
"""What a killed gateway had begun to store is abandoned after 5 s and the claim's grace, and swept a second later."""


class Client:
    """An upstream that does not give up: whatever breaks, it asks again with the same idempotency key."""

    def __init__(self, stack: Stack, http: httpx.AsyncClient, ledger: Ledger, seed: int) -> None:
        self._stack, self._http, self._ledger, self._seed = stack, http, ledger, seed
        self._token = ""
        self.conflicts = 0
        """Answers that said 409."""
        self._chance = random.Random(seed)  # noqa: S311 - wants a seed

    async def one_after_the_other(self, user: str, count: int) -> None:
        """Have `count` models converted for `user`, each when the one before has ended; promote some."""
        for number in range(count):
            target = self._chance.choice(["onnx", "onnx", "bie", "nef"])
            job_id, status = await self.convert(user, f"{self._seed}-{user}-{number}", target)
            if status == "completed" and self._chance.random() < 0.5:
                await self.promote(job_id, target, f"{self._seed}/{user}/{number}.bin")

    async def convert(self, user: str, key: str, target: str) -> tuple[str, str]:
        """Have a model converted as far as `target`; the job's id, and how it ended."""
        job_id = await self.post(user, key, target)
        return job_id, str((await self.end(job_id))["status"])

    async def post(self, user: str, key: str, target: str, model: bytes = DIGITS) -> str:
        """Ask for a conversion; the job's id."""
        images = sorted((demo.DATA / "digits_calibration").glob("*.png"))[:2]
        answer = await self._asked(
            "POST",
            "",
            # Most are of a model id that nobody has used, so that there is nothing to copy.
            data=demo.FIELDS
            | {"user_id": user, "targets": target, "model_id": str(self._chance.randint(40_001, 40_200))},
            files=[("model", ("digits.onnx", model)), *(("ref_images", (i.name, i.read_bytes())) for i in images)],
            headers={"Idempotency-Key": key},
        )
        job_id = answer.json()["job_id"]
        self._ledger.accept(job_id, user)
        return str(job_id)

    async def end(self, job_id: str) -> dict[str, Any]:
        """The job once it has ended."""
        while True:
            job: dict[str, Any] = (await self._asked("GET", f"/{job_id}")).json()
            if job["status"] not in {"queued", "running"}:
                return job
            await asyncio.sleep(0.3)

    async def promote(self, job_id: str, source: str, key: str) -> None:
        """Have what `source` made of the job put into the file store under `key`."""
        await self._asked("POST", f"/{job_id}/promote", json={"source": source, "target_object_key": key})
        self._ledger.promote(key, job_id, source)

    async def cancel(self, job_id: str) -> None:
        """Have the job ended."""
        await self._asked("POST", f"/{job_id}/cancel")

    async def _asked(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **body: object
    ) -> httpx.Response:
        """The first answer that is a success."""
        while True:
            url = self._chance.choice(self._stack.gateway_urls)
            try:
                self._token = self._token or await fetch_token(self._http, self._stack.env, scope=" ".join(SCOPES))
                sent = {"Authorization": f"Bearer {self._token}"} | (headers or {})
                answer = await self._http.request(method, f"{url}/api/v1/jobs{path}", headers=sent, **body)  # type: ignore[arg-type]  # passed on
            except (httpx.TransportError, Refused):
                await asyncio.sleep(0.2)
                continue
            if answer.is_success:
                return answer
            assert answer.status_code in AGAIN, answer.text
            self.conflicts += answer.status_code == 409
            if answer.status_code == 401:
                self._token = ""
            await asyncio.sleep(0.2)
