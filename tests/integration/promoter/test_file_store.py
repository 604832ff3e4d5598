"""What an upload makes of everything that a file store and an issuer can do to it."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import time

import pytest
from msgspec.structs import replace

from converter.common.storage import ArtifactStore
from converter.promoter.file_store import (
    AuthServiceUnavailable,
    FileGatewayUnavailable,
    FileStore,
    NotPromoted,
    open_file_store,
)
from converter.promoter.upload import Upload

from .conftest import (
    PATH,
    PAUSES_S,
    Company,
    Exchange,
    Fault,
    Made,
    answering,
    no_answer,
    no_more,
    refusing_early,
    reset_mid_body,
    tokens_of,
)

TRIES = len(PAUSES_S) + 1
MANY_FAULTS = int(os.environ.get("CHAOS_FAULTS", "25"))


async def test_the_artifact_arrives_whole_under_its_key_with_what_describes_it(
    company: Company, file_store: FileStore, upload: Upload, made: Made
):
    await file_store.put(upload)
    assert company.files == {PATH: made.content}
    (request,) = company.uploads
    digest = base64.b64encode(bytes.fromhex(made.artifact.sha256)).decode()
    assert request.method == "PUT"
    assert request.headers["authorization"] == "Bearer token-1"
    assert request.headers["content-length"] == str(made.artifact.size_bytes)
    assert request.headers["content-type"] == "application/x-nef"
    assert request.headers["content-digest"] == f"sha-256=:{digest}:"
    assert "transfer-encoding" not in request.headers


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a b/ü.nef", "/files/a%20b/%C3%BC.nef"),
        ("a?b#c/100%.nef", "/files/a%3Fb%23c/100%25.nef"),
        ("a%2F..%2Fb", "/files/a%252F..%252Fb"),
        ("a+b&c=d;e:f@g", "/files/a%2Bb%26c%3Dd%3Be%3Af%40g"),
        ("..a/.b/c..", "/files/..a/.b/c.."),
    ],
)
async def test_a_key_means_the_same_to_the_store_as_to_the_client(
    company: Company, file_store: FileStore, upload: Upload, key: str, path: str
):
    await file_store.put(replace(upload, target_object_key=key))
    assert list(company.files) == [path]


@pytest.mark.parametrize("key", ["../a", "a/../b", "a//b", "/a", "a/", ".", ""])
async def test_a_key_that_leads_elsewhere_is_never_sent(
    company: Company, file_store: FileStore, upload: Upload, key: str
):
    with pytest.raises(FileGatewayUnavailable, match="segment"):
        await file_store.put(replace(upload, target_object_key=key))
    assert not company.uploads


async def test_an_artifact_without_a_byte_is_uploaded(
    company: Company, file_store: FileStore, store: ArtifactStore, made: Made, upload: Upload
):
    stored = await store.put("jobs/1/nef/1/empty", b"")
    empty = replace(made.artifact, object_key=stored.object_key, size_bytes=0, sha256=stored.sha256)
    await file_store.put(replace(upload, artifact=empty, open=lambda: store.open(stored.object_key)))
    assert company.files == {PATH: b""}


async def test_uploads_share_a_token(company: Company, file_store: FileStore, upload: Upload):
    await asyncio.gather(*(file_store.put(replace(upload, target_object_key=f"k{n}")) for n in range(3)))
    assert len(company.files) == 3
    assert company.tokens == ["token-1"]


@pytest.mark.parametrize("fault", [answering(401), refusing_early(401)])
async def test_a_refused_token_is_replaced_once_and_the_upload_begins_anew(
    company: Company, file_store: FileStore, upload: Upload, made: Made, fault: Fault
):
    company.faults.append(fault)
    await file_store.put(upload)
    assert [request.headers["authorization"] for request in company.uploads] == ["Bearer token-1", "Bearer token-2"]
    assert company.files == {PATH: made.content}


@pytest.mark.parametrize("fault", [answering(401), refusing_early(401)])
async def test_a_second_refused_token_is_the_auth_services_fault(
    company: Company, file_store: FileStore, upload: Upload, fault: Fault
):
    company.faults.extend([fault] * 10)
    with pytest.raises(AuthServiceUnavailable) as raised:
        await file_store.put(upload)
    assert raised.value.code == "auth_service_unavailable"
    assert len(company.uploads) == 2


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("status", [307, 400, 403, 404, 413, 429])
async def test_another_refusal_is_final_even_when_it_comes_before_the_body_was_read(
    company: Company,
    file_store: FileStore,
    upload: Upload,
    status: int,
    early: bool,  # noqa: FBT001 - a case of the table
):
    company.faults.extend([(refusing_early if early else answering)(status)] * 10)
    with pytest.raises(FileGatewayUnavailable) as raised:
        await file_store.put(upload)
    assert (raised.value.code, raised.value.status) == ("file_gateway_unavailable", status)
    assert str(status) in raised.value.why
    assert ("the same again will not help" in raised.value.why) == (status != 429)
    assert len(company.uploads) == 1


@pytest.mark.parametrize("fault", [answering(500), answering(503), refusing_early(503), reset_mid_body])
async def test_what_passes_is_tried_again_from_the_first_byte(
    company: Company, file_store: FileStore, upload: Upload, made: Made, fault: Fault
):
    company.faults.extend([fault, fault])
    await file_store.put(upload)
    assert len(company.uploads) == 3
    assert company.files == {PATH: made.content}


@pytest.mark.parametrize(("fault", "status"), [(answering(500), 500), (reset_mid_body, None)])
async def test_what_does_not_pass_is_given_up_after_a_bounded_number_of_tries(
    company: Company, file_store: FileStore, upload: Upload, fault: Fault, status: int | None
):
    company.faults.extend([fault] * 50)
    with pytest.raises(FileGatewayUnavailable) as raised:
        await file_store.put(upload)
    assert raised.value.status == status
    assert len(company.uploads) == TRIES


@pytest.mark.parametrize("fault", [no_more, no_answer])
async def test_a_store_that_stands_still_is_tried_again(
    company: Company, impatient: FileStore, upload: Upload, made: Made, fault: Fault
):
    company.faults.append(fault)
    await impatient.put(upload)
    assert company.files == {PATH: made.content}


async def test_a_slow_store_is_not_taken_for_one_that_stands_still(company: Company, upload: Upload, made: Made):
    async def slow(exchange: Exchange) -> None:
        content = b""
        while len(content) < len(made.content):
            content += await exchange.some(1 << 16)
            await asyncio.sleep(0.02)
        company.files[exchange.path] = content
        await exchange.answer(201)

    company.faults.append(slow)
    started, patience_s = time.monotonic(), 1.0
    async with tokens_of(company) as tokens, open_file_store(company.url, tokens, patience_s=patience_s) as file_store:
        await file_store.put(upload)
    assert time.monotonic() - started > patience_s
    assert company.files == {PATH: made.content}
    assert len(company.uploads) == 1


async def test_an_answer_that_is_lost_leaves_the_same_bytes_under_the_same_key(
    company: Company, file_store: FileStore, upload: Upload, made: Made
):
    company.faults.append(company.keep_and_lose_the_answer)
    await file_store.put(upload)
    assert company.kept == 2
    assert company.files == {PATH: made.content}


async def test_a_yes_before_the_store_has_all_bytes_is_no_yes(
    company: Company, file_store: FileStore, upload: Upload, made: Made
):
    company.faults.append(refusing_early(201))
    await file_store.put(upload)
    assert company.files == {PATH: made.content}


async def test_a_redirect_takes_no_token_elsewhere(company: Company, file_store: FileStore, upload: Upload):
    async def redirect(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.answer(307, b"", f"Location: {company.url}/files/elsewhere")

    company.faults.append(redirect)
    with pytest.raises(FileGatewayUnavailable):
        await file_store.put(upload)
    assert [request.path for request in company.uploads] == [PATH]


async def test_an_issuer_in_passing_trouble_is_asked_again(
    company: Company, file_store: FileStore, upload: Upload, made: Made
):
    company.token_status.extend([503, 500])
    await file_store.put(upload)
    assert company.files == {PATH: made.content}


async def test_an_issuer_that_refuses_the_client_is_not_asked_again(
    company: Company, file_store: FileStore, upload: Upload
):
    company.token_status.extend([401, 401])
    with pytest.raises(AuthServiceUnavailable):
        await file_store.put(upload)
    assert len(company.token_status) == 1
    assert not company.uploads


async def test_an_issuer_that_stays_away_is_the_auth_services_fault(
    company: Company, file_store: FileStore, upload: Upload
):
    company.token_status.extend([503] * 50)
    with pytest.raises(AuthServiceUnavailable):
        await file_store.put(upload)
    assert len(company.token_status) == 50 - TRIES


async def test_what_clients_are_told_names_no_address(company: Company, file_store: FileStore, upload: Upload):
    company.faults.extend([reset_mid_body] * 50)
    with pytest.raises(NotPromoted) as raised:
        await file_store.put(upload)
    assert "127.0.0.1" not in str(raised.value)


@pytest.mark.timeout(60 + MANY_FAULTS)
async def test_of_many_faults_none_has_an_effect_twice_or_leaves_a_file_that_is_not_whole(
    company: Company, impatient: FileStore, upload: Upload, made: Made
):
    """Each upload meets up to three faults that a seed chooses, and whoever is told no asks again."""
    passing = [answering(500), answering(503), refusing_early(503), reset_mid_body, no_more, no_answer]
    lasting = [answering(401), answering(403), answering(404), refusing_early(403)]
    kinds = [*passing, *lasting, company.keep_and_lose_the_answer]
    chance, met, uploads = random.Random(1), 0, 0  # noqa: S311 - wants a seed
    while met < MANY_FAULTS:
        company.files.clear()
        company.faults.extend(chance.choices(kinds, k=chance.randint(0, 3)))
        planned, uploads = len(company.faults), uploads + 1
        key = f"many/{uploads}"
        try:
            await impatient.put(replace(upload, target_object_key=key))
        except NotPromoted:
            # What was kept while its answer was lost may be there, and whole; nothing comes after the no.
            there = list(company.files)
            await asyncio.sleep(0.02)
            assert list(company.files) == there
        else:
            assert list(company.files) == [f"/files/{key}"]
        assert all(content == made.content for content in company.files.values())
        met += planned - len(company.faults)
        company.faults.clear()
