"""Users of a machine that build there, and what an administrator sees of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from installed import MEMBER
from machine import Machine

from waiting import eventually

REQUEST = """
command_args = ["/bin/sh", "-euc", '''{script}''']
outputs = ["build/out"]
constraints.provide_bin_sh = true
environment_vars.PATH = "/bin"
"""


def build(machine: Machine, script: str, *, user: int = MEMBER, more: str = "") -> dict[str, Any]:
    """The result of a build by a user of the machine, or its error."""
    request = REQUEST.format(script=script) + more
    done = machine.run("cupola", "build", "-", "--json", user=user, stdin=request)
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def begin(
    machine: Machine, script: str, *, user: int = MEMBER, more: str = ""
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
def building(machine: Machine, script: str, **options: Any) -> Iterator[tuple[str, Any]]:
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


def units(machine: Machine) -> set[str]:
    """The units of builds that there are."""
    listed = machine.check(
        "systemctl", "list-units", "--all", "--plain", "--no-legend", "cupola-build-*"
    )
    return {line.split()[0] for line in listed.splitlines()}


def show(machine: Machine, unit: str, *properties: str) -> dict[str, str]:
    """Properties of a unit."""
    text = machine.check("systemctl", "show", unit, f"--property={','.join(properties)}")
    return dict(line.split("=", 1) for line in text.splitlines())


def journal(machine: Machine, *matches: str) -> list[dict[str, Any]]:
    """The entries that match, each with all of its fields."""
    text = machine.check("journalctl", "--output=json", "--all", *matches)
    return [json.loads(line) for line in text.splitlines()]


def leftovers(machine: Machine) -> list[str]:
    """What there should not be when no build runs."""
    script = """
    systemctl list-units --all --plain --no-legend 'cupola-build-*'
    find /sys/fs/cgroup -path '*/cupola-build-*' -type d
    find /sys/fs/cgroup -path '*/cupola-????????/*' -type d
    grep -h cupola /proc/[0-9]*/mounts | grep fuse.cupola
    find /var/lib/cupola/bundles /run/cupola/runc -mindepth 1 -maxdepth 1
    find /var/lib/cupola/incoming -type f
    ps -eo uid=,pid=,args= | awk '$1 >= 872415232'
    """
    return machine.run("sh", "-c", script).stdout.split("\n")[:-1]
