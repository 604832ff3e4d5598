"""Ed25519 keys (RFC 8032) in PEM files, as `openssl genpkey` and `openssl pkey -pubout` write them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

_MOST_BYTES = 64 << 10


class KeyUnreadable(Exception):
    """The file `path` holds no key of the kind that is wanted."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path, self.why = path, why


class PublicKey:
    """Verifies signatures. `keyid` is the sha256 of the key's DER form (SubjectPublicKeyInfo), in hexadecimal."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.keyid = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()

    @classmethod
    def read(cls, path: Path) -> Self:
        """The key in a PEM file.

        Raises:
            KeyUnreadable: there is no such file, or no Ed25519 public key in it.
        """
        try:
            key = load_pem_public_key(_content(path))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeyUnreadable(path, "not a public key in PEM") from error
        if not isinstance(key, Ed25519PublicKey):
            raise KeyUnreadable(path, "not an Ed25519 key")
        return cls(key)

    @property
    def pem(self) -> bytes:
        """What a PEM file of it holds."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def signed(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is this key's, of exactly `message`."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """Signs; `public` is what verifies it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    @classmethod
    def read(cls, path: Path) -> Self:
        """The key in a PEM file (PKCS #8, not encrypted).

        Raises:
            KeyUnreadable: there is no such file, or no Ed25519 private key in it that needs no password.
        """
        try:
            key = load_pem_private_key(_content(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
            raise KeyUnreadable(path, "not an unencrypted private key in PEM") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyUnreadable(path, "not an Ed25519 key")
        return cls(key)

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the signature."""
        return self._key.sign(message)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise KeyUnreadable(path, error.strerror or type(error).__name__) from error
