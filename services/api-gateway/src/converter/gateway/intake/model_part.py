"""The model of a form: stored while it arrives, looked at, and refused as soon as it cannot be one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from converter.common.conversion import ConversionRefused
from converter.common.skim import ModelWalk, Skimmed
from converter.common.storage import Writer
from converter.contracts.failures import FAILURES
from converter.gateway.http.errors import Refusal, bad_part
from converter.gateway.intake.fed import feed
from converter.gateway.intake.references import too_large


class ModelPart:
    """A model on its way into `writer`.

    Args:
        filename: what the client calls it.
        writer: where it goes.
        limit_bytes: how large it may be.
    """

    def __init__(self, filename: str, writer: Writer, limit_bytes: int) -> None:
        self.filename, self.writer = filename, writer
        self.skimmed: Skimmed | None = None
        self._limit_bytes, self._walk = limit_bytes, ModelWalk()

    async def take(self, data: bytes) -> None:
        """Its next bytes.

        Raises:
            Refusal: it is too large, or no model that can be converted.
        """
        if self.writer.size_bytes + len(data) > self._limit_bytes:
            raise too_large("model", self._limit_bytes)
        with _answered():
            await feed(self._walk, data)
        await self.writer.write(data)

    async def end(self) -> None:
        """It is whole.

        Raises:
            Refusal: it is none.
        """
        with _answered():
            self.skimmed = self._walk.finish()


class UnusableModel(Refusal):
    """The model itself is why: 400 `invalid_multipart` with the code that the job would have failed with."""

    def __init__(self, refused: ConversionRefused) -> None:
        problem = {
            "reason": refused.code,
            "node": refused.node,
            "op": refused.op,
            "hint": refused.hint or FAILURES[refused.code].hint,
        }
        details = {name: value for name, value in problem.items() if value is not None}
        answer = bad_part("model", refused.message, **details)
        super().__init__(answer.code, answer.message, details=answer.details)
        self.refused = refused


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except ConversionRefused as refused:
        raise UnusableModel(refused) from refused
