"""Whether the kernel gives the daemon the namespaces that every build gets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cupola.doctor.finding import Finding, ok, problem, together, warning
from cupola.doctor.kernel import configuration
from cupola.doctor.system import System

KINDS: Final = ("user", "mnt", "pid", "ipc", "uts", "net", "cgroup")
"""A build has one of its own of each; see namespaces(7)."""

UID_BASE: Final = 0x34000000
UID_COUNT: Final = 128 * 65536
"""The user ids that the daemon gives to builds, unless it is configured otherwise."""

_ENOUGH: Final = 128
"""As many builds as there are user ids for."""
_USUAL: Final = 15_000

_UNPRIVILEGED: Final = {
    "unprivileged_userns_clone": "0",
    "apparmor_restrict_unprivileged_userns": "1",
}
"""Settings below /proc/sys/kernel, and the value that keeps ordinary users from namespaces."""


def check_namespaces(system: System) -> Finding:
    """Whether namespaces exist, may be made, and can map the ids of builds."""
    if not system.path("/proc/self/ns/user").exists():
        built = configuration(system).get("USER_NS", "n")
        return problem(
            f"the kernel has no user namespaces (CONFIG_USER_NS={built})",
            "start a kernel that was built with CONFIG_USER_NS=y",
        )
    limits = {kind: int(system.read(f"/proc/sys/user/max_{kind}_namespaces")) for kind in KINDS}
    complaints = [*_too_few(limits), *_unmapped(system)]
    restricted = ", but not to ordinary users, which cupola does not need" * _restricted(system)
    return together(
        complaints, ok(f"the kernel grants {limits['user']:,} user namespaces{restricted}")
    )


def _too_few(limits: dict[str, int]) -> Iterator[Finding]:
    for kind, limit in limits.items():
        remedy = (
            f"`sudo sysctl -w user.max_{kind}_namespaces={_USUAL}`, and the same setting in a file"
            " of /etc/sysctl.d for the next start"
        )
        if limit == 0:
            yield problem(f"user.max_{kind}_namespaces is 0, so no build can start", remedy)
        elif limit < _ENOUGH:
            yield warning(
                f"user.max_{kind}_namespaces is {limit}, and every running build takes one", remedy
            )


def _unmapped(system: System) -> Iterator[Finding]:
    """That this is a container which lacks the ids of builds."""
    covered = 0
    for line in system.read("/proc/self/uid_map").splitlines():
        start, _, count = map(int, line.split())
        covered += max(0, min(start + count, UID_BASE + UID_COUNT) - max(start, UID_BASE))
    if covered < UID_COUNT:
        yield warning(
            f"this is a container without the user ids {UID_BASE} to {UID_BASE + UID_COUNT - 1},"
            " which builds get, so no daemon can run in it",
            "run cupolad outside of the container, or give the container these ids",
        )


def _restricted(system: System) -> bool:
    for name, value in _UNPRIVILEGED.items():
        setting = system.path(f"/proc/sys/kernel/{name}")
        if setting.exists() and setting.read_text().strip() == value:
            return True
    return False
