"""Users of a machine that build there, and what an administrator sees of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from guest import Guest
from installed import MEMBER

from waiting import eventually

REQUEST = """
command_args = ["/bin/sh", "-euc", '''{script}''']
outputs = ["build/out"]
constraints.provide_bin_sh = true
environment_vars.PATH = "/bin"
"""


def build(machine: Guest, script: str, *, user: int = MEMBER, more: str = "") -> dict[str, Any]:
    """The result of a build by a user of the machine, or its error."""
    request = REQUEST.format(script=script) + more
    done = machine.run("cupola", "build", "-", "--json", user=user, stdin=request)
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def begin(
    machine: Guest, script: str, *, user: int = MEMBER, more: str = ""
) -> subprocess.Popen[str]:
    """A build that goes on; its streams are pipes."""
    process = machine.popen(
        ["cupola", "build", "-", "--json"], user=user, stdin=-1, stdout=-1, stderr=-1
    )
    assert process.stdin is not None
    process.stdin.write(REQUEST.format(script=script) + more)
    process.stdin.close()
    process.stdin = None
    return process


@contextmanager
def building(machine: Guest, script: str, **options: Any) -> Iterator[tuple[str, Any]]:
    """A build that runs, as its unit's name and the process of its client."""
    before = units(machine)
    process = begin(machine, script, **options)
    try:
        assert eventually(lambda: units(machine) - before), process.poll()
        (unit,) = units(machine) - before
        assert eventually(lambda: show(machine, unit, "SubState")["SubState"] == "running")
        yield unit, process
    finally:
        if process.poll() is None:
            machine.run("systemctl", "stop", "cupola-build-*")
        process.communicate(timeout=30)


def result_of(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    """Exit status, result or error, and what was said besides, of a build that was begun."""
    out, err = process.communicate(timeout=60)
    return process.returncode, json.loads(out or "{}"), err


def units(machine: Guest) -> set[str]:
    """The units of builds that there are."""
    listed = machine.check(
        "systemctl", "list-units", "--all", "--plain", "--no-legend", "cupola-build-*"
    )
    return {line.split()[0] for line in listed.splitlines()}


def show(machine: Guest, unit: str, *properties: str) -> dict[str, str]:
    """Properties of a unit."""
    text = machine.check("systemctl", "show", unit, f"--property={','.join(properties)}")
    return dict(line.split("=", 1) for line in text.splitlines())


def journal(machine: Guest, *matches: str) -> list[dict[str, Any]]:
    """The entries that match, each with all of its fields."""
    text = machine.check("journalctl", "--output=json", "--all", *matches)
    return [json.loads(line) for line in text.splitlines()]
