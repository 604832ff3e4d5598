"""When a form's user is asked after, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from litestar.types import HTTPReceiveMessage

from converter.gateway.http.body import Pace
from converter.gateway.http.errors import Refusal
from converter.gateway.intake.content_digest import ContentDigest
from converter.gateway.intake.form import IntakeLimits
from converter.gateway.intake.inputs import FormBody, received
from converter.gateway.intake.shelf import Nowhere

FIELDS = {"user_id": "alice", "platform": "720", "model_id": "32769", "version": "0001"}
NO_MODEL = b"just some words\n"


def part(name: str, content: bytes, filename: str = "") -> bytes:
    named = f'name="{name}"' + (f'; filename="{filename}"' if filename else "")
    return b"--b\r\nContent-Disposition: form-data; " + named.encode() + b"\r\n\r\n" + content + b"\r\n"


IMAGES = part("ref_images", b"BM" + bytes(60), "a.bmp") + part("ref_images", b"BM" + bytes(60), "b.bmp")
MODEL = part("model", NO_MODEL, "m.onnx")
HEAD = b"".join(part(name, value.encode()) for name, value in FIELDS.items())


class Locked(Exception):
    """The user may not have another job."""


class Lock:
    def __init__(self, *, held: bool) -> None:
        self._held, self.looks, self.open = held, 0, asyncio.Event()

    async def look(self, user_id: str) -> None:
        assert user_id == "alice"
        self.looks += 1
        await self.open.wait()
        if self._held:
            raise Locked


async def taken_in(lock: Lock, *pieces: bytes) -> None:
    async def arriving() -> AsyncIterator[HTTPReceiveMessage]:
        for piece in pieces:
            yield {"type": "http.request", "body": piece, "more_body": piece is not pieces[-1]}

    messages = arriving()
    body = FormBody(
        receive=messages.__anext__,
        boundary="b",
        digest=ContentDigest(""),
        limits=IntakeLimits(model_max_bytes=1000, image_max_bytes=1000, images_max_count=10),
        pace=Pace(),
        with_user=True,
    )

    async def find_model(*_: object) -> None:
        raise AssertionError("the form has a model, or its user may have no job")

    async with received(body, shelf=Nowhere(), job_id="j", look_at_lock=lock.look, find_model=find_model):
        raise AssertionError("the model is none")


@pytest.mark.parametrize("pieces", [(HEAD + IMAGES + MODEL + b"--b--\r\n",), (HEAD, IMAGES, MODEL, b"--b--\r\n")])
async def test_the_lock_is_looked_at_once_however_many_files_there_are(pieces: tuple[bytes, ...]):
    lock = Lock(held=False)
    lock.open.set()
    with pytest.raises(Refusal, match="plain text"):
        await taken_in(lock, *pieces)
    assert lock.looks == 1


@pytest.mark.parametrize("pieces", [(HEAD + MODEL + b"--b--\r\n",), (HEAD + MODEL[:-8], MODEL[-8:] + b"--b--\r\n")])
async def test_a_held_lock_is_told_whatever_else_is_wrong_with_the_form(pieces: tuple[bytes, ...]):
    lock = Lock(held=True)
    lock.open.set()
    with pytest.raises(Locked):
        await taken_in(lock, *pieces)


async def test_a_held_lock_is_told_before_a_model_is_copied_that_fields_name():
    lock = Lock(held=True)
    lock.open.set()
    with pytest.raises(Locked):
        await taken_in(lock, HEAD + part("model_sha256", b"0" * 64) + b"--b--\r\n")


async def test_nothing_more_is_read_before_the_lock_has_been_looked_at_and_no_look_is_left_behind():
    lock = Lock(held=False)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await taken_in(lock, HEAD + MODEL[:-8], b"")
    assert lock.looks == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}
