"""The copyright file of the Debian package: whose the packages in the environment are."""

from __future__ import annotations

from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import Final

_COMMON: Final = {
    "GNU LESSER GENERAL PUBLIC LICENSE": "LGPL-2.1",
    "Apache License": "Apache-2.0",
    "CC0 1.0 Universal": "CC0-1.0",
}
"""How a text begins that every Debian system has, and its name there."""

_BEGINNING: Final = 200


def gather(head: str, packages: Path) -> str:
    """`head`, then each package in the directory; their files with licenses are removed."""
    parts = [head]
    for information in sorted(packages.glob("*.dist-info")):
        metadata = Parser().parsestr((information / "METADATA").read_text())
        title = f"{metadata['Name']} {metadata['Version']}"
        if title.startswith("cupola "):
            continue
        parts.append(f"\n{title}\n{'-' * len(title)}\n")
        terms = metadata["License-Expression"] or metadata["License"]
        if terms is not None and "\n" not in terms:
            parts.append(f"License: {terms}\n")
        if author := metadata["Author-email"] or metadata["Author"]:
            parts.append(f"Author: {author}\n")
        for file in list(_license_files(information)):
            parts.append(f"\n{_shortened(file.read_text().strip())}\n")
            file.unlink()
            if not any(file.parent.iterdir()):
                file.parent.rmdir()
    return "".join(parts)


def _license_files(information: Path) -> Iterator[Path]:
    for file in sorted(information.rglob("*")):
        if file.is_file() and file.name.upper().startswith(("LICENSE", "LICENCE", "COPYING")):
            yield file


def _shortened(text: str) -> str:
    """The text, or where it is."""
    for beginning, name in _COMMON.items():
        if beginning in text[:_BEGINNING]:
            return f"{beginning}: /usr/share/common-licenses/{name}"
    return text
