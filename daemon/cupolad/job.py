"""A build on behalf of a client: validation, queue, live log and result, tied to its connection."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, Protocol

import trio

from cupola import notation
from cupola.errors import CupolaError
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
from cupola.nodes import FileNode
from cupolad import failures
from cupolad.logs import BuildLog
from cupolad.peers import ClientGoneError, Peer
from cupolad.request import ValidRequest, validate
from cupolad.scheduler import Job, now_ms
from cupolad.service import Service

_log = logging.getLogger(__name__)

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
        async with service.share(self._peer):
            valid = await trio.to_thread.run_sync(
                validate,
                request,
                service.request_limits(),
                service.policy(self._peer),
                service.store,
                limiter=service.threads,
            )
        with (
            service.scheduler.admitted(self._peer.uid, request.outputs) as job,
            BuildLog(service.builder.places.bundles, service.config.limits.log_bytes) as log,
        ):
            last: Reply | None = None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_gone, client, nursery.cancel_scope)
                last = await self._run_and_report(job, valid, log, client)
                nursery.cancel_scope.cancel()
            if last is None:
                raise ClientGoneError
            await client.send(last)

    async def _run_and_report(
        self, job: Job, valid: ValidRequest, log: BuildLog, client: Client
    ) -> Reply | None:
        """Run the build while the client is told of it; the last message, or None if it is gone."""
        last: Reply | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_report, job, log, client, nursery.cancel_scope)
            last = await self._outcome(job, valid, log)
        return None if nursery.cancel_scope.cancelled_caught else last

    async def _outcome(self, job: Job, valid: ValidRequest, log: BuildLog) -> Reply:
        """The message that tells the result of the build."""
        try:
            outputs, usage = await self._run(job, valid, log)
        except Exception as error:  # noqa: BLE001 - it ends one build and no more
            told = failures.as_error(error, f"build {job.build_id}")
            log.end()
            node = await self._keep_log(log)
            told.details["build_id"] = job.build_id
            if node is not None:
                told.details["log"] = notation.to_text(node)
            return failures.reply(told)
        finally:
            log.end()
        times = BuildTimes(job.queued_at, job.started_at, now_ms())
        return BuildResult(job.build_id, "built", outputs, times, usage, await self._keep_log(log))

    async def _run(
        self, job: Job, valid: ValidRequest, log: BuildLog
    ) -> tuple[tuple[BuildOutput, ...], BuildUsage]:
        """Run the build once it has its permit, and tell the daemon's log how it went."""
        service = self._service
        name = f"build {job.build_id} of uid {self._peer.uid}"
        _log.info("%s: accepted: %s", name, _shown(valid.outputs))

        async def work() -> tuple[tuple[BuildOutput, ...], BuildUsage]:
            _log.info("%s: started", name)
            return await service.builder.build(
                job.build_id, valid, service.settings(), service.build_limits(), log
            )

        try:
            outputs, usage = await service.scheduler.run(job, work)
        except CupolaError as error:
            _log.warning("%s: %s: %s", name, error.code, error.message)
            raise
        except trio.Cancelled:
            _log.warning("%s: cancelled, its client is gone", name)
            raise
        _log.info("%s: built in %.2f s", name, usage.wall_us / 1e6)
        return outputs, usage

    async def _keep_log(self, log: BuildLog) -> FileNode | None:
        """Store the log as a blob; None if it is empty or there is no room for it."""
        if not log.size:
            return None
        try:
            return await trio.to_thread.run_sync(
                self._store_log, log, limiter=self._service.threads
            )
        except OSError as error:
            _log.error("cannot store a build's log: %s", error.strerror)
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
