"""Identifiers that sort by time."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime, timedelta

from converter.common.identifiers import made_at, uuid7


def test_an_identifier_is_a_uuid_of_version_7_that_tells_when_it_was_made() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    made = [uuid7() for _ in range(1000)]
    assert {(found.version, found.variant) for found in map(uuid.UUID, made)} == {(7, uuid.RFC_4122)}
    assert all(before <= made_at(each) <= datetime.now(UTC) for each in made)
    assert len({each[14:] for each in made}) == len(made)
    assert [each[:13] for each in made] == sorted(each[:13] for each in made)


def test_a_forked_process_makes_others_than_its_parent() -> None:
    uuid7()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, uuid7().encode())
        os._exit(0)
    os.waitpid(child, 0)
    with open(reading, "rb", closefd=True) as pipe:  # noqa: PTH123 - a descriptor
        theirs = pipe.read(36).decode()
    os.close(writing)
    assert theirs[14:] != uuid7()[14:]
