"""Helpers kept ready, so that a build does not wait for one to be forked."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from cupola.errors import HostError
from cupolad import events
from cupolad.workers.process import ForkServer, Worker

_RETRY_SECONDS: Final = 5


class WorkerPool:
    """Helpers of one role, `spare` of them kept ready while `keep_ready` runs.

    A helper serves one user at a time.  With `reuse` it is kept after a use that ended well;
    otherwise, and after any exception, it is ended.  New ones are forked when a use ends, not when
    it begins, to keep out of the way of the build that has just got its helper.
    """

    def __init__(
        self, server: ForkServer, role: str, *, spare: int, reuse: bool, setup: Any = None
    ) -> None:
        self._server = server
        self._role, self._spare, self._reuse, self._setup = role, spare, reuse, setup
        self._idle: deque[Worker] = deque()
        self._leaving: deque[Worker] = deque()
        self._used = trio.Event()

    async def keep_ready(self) -> None:
        """Tend the pool after each use; end all idle helpers when cancelled."""
        try:
            while True:
                self._used = trio.Event()
                while self._leaving:
                    await self._leaving.popleft().close()
                try:
                    while len(self._idle) < self._spare:
                        self._idle.append(await self._start())
                except HostError as error:
                    events.NO_HELPER.tell(reason=error.message)
                    await trio.sleep(_RETRY_SECONDS)
                    continue
                await self._used.wait()
        finally:
            with trio.CancelScope(shield=True):
                for worker in (*self._leaving, *self._idle):
                    await worker.close()

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Worker]:
        """A helper for the length of the block."""
        worker = await self._take()
        keep = False
        try:
            yield worker
            keep = self._reuse and not worker.spent
        finally:
            if keep:
                self._idle.append(worker)
            else:
                worker.dismiss()
                self._leaving.append(worker)
            self._used.set()

    async def _take(self) -> Worker:
        while self._idle:
            worker = self._idle.popleft()
            if worker.is_alive():
                return worker
            self._leaving.append(worker)
        return await self._start()

    async def _start(self) -> Worker:
        worker = await self._server.fork(self._role)
        try:
            if self._setup is not None:
                await worker.send(self._setup)
        except BaseException:
            await worker.close()
            raise
        return worker
