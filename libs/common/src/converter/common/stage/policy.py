"""What a worker does with a message, decided from the job's state alone."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from converter.common.isolation import Confinement
from converter.common.lifecycle import State
from converter.common.settings import StageSettings
from converter.contracts.facts import JobCompleted, JobFailed
from converter.contracts.job import JobRecord, JobStatus, Stage, StoredObject, timestamp


class StageSpec(Struct, frozen=True, kw_only=True):
    """All that makes a stage different from the others."""

    stage: Stage
    inputs: tuple[str, ...]
    """What its converter is given: `model`, `ref_images` (where there are any), or an earlier stage's name."""
    converters: dict[str, str]
    """By toolchain: where its converter is, `package.module:function`."""
    confinements: dict[str, Callable[[StageSettings], Confinement]] = {}
    """By toolchain: what its converters may reach, where that is more than `Confinement()`."""

    def objects(self, job: JobRecord) -> dict[str, StoredObject]:
        """The stored inputs of `job` by role."""
        found = {
            "model": job.request.model,
            "ref_images": job.request.ref_images,
            **{stage.value: job.artifact(stage) for stage in job.stages},
        }
        return {role: stored for role in self.inputs if (stored := found[role]) is not None}


class Settled(Struct, frozen=True):
    """Nothing is left to do here."""


class Announce(Struct, frozen=True):
    """The job has ended, and the event that tells so is missing."""


class Held(Struct, frozen=True):
    """Another attempt is open, and `worker` holds it."""

    worker: str


class GiveUp(Struct, frozen=True):
    """Every attempt that was charged ended its worker; `attempt` is the last one's number."""

    attempt: int
    charged: int


class Work(Struct, frozen=True):
    """Do the stage, as attempt number `attempt`."""

    attempt: int


Plan = Settled | Announce | Held | GiveUp | Work


def plan(state: State, stage: Stage, *, max_attempts: int, gone: frozenset[str] = frozenset()) -> Plan:
    """What to do about `stage` of a job in `state`, where the workers in `gone` are known to hold nothing."""
    if not isinstance(state, JobRecord):
        return Settled()
    if not state.active:
        return Settled() if state.announced else Announce()
    if state.stage is not stage:
        return Settled()
    here = state.stages[stage]
    if here.worker is not None and here.worker not in gone:
        return Held(here.worker)
    if here.charged >= max_attempts:
        return GiveUp(here.attempt, here.charged)
    return Work(here.attempt + 1)


def announcement(state: State) -> JobCompleted | JobFailed | None:
    """The event that tells of the job's end, if it is missing."""
    if not isinstance(state, JobRecord) or state.announced:
        return None
    if state.status is JobStatus.COMPLETED:
        return JobCompleted(at=timestamp())
    if state.status is JobStatus.FAILED and state.error:
        return JobFailed(at=timestamp(), error=state.error)
    return None


def holds(state: State, stage: Stage, attempt: int, worker: str) -> bool:
    """Whether `worker` still holds this attempt."""
    if not isinstance(state, JobRecord) or not state.active or state.stage is not stage:
        return False
    here = state.stages[stage]
    return here.worker == worker and here.attempt == attempt
