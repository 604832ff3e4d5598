"""The envelope, against the examples that its specification and its repository give."""

from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from converter.common.provenance import SigningKey
from converter.common.provenance.dsse import Envelope, opened, pae, sealed

TYPE = "application/vnd.in-toto+json"
BODY = b'{"_type":"https://in-toto.io/Statement/v1"}'
RFC_8032_TEST_1 = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
SIGNATURE = "2WAfaHm5jluo0w+0rk8uVkluELJYWjSmU9x7EUzx+AyteDGJ4/nqyJXfmAUVFIAoQafWm7AxBZNw5M9ixNHiCA=="
"""Of BODY and TYPE by that key: secure-systems-lab/dsse, testvectors/vectors.json, `single-signature`."""


@pytest.fixture
def key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(RFC_8032_TEST_1)))


@pytest.mark.parametrize(
    ("kind", "body", "encoded"),
    [
        (
            "http://example.com/HelloWorld",
            b"hello world",
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world",
        ),
        ("application/vnd.exämple+json", b"", b"DSSEv1 29 application/vnd.ex\xc3\xa4mple+json 0 "),
        ("", b"\xfb\xff", b"DSSEv1 0  2 \xfb\xff"),
    ],
)
def test_what_is_signed_is_the_specifications_encoding(kind: str, body: bytes, encoded: bytes):
    assert pae(kind, body) == encoded


def test_the_signature_is_the_published_one(key: SigningKey):
    envelope = sealed(TYPE, BODY, key)
    assert [signature.sig for signature in envelope.signatures] == [SIGNATURE]
    assert opened(envelope, key.public) == BODY


def test_an_envelope_has_the_published_form(key: SigningKey):
    written = msgspec.json.decode(msgspec.json.encode(sealed(TYPE, BODY, key)))
    assert set(written) == {"payload", "payloadType", "signatures"}
    assert written["payloadType"] == TYPE
    assert written["signatures"] == [{"sig": SIGNATURE, "keyid": key.public.keyid}]


def test_base64_for_urls_is_read_too(key: SigningKey):
    sent = (
        b'{"payload": "-_-_Pj8=", "payloadType": "application/vnd.in-toto+json", "signatures": [{"sig": '
        b'"P-_KHICeR7tI6S_YyejJTRtrXhcQyQ2LYPaL8h90KjC9qN8HU_svOQ6TuDOT1HIrsGW886DbWNWcCmX5twLrAw=="}]}'
    )
    assert opened(msgspec.json.decode(sent, type=Envelope), key.public) == b"\xfb\xff\xbf>?"


def test_the_type_is_signed_with_the_payload(key: SigningKey):
    swapped = msgspec.structs.replace(sealed(TYPE, BODY, key), payload_type="application/vnd.example.other+json")
    assert opened(swapped, key.public) is None


def test_one_right_signature_among_others_is_enough_and_the_key_id_decides_nothing(key: SigningKey):
    other = SigningKey(Ed25519PrivateKey.generate())
    mine, theirs = sealed(TYPE, BODY, key).signatures[0], sealed(TYPE, BODY, other).signatures[0]
    mislabelled = msgspec.structs.replace(mine, keyid=theirs.keyid)
    envelope = msgspec.structs.replace(sealed(TYPE, BODY, key), signatures=(theirs, mislabelled))
    assert opened(envelope, key.public) == BODY
    only_theirs = msgspec.structs.replace(envelope, signatures=(msgspec.structs.replace(theirs, keyid=mine.keyid),))
    assert opened(only_theirs, key.public) is None


def test_an_envelope_without_signatures_is_not_opened(key: SigningKey):
    assert opened(msgspec.structs.replace(sealed(TYPE, BODY, key), signatures=()), key.public) is None
