"""What a worker does with a message, decided from the job's state alone."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from converter.common.isolation import Confinement
from converter.common.lifecycle import State
from converter.common.settings import StageSettings
from converter.contracts.facts import JobCompleted, JobFailed
from converter.contracts.job import JobRecord, JobStatus, Options, Stage, StoredObject, Toolchain, timestamp


class StageConverter(Struct, frozen=True, kw_only=True):
    """One toolchain's way to do a stage. It is given the options that are named here, and no others."""

    function: str
    """Where it is, `package.module:function`."""
    options: tuple[str, ...] = ()
    """The fields of `Options` that it is given."""
    keywords: tuple[str, ...] = ()
    """The quantisation keywords that it is given."""
    identity: Callable[[StageSettings], Toolchain | None] = lambda _: None
    """Which toolchain would convert, told without asking it; `None` where that cannot be told."""
    confinement: Callable[[StageSettings], Confinement | None] = lambda _: None
    """What it may reach, where that is more than `Confinement()`."""

    def given(self, options: Options) -> Options:
        """`options`, with the default for whatever the converter is not given."""
        kept = {name: getattr(options, name) for name in self.options}
        asked = {name: value for name, value in options.quantization.items() if name in self.keywords}
        return Options(**kept, quantization=asked)


class StageSpec(Struct, frozen=True, kw_only=True):
    """All that makes a stage different from the others."""

    stage: Stage
    inputs: tuple[str, ...]
    """What its converter is given: `model`, `ref_images` (where there are any), or an earlier stage's name."""
    converters: dict[str, StageConverter]
    """By toolchain."""

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
    """The job has ended, and `fact`, which tells so, is missing."""

    fact: JobCompleted | JobFailed


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
        missing = _announcement(state)
        return Announce(missing) if missing else Settled()
    if state.stage is not stage:
        return Settled()
    here = state.stages[stage]
    if here.worker is not None and here.worker not in gone:
        return Held(here.worker)
    if here.charged >= max_attempts:
        return GiveUp(here.attempt, here.charged)
    return Work(here.attempt + 1)


def _announcement(job: JobRecord) -> JobCompleted | JobFailed | None:
    """The fact that tells of the job's end, if it is missing."""
    if job.announced:
        return None
    if job.status is JobStatus.COMPLETED:
        return JobCompleted(at=timestamp())
    return JobFailed(at=timestamp(), error=job.error) if job.error else None


def waits_for(state: State, stage: Stage) -> bool:
    """Whether the job is active and at `stage`, queued or running."""
    return isinstance(state, JobRecord) and state.active and state.stage is stage


def holds(state: State, stage: Stage, attempt: int, worker: str) -> bool:
    """Whether `worker` still holds this attempt."""
    if not isinstance(state, JobRecord) or not waits_for(state, stage):
        return False
    here = state.stages[stage]
    return here.worker == worker and here.attempt == attempt
