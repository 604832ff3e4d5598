"""What every service counts. The gateway adds its own in `converter.gateway.metrics`; docs/operating.md explains each.

Labels have few values: consumers, stages and outcomes, never jobs, clients or users.
"""

from __future__ import annotations

import asyncio
import time

from prometheus_client import Counter, Gauge, Histogram

MESSAGES = Counter(
    "converter_messages",
    "Messages that a durable consumer handed out, by how they were settled.",
    ["consumer", "outcome"],
)
REDELIVERIES = Counter(
    "converter_redeliveries", "Messages that were handed out before and not acknowledged.", ["consumer"]
)
ATTEMPT_SECONDS = Histogram(
    "converter_stage_attempt_seconds",
    "How long attempts at a stage took, by what became of them.",
    ["stage", "outcome"],
    buckets=(0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1200, 2400, 3600, 7200),
)
ATTEMPTS_RUNNING = Gauge("converter_stage_attempts_running", "Attempts under way in this worker.", ["stage"])
STATE_CONFLICTS = Counter(
    "converter_state_conflicts", "Conditional writes of a job's state that another writer had come before."
)
BUS_INTERRUPTIONS = Counter("converter_bus_interruptions", "Times that the connection to the event bus was lost.")
LOOP_LAG_SECONDS = Histogram(
    "converter_event_loop_lag_seconds",
    "How much later than asked for the event loop came back.",
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
)

LAG_SAMPLE_S = 0.5


async def watch_loop() -> None:
    """Measure the event loop's lag for as long as this runs."""
    while True:
        asked_at = time.perf_counter()
        await asyncio.sleep(LAG_SAMPLE_S)
        LOOP_LAG_SECONDS.observe(max(0.0, time.perf_counter() - asked_at - LAG_SAMPLE_S))
