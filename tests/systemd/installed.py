"""Puts cupola where its package puts it, in a machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from machine import Machine

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
MEMBER, STRANGER = 61001, 61002
"""Users of the machine: one in the group `cupola`, one who is not."""


def install(machine: Machine) -> None:
    """Put cupola where its package puts it, and start its socket."""
    root = machine.root
    for unit in UNITS.glob("cupola*"):
        shutil.copy(unit, root / "etc/systemd/system" / unit.name)
    for folder in ("sysusers.d", "tmpfiles.d"):
        (root / "etc" / folder).mkdir(exist_ok=True)
        shutil.copy(UNITS / folder / "cupola.conf", root / "etc" / folder)
    _write_command(root / "usr/bin/cupolad", f'exec {sys.executable} -I -m cupolad "$@"')
    packages = Path(sysconfig.get_path("purelib"))
    if packages.is_relative_to(ROOT):
        packages = Path("/run/place") / packages.relative_to(ROOT)
    load = f"import sys; sys.path[:0] = ['/run/place/client', '{packages}']"
    run = "from cupola.__main__ import main; sys.exit(main())"
    _write_command(root / "usr/bin/cupola", f'exec /usr/bin/python3 -I -c "{load}; {run}" "$@"')
    machine.check("systemd-sysusers")
    machine.check("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/cupola.conf")
    machine.check("useradd", "--no-create-home", f"--uid={MEMBER}", "--groups=cupola", "member")
    machine.check("useradd", "--no-create-home", f"--uid={STRANGER}", "stranger")
    machine.check("systemctl", "daemon-reload")
    machine.check("systemctl", "start", "cupolad.socket")


def _write_command(path: Path, script: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


VERIFY = ("systemd-analyze", "verify", "--man=no", "--recursive-errors=no")


def verify(*units: Path) -> subprocess.CompletedProcess[str]:
    """What `systemd-analyze verify` says."""
    command = [*VERIFY, *map(str, units)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
