"""Prints the example configuration: every key as a comment, with its default and its meaning.

A program of its own, because defaults that depend on the machine are those of a machine that it
pretends to be on; the same file comes out everywhere.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

_PAGE: Final = 4096
_GIB: Final = 1024**3
_SHOWN, _OTHER = (8, 32 * _GIB), (6, 20 * _GIB)
"""Processors and bytes of memory: of the machine that is shown, and of one to compare with."""

_HEAD: Final = """\
# The configuration of cupolad, the build daemon of cupola; see cupolad.toml(5).
#
# Here is every key with its default. To change one, take the # before it away, or write it into
# a file of its own, cupolad.toml.d/NAME.toml, which wins over this one; then run
# `systemctl reload cupolad`. `cupolad --check-config` says what is in force.
"""
_OF_THE_MACHINE: Final = (
    f"# (depends on the machine; this is for {_SHOWN[0]} processors"
    f" and {_SHOWN[1] // _GIB} GiB of memory)"
)


def _defaults(processors: int, memory: int) -> dict[str, tuple[Any, str]]:
    """Each key with its default and its meaning, on a machine of this size."""
    sizes: dict[str, int] = {"SC_PAGE_SIZE": _PAGE, "SC_PHYS_PAGES": memory // _PAGE}
    sysconf: Callable[..., int] = os.sysconf
    os.cpu_count = lambda: processors
    os.sysconf = lambda name: sizes[name] if name in sizes else sysconf(name)
    sys.modules.pop("cupolad.config", None)
    described = importlib.import_module("cupolad.config").Config().describe()
    return {key: (value, meaning) for key, value, _, meaning in described}


def _toml(value: Any) -> str:
    """The value as TOML has it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _lines() -> Iterator[str]:
    shown, other = _defaults(*_SHOWN), _defaults(*_OTHER)
    yield _HEAD
    section = ""
    for key, (value, meaning) in shown.items():
        table, _, name = key.partition(".")
        if table != section:
            yield f"[{table}]"
            section = table
        yield f"# {meaning}"
        if other[key][0] != value:
            yield _OF_THE_MACHINE
        yield f"#{name} = {_toml(value)}\n"


if __name__ == "__main__":
    print("\n".join(_lines()).rstrip())
