"""What travels: the headers of an event, and the payload of each type of event."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from converter.contracts import facts
from converter.contracts.job import JobId, JobRecord, Timestamp

EventId = Annotated[
    str, Meta(extra_json_schema={"format": "uuid"}, description="of this event, its own; the same when it comes again")
]


def _header(field: str) -> str:
    return field if field == "traceparent" else f"ce-{field}"


class EventHeaders(Struct, frozen=True, kw_only=True, rename=_header):
    """CloudEvents 1.0 names for what an event is. The server's own headers (`Nats-…`) stand beside them."""

    specversion: Literal["1.0"]
    id: EventId
    source: Annotated[str, Meta(min_length=1, description="the service that published")]
    type: Annotated[str, Meta(pattern=r"^converter\.(job|stage|promotion)\.[a-z]+\.v1$")]
    time: Timestamp
    subject: JobId
    traceparent: (
        Annotated[
            str,
            Meta(
                pattern="^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}",
                description="the trace in which it was published (W3C Trace Context), where the service traces",
            ),
        ]
        | UnsetType
    ) = UNSET


def _payload(fact: type[facts.Fact]) -> type[Struct]:
    job: Any = None if fact is facts.JobDeleted else JobRecord
    fields: list[tuple[str, Any]] = [("fact", fact), ("job", job)]
    return msgspec.defstruct(f"{fact.__name__}Event", fields, namespace={"__doc__": fact.__doc__}, module=__name__)


FACTS: dict[str, type[facts.Fact]] = {str(fact.__struct_config__.tag): fact for fact in get_args(facts.AnyFact)}
"""Each fact by its type, which is also the end of its subject."""

PAYLOADS: dict[str, type[Struct]] = {kind: _payload(fact) for kind, fact in FACTS.items()}
"""By type the payload of its event: `facts.Event`, with the fact that it is and a job unless that is deleted."""
