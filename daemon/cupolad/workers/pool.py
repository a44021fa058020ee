"""Helpers kept ready, so that a build does not wait for one to be forked."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from cupolad.workers.process import Worker


class WorkerPool:
    """Helpers of one role, `spare` of them kept ready while `keep_ready` runs.

    A helper serves one user at a time.  With `reuse` it is kept after a use that ended well;
    otherwise, and after any exception, it is ended.
    """

    def __init__(self, role: str, *, spare: int, reuse: bool, setup: Any = None) -> None:
        self._role, self._spare, self._reuse, self._setup = role, spare, reuse, setup
        self._idle: deque[Worker] = deque()
        self._refill = trio.Event()

    async def keep_ready(self) -> None:
        """Refill the pool whenever a helper is taken; end all idle ones when cancelled."""
        try:
            while True:
                self._refill = trio.Event()
                while len(self._idle) < self._spare:
                    self._idle.append(await self._start())
                await self._refill.wait()
        finally:
            with trio.CancelScope(shield=True):
                while self._idle:
                    await self._idle.popleft().close()

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Worker]:
        """A helper for the length of the block."""
        worker = await self._take()
        try:
            yield worker
        except BaseException:
            await worker.close()
            raise
        if self._reuse:
            self._idle.append(worker)
        else:
            await worker.close()

    async def _take(self) -> Worker:
        while self._idle:
            worker = self._idle.popleft()
            self._refill.set()
            if worker.is_alive():
                return worker
            await worker.close()
        return await self._start()

    async def _start(self) -> Worker:
        worker = await Worker.start(self._role)
        if self._setup is not None:
            await worker.send(self._setup)
        return worker
