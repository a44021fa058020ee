"""Completions do in each shell what somebody who presses Tab expects."""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import completions
import pytest

from cupola.cli.parser import make_parser

# Each takes the file with the completion and a command line whose last word is unfinished, and
# prints what that can become.
_BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
entry=$(complete -p "$1"); entry=${entry#*-F }
"${entry%% *}" 2> /dev/null
printf '<%s>\\n' "${COMPREPLY[@]}"
"""
_FISH = """
source $argv[1]
for found in (complete -C "$argv[2..]"); echo "<$found>"; end
"""
# zsh completes for a terminal alone: another one runs behind such, and shows what it would add.
_ZSH = r"""
zmodload zsh/zpty
file=$1; shift
zpty shell zsh -f -i
zpty -w shell "PS1=; stty -echo; fpath=(${file:h} \$fpath); autoload -Uz compinit; compinit -u -D"
zpty -w shell 'compadd() {
    local -a found; builtin compadd -O found "$@"; print -l -- "<"${^found}">"
    builtin compadd "$@"
}'
zpty -w shell 'show() { _main_complete; compstate[insert]=; compstate[list]=; print "EN""D" }'
zpty -w shell 'zle -C show complete-word show; bindkey "^I" show; print "READ""Y"'
zpty -r shell seen '*READY*'
zpty -w -n shell "$*"$'\t'
zpty -r shell seen '*END*'
print -r -- $seen
"""
_SHELLS = {
    "bash": ["bash", "--norc", "-c", _BASH, "bash"],
    "fish": ["fish", "--no-config", "-c", _FISH],
    "zsh": ["zsh", "-f", "-c", _ZSH, "zsh"],
}
_NAMES = {"bash": "{}", "fish": "{}.fish", "zsh": "_{}"}


class Tab:
    """The Tab key of a shell, in a directory with some files."""

    def __init__(self, shell: str, directory: Path) -> None:
        self._shell, self._directory = shell, directory
        (directory / "request.toml").touch()
        (directory / "result").mkdir()
        (directory / "completions").mkdir()

    def press(self, line: str) -> set[str]:
        """What the last word of the line can become."""
        words = line.split(" ")
        file = self._directory / "completions" / _NAMES[self._shell].format(words[0])
        file.write_text(completions.script(words[0], self._shell))
        done = subprocess.run(
            [*_SHELLS[self._shell], file, *words],
            cwd=self._directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        found = re.findall(r"<([^<>\t]*)[^<>]*>", done.stdout)
        return {word.rstrip("/") for words in found for word in words.split()}


@pytest.fixture(params=_SHELLS)
def tab(request: pytest.FixtureRequest, tmp_path: Path) -> Tab:
    return Tab(request.param, tmp_path)


def _options(parser: argparse.ArgumentParser) -> set[str]:
    return {name for action in parser._actions for name in action.option_strings if "--" in name}


def _commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in make_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def test_commands(tab: Tab) -> None:
    assert tab.press("cupola ") >= {name for name, _ in _commands()}
    assert tab.press("cupola im") == {"import"}


def test_options_of_every_command(tab: Tab) -> None:
    assert tab.press("cupola --") == _options(make_parser())
    assert tab.press("cupolad --") == _options(completions.PARSERS["cupolad"]())
    for name, parser in _commands():
        assert tab.press(f"cupola {name} --") == _options(parser)


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("cupola build re", {"request.toml", "result"}),
        ("cupola --socket re", {"request.toml", "result"}),
        ("cupola build --json req", {"request.toml"}),
        ("cupola build --out re", {"result"}),
        ("cupola import re", {"request.toml", "result"}),
        ("cupola export re", set()),
        ("cupola export NODE re", {"request.toml", "result"}),
        ("cupola ls NODE re", set()),
        ("cupolad --state-dir re", {"result"}),
        ("cupolad --config req", {"request.toml"}),
    ],
)
def test_files_where_files_are_meant(tab: Tab, line: str, becomes: set[str]) -> None:
    assert tab.press(line) == becomes
