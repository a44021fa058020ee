"""Shows systemd that the daemon is well: the status line, and signs of life for the watchdog.

A sign of life is given only after the store has answered a query and the fork server a question,
so a daemon that could run no build is restarted.  A FUSE server of a single build is left out: one
that does not answer fails that build, and a user must not be able to end the daemon by it.
"""

from __future__ import annotations

from typing import Final

import trio

from cupola.notation import readable_size
from cupolad import events
from cupolad.notify import Notifier
from cupolad.service import Service
from cupolad.workers.process import ForkServer

_STATUS_SECONDS: Final = 1
_SIGNS_PER_PERIOD: Final = 3


class Health:
    """Tells `notifier` of `service`."""

    def __init__(self, service: Service, fork_server: ForkServer, notifier: Notifier) -> None:
        self._service, self._fork_server, self._notifier = service, fork_server, notifier
        self._limiter = trio.CapacityLimiter(1)

    async def keep_status(self) -> None:
        """Keep the status line up to date until cancelled."""
        told = ""
        while True:
            if (status := await self._status()) != told:
                self._notifier.status(status)
                told = status
            await trio.sleep(_STATUS_SECONDS)

    async def _status(self) -> str:
        service = self._service
        totals = await trio.to_thread.run_sync(service.store.totals, limiter=self._limiter)
        running, queued = service.scheduler.count()
        users = len({job.uid for job in service.scheduler.jobs()})
        waiting = f"{queued} queued" + f" for {users} user{'s' * (users != 1)}" * (queued > 0)
        state = "draining: " * service.scheduler.draining
        return f"{state}{running} building, {waiting}, store {readable_size(totals.bytes)}"

    async def keep_watchdog(self) -> None:
        """Give signs of life until cancelled, as long as everything answers."""
        period = self._notifier.watchdog_seconds
        if period is None:
            return
        while True:
            start = trio.current_time()
            await trio.to_thread.run_sync(self._service.store.totals, limiter=self._limiter)
            await self._fork_server.ping()
            if (took := trio.current_time() - start) > period / _SIGNS_PER_PERIOD:
                events.SLOW.tell(seconds=took)
            self._notifier.alive()
            await trio.sleep(period / _SIGNS_PER_PERIOD)
