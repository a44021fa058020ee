"""What a machine offers to tests, whichever kernel it runs on: programs, and files to put there."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

PROJECT: Final = Path(__file__).parents[2]
PLACE: Final = Path("/run/place")
"""Where a machine shows the checkout to all its users, whoever may enter the directories above."""
BOOT_SECONDS: Final = 60
ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""What programs get."""

_RUN_SECONDS: Final = 120


class Guest(ABC):
    """A running systemd."""

    @abstractmethod
    def popen(
        self, arguments: Sequence[str | Path], *, user: int | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a program in the machine, beside its services; as `user`, in the user's groups.

        `options` are Popen's.  The machine's program may outlive a Popen that is killed.
        """

    def run(
        self, *arguments: str | Path, user: int | None = None, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the machine to its end."""
        with self.popen(
            arguments,
            user=user,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                out, err = process.communicate(stdin or "", timeout=_RUN_SECONDS)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def check(self, *arguments: str | Path, **options: Any) -> str:
        """What a program prints that has to succeed."""
        done = self.run(*arguments, **options)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def write(self, path: str | Path, text: str, mode: int = 0o644) -> None:
        """Put a file of root's there, in place of what there was; make its directory."""
        self.check("install", "-D", f"--mode={mode:o}", "/dev/stdin", path, stdin=text)


def as_user(user: int | None, arguments: Sequence[str | Path]) -> list[str]:
    """The command that runs `arguments` as `user`, in the user's groups."""
    command = list(map(str, arguments))
    if user is None:
        return command
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--", *command]
