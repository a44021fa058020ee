"""A daemon on directories of its own, and clients of other users, for tests, benchmarks and the demo.

Both are real processes; it takes root to start them, and they leave nothing behind.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import cupola

_START_SECONDS: Final = 30
_STOP_SECONDS: Final = 60


class PrivateDaemon:
    """A running daemon whose socket everybody may use. Use it as a context manager.

    <directory>/            open to everybody, removed at the end
        cupolad.toml        `config`
        cupola.sock
        state/  run/        closed to all but root
        log                 what the daemon writes to stderr
    """

    def __init__(
        self,
        config: str = "",
        *,
        parent: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="cupola-", dir=parent))
        self.directory.chmod(0o755)
        self.socket = self.directory / "cupola.sock"
        self.state = self.directory / "state"
        self.log = self.directory / "log"
        self.config = self.directory / "cupolad.toml"
        self.config.write_text(config)
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the daemon."""
        assert self._process is not None
        return self._process.pid

    @property
    def command(self) -> list[str]:
        """How the daemon is started."""
        return [
            sys.executable, "-I", "-m", "cupolad",
            "--config", str(self.config),
            "--state-dir", str(self.state),
            "--runtime-dir", str(self.directory / "run"),
            "--socket", str(self.socket),
        ]  # fmt: skip

    def __enter__(self) -> Self:
        try:
            if self._process is None:
                self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._process is not None:
                status = self.stop()
                if status != 0 and error is None:
                    raise RuntimeError(
                        f"cupolad ended with status {status}:\n{self.log.read_text()}"
                    )
        finally:
            self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None:
                raise RuntimeError(f"cupolad did not start:\n{self.log.read_text()}")
            if time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"cupolad did not answer:\n{self.log.read_text()}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
            return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the daemon."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float = _STOP_SECONDS) -> int:
        """Wait until the daemon has ended; its exit status."""
        assert self._process is not None
        status = self._process.wait(seconds)
        self._process = None
        return status

    def stop(self) -> int:
        """Stop the daemon as systemd does; its exit status."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill the daemon without giving it a chance."""
        self.signal(signal.SIGKILL)
        self.wait()


class UserCommand:
    """The command `cupola` as unprivileged users can run it. Use it as a context manager.

    An interpreter or package below a directory that is closed to others, such as root's home, is
    of no use to them; then the client and what it needs is copied to a place that is open.
    """

    def __init__(self) -> None:
        self._copy: Path | None = None
        self.arguments = [sys.executable, "-I", "-m", "cupola"]

    def __enter__(self) -> Self:
        if not _works_for_others(self.arguments):
            self._copy = Path(tempfile.mkdtemp(prefix="cupola-client-"))
            self._copy.chmod(0o755)
            _copy_distribution("cupola", self._copy, set())
            start = (
                f"import sys; sys.path.insert(0, {str(self._copy)!r});"
                " from cupola.__main__ import main; sys.exit(main())"
            )
            self.arguments = [_SYSTEM_PYTHON, "-I", "-c", start]
        return self

    def __exit__(self, *_: object) -> None:
        if self._copy is not None:
            shutil.rmtree(self._copy)

    def popen(self, uid: int, *arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Start the command as user `uid`, who is in no group but one of that number."""
        return subprocess.Popen(
            [*self.arguments, *map(str, arguments)], user=uid, group=uid, extra_groups=[], **options
        )


_SYSTEM_PYTHON: Final = "/usr/bin/python3"
_NOBODY: Final = 65534


def _works_for_others(command: list[str]) -> bool:
    try:
        return (
            subprocess.run(
                [*command, "--version"],
                user=_NOBODY,
                group=_NOBODY,
                extra_groups=[],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
                cwd="/",
            ).returncode
            == 0
        )
    except OSError:
        return False


def _copy_distribution(name: str, target: Path, done: set[str]) -> None:
    """Copy the modules of an installed distribution, and of what it requires, to `target`."""
    if name in done:
        return
    done.add(name)
    distribution = importlib.metadata.distribution(name)
    if name == "cupola":
        source = Path(cupola.__file__).parent
        shutil.copytree(source, target / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        for file in distribution.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), target / file)
    for requirement in distribution.requires or ():
        if "extra ==" not in requirement:
            wanted = re.match(r"[A-Za-z0-9._-]+", requirement)
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                _copy_distribution(wanted[0] if wanted else requirement, target, done)
