"""What the README shows works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import User
from cupolad.testing import PrivateDaemon

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def _block(language: str) -> str:
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return str(block)


def test_request_file(daemon: PrivateDaemon, nobody: User) -> None:
    (nobody.home / "hello.toml").write_text(_block("toml"))
    (nobody.home / "names.txt").write_text("b\na\n")
    done = nobody.run(daemon, "build", "hello.toml", "--out", "result")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"f:[0-9a-f]{64}:4\n", done.stdout)
    assert (nobody.home / "result" / "sorted.txt").read_text() == "a\nb\n"


def test_python(daemon: PrivateDaemon, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("b\na\n")
    environment = {**os.environ, "CUPOLA_SOCKET": str(daemon.socket)}
    subprocess.run(
        [sys.executable, "-c", _block("python")], cwd=tmp_path, env=environment, check=True
    )
    assert (tmp_path / "sorted.txt").read_text() == "a\nb\n"
