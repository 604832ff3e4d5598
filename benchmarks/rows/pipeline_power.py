"""A job of three stages that do nothing, where what is acknowledged outlives a loss of power.

As `pipeline`, but every server has written to the disk before it answers: NATS with `sync_interval: always`, as this
software ships it, Redis with `appendfsync always`, Postgres and Restate by themselves.

What decides here is how often the disk is waited for. NATS flushes each message by itself: a job of ours is eight
events and eight messages of the projection, so sixteen flushes, which take most of the time; the bare loop, which does
nothing else, is hardly faster. Redis, Postgres and Restate flush once for all that came at about the same time, so
the 64 jobs that are under way share their flushes.

The targets for the rate are missed by that, and what the converter itself does has no part in it. Each of the eight
events is needed: `created`, `started` and `completed` are what a job is recovered from, attempts are counted by
`started`, and the announcement tells of the end whoever did not follow the stages. The projection's eight could be left
to the system's own time, as the events hold all that is in it; when that was tried, it gave about a fifth more jobs a
second. But JetStream does not change the `persist_mode` of a stream that exists, so no deployment could be updated to
it.
"""

from __future__ import annotations

from functools import partial

from harness import Row, Target
from pipeline import JOBS_PER_S, Durability
from pipeline_peers import BULLMQ, DBOS, PEERS, RESTATE
from pipeline_sides import BARE, CONVERTER, sides

ROW = Row(
    name="pipeline_power",
    title="Three stages that do nothing, through a loss of power",
    text=__doc__,
    sides=partial(sides, Durability.POWER, (CONVERTER, BARE, *PEERS)),
    targets=(
        Target(JOBS_PER_S, CONVERTER.name, BULLMQ.name, at_least=0.6),
        Target(JOBS_PER_S, CONVERTER.name, DBOS.name, at_least=4.0),
        Target(JOBS_PER_S, CONVERTER.name, RESTATE.name, at_least=4.0),
    ),
)
