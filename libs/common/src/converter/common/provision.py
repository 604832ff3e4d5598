"""Makes JetStream hold what `topology` says: creates what is missing, updates what differs, leaves the rest alone.

Run it before the services start and after each upgrade (`python -m converter.common.provision`); it may run any
number of times. A difference that the server cannot apply to a living stream stops it with the server's words.
A subscriber that SUBSCRIBERS no longer names keeps its consumer until REMOVED_SUBSCRIBERS names it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Annotated, Any

import structlog
from msgspec import Meta

from converter.common import service
from converter.common.access import SERVICES, SUBSCRIBER_NAME
from converter.common.bus import NOT_FOUND, Bus, BusRefused
from converter.common.service import Unreachable
from converter.common.settings import NatsSettings, Problem, ServiceSettings
from converter.common.topology import EVENTS, SUBSCRIBER, Tuning, consumers, streams

log = structlog.get_logger()

CLUSTER_IS_FORMING = frozenset({10005, 10008})  # no suitable peers for placement; system temporarily unavailable
CLUSTER_FORMS_S = 60.0

NAMES = rf"^({SUBSCRIBER_NAME}(,{SUBSCRIBER_NAME})*)?\Z"
_NAMES = {"allowed": "names of small letters, digits and hyphens, separated by commas"}


class ProvisionSettings(ServiceSettings, frozen=True, kw_only=True):
    """The provisioning command's settings."""

    nats: NatsSettings
    nats_replicas: Annotated[int, Meta(ge=1, le=5, description="copies of each stream; 3 in a cluster")] = 1
    events_retention_days: Annotated[int, Meta(ge=2, description="how long a job's events are kept")] = 10
    events_max_bytes: Annotated[int, Meta(ge=64 << 20, description="past it new jobs are refused")] = 4 << 30
    stage_ack_wait_s: Annotated[
        float, Meta(ge=0.5, description="seconds of silence after which a worker has lost its message")
    ] = 15.0
    subscribers: Annotated[
        str,
        Meta(
            pattern=NAMES, description="who follows the events, each with a durable consumer of its name", extra=_NAMES
        ),
    ] = SUBSCRIBER
    removed_subscribers: Annotated[
        str,
        Meta(pattern=NAMES, description="whose consumers, and with them their places, are taken away", extra=_NAMES),
    ] = ""

    def conflicts(self) -> Iterable[Problem]:
        """A subscriber is not a service, and not both wanted and unwanted."""
        wanted, unwanted = _names(self.subscribers), _names(self.removed_subscribers)
        for variable, names in (("SUBSCRIBERS", wanted), ("REMOVED_SUBSCRIBERS", unwanted)):
            if taken := SERVICES.intersection(names):
                yield Problem(variable, ", ".join(sorted(taken)), "names that no service has")
        if both := set(wanted).intersection(unwanted):
            yield Problem("REMOVED_SUBSCRIBERS", ", ".join(sorted(both)), "names that SUBSCRIBERS lacks")


async def provision(bus: Bus, tuning: Tuning) -> list[str]:
    """Apply the topology; what was created or changed, in words.

    Raises:
        BusRefused: the server cannot apply a difference.
        EventBusUnavailable: it does not answer.
    """
    done: list[str] = []
    for wanted in streams(tuning):
        done += await _apply_stream(bus, {key: value for key, value in wanted.items() if value is not None})
    for stream, wanted in consumers(tuning):
        done += await _apply_consumer(bus, stream, wanted)
    return done


async def remove_subscriber(bus: Bus, name: str) -> list[str]:
    """Take away the durable consumer of the subscriber `name`; what was done, in words.

    Raises:
        BusRefused: the server refused.
        EventBusUnavailable: it does not answer.
    """
    try:
        await bus.api(f"CONSUMER.DELETE.{EVENTS}.{name}")
    except BusRefused as refused:
        if refused.code in NOT_FOUND:
            return []
        raise
    return [f"removed consumer {name}"]


async def _apply_stream(bus: Bus, wanted: dict[str, Any]) -> list[str]:
    name = wanted["name"]
    found = await _config(bus, f"STREAM.INFO.{name}")
    if found is None:
        await bus.api(f"STREAM.CREATE.{name}", wanted)
        return [f"created stream {name}"]
    changed = _differences(found, wanted)
    if changed:
        await bus.api(f"STREAM.UPDATE.{name}", found | wanted)
        return [f"updated stream {name}: {', '.join(changed)}"]
    return []


async def _apply_consumer(bus: Bus, stream: str, wanted: dict[str, Any]) -> list[str]:
    name = wanted["durable_name"]
    found = await _config(bus, f"CONSUMER.INFO.{stream}.{name}")
    changed = _differences(found, wanted) if found else ["created"]
    if not changed:
        return []
    body = {"stream_name": stream, "config": (found or {}) | wanted}
    await bus.api(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", body)
    return [f"consumer {name}: {', '.join(changed)}"]


async def _config(bus: Bus, verb: str) -> dict[str, Any] | None:
    try:
        config: dict[str, Any] = (await bus.api(verb))["config"]
    except BusRefused as refused:
        if refused.code in NOT_FOUND:
            return None
        raise
    return config


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    return [key for key, value in wanted.items() if not _same(found.get(key), value)]


def _same(found: Any, wanted: Any) -> bool:  # noqa: ANN401 - JSON values
    """Whether `found` says what `wanted` says; the server adds fields and leaves out its defaults."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_same(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(_same, found, wanted))
    return bool(found == wanted or (found is None and not wanted))


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name for name in listed.split(",") if name)


async def _once_formed(bus: Bus, tuning: Tuning) -> list[str]:
    """`provision`, again and again while a cluster that has just been started has too few nodes.

    Raises:
        Unreachable: the server refuses for another reason, or for longer than `CLUSTER_FORMS_S`.
        EventBusUnavailable: it does not answer.
    """
    give_up_at = time.monotonic() + CLUSTER_FORMS_S
    while True:
        try:
            return await provision(bus, tuning)
        except BusRefused as refused:
            if refused.code not in CLUSTER_IS_FORMING or time.monotonic() > give_up_at:
                raise Unreachable("JetStream as it is needed", bus.address, str(refused)) from refused
            log.info("provision.waiting", why=refused.description)
        await asyncio.sleep(1)


async def _main(settings: ProvisionSettings, stop: asyncio.Event) -> None:  # noqa: ARG001 - it ends by itself
    tuning = Tuning(
        replicas=settings.nats_replicas,
        retention_days=settings.events_retention_days,
        events_max_bytes=settings.events_max_bytes,
        ack_wait_s=settings.stage_ack_wait_s,
        subscribers=_names(settings.subscribers),
    )
    async with await Bus.connect(settings.nats, name="provisioner") as bus:
        changes = await _once_formed(bus, tuning)
        for name in _names(settings.removed_subscribers):
            changes += await remove_subscriber(bus, name)
    log.info("provision.applied", changes=changes)


if __name__ == "__main__":
    service.run("provision", ProvisionSettings, _main)
