"""Completions for shells, from the parsers of the commands themselves."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import shtab

from cupola.cli.parser import make_parser
from cupolad import cli

PARSERS: Final = {"cupola": make_parser, "cupolad": cli._parser}
"""The commands."""


def script(command: str, shell: str) -> str:
    """The completion of a command for `bash`, `zsh` or `fish`."""
    parser = PARSERS[command]()
    for action in _actions(parser):
        if action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.type is Path or action.metavar == "FILE":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(parser, shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every option and argument, of the commands below, too, which get short descriptions."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action._choices_actions:
                # A menu has room for the summary.
                action.choices[command.dest].description = command.help
                yield from _actions(action.choices[command.dest])
        else:
            yield action
