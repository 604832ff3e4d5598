"""Who may publish and read what on NATS: one user for each service, each with the least that its work takes.

`permissions` is the table; `accounts` writes it as the server's configuration, for the public keys of the users.
A service proves who it is with the seed in NATS_NKEY_SEED_FILE. Its inbox is its own: nobody reads another's answers.
Nobody but the provisioner creates streams or durable consumers, and nobody but the gateway, which may read every event
anyway, a passing one: a consumer with a chosen delivery subject would carry every event out.

The services share an account, which has JetStream. Each subscriber is alone in an account of its own, into which the
server carries the events and that one's consumer, and out of which nothing goes but requests to that consumer. Whoever
asks may name any subject for the answer; across accounts the server brings the answer back to where the request was
made, so it can be aimed at no subject of the services, nor at another subscriber.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from converter.common import topology
from converter.contracts import subjects
from converter.contracts.job import STAGES, Stage

GATEWAY = "api-gateway"
PROVISIONER = "provisioner"
OPERATOR = "operator"
ACCOUNT = "CONVERTER"
"""The services' account. Streams lie in it, also on the server's disk; no subscriber has such a name."""
DOMAIN = "converter"
"""What subscribers tell their client to look for JetStream in. Under its usual name, `$JS.API`, the server answers in
every account by itself: that there is none in this one."""
SUBSCRIBER_NAME = "[a-z0-9][a-z0-9-]*"
"""What a subscriber may be called: one token of a subject, and an account of this name."""
JETSTREAM_INFO = "$JS.API.INFO"
"""Whether JetStream answers; everybody may ask. (An empty list of what is allowed would allow everything.)"""


class Permissions(Struct, frozen=True):
    """What a user may publish on and subscribe to, its own inbox not counted."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()


def inbox(user: str) -> str:
    """The prefix of the subjects on which `user` gets its answers."""
    return f"_INBOX_{user}"


def permissions() -> dict[str, Permissions]:
    """Every user of the services' account."""
    return {
        GATEWAY: _gateway(),
        **{topology.stage_durable(stage): _stage(stage) for stage in STAGES},
        topology.PROMOTER: _promoter(),
        PROVISIONER: Permissions(
            publish=(
                *(f"$JS.API.STREAM.{verb}.*" for verb in ("INFO", "CREATE", "UPDATE")),
                "$JS.API.CONSUMER.INFO.*.*",
                "$JS.API.CONSUMER.DURABLE.CREATE.*.*",
                f"$JS.API.CONSUMER.DELETE.{topology.EVENTS}.*",
            )
        ),
        OPERATOR: Permissions(
            publish=("$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.*", "$JS.API.CONSUMER.INFO.*.*"),
            subscribe=("converter.>",),
        ),
    }


def accounts(public_keys: Mapping[str, str]) -> str:
    """The server's `accounts` block for the users whose public keys are given; who is no service subscribes."""
    services = {
        "jetstream": "enabled",
        "users": [_user(user, key) for user, key in public_keys.items() if user in SERVICES],
        "exports": [
            {"stream": topology.ALL_EVENTS},
            {"service": f"$JS.API.CONSUMER.INFO.{topology.EVENTS}.*"},
            # Of many answers; a single one is the server's rule.
            {"service": f"$JS.API.CONSUMER.MSG.NEXT.{topology.EVENTS}.*", "response_type": "stream"},
            {"service": f"$JS.ACK.{topology.EVENTS}.>"},
        ],
    }
    subscribing = {user: _subscriber(user, key) for user, key in public_keys.items() if user not in SERVICES}
    return f"accounts {json.dumps({ACCOUNT: services, **subscribing}, indent=2)}\n"


def _user(name: str, public_key: str) -> dict[str, Any]:
    allowed = permissions()[name]
    return {
        "nkey": public_key,
        "permissions": {
            "publish": {"allow": [JETSTREAM_INFO, *allowed.publish]},
            "subscribe": {"allow": [f"{inbox(name)}.>", *allowed.subscribe]},
        },
    }


def _subscriber(name: str, public_key: str) -> dict[str, Any]:
    """An account with one user, who may do in it what it likes: nothing leaves it but what it imports."""
    info, pull, acknowledgement = (
        {"account": ACCOUNT, "subject": subject} for subject in _works(topology.EVENTS, name)
    )
    return {
        "users": [{"nkey": public_key}],
        "imports": [
            {"stream": {"account": ACCOUNT, "subject": topology.ALL_EVENTS}},
            *({"service": api, "to": api["subject"].replace("$JS.", f"$JS.{DOMAIN}.", 1)} for api in (info, pull)),
            {"service": acknowledgement},
        ],
    }


def _gateway() -> Permissions:
    own = topology.GATEWAY_BUCKETS
    return Permissions(
        publish=(
            "converter.v1.*.job.*",
            "converter.v1.*.promotion.requested",
            "converter.v1.*.promotion.failed",
            subjects.CANCEL,
            "converter.timer.v1.schedule.>",
            *(topology.bucket_key(bucket, ">") for bucket in own),
            *_reads(topology.EVENTS, topology.PROGRESS, topology.LOGS),
            *_reads(*(topology.bucket_stream(bucket) for bucket in (*own, topology.WORKERS))),
            *(
                f"$JS.API.DIRECT.GET.{stream}"
                for stream in (
                    topology.EVENTS,
                    *map(topology.bucket_stream, (topology.JOB_STATE, topology.JOBS_BY_USER)),
                )
            ),
            f"$JS.API.STREAM.INFO.{topology.bucket_stream(topology.JOB_STATE)}",
            *_works(topology.TIMERS, topology.DEADLINES),
            f"$JS.API.CONSUMER.INFO.{topology.EVENTS}.*",
            # Of a consumer of its own, without a name: it follows the events (`Bus.follow`).
            f"$JS.API.CONSUMER.CREATE.{topology.EVENTS}",
        ),
        subscribe=("converter.v1.>", subjects.PROGRESS, subjects.LOG),
    )


def _stage(stage: Stage) -> Permissions:
    name = topology.stage_durable(stage)
    return Permissions(
        publish=(
            f"converter.v1.*.stage.*.{stage}",
            "converter.v1.*.job.completed",
            "converter.v1.*.job.failed",
            subjects.progress(stage, "*"),
            subjects.log(stage, "*"),
            topology.bucket_key(topology.STAGE_CACHE, f"{stage}.>"),
            *_reads(topology.bucket_stream(topology.STAGE_CACHE)),
            *_worker(name),
        ),
        subscribe=(subjects.CANCEL,),
    )


def _promoter() -> Permissions:
    return Permissions(
        publish=(
            "converter.v1.*.promotion.completed",
            "converter.v1.*.promotion.failed",
            *_worker(topology.PROMOTER),
        )
    )


def _worker(name: str) -> tuple[str, ...]:
    """What it takes to work on a consumer of EVENTS, and to be seen doing it."""
    return (
        *_works(topology.EVENTS, name),
        *_reads(topology.EVENTS, topology.bucket_stream(topology.WORKERS)),
        topology.bucket_key(topology.WORKERS, f"{name}.>"),
    )


def _reads(*streams: str) -> tuple[str, ...]:
    return tuple(f"$JS.API.STREAM.{verb}.{stream}" for stream in streams for verb in ("MSG.GET", "INFO"))


def _works(stream: str, durable: str) -> tuple[str, ...]:
    return (
        f"$JS.API.CONSUMER.INFO.{stream}.{durable}",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}",
        f"$JS.ACK.{stream}.{durable}.>",
    )


SERVICES = frozenset(permissions())
"""The users of this system itself; any other name is a subscriber's."""
