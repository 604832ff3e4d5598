from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.common.storage import ByteRange
from converter.gateway.http.ranges import Unsatisfiable, attachment, wanted_range

TAG = '"tag"'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 0)),
        ("bytes=2-5", (2, 5)),
        ("BYTES=2-", (2, 9)),
        ("bytes=5-100", (5, 9)),
        ("bytes=-3", (7, 9)),
        ("bytes=-100", (0, 9)),
    ],
)
def test_one_range_is_understood(header: str, expected: tuple[int, int]):
    assert wanted_range(header, None, tag=TAG, size_bytes=10) == ByteRange(*expected)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-2",
        "bytes=1-2,4-5",
        "lines=1-2",
        "bytes=a-b",
        "bytes=\u0661-\u0662",
    ],
)
def test_what_is_not_one_range_means_the_whole(header: str | None):
    assert wanted_range(header, None, tag=TAG, size_bytes=10) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=11-12", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
)
def test_a_range_past_the_end_cannot_be_given(header: str, size: int):
    with pytest.raises(Unsatisfiable) as refused:
        wanted_range(header, None, tag=TAG, size_bytes=size)
    assert refused.value.size_bytes == size


@pytest.mark.parametrize(
    ("if_range", "part"),
    [(TAG, True), ('"other"', False), ('W/"tag"', False), ("Mon, 04 May 2026 00:00:00 GMT", False)],
)
def test_a_range_of_another_file_is_not_given(if_range: str, *, part: bool):
    assert (wanted_range("bytes=1-2", if_range, tag=TAG, size_bytes=10) is not None) == part


def test_a_plain_name_is_quoted_as_it_is():
    assert attachment("digits_cnn.ref.nef") == 'attachment; filename="digits_cnn.ref.nef"'


@pytest.mark.parametrize(
    ("name", "plain", "whole"),
    [
        ('a"; filename=b.exe', "a__ filename=b.exe", "a_; filename=b.exe"),
        ("../../etc/passwd", "_.._etc_passwd", "_.._etc_passwd"),
        ("模型.nef", "__.nef", "模型.nef"),
        ("a\r\nSet-Cookie: x", "a__Set-Cookie_ x", "a__Set-Cookie_ x"),
        ("...", "artifact", "artifact"),
    ],
)
def test_a_name_cannot_end_its_quotes_or_leave_its_directory(name: str, plain: str, whole: str):
    value = attachment(name)
    assert f'filename="{plain}"' in value
    assert unquote(value.partition("filename*=UTF-8''")[2] or plain) == whole


@given(st.text(max_size=300))
def test_whatever_the_name_the_header_is_one_line_of_ascii(name: str):
    value = attachment(name)
    assert value.isascii()
    assert value.isprintable()
    assert value.count('"') == 2
