"""`make demo`: a real C program, compiled in a sandbox whose every input came from the store.

Assembles a toolchain from Debian's packages, starts a daemon of its own as root in a temporary
directory, and does the rest as an unprivileged user: import, build, export, run.  Nothing is left.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from toolchain import Debian, assemble

from cupolad.testing import PrivateDaemon, UserCommand

HERE = Path(__file__).parent


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"\033[1m==> {text}\033[0m" if sys.stdout.isatty() else f"==> {text}", flush=True)


class User:
    """Somebody without privileges, who has the command `cupola`."""

    def __init__(self, command: UserCommand, daemon: PrivateDaemon, home: Path) -> None:
        self._command, self._daemon, self._home = command, daemon, home
        self.entry = pwd.getpwnam(os.environ.get("SUDO_USER") or "nobody")
        os.chown(home, self.entry.pw_uid, self.entry.pw_gid)

    def cupola(self, *arguments: str | Path) -> str:
        """Run `cupola`; what it prints."""
        print(f"$ cupola {' '.join(map(str, arguments))}", flush=True)
        with self._command.popen(
            self.entry.pw_uid,
            "--socket",
            self._daemon.socket,
            *arguments,
            stdout=subprocess.PIPE,
            cwd=self._home,
        ) as process:
            out, _ = process.communicate()
        if process.returncode != 0:
            raise SystemExit(
                f"cupola failed with status {process.returncode}:\n{out.decode()}"
                f"the daemon's log:\n{self._daemon.log.read_text()}"
            )
        return out.decode()

    def run(self, *command: str | Path) -> str:
        """Run any program as this user; what it prints."""
        print(f"$ {' '.join(map(str, command))}", flush=True)
        return subprocess.check_output(
            command, user=self.entry.pw_uid, group=self.entry.pw_gid, extra_groups=[],
            text=True, cwd=self._home, stderr=subprocess.STDOUT,
        )  # fmt: skip


def main() -> None:
    """The whole demo."""
    if os.geteuid() != 0:
        raise SystemExit("the demo starts a root daemon: run it as root, or with sudo")
    directory = Path(tempfile.mkdtemp(prefix="cupola-demo-"))
    directory.chmod(0o755)
    try:
        with UserCommand() as command, PrivateDaemon(parent=directory) as daemon:
            home = directory / "home"
            home.mkdir()
            user = User(command, daemon, home)
            prepare(directory, home)
            show(user, home)
    finally:
        shutil.rmtree(directory)


def prepare(directory: Path, home: Path) -> None:
    """Put toolchain, sources and request file into the user's home."""
    say("fetching a C toolchain and the sources of zstd from Debian")
    debian = Debian(directory / "apt")
    assemble(debian, home / "toolchain", "/inputs/toolchain")
    (home / "source").mkdir()
    archive = debian.source("libzstd")
    subprocess.run(
        ["tar", "--extract", "--strip-components=1", "--directory", home / "source", "--file", archive],
        check=True,
    )  # fmt: skip
    shutil.copy(HERE / "zstd.toml", home)


def show(user: User, home: Path) -> None:
    """Import, build, export, run."""
    say(f"importing both as {user.entry.pw_name}")
    for name in ("toolchain", "source"):
        start = time.monotonic()
        node = user.cupola("import", name).strip()
        print(f"{node}  ({time.monotonic() - start:.1f} s)")

    say("building zstd in a sandbox")
    result = json.loads(user.cupola("build", "zstd.toml", "--json", "--out", "result"))
    report(user, result)

    say("running what was built, outside of the sandbox")
    zstd = home / "result" / "out" / "bin" / "zstd"
    print(user.run(zstd, "--version").strip())
    sample = home / "zstd.toml"
    user.run(zstd, "--quiet", sample, "-o", "sample.zst")
    if user.run(zstd, "--quiet", "--decompress", "--stdout", "sample.zst") != sample.read_text():
        raise SystemExit("what was compressed did not come back")
    print("what it compressed came back")


def report(user: User, result: dict[str, Any]) -> None:
    """Say what came of the build."""
    (output,) = result["outputs"]
    node, usage, log = output["node"], result["usage"], result["log"]
    needles = ["/inputs/toolchain", "/inputs/source", "/build/out"]
    found = [needles[index] for index in output["needles"]]
    print(f"output:    d:{node['digest']}:{node['size']}")
    print(f"refers to: {', '.join(found) or 'nothing that was looked for'}")
    print(f"wall time: {usage['wall_us'] / 1e6:.1f} s, processor {usage['cpu_us'] / 1e6:.1f} s,"
          f" memory {usage['memory_peak'] >> 20} MiB at most")  # fmt: skip
    name = f"f:{log['digest']}:{log['size']}"
    lines = user.cupola("cat", name).splitlines()
    print(f"log:       {len(lines)} lines, `cupola cat {name}`; the last of them:")
    for line in lines[-3:]:
        print(f"           {line}")


if __name__ == "__main__":
    main()
