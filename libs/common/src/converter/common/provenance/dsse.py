"""DSSE, the envelope of a signed payload (protocol and envelope v1.0.0 of secure-systems-lab/dsse).

What is signed is the payload's own bytes together with its type, so nothing has to be brought into a canonical form.
"""

from __future__ import annotations

import base64
import binascii

from msgspec import Struct

from converter.common.provenance.keys import PublicKey, SigningKey


class Signature(Struct, frozen=True, kw_only=True):
    """One key's. `keyid` is a hint to find the key; nothing is decided by it."""

    sig: str
    keyid: str = ""


class Envelope(Struct, frozen=True, kw_only=True, rename="camel"):
    """A payload, in base64, and who signed it."""

    payload: str
    payload_type: str
    signatures: tuple[Signature, ...]


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed ("pre-authentication encoding"); lengths count bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sealed(payload_type: str, payload: bytes, key: SigningKey) -> Envelope:
    """`payload`, signed by `key`."""
    signature = Signature(sig=_text(key.sign(pae(payload_type, payload))), keyid=key.public.keyid)
    return Envelope(payload=_text(payload), payload_type=payload_type, signatures=(signature,))


def opened(envelope: Envelope, key: PublicKey) -> bytes | None:
    """The payload, if `key` has signed it and its type; nothing is read of it before.

    Raises:
        ValueError: the payload or a signature is not base64.
    """
    payload = _bytes(envelope.payload)
    message = pae(envelope.payload_type, payload)
    signed = any(key.signed(_bytes(signature.sig), message) for signature in envelope.signatures)
    return payload if signed else None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    """Both alphabets of base64, as the protocol wants of who verifies."""
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("not base64") from error
