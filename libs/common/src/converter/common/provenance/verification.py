"""Checks an artifact against the statement beside it: three files in, nothing else is asked.

VerificationFailed
├── StatementUnreadable(why)               no bundle of DSSE envelopes, or not of statements that are known here
├── SignatureInvalid(keyid)                none of its signatures is this key's, or what was signed has been changed
└── AnotherArtifact(found, stated)         it is about other bytes
KeyUnreadable                              see `keys`
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from converter.common.provenance import dsse
from converter.common.provenance.keys import PublicKey
from converter.common.provenance.statement import PAYLOAD_TYPE, PREDICATE_TYPE, REUSED_FROM, STATEMENT_TYPE

_MOST_BYTES = 1 << 20
"""A bundle of ours has two thousand."""


class VerificationFailed(Exception):
    """The artifact is not what a statement of the key's owner says."""


class StatementUnreadable(VerificationFailed):
    """The file beside the artifact is no statement of the kind that is made here."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the statement cannot be read: {why}")
        self.why = why


class SignatureInvalid(VerificationFailed):
    """The statement does not bear a signature of the key `keyid`, or was changed after it was signed."""

    def __init__(self, keyid: str) -> None:
        super().__init__(f"the statement is not signed by the key {keyid}, or was changed after it was signed")
        self.keyid = keyid


class AnotherArtifact(VerificationFailed):
    """The statement is of the key's owner, and about other bytes."""

    def __init__(self, found: str, stated: str, name: str) -> None:
        super().__init__(f"the file's sha256 is {found}; the statement is about {name!r}, whose sha256 is {stated}")
        self.found, self.stated, self.name = found, stated, name


class Verified(Struct, frozen=True, kw_only=True):
    """What the owner of the key `keyid` states of the artifact."""

    name: str
    """What the service called it; a promoted file has the name that it was given."""
    sha256: str
    size_bytes: int
    keyid: str
    builder: str
    build_type: str
    parameters: dict[str, Any]
    """Stage, platform, model id, version, and the options as they were resolved."""
    dependencies: list[dict[str, Any]]
    """What it was made of and with: `name`, `digest`, `uri`."""
    invocation_id: str
    reused_from: str | None
    """The invocation whose bytes these are, where no converter ran for this one."""
    started_on: str
    finished_on: str


def verify_artifact(artifact: Path, statement: Path, public_key: Path) -> Verified:
    """What the owner of the key has signed of the file `artifact`, where `statement` is about exactly its bytes.

    A bundle may hold several statements; one has to fit. The artifact is read in pieces.

    Raises:
        StatementUnreadable, SignatureInvalid, AnotherArtifact: it is not so, and why.
        KeyUnreadable: there is no Ed25519 public key in the file.
        OSError: a file cannot be read.
    """
    key = PublicKey.read(public_key)
    with statement.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise StatementUnreadable(f"larger than {_MOST_BYTES} bytes")
    with artifact.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    failed: VerificationFailed = StatementUnreadable("the file is empty")
    for line in reversed([line for line in content.split(b"\n") if line.strip()]):
        try:
            return _verified(_stated(line, key), sha256, artifact.stat().st_size, key.keyid)
        except VerificationFailed as failure:
            failed = failure
    raise failed


class _Digest(Struct):
    sha256: str


class _Subject(Struct):
    digest: _Digest
    name: str = ""


class _BuildDefinition(Struct, rename="camel"):
    build_type: str
    external_parameters: dict[str, Any]
    resolved_dependencies: list[dict[str, Any]] = []


class _Builder(Struct):
    id: str


class _Reused(Struct, rename="camel"):
    invocation_id: str


class _Metadata(Struct, rename="camel"):
    invocation_id: str = ""
    started_on: str = ""
    finished_on: str = ""
    reused_from: _Reused | None = field(default=None, name=REUSED_FROM)


class _RunDetails(Struct):
    builder: _Builder
    metadata: _Metadata = field(default_factory=_Metadata)


class _Predicate(Struct, rename="camel"):
    build_definition: _BuildDefinition
    run_details: _RunDetails


class _Typed(Struct, rename="camel"):
    type: str = field(name="_type")
    predicate_type: str


class _Statement(Struct):
    subject: list[_Subject]
    predicate: _Predicate


def _stated(line: bytes, key: PublicKey) -> _Statement:
    """The statement in one envelope; nothing of it is believed before its signature is known to be right."""
    try:
        envelope = msgspec.json.decode(line, type=dsse.Envelope)
        payload = dsse.opened(envelope, key)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise StatementUnreadable(f"no DSSE envelope: {error}") from error
    if payload is None:
        raise SignatureInvalid(key.keyid)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise StatementUnreadable(f"the media type is {envelope.payload_type!r}, not {PAYLOAD_TYPE!r}")
    try:
        typed = msgspec.json.decode(payload, type=_Typed)
        if typed.type != STATEMENT_TYPE or typed.predicate_type != PREDICATE_TYPE:
            raise StatementUnreadable(f"its type is {typed.type!r} with the predicate {typed.predicate_type!r}")
        return msgspec.json.decode(payload, type=_Statement)
    except (RecursionError, msgspec.MsgspecError) as error:
        raise StatementUnreadable(f"no in-toto statement with SLSA provenance: {error}") from error


def _verified(stated: _Statement, sha256: str, size_bytes: int, keyid: str) -> Verified:
    if len(stated.subject) != 1:
        raise StatementUnreadable(f"it has {len(stated.subject)} subjects, not one")
    (subject,) = stated.subject
    if subject.digest.sha256 != sha256:
        raise AnotherArtifact(sha256, subject.digest.sha256, subject.name)
    definition, run = stated.predicate.build_definition, stated.predicate.run_details
    return Verified(
        name=subject.name,
        sha256=sha256,
        size_bytes=size_bytes,
        keyid=keyid,
        builder=run.builder.id,
        build_type=definition.build_type,
        parameters=definition.external_parameters,
        dependencies=definition.resolved_dependencies,
        invocation_id=run.metadata.invocation_id,
        reused_from=run.metadata.reused_from.invocation_id if run.metadata.reused_from else None,
        started_on=run.metadata.started_on,
        finished_on=run.metadata.finished_on,
    )
