"""The model that comes with the demo, and how to have it converted."""

from __future__ import annotations

from pathlib import Path

from converter.devstack import demo
from converter.devstack.upstream import Job, Upstream


class Digits:
    """Posts it for a client."""

    model: Path = demo.DATA / "digits_cnn.onnx"
    images: tuple[Path, ...] = tuple(sorted((demo.DATA / "digits_calibration").glob("*.png")))

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def post(self, user_id: str, *, images: int = 4, **fields: str) -> Job:
        """Post it with its first `images` reference images."""
        return await self._upstream.post(self.model, self.images[:images], demo.FIELDS | {"user_id": user_id} | fields)
