"""The record that an event carries, with the fields that only a newer release knows.

While a system is upgraded, releases run side by side, and whoever publishes an event writes the whole record. An older
writer does not know what a newer one has added to it; `succeeded` keeps it there all the same.
"""

from __future__ import annotations

from typing import Any

import msgspec

from converter.contracts.job import JobRecord

_record: msgspec.json.Decoder[JobRecord | None] = msgspec.json.Decoder(JobRecord | None)


class Carrier(msgspec.Struct, frozen=True):
    """All that a state needs of an event; a fact that only a newer release knows does not matter."""

    job: msgspec.Raw

    def record(self) -> JobRecord | None:
        """The job, as far as this release knows it; none once it is deleted.

        Raises:
            MsgspecError: it is no record.
        """
        return _record.decode(self.job)


def succeeded(read: msgspec.Raw, known: JobRecord, after: JobRecord) -> msgspec.Raw:
    """`after` in JSON, with what `read` has beyond `known`, which is `read` as this release understands it."""
    understood, encoded = msgspec.json.encode(known), msgspec.json.encode(after)
    if understood != bytes(read):
        encoded = msgspec.json.encode(_with_unknown(*map(msgspec.json.decode, (encoded, understood, read))))
    return msgspec.Raw(encoded)


def _with_unknown(after: Any, known: Any, read: Any) -> Any:  # noqa: ANN401 - JSON values
    """`after` with what `read` has and `known` has not; of lists only that of promotions can have something."""
    match after, known, read:
        case dict(), dict(), dict():
            merged = {name: _with_unknown(value, known.get(name), read.get(name)) for name, value in after.items()}
            return merged | {name: value for name, value in read.items() if name not in known and name not in after}
        case [{"promotion_id": _}, *_], list(), list():
            return list(_with_unknown(*map(_by_id, (after, known, read))).values())
    return after


def _by_id(promotions: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {promotion["promotion_id"]: promotion for promotion in promotions}
