"""A job that does not end by itself is ended: the server wakes a gateway when a job's deadline has passed."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from converter.common.bus import Bus, Delivery
from converter.common.consumer import Rejected
from converter.common.eventlog import JobLog
from converter.common.lifecycle import State
from converter.contracts import subjects
from converter.contracts.facts import JobFailed
from converter.contracts.failures import job_error
from converter.contracts.job import JobRecord, timestamp

log = structlog.get_logger()


async def schedule(bus: Bus, job_id: str, at: datetime) -> None:
    """Have the server publish on the job's `deadline_due` subject at `at`; a schedule of the same job is replaced.

    Done before the job is created: a crash in between leaves a timer without a job, which nothing minds.

    Raises:
        EventBusUnavailable: it may not be scheduled.
    """
    headers = {
        "Nats-Schedule": f"@at {at.astimezone(UTC).isoformat(timespec='seconds').replace('+00:00', 'Z')}",
        "Nats-Schedule-Target": subjects.deadline_due(job_id),
    }
    await bus.store(subjects.deadline_schedule(job_id), b"{}", headers=headers)


class Deadlines:
    """Fails the jobs whose deadline has passed; `handle` is the handler of the consumer `deadlines`."""

    def __init__(self, job_log: JobLog) -> None:
        self._log = job_log

    async def handle(self, delivery: Delivery) -> None:
        """End the job if it is still active.

        Raises:
            Rejected: the subject names no job.
        """
        try:
            job_id = subjects.job_of(delivery.subject)
        except ValueError as error:
            raise Rejected(str(error)) from error
        await self._log.append(job_id, _expire)


def _expire(state: State) -> JobFailed | None:
    if not isinstance(state, JobRecord) or not state.active:
        return None
    log.warning("job.deadline_exceeded", job_id=state.job_id, stage=state.stage)
    message = f"The job was not done by its deadline; it was at {state.stage}."
    return JobFailed(at=timestamp(), error=job_error("deadline_exceeded", message, stage=state.stage))
