"""Puts cupola where its package puts it, in a machine."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from guest import PLACE, PROJECT, Guest

UNITS = PROJECT / "systemd"
MEMBER, STRANGER = 61001, 61002
"""Users of the machine: one in the group `cupola`, one who is not."""


def install(machine: Guest) -> None:
    """Put cupola where its package puts it, and start its socket."""
    units = PLACE / "systemd"
    _copy(
        machine,
        "/etc/systemd/system",
        *(units / unit.name for unit in UNITS.glob("cupola*.[st][eloi]*")),
    )
    for folder in ("sysusers.d", "tmpfiles.d"):
        _copy(machine, f"/etc/{folder}", units / folder / "cupola.conf")
    _write_command(machine, "cupolad", f'exec {sys.executable} -I -m cupolad "$@"')
    packages = Path(sysconfig.get_path("purelib"))
    if packages.is_relative_to(PROJECT):
        packages = PLACE / packages.relative_to(PROJECT)
    load = f"import sys; sys.path[:0] = ['{PLACE}/client', '{packages}']"
    run = "from cupola.__main__ import main; sys.exit(main())"
    _write_command(machine, "cupola", f'exec /usr/bin/python3 -I -c "{load}; {run}" "$@"')
    _copy(machine, "/usr/lib/systemd/catalog", units / "cupola.catalog")
    machine.check("journalctl", "--update-catalog")
    machine.check("systemd-sysusers")
    machine.check("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/cupola.conf")
    _show_checkout(machine)
    machine.check("useradd", "--no-create-home", f"--uid={MEMBER}", "--groups=cupola", "member")
    machine.check("useradd", "--no-create-home", f"--uid={STRANGER}", "stranger")
    machine.check("systemctl", "daemon-reload")
    machine.check("systemctl", "start", "cupolad.socket")


def _show_checkout(machine: Guest) -> None:
    """Let the service see the checkout, which its sandbox may hide: it is not installed for good."""
    lines = [f"BindReadOnlyPaths={PROJECT}"]
    if PROJECT.parts[1] in ("home", "root"):
        lines.append("ProtectHome=tmpfs")
    text = "\n".join(["[Service]", *lines, ""])
    machine.write("/etc/systemd/system/cupolad.service.d/checkout.conf", text)


def _copy(machine: Guest, directory: str, *files: Path) -> None:
    into = f"--target-directory={directory}"
    machine.check("install", "-D", "--mode=644", into, *files)


def _write_command(machine: Guest, name: str, script: str) -> None:
    machine.write(f"/usr/bin/{name}", f"#!/bin/sh\n{script}\n", mode=0o755)


VERIFY = ("systemd-analyze", "verify", "--man=no", "--recursive-errors=no")


def verify(*units: Path) -> subprocess.CompletedProcess[str]:
    """What `systemd-analyze verify` says."""
    command = [*VERIFY, *map(str, units)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
