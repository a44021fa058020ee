"""Linters are tests, and so are the rules of the house that no linter knows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("client/**/*.py"), *ROOT.glob("daemon/**/*.py")])
TRACKED = subprocess.run(
    ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files"],
    capture_output=True,
    text=True,
    check=True,
).stdout.splitlines()

MAX_LINES = 340


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["lint-imports", "--no-logo"],
    ],
    ids=" ".join,
)
def test_linters(command: list[str]) -> None:
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run(
        [str(program), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_are_small_and_say_what_they_own(file: Path) -> None:
    text = file.read_text()
    assert text.count("\n") <= MAX_LINES
    assert text.startswith('"""')
    assert len(text.partition('"""')[2].partition('"""')[0].splitlines()) <= 32


def test_no_module_is_called_like_another_or_like_a_drawer() -> None:
    names = {file.stem for file in SOURCES}
    assert not names & {"utils", "util", "common", "helpers", "misc", "base"}
    allowed = {"__init__", "__main__"}
    assert not names & (sys.stdlib_module_names - allowed)


def test_top_level() -> None:
    allowed = {
        "client", "daemon", "systemd", "tests", "docs", "benchmarks", ".ci", "pyproject.toml",
        "README.md", "Makefile", "LICENSE", "CHANGELOG.md", "SECURITY.md",
    }  # fmt: skip
    top = {path.partition("/")[0] for path in TRACKED}
    assert {name for name in top if not name.startswith(".")} <= allowed


def test_the_repository_names_no_host_of_a_registry() -> None:
    words = [
        "".join(parts)
        for parts in (
            ("pypi", r"\.org"),
            ("pythonhosted", r"\.org"),
            ("deb\\.debian", r"\.org"),
            ("crates", r"\.io"),
        )
    ]
    pattern = re.compile("|".join(words), re.IGNORECASE)
    for path in TRACKED:
        file = ROOT / path
        if file.is_file() and file.suffix not in {".bin", ".cbor"}:
            found = pattern.search(file.read_text(errors="replace"))
            assert found is None, f"{path}: {found}"
