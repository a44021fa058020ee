"""The man pages say everything that there is, and nothing that there is not."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from pathlib import Path

import pytest
from completions import PARSERS

from cupola import errors, wire
from cupola.cli import failure, requestfile
from cupolad import cli
from cupolad.config import Config

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/man").iterdir())


def text(name: str) -> str:
    """The source of a page."""
    return (ROOT / "docs/man" / name).read_text()


def parts(page: str, macro: str) -> dict[str, str]:
    """A page's sections (`Sh`) or subsections (`Ss`) by title."""
    found = re.split(rf"^\.{macro} (.*)\n", page, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def items(page: str, macro: str) -> list[str]:
    """The words of each list item that begins with a macro, such as `Fl`; one for each name."""
    lines = re.findall(rf"^\.It {macro} (.*)$", page, re.MULTILINE)
    return [word for line in lines for word in line.split(" , ")]


def options(page: str) -> set[str]:
    """The options that a part of a page describes, with their arguments: `--out DIR`, `-q`."""
    found = set()
    for item in items(page, "Fl"):
        name, _, argument = item.partition(" Ar ")
        found.add(f"-{name} {argument}".strip())
    return found


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """The options that a parser takes, in the same manner; for short ones the argument is left out."""
    return {
        f"{name} {action.metavar or ''}".strip() if name.startswith("--") else name
        for action in parser._actions
        for name in action.option_strings
    }


def commands() -> dict[str, argparse.ArgumentParser]:
    """Each command of `cupola` with its parser."""
    for action in PARSERS["cupola"]()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("cupola has commands")


def names(page: str, macro: str) -> set[str]:
    """The words in lower case of all lines and list items that begin with a macro."""
    lines = re.findall(rf"^\.(?:It )?{macro} (.*)$", page, re.MULTILINE)
    return set(re.findall("[a-z_]+", " ".join(lines)))


def synopsis(part: str) -> list[str]:
    """The words of a command's synopsis: `Op Fl -json` as `[--json]`, `Ar FILE` as `FILE`."""
    words = []
    for line in part.split("\n.Pp\n")[0].splitlines():
        plain = re.sub(r"\bFl ", "-", line).replace("Ar ", "").removeprefix(".")
        words.append(f"[{plain[3:]}]" if plain.startswith("Op ") else plain)
    return words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_well_formed(page: Path) -> None:
    lint = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True, check=False
    )
    assert (lint.returncode, lint.stdout) == (0, "")
    shown = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page],
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (shown.returncode, shown.stderr) == (0, "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_called_what_it_says_and_names_only_pages_of_ours_that_exist(page: Path) -> None:
    source = page.read_text()
    name, _, section = page.name.rpartition(".")
    assert f"\n.Dt {name.upper()} {section}\n" in source
    assert f"\n.Sh NAME\n.Nm {name}\n" in source
    ours = {tuple(other.name.rpartition(".")[::2]) for other in PAGES}
    for reference in re.findall(r"^\.Xr (\S+) (\d)", source, re.MULTILINE):
        assert reference in ours or not reference[0].startswith("cupola"), reference


# --- cupola(1) -----------------------------------------------------------------------------------


def test_every_command_with_its_options_and_arguments() -> None:
    described = parts(parts(text("cupola.1"), "Sh")["COMMANDS"], "Ss")
    actual = commands()
    assert set(described) == set(actual)
    for name, parser in actual.items():
        part = described[name]
        assert options(part) == options_of(parser) - {"--help", "-h"}, name
        wanted = [f"Cm {name}"]
        for action in sorted(parser._actions, key=lambda action: not action.option_strings):
            if "--help" in action.option_strings:
                continue
            word = " ".join([*action.option_strings[:1], *filter(None, [action.metavar])])
            wanted.append(word if action.required else f"[{word}]")
        assert synopsis(part) == wanted, name


def test_options_of_cupola() -> None:
    part = parts(text("cupola.1"), "Sh")["OPTIONS"]
    assert options(part) == options_of(PARSERS["cupola"]())


def test_every_field_of_a_request() -> None:
    described = items(parts(text("cupola.1"), "Sh")["REQUEST FILES"], "Ic")
    fields = requestfile._FIELDS - {"constraints"}
    constraints = {f"constraints.{name}" for name in requestfile._CONSTRAINTS}
    assert sorted(described) == sorted(fields | constraints)


def test_every_exit_status_of_cupola() -> None:
    part = parts(text("cupola.1"), "Sh")["EXIT STATUS"]
    described = {int(number) for number in re.findall(r"^\.It (\d+)$", part, re.MULTILINE)}
    of_errors = {*failure._EXIT.values(), failure._EXIT_BUILD, failure.EXIT_BROKEN_PIPE}
    assert described == {0, 1, *of_errors}


# --- cupolad(8), cupolad.toml(5) -----------------------------------------------------------------


def test_options_of_cupolad() -> None:
    page = parts(text("cupolad.8"), "Sh")
    described = options(page["OPTIONS"])
    actual = options_of(PARSERS["cupolad"]())
    assert described == actual
    in_synopsis = set(re.findall(r" (-[a-z-]+)", page["SYNOPSIS"]))
    assert {f"-{name}" for name in in_synopsis} == {
        option.split()[0] for option in described if option.startswith("--")
    }


def test_every_exit_status_of_cupolad() -> None:
    part = parts(text("cupolad.8"), "Sh")["EXIT STATUS"]
    described = {int(number) for number in re.findall(r"^\.It (\d+)$", part, re.MULTILINE)}
    assert described == {0, 2, cli._EXIT_UNAVAILABLE, cli._EXIT_CONFIG}


def test_every_key_of_the_configuration_with_its_default() -> None:
    described = {}
    for title, part in parts(text("cupolad.toml.5"), "Sh").items():
        if section := re.fullmatch(r"\[([A-Z]+)\] SECTION", title):
            for item in items(part, "Ic"):
                key, _, default = item.partition(" Pq ")
                described[f"{section[1].lower()}.{key}"] = default
    actual = {name: value for name, value, _, _ in Config().describe()}
    assert set(described) == set(actual)
    for name, value in actual.items():
        default = re.sub("^(Qq|Li) ", "", described[name])
        if default == "one for each processor" or default.endswith(" of the memory"):
            continue
        if name == "sandbox.systems":
            assert all(f"Li {system}" in described[name] for system in value)
        elif isinstance(value, tuple):
            assert (default, value) == ("[]", ())
        else:
            assert default == (f"{value:g}" if isinstance(value, float) else str(value)), name


# --- cupola-protocol(7) --------------------------------------------------------------------------


def test_every_message() -> None:
    part = parts(text("cupola-protocol.7"), "Sh")["ORDER"]
    assert names(part, "Ic") == {*wire._PLAIN.values(), *(kind for kind, _ in wire._OTHER.values())}


def test_every_error() -> None:
    part = parts(text("cupola-protocol.7"), "Sh")["ERROR CODES"]
    assert names(part, "Er") == set(errors._KINDS)
