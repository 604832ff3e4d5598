"""A key pair for signing, in files as openssl writes them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


class KeyPair(NamedTuple):
    private: Path
    public: Path


def key_pair(directory: Path, name: str = "key") -> KeyPair:
    """A new pair in two files of `directory`."""
    key = Ed25519PrivateKey.generate()
    pair = KeyPair(directory / f"{name}.pem", directory / f"{name}.pub.pem")
    pair.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    pair.public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return pair
