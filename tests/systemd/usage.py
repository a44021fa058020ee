"""What tests do with cupola in a machine: build as its users do, and look at its units."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from guest import Guest
from installed import MEMBER

REQUEST = """
command_args = ["/bin/sh", "-euc", '''{script}''']
outputs = ["build/out"]
constraints.provide_bin_sh = true
"""


def build(machine: Guest, script: str, *, user: int = MEMBER) -> dict[str, Any]:
    """The result of a build by a user of the machine."""
    request = REQUEST.format(script=script)
    done = machine.run("cupola", "build", "-", "--json", user=user, stdin=request)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def show(machine: Guest, unit: str, *properties: str) -> dict[str, str]:
    """Properties of a unit."""
    text = machine.check("systemctl", "show", unit, f"--property={','.join(properties)}")
    return dict(line.split("=", 1) for line in text.splitlines())


def eventually(check: Callable[[], Any], seconds: float = 60) -> bool:
    """Whether `check` comes true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
