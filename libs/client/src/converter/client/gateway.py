"""One gateway: requests with a token, answers in the contract's types, refusals as exceptions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec
from msgspec import Struct, structs

from converter.client.errors import NotTheContract, Refused, kind_of
from converter.client.patience import TROUBLES, Patience
from converter.client.tokens import Tokens, plain
from converter.client.wire import Answer, Body, Call, Wire

T = TypeVar("T")
_MULTIPLE_CHOICES, _NOT_MODIFIED, _ERRORS, _UNAUTHORISED, _NOT_FOUND = 300, 304, 400, 401, 404


class Whole(Struct, frozen=True):
    """An answer that has arrived."""

    status: int
    headers: httpx.Headers
    content: bytes


class _Error(Struct):
    code: str
    message: str
    details: dict[str, Any] = {}
    request_id: str | None = None


class _Envelope(Struct):
    error: _Error


class Gateway:
    """The gateway at `url`.

    Args:
        wire: the way there.
        url: its public face.
        tokens: what requests carry.
        patience_s: for how long requests may fail in a row before the failure is raised.
    """

    def __init__(self, wire: Wire, url: str, tokens: Tokens, patience_s: float) -> None:
        self.wire, self.url, self._tokens, self._patience_s = wire, url.rstrip("/"), tokens, patience_s

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int | None] | None = None,
        headers: Mapping[str, str | None] | None = None,
        body: Body | None = None,
        read_timeout_s: float | None = None,
        repeatable: bool = True,
    ) -> Call:
        """A request for `path`; parameters and headers that are None are left out."""
        return Call(
            method=method,
            url=self.url + path,
            params={name: str(value) for name, value in (params or {}).items() if value is not None},
            headers={name: value for name, value in (headers or {}).items() if value is not None},
            body=body,
            read_timeout_s=read_timeout_s,
            repeatable=repeatable,
        )

    def patience(self, *, repeatable: bool = True) -> Patience:
        """The retries of something that takes several requests."""
        return Patience(self.wire, self._patience_s, repeatable=repeatable)

    async def ask(self, call: Call, type_: type[T]) -> T:
        """The answer's JSON.

        Raises:
            ConverterError: there is none (`Unreachable`, `NoToken`, `Refused`), or it is another (`NotTheContract`).
        """
        return decoded(call, (await self.whole(call)).content, type_)

    async def whole(self, call: Call) -> Whole:
        """The whole answer; the request is repeated while that may help.

        Raises:
            ConverterError: as `ask`.
        """
        patience = self.patience(repeatable=call.repeatable)
        while True:
            try:
                async with self.sent(call) as answer:
                    return Whole(answer.status, answer.headers, await answer.whole())
            except TROUBLES as problem:
                await patience.after(problem)

    @asynccontextmanager
    async def sent(self, call: Call) -> AsyncIterator[Answer]:
        """The answer to a single try. Where its token is refused, one more is made with a new token.

        Raises:
            ConverterError: as `ask`.
        """
        renewed = False
        while True:
            token = await self._tokens.token()
            headers = {"Accept": "application/json", **call.headers, "Authorization": f"Bearer {token}"}
            async with self.wire.send(structs.replace(call, headers=headers)) as answer:
                if answer.status < _MULTIPLE_CHOICES or answer.status == _NOT_MODIFIED:
                    yield answer
                    return
                refusal = await refused(answer)
            if refusal.status != _UNAUTHORISED or renewed or not self._tokens.drop(token):
                raise refusal
            renewed = True


def json_body(content: object) -> Body:
    """`content` as a request's body."""
    return plain("application/json", msgspec.json.encode(content))


def job_path(job_id: str, *rest: str) -> str:
    """The path of a job, or one below it; whatever `job_id` holds is escaped to one segment."""
    return "/".join(["/api/v1/jobs", quote(job_id, safe=""), *rest])


def decoded(call: Call, content: bytes, type_: type[T]) -> T:
    """The JSON of an answer.

    Raises:
        NotTheContract: it is not of this type.
    """
    try:
        return msgspec.json.decode(content, type=type_)
    except msgspec.MsgspecError as error:
        raise NotTheContract(call.url, str(error)) from error


async def refused(answer: Answer) -> Refused:
    """The error that an answer stands for. Without the contract's envelope its code is `http_` and the status.

    Raises:
        NotTheContract: it is a redirect, or a 404 without the envelope: whoever answers does not know the path.
        Unreachable: the connection broke.
    """
    if answer.status < _ERRORS:
        raise NotTheContract(answer.url, f"HTTP {answer.status}")
    retry_after = answer.headers.get("retry-after", "")
    content = await answer.whole()
    try:
        error = msgspec.json.decode(content, type=_Envelope).error
    except msgspec.MsgspecError:
        if answer.status == _NOT_FOUND:
            raise NotTheContract(answer.url, f"HTTP {answer.status}") from None
        hint = {"hint": "Another server, or a proxy before the gateway, may have answered."}
        error = _Error(f"http_{answer.status}", f"{answer.url} answered HTTP {answer.status}", hint)
    return kind_of(answer.status, error.code)(
        answer.status,
        error.code,
        error.message,
        details=error.details,
        request_id=error.request_id or answer.headers.get("x-request-id"),
        retry_after_s=float(retry_after) if retry_after.isdecimal() else None,
    )
