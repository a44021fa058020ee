"""`cupola doctor`: shows what keeps cupola from working on this machine, and what to do."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any, Final

from cupola.connection import socket_path
from cupola.doctor import Findings, System, Verdict, diagnose
from cupola.notation import printable, text_to_bytes

EXIT_PROBLEM: Final = 1

_STDOUT: Final = 1

_STYLES: Final = {
    Verdict.OK: "green",
    Verdict.UNKNOWN: "cyan",
    Verdict.WARNING: "yellow",
    Verdict.PROBLEM: "bold red",
}


def run(options: argparse.Namespace) -> int:
    """Make all checks and show their findings; `EXIT_PROBLEM` if one is a problem. Blocks."""
    findings = diagnose(System(socket=socket_path(options.socket)))
    healthy = all(finding.verdict is not Verdict.PROBLEM for finding in findings.values())
    if options.json:
        print(json.dumps(_as_json(findings, healthy=healthy)))
    elif os.isatty(_STDOUT):
        _show(findings)
    else:
        _print(findings)
    print(end="", flush=True)
    return 0 if healthy else EXIT_PROBLEM


def _as_json(findings: Findings, *, healthy: bool) -> dict[str, Any]:
    return {
        "healthy": healthy,
        "findings": [
            {"check": name, "verdict": f.verdict, "found": f.found, "remedy": f.remedy}
            for name, f in findings.items()
        ],
    }


def _print(findings: Findings) -> None:
    """As plain lines."""
    for name, finding in findings.items():
        print(f"{finding.verdict:8} {name}: {_clean(finding.found)}")
        if finding.remedy is not None:
            print(f"{'':8} remedy: {_clean(finding.remedy)}")
    print(_summary(findings))


def _show(findings: Findings) -> None:
    """As a table on a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, finding in findings.items():
        text = Text(_clean(finding.found))
        if finding.remedy is not None:
            text.append(f"\nremedy: {_clean(finding.remedy)}", "bold")
        table.add_row(Text(finding.verdict, _STYLES[finding.verdict]), Text(name), text)
    console = Console()
    console.print(table)
    console.print(Text(_summary(findings), _STYLES[_worst(findings)]))


def _worst(findings: Findings) -> Verdict:
    severity = list(Verdict)
    return max((f.verdict for f in findings.values()), key=severity.index)


def _summary(findings: Findings) -> str:
    """How many findings of each kind there are, but for good ones."""
    counts = []
    for verdict, one, several in (
        (Verdict.PROBLEM, "problem", "problems"),
        (Verdict.WARNING, "warning", "warnings"),
        (Verdict.UNKNOWN, "unknown", "unknown"),
    ):
        count = sum(finding.verdict is verdict for finding in findings.values())
        if count:
            counts.append(f"{count} {one if count == 1 else several}")
    return ", ".join(counts) or "nothing is wrong"


def _clean(text: str) -> str:
    """Text of other programs and of file names, safe for a terminal."""
    return printable(text_to_bytes(text))
