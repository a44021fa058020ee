"""Whether the daemon answers, as any client would ask it, and can take on a build."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import trio

import cupola
from cupola.doctor.finding import Finding, ok, problem, together, warning
from cupola.doctor.system import System
from cupola.errors import CupolaError, DaemonUnavailableError
from cupola.messages import StatusReport
from cupola.notation import readable_size
from cupola.version import __version__

SECONDS: Final = 5
"""How long the daemon may take for handshake and status; a cold one is up within a second."""

_WHY: Final = "`sudo journalctl -u cupolad -e`"

_REMEDIES: Final = {
    "denied": "ask from outside of a build",
    "quota_exceeded": "end some of your clients, or wait until they have ended",
}


def check_daemon(system: System) -> Finding:
    """Whether handshake and status report come in time, and what the report says."""
    try:
        answer = trio.run(_ask, system)
    except CupolaError as error:
        remedy = _REMEDIES.get(error.code, f"try again; {_WHY} says more")
        if isinstance(error, DaemonUnavailableError):
            remedy = f"put right what else is found wrong here, then {system.starting}"
        return problem(f"{error.message} ({error.code})", remedy)
    if answer is None:
        return problem(
            f"the daemon does not answer within {SECONDS} s: it hangs, stops, or cannot start",
            f"`systemctl status cupolad` and {_WHY} say more, then {system.restarting}",
        )
    report, seconds = answer
    return judge(system, report, seconds)


async def _ask(system: System) -> tuple[StatusReport, float] | None:
    """The status report and how long it took, in seconds; None if it did not come in time."""
    start = trio.current_time()
    with trio.move_on_after(SECONDS):
        async with cupola.connect(system.path(system.socket), attempts=1) as client:
            report = await client.status()
            return report, trio.current_time() - start
    return None


def judge(system: System, report: StatusReport, seconds: float) -> Finding:
    """What the report says, after it took `seconds` to come."""
    limits = report.limits
    memory = readable_size(limits["memory"]) if limits.get("memory") else "any amount"
    return together(
        [*_complaints(system, report)],
        ok(
            f"{report.server} answers in {seconds * 1000:.0f} ms: {report.running} of at most"
            f" {report.max_builds} builds run, {report.queued} wait; a build may have"
            f" {memory} of memory, a user {limits.get('queued_builds', 'any number of')} builds"
            " that run or wait"
        ),
    )


def _complaints(system: System, report: StatusReport) -> Iterator[Finding]:
    if report.server != f"cupolad {__version__}":
        yield warning(
            f"the daemon is {report.server}, this client is {__version__}",
            f"upgrade the older of the two; if that was done, {system.restarting}",
        )
    if report.draining:
        yield warning(
            f"the daemon is about to stop, and waits for {report.running} builds to end",
            "wait until it has stopped; the next client starts it again",
        )
    most = report.limits.get("queued_builds", 0)
    own = sum(build.uid == system.uid for build in report.builds)
    if 0 < most <= own:
        yield warning(
            f"{own} of at most {most} builds of yours run or wait, so you can begin no other",
            "wait for one to end, or end one; the administrator can raise `queued_builds` of"
            " [limits]",
        )
