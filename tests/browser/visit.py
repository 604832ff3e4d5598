"""What a test does beside the page, and what must hold whatever a page does."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import ConsoleMessage, Dialog, Page, Request
from waiting import eventually

from converter.devstack import demo

MODEL: Path = demo.DATA / "digits_cnn.onnx"
IMAGES: tuple[Path, ...] = tuple(sorted((demo.DATA / "digits_calibration").glob("*.png")))
_model_ids = itertools.count(40001)
SLOW_MS = 90_000
"""How long a machine that has much else to do may take for a conversion."""


class Watched:
    """What must not happen in a tab, collected while it is open."""

    def __init__(self, page: Page, origin: str) -> None:
        self._origin = origin
        self.found: list[str] = []
        page.on("pageerror", lambda error: self.found.append(f"uncaught: {error}"))
        page.on("request", self._on_request)
        page.on("dialog", self._on_dialog)
        page.on("console", self._on_console)

    def check(self) -> None:
        """Nothing of it has happened."""
        assert self.found == []

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self._origin + "/", "data:")):
            self.found.append(f"request to {request.url}")

    def _on_console(self, message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            self.found.append(message.text)

    async def _on_dialog(self, dialog: Dialog) -> None:
        self.found.append(f"dialog: {dialog.message}")
        await dialog.dismiss()


class Operator:
    """The internal API, as a script would use it."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def post(self, model: bytes | None = None, *, name: str = MODEL.name, images: int = 4, **fields: str) -> str:
        """Post a job, the demo's model where none is given; its id. Another model id each time: nothing is reused."""
        data = {"platform": "720", "model_id": str(next(_model_ids)), "version": "0001"} | fields
        files = [("ref_images", (image.name, image.read_bytes())) for image in IMAGES[:images]]
        files.append(("model", (name, model or MODEL.read_bytes())))
        answer = await self.http.post("/jobs", data=data, files=files)
        assert answer.status_code == 201, answer.text
        job_id: str = answer.json()["job_id"]
        return job_id

    async def job(self, job_id: str) -> dict[str, Any]:
        """The job now."""
        read: dict[str, Any] = (await self.http.get(f"/jobs/{job_id}")).raise_for_status().json()
        return read

    async def ended(self, job_id: str) -> dict[str, Any]:
        """The job once it is over."""

        async def over() -> dict[str, Any] | None:
            job = await self.job(job_id)
            return None if job["v1_status"] in {"queued", "running"} else job

        return await eventually(over, within_s=SLOW_MS / 1000)
