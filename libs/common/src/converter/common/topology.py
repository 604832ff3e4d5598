"""What JetStream holds, as data: streams, buckets and durable consumers. `provision` applies it.

EVENTS is the state of every job; the buckets are a projection of it (job_state), a lock (active_jobs), an index
(jobs_by_user), the models that clients may name again (models), the keys of requests that may be repeated
(idempotency), the jobs whose work may be reused (stage_cache), the presence of workers, what one gateway at a time does
(leases), the count of clients' requests (rate_limits) and what gateways write to see whether the server takes it
(health). Field names are those of JetStream's API; durations are nanoseconds.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from converter.contracts import subjects
from converter.contracts.job import STAGES, Stage

SECOND = 1_000_000_000
DAY = 86_400 * SECOND

EVENTS = "EVENTS"
TIMERS = "TIMERS"
PROGRESS = "PROGRESS"
LOGS = "LOGS"
JOB_STATE = "job_state"
ACTIVE_JOBS = "active_jobs"
JOBS_BY_USER = "jobs_by_user"
MODELS = "models"
IDEMPOTENCY = "idempotency"
STAGE_CACHE = "stage_cache"
WORKERS = "workers"
LEASES = "leases"
RATE_LIMITS = "rate_limits"
HEALTH = "health"
GATEWAY_BUCKETS = (ACTIVE_JOBS, JOBS_BY_USER, MODELS, IDEMPOTENCY, LEASES, RATE_LIMITS, HEALTH)
"""The buckets that gateways write, and nobody else."""

ALL_EVENTS = "converter.v1.>"
PROMOTER = "promoter"
DEADLINES = "deadlines"
SUBSCRIBER = "subscriber"
"""The subscriber that every deployment has, until it says which ones it has."""


class Tuning(Struct, frozen=True, kw_only=True):
    """What differs between deployments."""

    replicas: int = 1
    """Copies of each stream: 1 on a single server, 3 in a cluster."""
    retention_days: int = 10
    """How long a job's events are kept; longer than artifacts live, plus the longest job."""
    events_max_bytes: int = 4 << 30
    """Past it new jobs are refused; nothing is forgotten."""
    ack_wait_s: float = 15.0
    """A worker that is silent for this long has lost its message. It must outlast a leader's loss (5 to 8 s)."""
    subscribers: tuple[str, ...] = (SUBSCRIBER,)
    """Who follows the events from outside; each has a durable consumer of its own, of its name."""


def bucket_stream(bucket: str) -> str:
    """The stream behind a bucket."""
    return f"KV_{bucket}"


def bucket_key(bucket: str, key: str) -> str:
    """The subject of a bucket's key."""
    return f"$KV.{bucket}.{key}"


def stage_durable(stage: Stage) -> str:
    """The name of a stage's durable consumer."""
    return f"stage-{stage}"


def streams(tuning: Tuning) -> list[dict[str, Any]]:
    """Every stream, buckets included."""
    retention = tuning.retention_days * DAY
    kept = {"storage": "file", "num_replicas": tuning.replicas, "retention": "limits", "discard": "new"}
    # On disk, or a single server would forget with its end that these streams exist; but nothing waits for the disk.
    passing = {**kept, "discard": "old", "max_age": DAY} | ({"persist_mode": "async"} if tuning.replicas == 1 else {})
    return [
        {
            "name": EVENTS,
            "subjects": list(subjects.EVENTS),
            **kept,
            "max_age": retention,
            "max_bytes": tuning.events_max_bytes,
            "max_msg_size": 256 << 10,
            "duplicate_window": 120 * SECOND,
            "allow_direct": True,
            "deny_delete": True,
            "deny_purge": True,
        },
        {
            # Apart from EVENTS: who may schedule into a stream can write any subject of it past every condition.
            "name": TIMERS,
            "subjects": [subjects.TIMERS],
            **kept,
            "discard": "old",
            "max_age": retention,
            "allow_msg_schedules": True,
            "allow_direct": True,
        },
        # A model decides how much its conversion writes: without a bound that could take the disk from the events.
        {
            "name": PROGRESS,
            "subjects": [subjects.PROGRESS],
            **passing,
            "max_msgs_per_subject": 1,
            "max_bytes": 32 << 20,
        },
        {"name": LOGS, "subjects": [subjects.LOG], **passing, "max_msgs_per_subject": 1000, "max_bytes": 256 << 20},
        *_buckets(kept, passing, retention, presence=int(tuning.ack_wait_s * SECOND * 2 / 3)),
    ]


def _buckets(kept: dict[str, Any], passing: dict[str, Any], retention: int, presence: int) -> list[dict[str, Any]]:
    return [
        {
            **_bucket(JOB_STATE, kept, max_age=retention),
            "subjects": None,
            # The server keeps this projection; nobody else writes it.
            "sources": [{"name": EVENTS, "subject_transforms": _latest_by_job()}],
        },
        # With times to live, so that what marks a removed key does not stay for ever in its place.
        _bucket(ACTIVE_JOBS, kept, allow_msg_ttl=True),
        _bucket(JOBS_BY_USER, kept, allow_msg_ttl=True, max_age=retention),
        _bucket(MODELS, kept, max_age=retention),
        _bucket(IDEMPOTENCY, kept, max_age=DAY),
        # Nothing is lost with an entry but the time to do the work again.
        _bucket(STAGE_CACHE, passing, max_age=retention),
        # A worker that stops renewing its key is gone before its message is delivered again.
        _bucket(WORKERS, passing, max_age=presence, duplicate_window=presence),
        # So does a lease that is not renewed.
        _bucket(LEASES, passing, max_age=presence, duplicate_window=presence),
        _bucket(RATE_LIMITS, kept | {"discard": "old"}, max_age=DAY),
        # On disk, so that it fails when the disk does.
        _bucket(HEALTH, kept | {"discard": "old"}, max_age=3600 * SECOND),
    ]


def consumers(tuning: Tuning) -> list[tuple[str, dict[str, Any]]]:
    """Every durable consumer with its stream. Services bind to them; they never create any."""
    feeds = {
        Stage.ONNX: "converter.v1.*.job.created",
        Stage.BIE: "converter.v1.*.stage.completed.onnx",
        Stage.NEF: "converter.v1.*.stage.completed.bie",
    }
    events = {stage_durable(stage): feeds[stage] for stage in STAGES} | {PROMOTER: "converter.v1.*.promotion.requested"}
    # What a subscriber does with an event is its own affair, so it has longer for it than a worker between heartbeats.
    following = {"ack_wait": 30 * SECOND, "max_ack_pending": 256}
    return [
        *((EVENTS, _durable(name, feed, tuning)) for name, feed in events.items()),
        (TIMERS, _durable(DEADLINES, "converter.timer.v1.due.>", tuning)),
        *((EVENTS, _durable(name, ALL_EVENTS, tuning) | following) for name in tuning.subscribers),
    ]


def _durable(name: str, feed: str, tuning: Tuning) -> dict[str, Any]:
    return {
        "durable_name": name,
        "filter_subject": feed,
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "ack_wait": int(tuning.ack_wait_s * SECOND),
        # Messages that wait for their next try keep their place, so there is room for many.
        "max_ack_pending": 1024,
        # Attempts are counted in the job's record; the server shall never give up by itself.
        "max_deliver": -1,
        "max_waiting": 512,
    }


def _bucket(name: str, storage: dict[str, Any], **options: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON values
    return {
        **storage,
        "name": bucket_stream(name),
        "subjects": [bucket_key(name, ">")],
        "max_msgs_per_subject": 1,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        **options,
    }


def _latest_by_job() -> list[dict[str, str]]:
    target = bucket_key(JOB_STATE, "{{wildcard(1)}}")
    return [{"src": pattern, "dest": target} for pattern in subjects.EVENTS]
