from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.contracts.job import Stage
from converter.gateway.endpoints.links import DownloadLinks, Link, LinkExpired, LinkInvalid

NOW = datetime(2026, 5, 4, tzinfo=UTC)
LIFE = timedelta(minutes=15)
LINK = Link("0199c1f2-0000-7000-8000-000000000001", Stage.BIE, "ab" * 32)


def links(key: bytes = b"key", *, now: datetime = NOW) -> DownloadLinks:
    return DownloadLinks(key, LIFE, clock=lambda: now)


def test_a_token_gives_back_what_it_was_made_for_until_its_time_is_over():
    token, expires_at = links().token(LINK)
    assert expires_at == "2026-05-04T00:15:00.000Z"
    assert links().read(token) == LINK
    assert links(now=NOW + LIFE - timedelta(seconds=1)).read(token) == LINK
    with pytest.raises(LinkExpired) as expired:
        links(now=NOW + LIFE).read(token)
    assert expired.value.at == expires_at


def test_a_token_is_short_and_needs_no_escaping():
    token, _ = links().token(LINK)
    assert len(token) == 92
    assert token.replace("-", "").replace("_", "").isalnum()


def test_another_key_opens_nothing():
    with pytest.raises(LinkInvalid):
        links(b"other").read(links().token(LINK)[0])


@given(st.integers(0, 91), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
def test_a_token_with_any_character_changed_is_invalid(place: int, character: str):
    token, _ = links().token(LINK)
    changed = token[:place] + character + token[place + 1 :]
    if changed != token:
        with pytest.raises(LinkInvalid):
            links().read(changed)


@given(st.text(max_size=120) | st.binary(max_size=90).map(lambda data: data.hex()))
def test_what_was_not_made_here_is_invalid(text: str):
    with pytest.raises(LinkInvalid):
        links().read(text)


def test_an_expired_token_that_is_tampered_with_is_invalid_rather_than_expired():
    token, _ = links().token(LINK)
    with pytest.raises(LinkInvalid):
        links(now=NOW + 2 * LIFE).read(token[:-1] + ("A" if token[-1] != "A" else "B"))
