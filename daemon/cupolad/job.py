"""A build on behalf of a client: validation, queue, live log and result, tied to its connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import trio

from cupola import framing, notation, wire
from cupola.errors import CupolaError, HostError, RequestError
from cupola.messages import (
    BuildOutput,
    BuildRequest,
    BuildResult,
    BuildTimes,
    BuildUsage,
    Queued,
    Reply,
    Started,
)
from cupola.nodes import Digest, FileNode
from cupolad import events, failures
from cupolad.buildjournal import BuildJournal
from cupolad.logs import BuildLog
from cupolad.peers import ClientGoneError, Peer
from cupolad.request import ValidRequest, validate
from cupolad.scheduler import Job, now_ms
from cupolad.service import Service

About = Mapping[str, Any]
"""The fields of every event of a build."""

_COPY_SIZE: Final = 256 * 1024
_SHOWN_LENGTH: Final = 200


class Client(Protocol):
    """The connection that asked for the build."""

    async def send(self, message: Reply, /) -> None:
        """Send one message; ClientGoneError if that cannot be done."""
        ...

    async def hang_up(self) -> None:
        """Return when the client is gone."""
        ...


class BuildJob:
    """Runs one build for `peer`."""

    def __init__(self, service: Service, peer: Peer) -> None:
        self._service, self._peer = service, peer

    async def run(self, request: BuildRequest, client: Client) -> None:
        """Run the build and send the client its events, then its result or its error.

        A request that is not accepted is a CupolaError.  If the client goes, the build is
        cancelled and ClientGoneError raised.
        """
        service = self._service
        try:
            async with service.share(self._peer):
                valid, digest = await trio.to_thread.run_sync(
                    self._check, request, limiter=service.threads
                )
            admitted = service.scheduler.admitted(self._peer.uid, request.outputs)
            with (
                admitted as job,
                BuildLog(service.builder.places.bundles, service.config.limits.log_bytes) as log,
            ):
                about = {
                    "build_id": job.build_id,
                    "uid": self._peer.uid,
                    "request": digest,
                    "output": list(request.outputs),
                }
                await self._run_for(client, job, valid, log, about)
        except RequestError as error:
            events.REQUEST_REFUSED.tell(
                uid=self._peer.uid, code=error.code, reason=error.message, output=request.outputs
            )
            raise

    def _check(self, request: BuildRequest) -> tuple[ValidRequest, str]:
        """The request, if it is accepted, and the digest of its canonical encoding. Blocks."""
        service = self._service
        valid = validate(
            request, service.request_limits(), service.policy(self._peer), service.store
        )
        encoding = framing.encode_item(wire.encode_build_request(request))
        return valid, Digest.of(encoding).hex()

    async def _run_for(
        self, client: Client, job: Job, valid: ValidRequest, log: BuildLog, about: About
    ) -> None:
        last: Reply | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_gone, client, nursery.cancel_scope)
            last = await self._run_and_report(job, valid, log, client, about)
            nursery.cancel_scope.cancel()
        if last is None:
            raise ClientGoneError
        await client.send(last)

    async def _run_and_report(
        self, job: Job, valid: ValidRequest, log: BuildLog, client: Client, about: About
    ) -> Reply | None:
        """Run the build while the client is told of it; the last message, or None if it is gone."""
        last: Reply | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_report, job, log, client, nursery.cancel_scope)
            if self._journals("all"):
                nursery.start_soon(self._journal, log, about)
            last = await self._outcome(job, valid, log, about)
        return None if nursery.cancel_scope.cancelled_caught else last

    async def _outcome(self, job: Job, valid: ValidRequest, log: BuildLog, about: About) -> Reply:
        """The message that tells the result of the build."""
        told: CupolaError | None = None
        try:
            outputs, usage = await self._run(job, valid, log, about)
        except Exception as error:  # noqa: BLE001 - it ends one build and no more
            told = failures.as_error(error, f"build {job.build_id}")
            kind = events.HOST_FAILED if isinstance(told, HostError) else events.FAILED
            kind.tell(**about, code=told.code, reason=told.message)
        finally:
            log.end()
        node = await self._keep_log(job, log)
        if told is None:
            times = BuildTimes(job.queued_at, job.started_at, now_ms())
            return BuildResult(job.build_id, "built", outputs, times, usage, node)
        if self._journals("failures"):
            await self._journal(log, about)
        told.details["build_id"] = job.build_id
        if node is not None:
            told.details["log"] = notation.to_text(node)
        return failures.reply(told)

    async def _run(
        self, job: Job, valid: ValidRequest, log: BuildLog, about: About
    ) -> tuple[tuple[BuildOutput, ...], BuildUsage]:
        """Run the build once it has its permit, and tell the administrators how it went."""
        service = self._service
        user = await trio.to_thread.run_sync(self._peer.name)
        title = f"cupola build of {_shown(valid.outputs)} for {user}"
        events.ACCEPTED.tell(**about)

        async def work() -> tuple[tuple[BuildOutput, ...], BuildUsage]:
            events.STARTED.tell(**about)
            return await service.builder.build(
                job.build_id, title, valid, service.settings(), service.build_limits(), log
            )

        try:
            outputs, usage = await service.scheduler.run(job, work)
        except trio.Cancelled:
            events.CANCELLED.tell(**about, code="cancelled", reason="cancelled, its client is gone")
            raise
        events.BUILT.tell(
            **about, seconds=usage.wall_us / 1e6, cpu_us=usage.cpu_us, memory=usage.memory_peak
        )
        return outputs, usage

    def _journals(self, which: str) -> bool:
        """Whether these logs go to the journal."""
        service = self._service
        return service.journal is not None and service.config.daemon.journal_logs == which

    async def _journal(self, log: BuildLog, about: About) -> None:
        """Write the log to the journal until it has ended."""
        assert self._service.journal is not None
        lines = BuildJournal(self._service.journal, about)
        async for message in log.follow():
            await trio.to_thread.run_sync(lines.feed, message)
        lines.end()

    async def _keep_log(self, job: Job, log: BuildLog) -> FileNode | None:
        """Store the log as a blob; None if it is empty or there is no room for it."""
        if not log.size:
            return None
        try:
            return await trio.to_thread.run_sync(
                self._store_log, log, limiter=self._service.threads
            )
        except OSError as error:
            events.STORING_FAILED.tell(build_id=job.build_id, what="its log", reason=error.strerror)
            return None

    def _store_log(self, log: BuildLog) -> FileNode:
        with self._service.store.batch() as batch:
            writer = batch.writer()
            for offset in range(0, log.size, _COPY_SIZE):
                writer.write(log.read(offset, _COPY_SIZE))
            digest = writer.finish()
            batch.commit()
        return FileNode(digest, log.size)


def _shown(outputs: Sequence[str]) -> str:
    """The outputs in a few printable words."""
    more = f" and {len(outputs) - 1} more" if len(outputs) > 1 else ""
    return notation.printable(outputs[0].encode())[:_SHOWN_LENGTH] + more


async def _cancel_when_gone(client: Client, scope: trio.CancelScope) -> None:
    await client.hang_up()
    scope.cancel()


async def _report(job: Job, log: BuildLog, client: Client, scope: trio.CancelScope) -> None:
    """Tell the client of its build: that it waits, that it runs, and what it writes."""
    try:
        await client.send(Queued(job.build_id))
        await job.left_queue.wait()
        if job.running:
            await client.send(Started(job.build_id))
        async for message in log.follow():
            await client.send(message)
    except ClientGoneError:
        scope.cancel()
