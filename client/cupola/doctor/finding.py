"""What a check says: a verdict, what was found, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from cupola.doctor.system import System


class Verdict(StrEnum):
    """How a part of the machine is doing."""

    OK = "ok"
    UNKNOWN = "unknown"
    """The check could not be made."""
    WARNING = "warning"
    """cupola works, but not as well, as safely or as lastingly as it should."""
    PROBLEM = "problem"
    """cupola does not work, or not for this user."""


_SEVERITY: Final = list(Verdict)
"""From the least to the worst."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of a check. Each text is one sentence without its full stop."""

    verdict: Verdict
    found: str
    remedy: str | None = None
    """What to do, with the exact command where there is one; None only if all is well."""

    def __post_init__(self) -> None:
        if (self.verdict is Verdict.OK) != (self.remedy is None):
            raise ValueError("a remedy goes with every verdict but ok")


Work: TypeAlias = Callable[[System], Finding]


@dataclass(frozen=True, slots=True)
class Check:
    """One look at one part of the machine.

    `work` may raise OSError or ProgramError, which stand for what could not be looked at.
    """

    name: str
    work: Work
    seconds: float = 4
    """How long it may take; after that the finding is `when_stuck`."""
    when_stuck: Verdict = Verdict.UNKNOWN


def ok(found: str) -> Finding:
    """All is well."""
    return Finding(Verdict.OK, found)


def warning(found: str, remedy: str) -> Finding:
    """It works, but should be better."""
    return Finding(Verdict.WARNING, found, remedy)


def problem(found: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(Verdict.PROBLEM, found, remedy)


def unknown(found: str, remedy: str) -> Finding:
    """It could not be found out; the remedy says how to."""
    return Finding(Verdict.UNKNOWN, found, remedy)


def together(complaints: Sequence[Finding], otherwise: Finding) -> Finding:
    """Several complaints as one finding, as bad as the worst of them; `otherwise` without any."""
    if not complaints:
        return otherwise
    return Finding(
        max((c.verdict for c in complaints), key=_SEVERITY.index),
        "; ".join(c.found for c in complaints),
        "; ".join(dict.fromkeys(c.remedy for c in complaints if c.remedy)),
    )
