"""Where things are published. `<job>` is the job's id, a UUIDv7."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converter.contracts.facts import AnyFact
    from converter.contracts.job import Stage

EVENTS = ("converter.v1.*.job.*", "converter.v1.*.stage.*.*", "converter.v1.*.promotion.*")
"""Every subject of the stream EVENTS. Nothing else may stand below a job's root: it would count as its last message."""
PROGRESS = "converter.progress.v1.*.*"
LOG = "converter.log.v1.*.*"
CANCEL = "converter.control.v1.cancel.*"
TIMERS = "converter.timer.v1.>"


def job_root(job_id: str) -> str:
    """All events of one job."""
    return f"converter.v1.{job_id}.>"


def of_fact(job_id: str, fact: AnyFact) -> str:
    """The subject of `fact`: its type, and for a stage's facts the stage."""
    kind: str = fact.__struct_config__.tag  # type: ignore[assignment]  # every fact declares a text tag
    stage = f".{fact.stage}" if kind.startswith("stage.") else ""  # type: ignore[union-attr]  # these facts have one
    return f"converter.v1.{job_id}.{kind}{stage}"


def job_created(job_id: str) -> str:
    """Where a job begins."""
    return f"converter.v1.{job_id}.job.created"


def stage_completed(job_id: str, stage: Stage) -> str:
    """Where a stage of a job says what it made."""
    return f"converter.v1.{job_id}.stage.completed.{stage}"


def event_type(fact: AnyFact) -> str:
    """The CloudEvents type of `fact`."""
    return f"converter.{fact.__struct_config__.tag}.v1"


def job_of(subject: str) -> str:
    """The job's id in the subject of an event, a timer, or a progress, log or cancel message.

    Raises:
        ValueError: `subject` is none of these.
    """
    match subject.split("."):
        case ["converter", "v1", job_id, *_]:
            return job_id
        case ["converter", "progress" | "log", "v1", _, job_id]:
            return job_id
        case ["converter", "control", "v1", "cancel", job_id]:
            return job_id
        case ["converter", "timer", "v1", _, _, job_id]:
            return job_id
    raise ValueError(f"not a subject that names a job: {subject!r}")


def progress(stage: Stage, job_id: str) -> str:
    """How far a stage is; only the last message counts."""
    return f"converter.progress.v1.{stage}.{job_id}"


def log(stage: Stage, job_id: str) -> str:
    """The toolchain's log lines."""
    return f"converter.log.v1.{stage}.{job_id}"


def log_of_stages(job_id: str) -> str:
    """The log lines of all stages of one job."""
    return LOG.removesuffix("*") + job_id


def cancel(job_id: str) -> str:
    """A hint to whoever works on this job that it is cancelled."""
    return f"converter.control.v1.cancel.{job_id}"


def deadline_schedule(job_id: str) -> str:
    """Where the schedule of a job's deadline is kept; a later one replaces it."""
    return f"converter.timer.v1.schedule.deadline.{job_id}"


def deadline_due(job_id: str) -> str:
    """Where the server publishes once a job's deadline has passed."""
    return f"converter.timer.v1.due.deadline.{job_id}"
