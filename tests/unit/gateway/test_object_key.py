from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.gateway.endpoints.object_key import InvalidObjectKey, check_object_key

DOTS = ("..", "%2e%2e", ".%2e", "%252e%252e", "%25252e%25252E", "%2E.", "\uff0e\uff0e", "\u2025", "%u002e%u002e")
LAX_DOTS = ("%c0%ae%c0%ae", "%e0%80%ae%e0%80%ae", "%f0%80%80%ae.", "%EF%BC%8E%EF%BC%8E", "%ff", "%ed%a0%80")
SLASHES = ("/", "%2f", "%252F", "\\", "%5c", "%255c", "\uff0f", "\uff3c", "%u2215")
TRAVERSALS = [f"a{slash}{dots}{slash}b" for slash in SLASHES for dots in (*DOTS, *LAX_DOTS)]
TRAVERSALS += [f"a{nul}.nef" for nul in ("\0", "%00", "%2500", "%c0%80", "%u0000", "\r\nX: y", "%0d%0aX: y")]


@pytest.mark.parametrize(
    "key",
    [
        "a",
        "models/alice/yolo.nef",
        "a b/ü.nef",
        "..a/b..",
        "a/...",
        "100%",
        "\u30e2\uff0f\uff11\uff0enef",
        "50%uber",
        "a" * 1024,
    ],
)
def test_a_relative_key_is_taken(key: str):
    assert check_object_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "..",
        "../a",
        "a/../b",
        "a/./b",
        "a\\b",
        "a\nb",
        "a\x00",
        "a\x7f",
        "a\u0085b",
        "a" * 1025,
        "ü" * 513,
        "\ud800",
        "%2e%2e/a",
        "a/%2E%2e/b",
        "%252e%252e/a",
        "a%2f%2fb",
        "a%5cb",
        "a%00",
        "%2fa",
        *TRAVERSALS,
    ],
)
def test_a_key_that_could_lead_elsewhere_is_refused(key: str):
    with pytest.raises(InvalidObjectKey):
        check_object_key(key)


@given(st.text(), st.integers(0, 2))
def test_a_key_that_is_taken_stays_below_the_root_however_it_is_decoded(key: str, times: int):
    for _ in range(times):
        key = quote(key, safe="", errors="replace")
    try:
        check_object_key(key)
    except InvalidObjectKey:
        return
    assert not key.startswith("/")
    assert not {"", ".", ".."} & set(key.split("/"))
    assert len(key.encode()) <= 1024
