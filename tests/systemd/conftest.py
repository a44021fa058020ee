"""Fixtures of tests that boot a real systemd: a machine with cupola's units installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import install
from machine import Machine
from made import make_package


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
