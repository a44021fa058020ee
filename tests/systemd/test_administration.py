"""Every command of docs/administration.md does what it should, beside a build that runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from machine import Machine
from members import build, building, journal

from cupolad import events

pytestmark = [pytest.mark.root, pytest.mark.fuse, pytest.mark.runc]

TEXT = (Path(__file__).parents[2] / "docs/administration.md").read_text()
BLOCKS = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
PLACE = re.compile(r"(?<!_)BUILD(?!_)")
COMMANDS = [line.removeprefix("# ") for block in BLOCKS for line in block.splitlines()]


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 25


def test_each_command(machine: Machine) -> None:
    failed = build(machine, "echo compiling; exit 3")["build_id"]
    with building(machine, "sleep 1000"):
        for command in COMMANDS:
            if not PLACE.search(command) or command.startswith("journalctl"):
                _run(machine, PLACE.sub(failed, command))
                continue
            with building(machine, "sleep 1000") as (unit, _):
                running = unit.removeprefix("cupola-build-").removesuffix(".service")
                _run(machine, PLACE.sub(running, command))


def _run(machine: Machine, command: str) -> None:
    done = machine.run("sh", "-c", command)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def test_the_fields_are_those_that_come(machine: Machine) -> None:
    build_id = build(machine, "echo x; : > out")["build_id"]
    documented = set(re.findall(r"^\| `([A-Z_]+)`", TEXT, re.MULTILINE))
    seen = set().union(*journal(machine, f"CUPOLA_BUILD_ID={build_id}"))
    assert documented - {"CUPOLA_CODE"} <= seen
    failed = build(machine, "exit 1")["build_id"]
    message = f"MESSAGE_ID={events.FAILED.message_id}"
    assert "CUPOLA_CODE" in journal(machine, message, f"CUPOLA_BUILD_ID={failed}")[0]
