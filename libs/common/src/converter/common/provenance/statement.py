"""What is stated of an artifact: an in-toto Statement v1 with the predicate SLSA provenance v1.

The specifications are in-toto/attestation `spec/v1/statement.md`, `resource_descriptor.md` and `bundle.md`, and SLSA's
`provenance/v1`. Identifiers of our own are URNs: they name, and lead nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from converter.common.provenance import dsse
from converter.common.provenance.keys import SigningKey
from converter.contracts.facts import StageCompleted
from converter.contracts.job import JobRequest, StoredObject, Timestamp, Toolchain

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MEDIA_TYPE = "application/vnd.in-toto.bundle"
SUFFIX = ".intoto.jsonl"
"""A bundle, one envelope to a line, is named after the file that it is about."""
URN = "urn:kneron-model-converter:"
BUILD_TYPE = f"{URN}conversion:v1"
REUSED_FROM = "kneronModelConverter_reusedFrom"
"""SLSA's form for a field of one's own: the maker, an underscore, the name."""


def invocation_id(job_id: str, fact: StageCompleted) -> str:
    """The attempt that made an artifact."""
    return f"{job_id}/{fact.stage}/{fact.attempt}"


def statement(
    job_id: str,
    request: JobRequest,
    fact: StageCompleted,
    *,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, StoredObject],
    started_at: Timestamp,
    reused_from: str | None = None,
) -> dict[str, Any]:
    """How `fact.artifact` came to be.

    Args:
        job_id: of which job.
        request: what the client asked for.
        fact: what the stage made of it.
        parameters: the resolved options that the stage was given.
        inputs: what it was made of, by role.
        started_at: when the attempt began.
        reused_from: the invocation whose bytes these are, where no converter ran for this one.
    """
    metadata: dict[str, Any] = {
        "invocationId": invocation_id(job_id, fact),
        "startedOn": started_at,
        "finishedOn": fact.at,
    }
    if reused_from:
        metadata[REUSED_FROM] = {"invocationId": reused_from}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": fact.artifact.filename, "digest": {"sha256": fact.artifact.sha256}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "stage": fact.stage,
                    "platform": request.platform,
                    "model_id": request.model_id,
                    "version": request.version,
                    "options": parameters,
                },
                "resolvedDependencies": [
                    *({"name": role, "digest": {"sha256": stored.sha256}} for role, stored in inputs.items()),
                    _toolchain(fact.toolchain),
                ],
            },
            "runDetails": {
                "builder": {"id": f"{URN}stage-{fact.stage}"},
                "metadata": metadata,
                "byproducts": [{"name": "report", "digest": {"sha256": fact.report.sha256}}],
            },
        },
    }


def bundle(stated: Mapping[str, Any], key: SigningKey) -> bytes:
    """The signed statement, as the file beside an artifact holds it."""
    return msgspec.json.encode(dsse.sealed(PAYLOAD_TYPE, msgspec.json.encode(stated), key)) + b"\n"


def _toolchain(toolchain: Toolchain) -> dict[str, Any]:
    """A package URL without a registry; where an image ran, its digest."""
    described: dict[str, Any] = {
        "name": "toolchain",
        "uri": f"pkg:generic/{quote(toolchain.name, safe='')}@{quote(toolchain.version, safe='')}",
    }
    if toolchain.image_digest:
        described["digest"] = {"sha256": toolchain.image_digest}
    return described
