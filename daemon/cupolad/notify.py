"""Tells systemd how the daemon is doing; does nothing where systemd did not start it."""

from __future__ import annotations

import os
import time
from collections.abc import MutableMapping
from typing import Final

import sdnotify

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """The socket of sd_notify(3). Children must not take it for theirs: its variables are removed.

    `watchdog_seconds`: how long systemd waits for a sign of life (sd_watchdog_enabled(3)); None if
    it does not wait for any.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._notifier = sdnotify.SystemdNotifier()
        if self._notifier.socket is not None:
            # A manager that does not read must not hold up the event loop.
            self._notifier.socket.setblocking(False)  # noqa: FBT003
        microseconds = environment.get("WATCHDOG_USEC", "")
        meant_for = environment.get("WATCHDOG_PID", str(os.getpid()))
        self.watchdog_seconds: float | None = None
        if microseconds.isdecimal() and meant_for == str(os.getpid()):
            self.watchdog_seconds = int(microseconds) / 1e6
        for variable in _VARIABLES:
            environment.pop(variable, None)

    def ready(self) -> None:
        """Start-up, or a reload, is complete."""
        self._notifier.notify("READY=1")

    def reloading(self) -> None:
        """The configuration is being read again."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._notifier.notify(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """The daemon is on its way out."""
        self._notifier.notify("STOPPING=1")

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows."""
        self._notifier.notify(f"STATUS={text}")

    def alive(self) -> None:
        """A sign of life for the watchdog."""
        self._notifier.notify("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Ask for so much more time to start or to stop, from now on."""
        self._notifier.notify(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")
