"""Makes the checks, each in a process of its own, so that none can hold up or end another.

A file system that does not answer can keep a process in the kernel where nothing can kill it; only
a process that nobody waits for is harmless then.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, NoReturn, TypeAlias

from cupola.doctor.finding import Check, Finding, Verdict, unknown
from cupola.doctor.system import ProgramError, System

Findings: TypeAlias = dict[str, Finding]

_FIRST: Final = 3
"""The first descriptor that is no standard stream."""

_REPORT: Final = "report it as a fault of cupola, together with what `cupola --version` says"


def examine(checks: Sequence[Check], system: System) -> Findings:
    """Make checks side by side; the finding of each, by name.

    Call it from a process without threads: it forks.
    """
    findings: Findings = {}
    with ExitStack() as processes:
        started = {}
        for check in checks:
            try:
                started[check] = processes.enter_context(_started(check, system))
            except OSError as error:
                findings[check.name] = unknown(
                    f"cannot start a process for the check: {error.strerror}",
                    "end some of your processes (`ps -u $USER`), or raise `ulimit -u`",
                )
        for check, (reader, deadline) in started.items():
            findings[check.name] = _finding(check, _read(reader, deadline))
    return {check.name: findings[check.name] for check in checks}


def make(check: Check, system: System) -> Finding:
    """The finding of a check; what it could not look at becomes one as well."""
    try:
        return check.work(system)
    except ProgramError as error:
        return unknown(str(error), _finding_out(system))
    except OSError as error:
        where = f" ({error.filename})" if error.filename is not None else ""
        return unknown(
            f"cannot be looked at: {error.strerror or error}{where}", _finding_out(system)
        )
    except Exception as error:  # noqa: BLE001 - a finding of the others is worth more than a trace
        return unknown(f"the check failed: {type(error).__name__}: {error}", _REPORT)


def _finding_out(system: System) -> str:
    if system.is_root:
        return "try again; if it stays so, look at it by hand"
    return "`sudo cupola doctor` may be told more"


@contextmanager
def _started(check: Check, system: System) -> Iterator[tuple[int, float]]:
    """Where the finding of a check can be read, and until when; at the end, its process is killed.

    It is not waited for: it may be stuck.
    """
    deadline = time.monotonic() + check.seconds
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            pid = os.fork()
            if pid == 0:
                _work(check, system, writer)
        finally:
            os.close(writer)
        # Both do it, since nobody knows who is first; the programs that it runs are in its group.
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        try:
            yield reader, deadline
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    finally:
        os.close(reader)


def _work(check: Check, system: System, writer: int) -> NoReturn:
    """What the process of a check does."""
    try:
        os.setpgid(0, 0)
        writer = _keep_alone(writer)
        finding = make(check, system)
        answer = json.dumps([finding.verdict, finding.found, finding.remedy])
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(answer.encode())
    finally:
        os._exit(0)


def _keep_alone(writer: int) -> int:
    """Let go of all descriptors but this one, which may change its number.

    Whoever reads what we print waits until nobody holds it any more, not even one who is stuck.
    """
    kept = fcntl.fcntl(writer, fcntl.F_DUPFD_CLOEXEC, _FIRST)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(_FIRST):
        os.dup2(nothing, standard)
    os.closerange(_FIRST, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
    return kept


def _read(reader: int, deadline: float) -> bytes | None:
    """All that a process writes; None if it has not ended by the deadline."""
    received = b""
    while True:
        left = max(0.0, deadline - time.monotonic())
        if not select.select([reader], [], [], left)[0]:
            return None
        piece = os.read(reader, 65536)
        if not piece:
            return received
        received += piece


def _finding(check: Check, answer: bytes | None) -> Finding:
    if answer is None:
        return Finding(
            check.when_stuck,
            f"the check did not end within {check.seconds:g} s: a program, or a file system, hangs",
            "`ps -eo pid,stat,wchan:30,cmd | grep ' D'` says what is stuck in the kernel, `mount`"
            " what is mounted; try again when the machine has less to do",
        )
    if not answer:
        return unknown("the process of the check ended before it said anything", _REPORT)
    verdict, found, remedy = json.loads(answer)
    return Finding(Verdict(verdict), found, remedy)
