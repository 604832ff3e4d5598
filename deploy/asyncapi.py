"""Writes `contracts/asyncapi.json`: what a subscriber may receive, where, and who says it. Run by `make generate`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converter.common import access, topology
from converter.contracts import subjects
from converter.contracts.job import STAGES
from converter.contracts.messages import FACTS

CONTRACTS = Path(__file__).parents[1] / "contracts"
DOCUMENT = CONTRACTS / "asyncapi.json"
JOB, STAGE = "{job_id}", "{stage}"
_PARAMETERS = {
    "job_id": {"description": "The job's id, a UUIDv7."},
    "stage": {"description": "A step of the conversion.", "enum": [str(stage) for stage in STAGES]},
}
_DESCRIPTION = """\
Every change of a job is one message, which carries the fact and the whole job after it. Each is delivered at least once
and in the order of the job's revisions; docs/events.md says how to follow them, what is promised and what may change.

A subscriber receives the events, live or from its own durable consumer of the stream EVENTS. Progress and log lines
are passing news of the stages, which operators may hear too."""


def document() -> dict[str, Any]:
    """The AsyncAPI 3.0 document, from the point of view of a subscriber."""
    messages = {**dict(_events()), **dict(_live())}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Kneron Model Converter: events",
            "version": "1.0.0",
            "description": _DESCRIPTION,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "eventBus": {
                "host": "{host}",
                "protocol": "nats",
                "description": "NATS with JetStream; TLS where the operator has set it.",
                "variables": {"host": {"default": "localhost:4222", "description": "As the operator says."}},
                "security": [{"$ref": "#/components/securitySchemes/nkey"}],
            }
        },
        "channels": {name: _channel(name, message["address"]) for name, message in messages.items()},
        "operations": {name: _operation(name, message["address"]) for name, message in messages.items()},
        "components": {
            "messages": {name: message["message"] for name, message in messages.items()},
            "securitySchemes": {
                "nkey": {
                    "type": "asymmetricEncryption",
                    "description": "The user's nkey (Ed25519): its seed signs what the server asks. A subscriber "
                    f"finds JetStream in the domain `{access.DOMAIN}`.",
                }
            },
        },
    }


def text() -> str:
    """The document as it is committed."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def _events() -> Iterator[tuple[str, dict[str, Any]]]:
    recorded = _recorded()
    for kind, fact in FACTS.items():
        stage = f".{STAGE}" if kind.startswith("stage.") else ""
        example = recorded[kind]
        yield (
            kind,
            {
                "address": f"converter.v1.{JOB}.{kind}{stage}",
                "message": {
                    "name": f"converter.{kind}.v1",
                    "title": kind,
                    "summary": (fact.__doc__ or "").strip(),
                    "correlationId": {"location": "$message.header#/ce-subject", "description": "The job."},
                    "headers": {
                        "type": "object",
                        "allOf": [
                            {"$ref": "./schemas/headers.schema.json"},
                            {"properties": {"ce-type": {"const": f"converter.{kind}.v1"}}},
                        ],
                    },
                    "payload": {"$ref": f"./schemas/{kind}.schema.json"},
                    "examples": [
                        {
                            "name": "recorded",
                            "headers": {k: v for k, v in example["headers"].items() if k.startswith("ce-")},
                            "payload": example["payload"],
                        }
                    ],
                },
            },
        )


def _live() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, subject, recorded in (("progress", subjects.PROGRESS, "progress"), ("log", subjects.LOG, "logs")):
        (example,) = json.loads((_newest() / f"{recorded}.json").read_text())
        prefix = subject.removesuffix("*.*")
        yield (
            name,
            {
                "address": f"{prefix}{STAGE}.{JOB}",
                "message": {
                    "name": name,
                    "title": name,
                    "summary": "Passing news of a stage; never the state.",
                    "payload": {"$ref": f"./schemas/{name}.schema.json"},
                    "examples": [{"name": "recorded", "payload": example["payload"]}],
                },
            },
        )


def _channel(name: str, address: str) -> dict[str, Any]:
    return {
        "address": address,
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "parameters": {key: value for key, value in _PARAMETERS.items() if f"{{{key}}}" in address},
        "bindings": {"nats": {}},
    }


def _operation(name: str, address: str) -> dict[str, Any]:
    subject = address.replace(JOB, "*")
    said_by = sorted(
        {
            user
            for user, allowed in access.permissions().items()
            for stage in STAGES
            if any(_covers(pattern, subject.replace(STAGE, stage)) for pattern in allowed.publish)
        }
    )
    hearing = {
        topology.SUBSCRIBER: (topology.ALL_EVENTS,),
        access.OPERATOR: access.permissions()[access.OPERATOR].subscribe,
    }
    heard_by = [user for user, patterns in hearing.items() if any(_covers(pattern, subject) for pattern in patterns)]
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{name}"},
        "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
        "description": f"May be published by: {', '.join(said_by)}. May be received by: {', '.join(heard_by)}.",
        "bindings": {"nats": {"bindingVersion": "0.1.0"}},
    }


def _covers(pattern: str, subject: str) -> bool:
    """Whether everybody who may use `pattern` may use `subject`, token by token."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted, given = wanted[:-1], given[: len(wanted) - 1]
    return len(wanted) == len(given) and all(a in {"*", b} for a, b in zip(wanted, given, strict=True))


def _newest() -> Path:
    return max((CONTRACTS / "recorded").iterdir())


def _recorded() -> dict[str, dict[str, Any]]:
    """By type, a message of the newest release that has been recorded."""
    messages = [message for file in sorted(_newest().glob("*.json")) for message in json.loads(file.read_text())]
    return {
        message["payload"]["fact"]["type"]: message for message in reversed(messages) if "fact" in message["payload"]
    }


if __name__ == "__main__":
    DOCUMENT.write_text(text())
