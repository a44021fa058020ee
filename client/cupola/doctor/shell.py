"""Whether builds can have a /bin/sh: one program without any library, since they have none."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

from cupola.doctor import settings
from cupola.doctor.finding import Finding, ok, problem
from cupola.doctor.system import System

_ELF: Final = b"\x7fELF"
_INTERPRETER: Final = 3
"""PT_INTERP of elf(5): the program is started by another one, the dynamic linker."""
_HEADERS: Final = {
    1: (struct.Struct("=28xI10xHH"), "=I"),
    2: (struct.Struct("=32xQ14xHH"), "=I"),
}
"""By the class of an ELF file: where its program headers are, their size and their number."""

_PACKAGE: Final = "busybox-static"


def check_shell(system: System) -> Finding:
    """Whether the shell is there, can be run, and is linked statically."""
    shell = settings.programs(system).shell
    path = system.path(shell)
    if not path.exists():
        return problem(
            f"there is no {shell}, which builds use as /bin/sh", system.installing(_PACKAGE)
        )
    if not os.access(path, os.X_OK):
        return problem(f"{shell} cannot be executed", f"`sudo chmod 755 {shell}`")
    if not _is_static(path):
        return problem(
            f"{shell} needs libraries or another program, and builds have none",
            f"{system.installing(_PACKAGE)}, or name another static shell in"
            f" {settings.CONFIGURATION}",
        )
    return ok(f"{shell} is a static program")


def _is_static(path: Path) -> bool:
    """Whether it is an ELF program that starts by itself."""
    with path.open("rb") as file:
        start = file.read(64)
        if len(start) < 64 or start[:4] != _ELF or start[4] not in _HEADERS:
            return False
        places, kind = _HEADERS[start[4]]
        offset, size, count = places.unpack_from(start)
        file.seek(offset)
        headers = file.read(size * count)
    if len(headers) < size * count:
        return False
    kinds = [struct.unpack_from(kind, headers, size * index)[0] for index in range(count)]
    return _INTERPRETER not in kinds
