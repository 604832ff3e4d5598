from __future__ import annotations

import base64
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.common.identifiers import uuid7
from converter.contracts.job import JobStatus
from converter.gateway.endpoints.paging import Cursors, JobQuery
from converter.gateway.http.errors import FieldError, Refusal

CURSORS = Cursors(b"k" * 32)


def parsed(query_string: str) -> JobQuery:
    return JobQuery.parse(query_string.encode(), CURSORS, "client")


def bad(query_string: str) -> dict[str, str]:
    with pytest.raises(Refusal) as caught:
        parsed(query_string)
    assert caught.value.code == "validation_error"
    problems: list[FieldError] = caught.value.details["fields"]
    return {problem.field: problem.message for problem in problems}


def test_a_query_is_read():
    assert parsed("user_id=alice") == JobQuery(user_id="alice")
    job_id = uuid7()
    cursor = CURSORS.after(job_id, "client", "a", "failed")
    assert parsed(f"user_id=a&status=failed&limit=7&cursor={cursor}") == JobQuery(
        user_id="a", status=JobStatus.FAILED, limit=7, after=job_id
    )


def test_every_bad_parameter_is_named():
    assert set(bad("status=gone&limit=0&page=2")) == {"user_id", "status", "limit", "page"}
    assert set(bad("user_id=a&status=gone&cursor=x&page=2")) == {"status", "cursor", "page"}
    assert set(bad("user_id=a&cursor=")) == {"cursor"}


def test_a_cursor_is_not_called_bad_for_what_else_is():
    cursor = CURSORS.after(uuid7(), "client", "a", "completed")
    assert set(bad(f"status=completed&cursor={cursor}")) == {"user_id"}
    assert set(bad(f"user_id=a&status=COMPLETED&cursor={cursor}")) == {"status"}
    assert set(bad(f"user_id=b&status=completed&cursor={cursor}")) == {"cursor"}
    assert set(bad("user_id=a%20b&limit=101")) == {"user_id", "limit"}
    assert bad("user_id=a&user_id=b") == {"user_id": "sent more than once; allowed: once"}


@given(st.lists(st.tuples(st.text(), st.text()), max_size=8))
def test_no_query_string_breaks_it(pairs: list[tuple[str, str]]):
    try:
        parsed(urlencode(pairs, errors="replace"))
    except Refusal as refusal:
        assert refusal.status == 400  # noqa: PT017 - either outcome is fine, another exception is not


def test_a_cursor_comes_back_as_the_job_it_was_made_of():
    job_id = uuid7()
    cursor = CURSORS.after(job_id, "client", "alice", None)
    assert CURSORS.read(cursor, "client", "alice", None) == job_id


def test_a_cursor_serves_only_the_list_it_was_made_for():
    cursor = CURSORS.after(uuid7(), "client", "alice", None)
    for other in (("other", "alice", None), ("client", "bob", None), ("client", "alice", "queued")):
        assert CURSORS.read(cursor, *other) is None
    assert Cursors(b"other key" * 4).read(cursor, "client", "alice", None) is None


@given(st.integers(0, 31), st.integers(1, 255))
def test_a_cursor_with_a_changed_byte_is_refused(place: int, change: int):
    token = bytearray(base64.urlsafe_b64decode(CURSORS.after(uuid7(), "client", "alice", None) + "="))
    token[place] ^= change
    changed = base64.urlsafe_b64encode(token).decode().rstrip("=")
    assert CURSORS.read(changed, "client", "alice", None) is None


@given(st.text(max_size=60))
def test_no_text_passes_for_a_cursor(cursor: str):
    assert CURSORS.read(cursor, "client", "alice", None) is None
