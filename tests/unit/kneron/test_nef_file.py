from __future__ import annotations

import contextlib
import json
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standins.nef_writer import Writer, nef

from converter.kneron import nef_file
from converter.kneron.nef_file import NefInvalid

WANTED = {"platform": "720", "model_id": 32768, "version": "00A1"}


def with_crc(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def test_everything_that_a_nef_says_is_read():
    found = nef_file.read(nef())
    assert found.platform == "kdp720"
    assert found.chips == ("720",)
    assert found.schema == (1, 0, 0)
    assert (found.compiler_version, found.toolchain_version) == ("standin compiler", "0.25.0")
    assert [(model.name, model.id, model.version) for model in found.models] == [("model", 32768, "00a1")]
    assert [(model.id, model.version) for model in found.firmware] == [(32768, 0xA1)]
    assert found.models_bytes == 20
    nef_file.check(found, **WANTED)


def test_a_description_tells_all_of_it_in_plain_types():
    content = nef(header={4: 1})
    found = json.loads(json.dumps(nef_file.describe(content)))
    assert (found["kind"], found["size_bytes"], found["chips"]) == ("NEF", len(content), ["720"])
    assert found["encryption"] == "with a key of the customer's"
    assert nef_file.describe(nef())["firmware_table"] == [{"id": 32768, "version": "00a1"}]
    assert nef_file.looks_like(content)
    assert not nef_file.looks_like(content + b"x")


@pytest.mark.parametrize("platform", ["520", "720", "530", "630", "730"])
def test_a_target_counted_from_zero_is_read_in_old_schemas(platform: str):
    nef_file.check(nef_file.read(nef(platform=platform)), **WANTED | {"platform": platform})


def test_a_target_of_newer_schemas_is_taken_either_way_and_the_platforms_name_decides():
    schema = (2, 2, 1)
    shifted = nef_file.read(nef(schema=schema, target=2))
    assert shifted.chips == ("530", "720")
    nef_file.check(shifted, **WANTED)
    nef_file.check(nef_file.read(nef(schema=schema, target=1)), **WANTED)
    with pytest.raises(NefInvalid, match="asked for was 530"):
        nef_file.check(shifted, **WANTED | {"platform": "530"})


def test_a_newer_schema_has_no_firmware_table():
    found = nef_file.read(nef(platform="730", schema=(2, 0, 0)))
    assert found.firmware == ()
    nef_file.check(found, **WANTED | {"platform": "730"})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "last four bytes"),
        (nef()[:-1], "last four bytes"),
        (with_crc(b""), "points to byte 0 of 0"),
        (with_crc(bytes(64)), "no header"),
        (nef(models_crc=1), "CRC-32 in its header"),
        (with_crc((writer := Writer()).finish(writer.table({0: 7}))), "magic number is 7"),
    ],
)
def test_what_is_no_nef_is_refused(content: bytes, words: str):
    with pytest.raises(NefInvalid, match=words):
        nef_file.read(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (nef(platform="530"), "for chip 530"),
        (nef(target=99), "unknown target 99"),
        (nef(header={0: "kdp530"}), "platform 'kdp530'"),
        (nef(model_id=5), r"ids \[5\], asked for was 32768"),
        (nef(version=2), "version 0002"),
        (nef(schema=(2, 0, 0), version=2), "version '0002'"),
    ],
)
def test_a_nef_of_another_job_is_refused(content: bytes, words: str):
    with pytest.raises(NefInvalid, match=words):
        nef_file.check(nef_file.read(content), **WANTED)


def test_a_nef_without_models_is_refused():
    writer = Writer()
    root = writer.table({1: {1: 1, 2: zlib.crc32(b"")}, 3: {1: b""}})
    with pytest.raises(NefInvalid, match="names no model"):
        nef_file.check(nef_file.read(with_crc(writer.finish(root))), **WANTED)


def test_a_firmware_table_that_promises_more_than_it_has_is_refused():
    writer = Writer()
    firmware = struct.pack("<I", 2**32 - 1) + bytes(64)
    root = writer.table({1: {1: 1, 2: zlib.crc32(b"x")}, 3: {0: firmware, 1: b"x"}})
    with pytest.raises(NefInvalid, match="not enough for 4294967295 models"):
        nef_file.read(with_crc(writer.finish(root)))


@given(st.binary(max_size=400))
def test_any_bytes_with_a_good_checksum_are_read_or_refused(body: bytes):
    read_or_refuse(with_crc(body))


@given(st.lists(st.tuples(st.integers(0, len(nef()) - 5), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_nef_is_read_or_refused(damage: list[tuple[int, int]]):
    """A few bytes changed, and the outer checksum made good again."""
    body = bytearray(nef()[:-4])
    for at, byte in damage:
        body[at] = byte
    read_or_refuse(with_crc(bytes(body)))


def read_or_refuse(content: bytes) -> None:
    with contextlib.suppress(NefInvalid):
        nef_file.check(nef_file.read(content), **WANTED)
