"""The two programs that the daemon's configuration can exchange, as far as users may read it.

Whether the configuration is right is for `cupolad --check-config` to say: what cannot be read or
used is passed over here.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from cupola.doctor.system import System

CONFIGURATION: Final = "/etc/cupola/cupolad.toml"


@dataclass(frozen=True, slots=True)
class Programs:
    """Programs that builds are run with."""

    runtime: str = "runc"
    """The OCI runtime; a path, or a name to look up."""
    shell: str = "/bin/busybox"
    """What builds have as /bin/sh."""


def programs(system: System) -> Programs:
    """The programs in force: those of the configuration files, the last one wins."""
    chosen = Programs()
    main = system.path(CONFIGURATION)
    for file in (main, *sorted(main.with_name(f"{main.name}.d").glob("*.toml"))):
        sandbox = _sandbox(file)
        known = {key: sandbox[key] for key in Programs.__slots__ if type(sandbox.get(key)) is str}
        chosen = replace(chosen, **known)
    return chosen


def _sandbox(file: Path) -> dict[str, Any]:
    try:
        section = tomllib.loads(file.read_text()).get("sandbox")
    except (OSError, ValueError):
        return {}
    return section if isinstance(section, dict) else {}
