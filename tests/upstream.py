"""The tests' own side of the HTTP contract, which knows nothing of the client library."""

from __future__ import annotations

import contextlib
import mimetypes
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
from msgspec import Struct

T = TypeVar("T")
Reports = dict[str, dict[str, Any]]
"""By stage, its conversion report."""
_ANSWER_WITHIN_S = 330.0
"""A promotion is waited for by the gateway, up to its own limit of 300 s."""


class Refused(Exception):
    """A request was not answered as it should be; `why` is the answer."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class _Token(Struct, frozen=True):
    access_token: str


class Timing(Struct, frozen=True):
    """When a stage was reached, taken and done."""

    queued_at: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    duration_ms: int | None = None
    cached: bool = False


class Made(Struct, frozen=True):
    """What a stage made."""

    filename: str
    size_bytes: int
    sha256: str


class Failure(Struct, frozen=True):
    """Why a job failed."""

    code: str
    message: str
    stage: str | None = None
    hint: str = ""
    evidence: str | None = None


class Tool(Struct, frozen=True):
    """What converted."""

    name: str
    version: str


class Options(Struct, frozen=True):
    """How the job is converted; `targets` is the last stage that it runs."""

    targets: str


class Job(Struct, frozen=True):
    """The job resource, as far as it is looked at here."""

    job_id: str
    status: str
    stage: str | None
    options: Options
    progress: float = 0.0
    activity: str | None = None
    stage_timings: dict[str, Timing] = {}
    artifacts: dict[str, Made] = {}
    error: Failure | None = None
    warnings: tuple[str, ...] = ()
    toolchain: Tool | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended, one way or another."""
        return self.status in {"completed", "failed", "cancelled"}


async def fetch_token(http: httpx.AsyncClient, env: Mapping[str, str], *, scope: str) -> str:
    """A token of the issuer for the gateway (client_credentials, RFC 6749 section 4.4).

    Raises:
        Refused: the issuer gave none.
    """
    form = {"grant_type": "client_credentials", "scope": scope, "audience": env["AUDIENCE"]}
    proof = (env["CLIENT_ID"], env["CLIENT_SECRET"])
    return (await _answer(http.post(env["TOKEN_URL"], data=form, auth=proof), 200, _Token)).access_token


class _Report(Struct, frozen=True):
    stages: Reports


class Upstream:
    """One client of the gateway.

    Args:
        http: sends the requests.
        gateway_url: the public face.
        token: what it proves itself with.
    """

    def __init__(self, http: httpx.AsyncClient, gateway_url: str, token: str) -> None:
        self._http, self._jobs = http, f"{gateway_url}/api/v1/jobs"
        self._headers = {"Authorization": f"Bearer {token}"}

    async def post(self, model: Path, images: Sequence[Path], fields: Mapping[str, str]) -> Job:
        """Have `model` converted. Fields go first, so that a bad one is refused before the files are sent.

        Raises:
            Refused: the gateway did not take it.
        """
        with contextlib.ExitStack() as opened:

            def part(field: str, file: Path) -> tuple[str, tuple[str, Any, str]]:
                media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
                return field, (file.name, opened.enter_context(file.open("rb")), media_type)

            files = [part("model", model), *(part("ref_images", image) for image in images)]
            request = self._http.post(self._jobs, data=dict(fields), files=files, headers=self._headers)
            return await _answer(request, 201, Job)

    async def job(self, job_id: str) -> Job:
        """The job as it is now.

        Raises:
            Refused: the gateway did not say.
        """
        request = self._http.get(f"{self._jobs}/{job_id}", headers=self._headers)
        return await _answer(request, 200, Job)

    async def reports(self, job_id: str) -> Reports:
        """The report of every stage that has finished.

        Raises:
            Refused: the gateway did not say.
        """
        request = self._http.get(f"{self._jobs}/{job_id}/report", headers=self._headers)
        return (await _answer(request, 200, _Report)).stages

    async def log(self, job_id: str, stage: str) -> str:
        """What the toolchain wrote in a stage.

        Raises:
            Refused: the gateway did not say.
        """
        request = self._http.get(f"{self._jobs}/{job_id}/logs", params={"stage": stage}, headers=self._headers)
        return (await _answered(request, 200)).text

    async def promote(self, job_id: str, *, source: str, key: str) -> None:
        """Have what `source` made put into the file store under `key`.

        Raises:
            Refused: it is not there.
        """
        body = {"source": source, "target_object_key": key}
        request = self._http.post(
            f"{self._jobs}/{job_id}/promote", json=body, headers=self._headers, timeout=_ANSWER_WITHIN_S
        )
        await _answer(request, 200, dict)


async def _answer(request: Awaitable[httpx.Response], status: int, body: type[T]) -> T:
    answer = await _answered(request, status)
    try:
        return msgspec.json.decode(answer.content, type=body)
    except msgspec.DecodeError as error:
        raise Refused(f"answered something else than the contract says: {error}") from error


async def _answered(request: Awaitable[httpx.Response], status: int) -> httpx.Response:
    try:
        answer = await request
    except httpx.HTTPError as error:
        raise Refused(f"no answer: {error or type(error).__name__}") from error
    if answer.status_code != status:
        raise Refused(f"answered {answer.status_code}: {_why(answer)}")
    return answer


class _Detail(Struct):
    hint: str | None = None
    fields: list[dict[str, str]] = []


class _Error(Struct):
    code: str
    message: str
    details: _Detail


class _Envelope(Struct):
    error: _Error


def _why(answer: httpx.Response) -> str:
    """What the contract's error envelope says, for a person; else what was answered."""
    try:
        error = msgspec.json.decode(answer.content, type=_Envelope).error
    except msgspec.MsgspecError:
        return answer.text[:1000]
    lines = [f"{error.code}: {error.message}"]
    lines += [f"  {field.get('field')}: {field.get('message')}" for field in error.details.fields]
    lines += [f"  hint: {error.details.hint}"] if error.details.hint else []
    return "\n".join(lines)
