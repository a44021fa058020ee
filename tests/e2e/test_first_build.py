"""One build, end to end, as an unprivileged user sees it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import reference
from conftest import User
from cupolad.testing import PrivateDaemon

INPUT = "1vs4dqgd5gvwkbmzxzzpi3vibrvm3nd2-greeting"
LIB = "0c5b8vw40dy178xlpddw65q9gf1h2186-lib"
APP = "9gzvmgbr2jnj8cmn6hwyrfipi8n8a1qm-app"

REQUEST = f"""
command_args = ["/bin/sh", "-euc", '''
    mkdir -p /nix/store/{LIB}/share
    cp /nix/store/{INPUT}/hello /nix/store/{LIB}/share/
    chmod 755 /nix/store/{LIB}/share/hello
    echo "cat /nix/store/{LIB}/share/hello # /nix/store/{INPUT}" > /nix/store/{APP}
    echo building >&2
''']
scratch_paths = ["build", "nix/store"]
inputs_dir = "nix/store"
outputs = ["nix/store/{LIB}", "nix/store/{APP}"]
refscan_needles = ["{LIB[:32]}", "{APP[:32]}", "{INPUT[:32]}", "00000000000000000000000000000000"]

[inputs]
{INPUT} = {{ path = "greeting" }}

[environment_vars]
PATH = "/bin"

[constraints]
provide_bin_sh = true
"""


@pytest.fixture
def source(open_tmp: Path) -> Path:
    """A directory with a file, a link and an executable."""
    tree = open_tmp / "greeting"
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "hello").write_text("hello, world\n")
    (tree / "deep" / "run").write_text("#!/bin/sh\n")
    (tree / "deep" / "run").chmod(0o755)
    (tree / "deep" / "er" / "link").symlink_to("../../../outside")
    (tree / "empty").mkdir()
    (open_tmp / "request.toml").write_text(REQUEST)
    return tree


def test_import_build_export(daemon: PrivateDaemon, nobody: User, source: Path) -> None:
    home = source.parent
    imported = nobody.run(daemon, "import", source)
    assert imported.returncode == 0, imported
    assert imported.stdout == reference.text_of(source) + "\n"

    built = nobody.json(daemon, "build", home / "request.toml", "--out", home / "result")
    assert built["status"] == "built"
    assert [output["path"] for output in built["outputs"]] == [
        f"nix/store/{LIB}",
        f"nix/store/{APP}",
    ]
    assert [output["needles"] for output in built["outputs"]] == [[], [0, 2]]
    assert built["usage"]["wall_us"] > 0
    assert built["times"]["queued"] <= built["times"]["started"] <= built["times"]["finished"]

    nodes = [_text(output["node"]) for output in built["outputs"]]
    assert nodes == [reference.text_of(home / "result" / name) for name in (LIB, APP)]
    assert os.access(home / "result" / LIB / "share" / "hello", os.X_OK)
    assert not os.access(home / "result" / APP, os.X_OK)
    assert (home / "result" / LIB / "share" / "hello").stat().st_uid == nobody.uid

    again = home / "again"
    assert nobody.run(daemon, "export", imported.stdout.strip(), again).returncode == 0
    assert (
        subprocess.run(["diff", "-r", "--no-dereference", source, again], check=False).returncode
        == 0
    )
    assert reference.text_of(again) == reference.text_of(source)


def _text(node: dict[str, str | int | bool]) -> str:
    kind = {"directory": "d", "file": "x" if node.get("executable") else "f"}[str(node["type"])]
    return f"{kind}:{node['digest']}:{node['size']}"


def test_what_is_printed_can_be_piped(daemon: PrivateDaemon, nobody: User, source: Path) -> None:
    built = nobody.run(daemon, "build", "request.toml")
    assert built.returncode == 0, built
    lib, app = built.stdout.splitlines()
    assert "building" in built.stderr
    assert f"refers to {LIB[:32]}, {INPUT[:32]}" in built.stderr
    assert nobody.run(daemon, "ls", lib, "share").stdout.endswith("\thello\n")
    assert nobody.run(daemon, "cat", lib, "share/hello").stdout == "hello, world\n"
    assert nobody.run(daemon, "cat", app).stdout.startswith("cat /nix/store/")
    log = built.stderr.rpartition("cupola cat ")[2].strip()
    assert nobody.run(daemon, "cat", log).stdout == "building\n"


def test_the_request_from_standard_input(daemon: PrivateDaemon, nobody: User, source: Path) -> None:
    assert nobody.run(daemon, "build", "-", stdin=REQUEST).returncode == 0


def test_the_second_import_sends_nothing(daemon: PrivateDaemon, nobody: User, source: Path) -> None:
    first = nobody.run(daemon, "import", source).stdout
    before = nobody.json(daemon, "status")
    assert nobody.run(daemon, "import", source).stdout == first
    after = nobody.json(daemon, "status")
    assert after["store_bytes"] == before["store_bytes"]
