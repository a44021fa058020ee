"""Which builds run when: a permit for each, refusals for those that cannot be taken on.

Knows users and builds by name only; what a build does is handed in.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

import trio

from cupola.errors import CupolaError, RequestError, disconnected
from cupola.messages import RunningBuild

T = TypeVar("T")

_DELIVERY_SECONDS: Final = 2
_SHOWN_OUTPUTS: Final = 4
_SHOWN_LENGTH: Final = 256
"""What a status report tells of a build's outputs."""


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True, eq=False)
class Job:
    """A build that was taken on."""

    uid: int
    outputs: tuple[str, ...]
    build_id: str = field(default_factory=lambda: secrets.token_bytes(16).hex())
    queued_at: int = field(default_factory=now_ms)
    started_at: int = 0
    left_queue: trio.Event = field(default_factory=trio.Event)
    """Set when the build has its permit, or never will."""
    ended: trio.Event = field(default_factory=trio.Event)
    """Set when the build is over; its client may not have been told yet."""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    verdict: CupolaError | None = None

    @property
    def running(self) -> bool:
        """Whether it has its permit."""
        return self.started_at > 0 and not self.ended.is_set()

    def start(self) -> None:
        """Note that it has its permit."""
        self.started_at = now_ms()
        self.left_queue.set()

    def cancel(self, verdict: CupolaError) -> None:
        """End the build; `verdict` is what its client is told."""
        self.verdict = verdict
        self.scope.cancel()

    def describe(self) -> RunningBuild:
        """The line for a status report."""
        since = self.started_at if self.running else self.queued_at
        return RunningBuild(
            self.build_id,
            self.uid,
            "running" if self.running else "queued",
            since,
            tuple(path[:_SHOWN_LENGTH] for path in self.outputs[:_SHOWN_OUTPUTS]),
        )


class Scheduler:
    """Lets at most `max_builds` builds run at once; the others wait in the order they came."""

    def __init__(self, max_builds: int, max_per_user: int) -> None:
        self._permits = trio.CapacityLimiter(max_builds)
        self._max_per_user = max_per_user
        self._jobs: dict[str, Job] = {}
        self._empty = trio.Event()
        self._empty.set()
        self.draining = False

    def configure(self, max_builds: int, max_per_user: int) -> None:
        """Change the limits; builds that run or wait are not affected."""
        self._permits.total_tokens = max_builds
        self._max_per_user = max_per_user

    @property
    def max_builds(self) -> int:
        """How many builds may run at once."""
        return int(self._permits.total_tokens)

    def jobs(self) -> Iterator[Job]:
        """All builds that run or wait, the oldest first."""
        return iter(list(self._jobs.values()))

    def count(self) -> tuple[int, int]:
        """How many builds run, and how many wait."""
        jobs = [job for job in self._jobs.values() if not job.ended.is_set()]
        running = sum(job.running for job in jobs)
        return running, len(jobs) - running

    @contextlib.contextmanager
    def admitted(self, uid: int, outputs: tuple[str, ...]) -> Iterator[Job]:
        """Take on a build, to `run` within the block; it counts until the block is left."""
        if self.draining:
            raise _shutting_down()
        if sum(job.uid == uid for job in self._jobs.values()) >= self._max_per_user:
            raise RequestError(
                "quota_exceeded",
                f"{self._max_per_user} builds of yours run or wait already; wait for one to end",
                limit="queued_builds",
            )
        job = Job(uid, outputs)
        if not self._jobs:
            self._empty = trio.Event()
        self._jobs[job.build_id] = job
        try:
            yield job
        finally:
            job.ended.set()
            del self._jobs[job.build_id]
            if not self._jobs:
                self._empty.set()

    async def run(self, job: Job, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns, run as soon as there is a permit.

        If the job was cancelled, its verdict is raised once `work` has cleaned up.
        """
        try:
            with job.scope:
                async with self._permits:
                    job.start()
                    return await work()
        finally:
            job.ended.set()
            job.left_queue.set()
        assert job.verdict is not None, "only Job.cancel cancels the scope"
        raise job.verdict

    async def drain(self, seconds: float) -> None:
        """Take on nothing more, refuse what waits, and let what runs end, for so long at most.

        Clients then have a moment to be told; one that does not read cannot hold the daemon up.
        """
        self.draining = True
        for job in self.jobs():
            if not job.running:
                job.cancel(_shutting_down())
        with trio.move_on_after(seconds):
            await self._all_ended()
        self.cancel_all()
        await self._all_ended()
        with trio.move_on_after(_DELIVERY_SECONDS):
            await self._empty.wait()

    async def _all_ended(self) -> None:
        for job in self.jobs():
            await job.ended.wait()

    def cancel_all(self) -> None:
        """End everything now."""
        self.draining = True
        for job in self.jobs():
            job.cancel(_shutting_down())


def _shutting_down() -> CupolaError:
    return disconnected("the daemon is shutting down; try again")
