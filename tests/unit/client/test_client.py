"""What holds of the client without a server."""

from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncGenerator, Generator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.client import AsyncClient, Bearer, Client, ClientCredentials, Order, errors, resources
from converter.client.errors import (
    ConverterError,
    Forbidden,
    InsecureUrl,
    InvalidRequest,
    Misconfigured,
    NotTheContract,
    Unavailable,
    Unreachable,
    kind_of,
)
from converter.client.following import parsed
from converter.client.gateway import refused
from converter.client.patience import passing
from converter.client.sending import Form, fields_of
from converter.client.wire import Answer, BlockingWire, completed, iterated
from converter.gateway import representation
from converter.gateway.http.errors import ERRORS

SECRET = "hunter2"
CREDENTIALS = ClientCredentials(token_url="https://issuer.example/token", client_id="one", client_secret=SECRET)


def public(kind: type) -> dict[str, typing.Any]:
    return {name: method for name, method in vars(kind).items() if inspect.isfunction(method) and name[0] != "_"}


def test_the_two_clients_have_the_same_methods():
    asynchronous, blocking = public(AsyncClient), public(Client)
    assert list(asynchronous) == list(blocking)
    for name, method in asynchronous.items():
        expected, found = inspect.signature(method), inspect.signature(blocking[name])
        assert list(expected.parameters.values()) == list(found.parameters.values()), name
        gives = typing.get_type_hints(method)["return"]
        if typing.get_origin(gives) is AsyncGenerator:
            gives = Generator[typing.get_args(gives)[0], None, None]
        assert typing.get_type_hints(blocking[name])["return"] == gives, name


def test_every_code_of_the_gateway_has_its_exception():
    by_status = {
        400: errors.InvalidRequest,
        401: errors.Unauthenticated,
        403: errors.Forbidden,
        404: errors.NotFound,
        405: errors.InvalidRequest,
        408: errors.Unavailable,
        409: errors.Conflict,
        410: errors.NotFound,
        412: errors.Conflict,
        429: errors.RateLimited,
    }
    for code, row in ERRORS.items():
        expected = by_status.get(row.status, errors.Unavailable if row.status >= 500 else errors.InvalidRequest)
        assert issubclass(kind_of(row.status, code), expected), code
    assert kind_of(409, "user_has_active_job") is errors.UserHasActiveJob


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (resources.Job, representation.JobResource),
        (resources.Options, representation.OptionsResource),
        (resources.Timing, representation.StageTiming),
        (resources.Artifact, representation.ArtifactResource),
        (resources.Provenance, representation.ProvenanceResource),
        (resources.Promotion, representation.PromotionResource),
        (resources.Failure, representation.ErrorResource),
        (resources.Page, representation.JobPage),
    ],
)
def test_a_resource_has_the_fields_that_the_gateway_gives(mine: type, theirs: type):
    assert set(mine.__struct_fields__) == set(theirs.__struct_fields__)


def test_secrets_are_not_shown():
    assert SECRET not in repr(CREDENTIALS)
    assert SECRET not in repr(Bearer(SECRET))


@pytest.mark.parametrize(
    "url", ["ftp://localhost", "converter.example", "localhost:4000", "http://", "", "https:/x", "https://[bad"]
)
def test_what_is_no_address_of_a_service_is_told_as_such(url: str):
    with pytest.raises(Misconfigured, match="is no address") as refused:
        Client(url, Bearer(SECRET), allow_http=True)
    assert (refused.value.code, "https://" in str(refused.value.hint)) == ("misconfigured", True)


@pytest.mark.parametrize("url", ["http://converter.example", "http://10.0.0.1:4000"])
def test_a_secret_does_not_travel_in_the_clear(url: str):
    with pytest.raises(InsecureUrl):
        Client(url, Bearer(SECRET))
    with pytest.raises(InsecureUrl):
        AsyncClient("https://converter.example", ClientCredentials(token_url=url, client_id="", client_secret=SECRET))


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "é"])
def test_what_can_be_no_token_is_refused_without_being_shown(token: str):
    with pytest.raises(Misconfigured) as refused:
        Bearer(token)
    assert not token or token not in str(refused.value)


def test_http_may_be_allowed_knowingly_and_is_free_on_this_machine():
    Client("http://converter.example", Bearer(SECRET), allow_http=True).close()
    Client("http://127.0.0.1:4000", Bearer(SECRET)).close()


def test_what_never_arrived_is_told_from_what_may_have():
    client = Client("http://127.0.0.1:9", Bearer("t"), patience_s=0)
    with pytest.raises(Unreachable) as found:
        client.job("x")
    assert not found.value.sent


@pytest.mark.parametrize("images", [Path("images"), "images", ["one.png"], iter([Path("one.png")]), None])
def test_images_that_are_no_list_of_paths_are_told_as_such(images: typing.Any):  # noqa: ANN401 - what it must not be
    with pytest.raises(TypeError, match="images is a list of Paths, not"):
        Order(model=Path("model.onnx"), images=images, user_id="alice", platform="720", model_id=40001)


def test_an_order_becomes_the_forms_fields():
    order = Order(
        model=Path("m.onnx"),
        user_id="alice",
        platform="720",
        model_id=7,
        input_shape={"": [1, 3], "b": [2]},
        preprocess={"scale": 2},
        quantization={"mode": 1},
        targets="bie",
    )
    assert fields_of(order)[4:] == [
        ("input_shape", "1,3"),
        ("input_shape", "b:2"),
        ("preprocess", '{"scale":2}'),
        ("quantization", '{"mode":1}'),
        ("targets", "bie"),
    ]


def test_a_form_is_what_it_says_it_is(tmp_path: Path):
    file = tmp_path / 'ev"il\n.onnx'
    file.write_bytes(b"\x00" * 300_000)
    told: list[tuple[int, int]] = []
    body = Form([("user_id", "älice")], [("model", file)]).body(lambda *each: told.append(each))
    wire = BlockingWire(1.0, trust_env=False)
    first, again = (b"".join(iterated(body.read(wire.run))) for _ in range(2))
    completed(wire.close())
    assert first == again
    assert len(first) == body.size_bytes
    assert b'filename="ev%22il%0A.onnx"' in first
    assert told[-1] == (body.size_bytes, body.size_bytes)
    request = httpx.Request("POST", "http://x", headers={"Content-Type": body.media_type}, content=first)
    assert request.headers["content-type"].startswith("multipart/form-data; boundary=")


STREAM = (
    b": heartbeat\n\nid: 1\nevent: job.created\ndata: {}\n\ndata: one\r\ndata: two\r\n\r\n:\n\nevent: end\ndata: x\n\n"
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_events_are_read_however_they_are_cut(cuts: list[int]):
    edges = [0, *sorted(cuts), len(STREAM)]

    async def chunks() -> AsyncGenerator[bytes, None]:
        for begin, end in pairwise(edges):
            yield STREAM[begin:end]

    found = [(each.id, each.kind, each.data) for each in iterated(parsed("here", chunks())) if each]
    assert found == [("1", "job.created", "{}"), ("", "message", "one\ntwo"), ("", "end", "x")]


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (403, Forbidden, "http_403"),
        (404, NotTheContract, "not_the_contract"),
        (413, InvalidRequest, "http_413"),
        (502, Unavailable, "http_502"),
    ],
)
def test_what_another_server_answers_has_a_code_and_says_where_to_look(
    status: int, kind: type[ConverterError], code: str
):
    async def page() -> AsyncGenerator[bytes, None]:
        yield b"<html>"

    with pytest.raises(ConverterError) as raised:
        raise completed(refused(Answer("http://x", status, httpx.Headers(), page())))
    assert (type(raised.value), raised.value.code) == (kind, code)
    assert "proxy" in (raised.value.hint or "")
    assert passing(raised.value) is (code == "http_502")
