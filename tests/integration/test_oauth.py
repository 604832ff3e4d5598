"""How tokens are fetched, shared, renewed and dropped, against an issuer that does as it is told."""

from __future__ import annotations

import asyncio
import base64
import json
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from urllib.parse import parse_qs

import pytest

from converter.common.oauth import TokenSource, TokenUnavailable, token_source
from converter.common.settings import OAuthClientSettings, Secret

SECRET = "s3cret/of:the+client"


class Issuer:
    """Gives token-1, token-2 …; `lives_s` long; `status` and `body` replace an answer, `open` holds answers back."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], dict[str, list[str]]]] = []
        self.lives_s: float = 3600
        self.status, self.body = 200, None
        self.open = asyncio.Event()
        self.open.set()
        self.url = ""

    async def asked(self, times: int) -> bool:
        return len(self.requests) >= times

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head)}
            form = parse_qs((await reader.readexactly(int(headers["content-length"]))).decode())
            self.requests.append((headers, form))
            token = {"access_token": f"token-{len(self.requests)}", "token_type": "Bearer", "expires_in": self.lives_s}
            await self.open.wait()
            body = json.dumps(token if self.body is None else self.body).encode()
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (self.status, len(body)))
            writer.write(body)
        finally:
            writer.close()


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    server = await asyncio.start_server(issuer.serve, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/token"
    async with server:
        yield issuer
        issuer.open.set()


def tokens_of(issuer: Issuer, **settings: int) -> AbstractAsyncContextManager[TokenSource]:
    known = OAuthClientSettings(
        member_center_token_url=issuer.url,
        kneron_converter_client_id="converter",
        kneron_converter_client_secret=Secret(SECRET),
        file_access_agent_audience="file-access-agent",
        **settings,
    )
    return token_source(known, scope="files:upload.write")


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.01)


async def test_a_token_is_asked_for_as_the_standard_says(issuer: Issuer):
    async with tokens_of(issuer) as tokens:
        assert await tokens.token() == "token-1"
    ((headers, form),) = issuer.requests
    assert form == {
        "grant_type": ["client_credentials"],
        "scope": ["files:upload.write"],
        "audience": ["file-access-agent"],
    }
    # RFC 6749 section 2.3.1: form-encoded first, so that a colon or slash in a secret is not misread.
    encoded = base64.b64decode(headers["authorization"].removeprefix("Basic ")).decode()
    assert encoded == "converter:s3cret%2Fof%3Athe%2Bclient"


async def test_a_living_token_is_used_again(issuer: Issuer):
    async with tokens_of(issuer) as tokens:
        assert {await tokens.token() for _ in range(5)} == {"token-1"}
    assert len(issuer.requests) == 1


async def test_all_who_wait_share_one_question_to_the_issuer(issuer: Issuer):
    async with tokens_of(issuer) as tokens:
        assert set(await asyncio.gather(*(tokens.token() for _ in range(20)))) == {"token-1"}
    assert len(issuer.requests) == 1


async def test_one_who_stops_waiting_does_not_take_the_answer_from_the_others(issuer: Issuer):
    issuer.open.clear()
    async with tokens_of(issuer) as tokens:
        first, second = asyncio.create_task(tokens.token()), asyncio.create_task(tokens.token())
        await until(lambda: issuer.asked(1))
        first.cancel()
        issuer.open.set()
        assert await second == "token-1"
    assert first.cancelled()


async def test_a_token_near_its_end_is_renewed_without_anybody_waiting(issuer: Issuer):
    issuer.lives_s = 4
    async with tokens_of(issuer) as tokens:
        assert await tokens.token() == "token-1"
        issuer.open.clear()

        async def renewing() -> bool:
            assert await tokens.token() == "token-1"
            return await issuer.asked(2)

        await until(renewing)
        assert await tokens.token() == "token-1"
        issuer.lives_s = 3600
        issuer.open.set()

        async def renewed() -> bool:
            return await tokens.token() == "token-2"

        await until(renewed)
    assert len(issuer.requests) == 2


async def test_a_failed_renewal_leaves_the_old_token_in_use_and_the_issuer_in_peace(issuer: Issuer):
    issuer.lives_s = 4
    async with tokens_of(issuer) as tokens:
        assert await tokens.token() == "token-1"
        issuer.status, issuer.body = 503, {}

        async def renewing() -> bool:
            assert await tokens.token() == "token-1"
            return await issuer.asked(2)

        await until(renewing)
        for _ in range(50):
            assert await tokens.token() == "token-1"
            await asyncio.sleep(0.01)
    assert len(issuer.requests) == 2


async def test_a_token_that_has_ended_is_never_given(issuer: Issuer):
    issuer.lives_s = 0.3
    async with tokens_of(issuer) as tokens:
        assert await tokens.token() == "token-1"
        issuer.status, issuer.body = 503, {}

        async def ended() -> bool:
            try:
                assert await tokens.token() == "token-1"
            except TokenUnavailable:
                return True
            return False

        await until(ended)


async def test_a_refused_token_is_not_given_again(issuer: Issuer):
    async with tokens_of(issuer) as tokens:
        tokens.drop(await tokens.token())
        assert await tokens.token() == "token-2"


async def test_refusing_an_older_token_keeps_the_newer_one(issuer: Issuer):
    async with tokens_of(issuer) as tokens:
        old = await tokens.token()
        tokens.drop(old)
        await tokens.token()
        tokens.drop(old)
        assert await tokens.token() == "token-2"


@pytest.mark.parametrize(
    ("status", "body", "why", "transient"),
    [
        (401, {"error": "invalid_client", "error_description": SECRET}, "HTTP 401, invalid_client", False),
        (400, {"error": f"echo {SECRET}"}, "HTTP 400", False),
        (429, {}, "HTTP 429", True),
        (500, {}, "HTTP 500", True),
        (503, {"error": "temporarily_unavailable"}, "HTTP 503, temporarily_unavailable", True),
        (302, {}, "HTTP 302", False),
        (200, {"access_token": "a\r\nb", "token_type": "Bearer"}, "no bearer token", False),
        (200, {"access_token": SECRET, "token_type": "mac"}, "no bearer token", False),
        (200, [], "no bearer token", False),
    ],
)
async def test_no_token_has_a_reason_without_a_secret(
    issuer: Issuer,
    status: int,
    body: object,
    why: str,
    transient: bool,  # noqa: FBT001 - the expected value
):
    issuer.status, issuer.body = status, body
    async with tokens_of(issuer) as tokens:
        with pytest.raises(TokenUnavailable) as raised:
            await tokens.token()
    assert why in str(raised.value)
    assert issuer.url in str(raised.value)
    assert raised.value.transient is transient
    assert SECRET not in "".join(traceback.format_exception(raised.value))


async def test_an_issuer_that_does_not_answer_in_time_is_not_waited_for(issuer: Issuer):
    issuer.open.clear()
    async with tokens_of(issuer, oauth_token_timeout_ms=200) as tokens:
        with pytest.raises(TokenUnavailable, match="200 ms") as raised:
            await tokens.token()
    assert raised.value.transient


async def test_an_issuer_that_is_away_gives_no_token_until_it_is_back(issuer: Issuer, unused_tcp_port: int):
    live, issuer.url = issuer.url, f"http://127.0.0.1:{unused_tcp_port}/token"
    async with tokens_of(issuer) as tokens:
        with pytest.raises(TokenUnavailable, match="ConnectError") as raised:
            await tokens.token()
        assert raised.value.transient
    issuer.url = live
    async with tokens_of(issuer) as tokens:
        assert await tokens.token() == "token-1"


async def test_an_answer_without_a_life_is_used_for_a_while(issuer: Issuer):
    issuer.body = {"access_token": "abc", "token_type": "bearer"}
    async with tokens_of(issuer) as tokens:
        assert [await tokens.token(), await tokens.token()] == ["abc", "abc"]
    assert len(issuer.requests) == 1


async def test_closing_ends_a_renewal_under_way(issuer: Issuer):
    issuer.lives_s = 1
    async with tokens_of(issuer) as tokens:
        await tokens.token()
        issuer.open.clear()

        async def renewing() -> bool:
            await tokens.token()
            return await issuer.asked(2)

        await until(renewing)
