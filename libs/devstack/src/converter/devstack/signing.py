"""The key that signs how artifacts were made, made once and kept unless another is named, and its public half."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from converter.common.private import write_private
from converter.common.provenance import SigningKey

VARIABLE = "PROVENANCE_KEY_FILE"


class ProvenanceKey:
    """Two files: `private` for the stages, `public`, in `directory`, for whoever verifies.

    Raises:
        KeyUnreadable: the environment names a file that holds no such key.
    """

    def __init__(self, directory: Path) -> None:
        own = directory / "provenance.pem"
        self.private, self.public = Path(os.environ.get(VARIABLE) or own), directory / "provenance.pub.pem"
        if self.private == own and not own.exists():
            made = Ed25519PrivateKey.generate()
            write_private(own, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.public.write_bytes(SigningKey.read(self.private).public.pem)
