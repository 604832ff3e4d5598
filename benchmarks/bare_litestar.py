"""The least that Litestar serves as JSON, to anybody."""

from __future__ import annotations

from litestar import Litestar, get


@get("/")
async def status() -> dict[str, str]:
    """The same for everybody."""
    return {"status": "ok"}


app = Litestar([status], openapi_config=None)
