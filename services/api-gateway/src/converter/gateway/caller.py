"""Who asks: a client or the operators. Both are served by the same functions; what differs between them stands here."""

from __future__ import annotations

from typing import ClassVar, Protocol

from converter.contracts.job import JobRecord
from converter.gateway.representation import JobResource


class Caller(Protocol):
    """A client with its token, or the operators."""

    jobs_path: ClassVar[str]
    """Where its face serves jobs."""
    has_users: ClassVar[bool]
    """Whether its jobs belong to users, each of whom may have one active job."""

    @property
    def client_id(self) -> str:
        """The owner of the jobs that it posts."""

    @property
    def expires_at(self) -> float:
        """When its access ends, in seconds since 1970."""

    def sees(self, record: JobRecord) -> bool:
        """Whether the job exists for it."""

    def acts_for(self, user_id: str) -> bool:
        """Whether it may post and list for this user."""

    def shown(self, record: JobRecord, resource: JobResource) -> JobResource:
        """`resource`, made of `record`, as its face shows it."""
