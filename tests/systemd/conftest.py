"""Fixtures of tests that boot a real systemd: machines with cupola installed, of both kinds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import install
from machine import Machine
from made import make_package
from uml import UmlMachine


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package, made once."""
    return make_package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine with the units, the commands and two users; the socket listens."""
    with Machine() as machine:
        install(machine)
        yield machine


@pytest.fixture
def stopped(machine: Machine) -> Machine:
    """The machine, with the socket listening and the daemon stopped."""
    machine.check("systemctl", "stop", "cupolad.service")
    machine.check("systemctl", "reset-failed")
    machine.check("systemctl", "start", "cupolad.socket")
    return machine


@pytest.fixture(scope="session")
def uml() -> Iterator[UmlMachine]:
    """The same as `machine`, on a kernel of its own with cgroup v2."""
    with UmlMachine() as machine:
        install(machine)
        yield machine
