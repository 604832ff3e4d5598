"""A job of three stages that do nothing, where what is acknowledged outlives a process that is killed.

Each side is a program with a client, and workers in processes of their own: the rate is that of 1,000 jobs (200 for the
slow ones), 64 of them under way at any time, the times are those of jobs one after the other. CPU is that of the
client, the workers and the server together. NATS and Redis sync as they do by default (every two minutes, every
second), Postgres and Restate's log write without waiting for the disk, so a loss of power may take what they have
acknowledged; [the next row](#pipeline_power) is for that. Each peer is set up as its own documentation advises for
many short jobs; its program in `benchmarks/peers` says how.

*converter* is the runner that every stage has in production, in three processes, with the streams, consumers and
records of production. A job is eight events (created; started and completed three times; the end announced), each
written on the condition that nothing came in between, and the server's projection of each: sixteen durable writes. A
stage waits for three answers: started, completed, acknowledged (the last one for a fourth, announced); its message
brings the job's state along. Its attempt is told of, watched and can be cancelled as any other, but nothing is
fetched, converted or stored, as nothing is on the other sides.

*converter, with objects* also fetches an input and stores an artifact and a report in each stage, verified and whole,
in a directory in memory; only the jail is missing. What that takes is files and threads, no more messages.

*bare nats-py* is the ceiling: a loop on the same streams that makes the same writes with the same headers and waits
for the same answers, and does nothing else. It reads no record and makes no next one, and a crash would leave its jobs
where they are.

BullMQ, FastStream and Celery hand a job's number on from step to step and keep neither its history nor a state that a
step is held to; DBOS and Restate keep what each step gave. BullMQ and FastStream are faster than the converter, which
reads and writes a job's whole record at each event: that and the rest of the runner are two fifths of its CPU time, the
other three fifths are the bare loop's. By py-spy those two fifths have no large part: of a stage's process reading a
message's record takes 6%, writing the next one 3%, the timers of the heartbeat, the watch and the live messages 4%,
metrics 3%, new ids 2%, and the rest is spread over the coroutines between them.
"""

from __future__ import annotations

from functools import partial

from harness import Row, Target
from pipeline import JOBS_PER_S, P50_MS, Durability
from pipeline_peers import BULLMQ, PEERS
from pipeline_sides import BARE, CONVERTER, WITH_OBJECTS, sides

ROW = Row(
    name="pipeline",
    title="Three stages that do nothing",
    text=__doc__,
    sides=partial(sides, Durability.KILL, (CONVERTER, WITH_OBJECTS, BARE, *PEERS)),
    targets=(
        Target(JOBS_PER_S, CONVERTER.name, BULLMQ.name, at_least=1.0),
        Target(JOBS_PER_S, CONVERTER.name, BARE.name, at_least=0.7),
        Target(P50_MS, CONVERTER.name, BARE.name, at_most=1.5),
    ),
)
