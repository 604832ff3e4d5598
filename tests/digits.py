"""The model that comes with the demo, and how to have it converted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from upstream import Job, Upstream

from converter.devstack import demo


class Digits:
    """Posts it for a client."""

    model: Path = demo.DATA / "digits_cnn.onnx"
    images: tuple[Path, ...] = tuple(sorted((demo.DATA / "digits_calibration").glob("*.png")))

    model_ids: Iterator[int] = count(int(demo.FIELDS["model_id"]))

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def post(self, user_id: str, *, images: int = 4, **fields: str) -> Job:
        """Post it with its first `images` reference images; each post is of another model id, so nothing is reused."""
        own = {"user_id": user_id, "model_id": str(next(self.model_ids))}
        return await self._upstream.post(self.model, self.images[:images], demo.FIELDS | own | fields)
