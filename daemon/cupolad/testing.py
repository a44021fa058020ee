"""A daemon on directories of its own, for tests, benchmarks and the demo.

It needs root, is a real `cupolad` process, and leaves nothing behind.
"""

from __future__ import annotations

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
from typing import Final, Self

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
