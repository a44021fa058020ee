"""What ends the daemon or changes it while it runs: signals, and being idle for long."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from typing import Final

import trio

from cupolad import events
from cupolad.config import Config, ConfigError
from cupolad.notify import Notifier
from cupolad.service import Service

_EXTENSION: Final = 30.0
"""Seconds that systemd is asked for again and again; clean-up after a build takes less."""

_IDLE_CHECKS: Final = 10
"""How often one looks whether the daemon is idle, within the time that it may be."""


def note_early_signals() -> list[int]:
    """From now on, note what asks the daemon to stop before `Control` can obey."""
    early: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: early.append(number))
    return early


class Control:
    """Waits for a reason to stop. SIGTERM and SIGINT stop, SIGHUP reloads, a second one hurries."""

    def __init__(
        self,
        service: Service,
        reload: Callable[[], Config],
        notifier: Notifier,
        early_signals: Sequence[int],
    ) -> None:
        self._service, self._reload_config, self._notifier = service, reload, notifier
        self._early_signals = early_signals
        self._stopping = trio.Event()
        self._hurry = trio.CancelScope()

    async def wait_until_stopping(self) -> None:
        """Return once the daemon has been told to stop, or is idle for too long."""
        await self._stopping.wait()

    async def drain(self) -> None:
        """Let what runs end within the grace; the second signal cuts that short."""
        scheduler = self._service.scheduler
        running, queued = scheduler.count()
        grace = self._service.config.daemon.drain
        if running or queued:
            events.DRAINING.tell(running=running, queued=queued, seconds=grace)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._when_hurried, scheduler.cancel_all)
            nursery.start_soon(self._ask_for_time)
            await scheduler.drain(grace)
            nursery.cancel_scope.cancel()

    async def _ask_for_time(self) -> None:
        """Keep systemd from killing what is still draining."""
        while True:
            self._notifier.extend(_EXTENSION)
            await trio.sleep(_EXTENSION / 3)

    async def _when_hurried(self, act: Callable[[], None]) -> None:
        with self._hurry:
            await trio.sleep_forever()
        act()
        await trio.sleep_forever()

    async def obey_signals(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """React to signals until cancelled."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            if self._early_signals:
                self._stop(signal.Signals(self._early_signals[0]).name)
            async for number in signals:
                if number == signal.SIGHUP:
                    self._notifier.reloading()
                    await self._reload()
                    self._notifier.ready()
                elif self._stopping.is_set():
                    events.HURRIED.tell(signal=signal.Signals(number).name)
                    self._hurry.cancel()
                else:
                    self._stop(signal.Signals(number).name)

    async def _reload(self) -> None:
        """Apply the configuration anew; the old one stays in force if the new one is of no use."""
        try:
            config = await trio.to_thread.run_sync(self._reload_config)
        except ConfigError as error:
            events.RELOAD_REFUSED.tell(reason=error)
            return
        service = self._service
        if config.scheduler.max_builds > service.builder.uids.size:
            events.RELOAD_REFUSED.tell(
                reason="scheduler.max_builds is more than the ids that the daemon was started with"
                " are enough for; restart it instead"
            )
            return
        service.config, kept = service.config.reloaded(config)
        service.scheduler.configure(config.scheduler.max_builds, config.limits.queued_builds)
        events.RELOADED.tell()
        if kept:
            events.KEPT.tell(keys=", ".join(kept))

    def _stop(self, reason: str) -> None:
        if not self._stopping.is_set():
            events.STOPPING.tell(reason=reason)
            self._stopping.set()

    async def stop_when_idle(self) -> None:
        """Stop when nobody has wanted anything for `daemon.idle_exit` seconds, if that is set."""
        service = self._service
        while True:
            seconds = service.config.daemon.idle_exit
            await trio.sleep(max(seconds, 1) / _IDLE_CHECKS)
            idle_for = time.monotonic() - service.last_active
            if seconds and service.is_idle() and idle_for >= seconds:
                self._stop(f"idle for {seconds:g} s")
