"""The documentation is complete where that can be told, and a client is a client alone."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cupola import errors, wire

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "kind", [*wire._PLAIN.values(), *(kind for kind, _ in wire._OTHER.values())]
)
def test_every_message_is_described(kind: str) -> None:
    assert f"`{kind}`" in PROTOCOL


@pytest.mark.parametrize("code", sorted(errors._KINDS))
def test_every_error_is_described(code: str) -> None:
    assert f"`{code}`" in PROTOCOL


def test_a_plain_installation_is_a_client() -> None:
    requirements = importlib.metadata.requires("cupola") or []
    plain = {re.split(r"[^\w-]", line)[0] for line in requirements if "extra ==" not in line}
    daemon = {re.split(r"[^\w-]", line)[0] for line in requirements if 'extra == "daemon"' in line}
    assert plain == {"blake3", "cbor2", "protobuf", "rich", "trio"}
    assert {"pyfuse3", "pystemd"} <= daemon


def test_a_client_alone_says_what_the_daemon_lacks() -> None:
    start = "import sys; sys.modules['sdnotify'] = None; from cupolad.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", start], capture_output=True, text=True, check=False
    )
    assert done.stderr.startswith("cupolad: the module sdnotify is missing")
    assert done.stderr.count("\n") == 1


def test_every_module_of_the_daemon_is_on_the_map() -> None:
    daemon = ROOT / "daemon/cupolad"
    named = set(re.findall(r"`([a-z_/]+)`", (ROOT / "docs/architecture.md").read_text()))
    folders = {name.rstrip("/") for name in named if name.endswith("/")}
    files = {name.rpartition("/")[2] for name in named}
    missing = [
        str(path.relative_to(daemon))
        for path in daemon.rglob("*.py")
        if path.parent.name not in folders and path.stem not in files | {"__init__", "__main__"}
    ]
    assert missing == []
