"""Signed statements of how an artifact was made: in-toto Statement v1 with SLSA provenance v1, in a DSSE envelope.

`statement` says what is stated, `dsse` signs it, `keys` reads the Ed25519 keys, `verification` checks an artifact
against its statement with nothing but the two files and the public key. None of them knows of services or servers.
"""

from __future__ import annotations

from converter.common.provenance.keys import KeyUnreadable, PublicKey, SigningKey
from converter.common.provenance.statement import MEDIA_TYPE, SUFFIX
from converter.common.provenance.verification import (
    AnotherArtifact,
    SignatureInvalid,
    StatementUnreadable,
    VerificationFailed,
    Verified,
    verify_artifact,
)

__all__ = [
    "MEDIA_TYPE",
    "SUFFIX",
    "AnotherArtifact",
    "KeyUnreadable",
    "PublicKey",
    "SignatureInvalid",
    "SigningKey",
    "StatementUnreadable",
    "VerificationFailed",
    "Verified",
    "verify_artifact",
]
