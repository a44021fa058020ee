"""Says why cupola does not work on this machine, and what to do.

Looks at the machine as an ordinary user can, changes nothing, and takes a few seconds at most,
whatever hangs.  Knows the daemon by its socket and its units alone.
"""

from __future__ import annotations

from typing import Final

from cupola.doctor.access import check_group, check_socket
from cupola.doctor.cgroups import check_cgroups
from cupola.doctor.daemon import SECONDS, check_daemon
from cupola.doctor.examination import Findings, examine
from cupola.doctor.finding import Check, Finding, Verdict
from cupola.doctor.fuse import check_fuse
from cupola.doctor.kernel import check_kernel
from cupola.doctor.namespaces import check_namespaces
from cupola.doctor.runtime import check_runtime
from cupola.doctor.shell import check_shell
from cupola.doctor.state import check_state
from cupola.doctor.system import System
from cupola.doctor.units import check_service_unit, check_socket_unit, check_systemd

__all__ = ["CHECKS", "Check", "Finding", "Findings", "System", "Verdict", "diagnose"]

MACHINE: Final = (
    Check("kernel", check_kernel),
    Check("namespaces", check_namespaces),
    Check("cgroups", check_cgroups),
    Check("fuse", check_fuse),
    Check("runc", check_runtime),
    Check("shell", check_shell),
    Check("state", check_state, when_stuck=Verdict.PROBLEM),
)
ACCESS: Final = (
    Check("socket", check_socket, when_stuck=Verdict.PROBLEM),
    Check("group", check_group),
    Check("daemon", check_daemon, seconds=SECONDS + 2, when_stuck=Verdict.PROBLEM),
)
UNITS: Final = (
    Check("systemd", check_systemd),
    Check("cupolad.socket", check_socket_unit),
    Check("cupolad.service", check_service_unit),
)
CHECKS: Final = (*MACHINE, *UNITS, *ACCESS)
"""All checks, in the order in which they are told."""


def diagnose(system: System) -> Findings:
    """Make all checks.

    The units come last: asking the daemon starts it, and shows how that ends.
    """
    findings = examine([*MACHINE, *ACCESS], system) | examine(UNITS, system)
    return {check.name: findings[check.name] for check in CHECKS}
