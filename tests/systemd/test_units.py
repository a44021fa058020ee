"""The units themselves, without a machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from installed import UNITS, verify

pytestmark = pytest.mark.root


def test_verify(tmp_path: Path) -> None:
    """Nothing is said of any unit, with commands that exist in place of those installed later."""
    units = []
    for unit in sorted(UNITS.glob("cupola*.[st][eloi]*")):
        text = unit.read_text().replace("/usr/bin/cupolad", "/bin/true")
        (tmp_path / unit.name).write_text(text)
        units.append(tmp_path / unit.name)
    assert {unit.suffix for unit in units} >= {".service", ".socket", ".slice"}
    done = verify(*units)
    assert (done.returncode, done.stderr) == (0, "")


def test_verify_can_fail(tmp_path: Path) -> None:
    unit = tmp_path / "cupolad.service"
    shutil.copy(UNITS / "cupolad.service", unit)
    unit.write_text(unit.read_text() + "\n[Service]\nNoSuchKey=1\n")
    assert verify(unit).returncode != 0
