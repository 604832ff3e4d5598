"""Who may publish and read what on NATS: one user for each service, each with the least that its work takes.

`permissions` is the table; `authorization` writes it as the server's configuration, for the public keys of the users.
A service proves who it is with the seed in NATS_NKEY_SEED_FILE. Its inbox is its own: nobody reads another's answers.
Nobody but the provisioner creates streams or consumers: a consumer with a chosen delivery subject would carry every
event out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from msgspec import Struct

from converter.common import topology
from converter.contracts import subjects
from converter.contracts.job import STAGES, Stage

GATEWAY = "api-gateway"
PROVISIONER = "provisioner"
OPERATOR = "operator"
SUBSCRIBER = "subscriber"
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
    """Every user."""
    return {
        GATEWAY: _gateway(),
        **{topology.stage_durable(stage): _stage(stage) for stage in STAGES},
        topology.PROMOTER: _promoter(),
        PROVISIONER: Permissions(
            publish=(
                *(f"$JS.API.STREAM.{verb}.*" for verb in ("INFO", "CREATE", "UPDATE")),
                "$JS.API.CONSUMER.INFO.*.*",
                "$JS.API.CONSUMER.DURABLE.CREATE.*.*",
            )
        ),
        OPERATOR: Permissions(
            publish=("$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.*", "$JS.API.CONSUMER.INFO.*.*"),
            subscribe=("converter.>",),
        ),
        SUBSCRIBER: Permissions(subscribe=("converter.v1.>",)),
    }


def authorization(public_keys: Mapping[str, str]) -> str:
    """The server's `authorization` block for the users whose public keys are given.

    Raises:
        KeyError: there is no such user.
    """
    table = permissions()
    users = [
        {
            "nkey": key,
            "permissions": {
                "publish": {"allow": [JETSTREAM_INFO, *table[user].publish]},
                "subscribe": {"allow": [f"{inbox(user)}.>", *table[user].subscribe]},
            },
        }
        for user, key in public_keys.items()
    ]
    return f"authorization {{ users: {json.dumps(users, indent=2)} }}\n"


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
            *_works(topology.TIMERS, topology.DEADLINES),
            f"$JS.API.CONSUMER.INFO.{topology.EVENTS}.*",
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
