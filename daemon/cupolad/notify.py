"""Tells systemd how the daemon is doing; does nothing where systemd did not start it."""

from __future__ import annotations

import os

import sdnotify


class Notifier:
    """The socket of sd_notify(3). Children must not inherit it, so its variable is removed."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier()
        os.environ.pop("NOTIFY_SOCKET", None)

    def ready(self) -> None:
        """Start-up is complete."""
        self._notifier.notify("READY=1")

    def stopping(self) -> None:
        """The daemon is on its way out."""
        self._notifier.notify("STOPPING=1")

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows."""
        self._notifier.notify(f"STATUS={text}")
