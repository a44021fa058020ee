"""What `make install` does to files that are there already."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from deploy import NothingInstalledError, Target
from places import Places

PLACES = Places(
    bin=Path("/p/bin"),
    lib=Path("/p/lib"),
    share=Path("/p/share"),
    units=Path("/p/lib/systemd/system"),
    zsh=Path("/p/share/zsh"),
)
CONFIG = "etc/cupola/cupolad.toml"


def stage(directory: Path, files: dict[str, str]) -> Path:
    """A stage with these files, and an environment."""
    for name, content in {"p/lib/cupola/lib/module.py": "", **files}.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return directory


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tmp_path / "root", PLACES)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def test_a_later_version_takes_away_what_it_has_no_more(
    target: Target, root: Path, tmp_path: Path
) -> None:
    target.put(stage(tmp_path / "1", {"p/bin/old": "1", "p/bin/both": "1"}))
    target.put(stage(tmp_path / "2", {"p/bin/new": "2", "p/bin/both": "2"}))
    assert sorted(file.name for file in (root / "p/bin").iterdir()) == ["both", "new"]
    assert (root / "p/bin/both").read_text() == "2"
    target.remove()
    assert list(root.iterdir()) == []


def test_directories_of_an_earlier_version_go_with_the_later_one(
    target: Target, root: Path, tmp_path: Path
) -> None:
    target.put(stage(tmp_path / "1", {"p/share/old/file": ""}))
    target.put(stage(tmp_path / "2", {}))
    target.remove()
    assert list(root.iterdir()) == []


def test_a_directory_with_a_file_of_somebody_else_stays(
    target: Target, root: Path, tmp_path: Path
) -> None:
    target.put(stage(tmp_path / "1", {"p/share/man/page": ""}))
    (root / "p/share/man/other").touch()
    target.remove()
    assert [path.name for path in (root / "p/share/man").iterdir()] == ["other"]


def test_a_program_that_runs_is_not_written_into(
    target: Target, root: Path, tmp_path: Path
) -> None:
    target.put(stage(tmp_path / "1", {"p/bin/program": "1"}))
    with (root / "p/bin/program").open() as running:
        target.put(stage(tmp_path / "2", {"p/bin/program": "2"}))
        assert running.read() == "1"


def test_symlinks_and_modes_are_kept(target: Target, root: Path, tmp_path: Path) -> None:
    made = stage(tmp_path / "1", {"p/bin/program": ""})
    (made / "p/bin/program").chmod(0o755)
    (made / "p/bin/link").symlink_to("program")
    (made / "p/lib64").symlink_to("lib")
    target.put(made)
    assert os.readlink(root / "p/bin/link") == "program"
    assert os.readlink(root / "p/lib64") == "lib"
    assert stat.S_IMODE((root / "p/bin/program").stat().st_mode) == 0o755
    target.put(made)
    target.remove()
    assert list(root.iterdir()) == []


def test_a_default_configuration_is_renewed(target: Target, root: Path, tmp_path: Path) -> None:
    target.put(stage(tmp_path / "1", {CONFIG: "# 1\n"}))
    target.put(stage(tmp_path / "2", {CONFIG: "# 2\n"}))
    assert (root / CONFIG).read_text() == "# 2\n"
    target.remove()
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("first", [True, False], ids=["changed", "older"])
def test_a_configuration_of_the_administrator_is_never_touched(
    target: Target,
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    first: bool,
) -> None:
    if first:
        target.put(stage(tmp_path / "1", {CONFIG: "# 1\n"}))
    (root / CONFIG).parent.mkdir(parents=True, exist_ok=True)
    (root / CONFIG).write_text("mine\n")
    target.put(stage(tmp_path / "2", {CONFIG: "# 2\n"}))
    assert f"{root / CONFIG} is kept as it is" in capsys.readouterr().out
    target.remove()
    assert [path.name for path in root.iterdir()] == ["etc"]
    assert (root / CONFIG).read_text() == "mine\n"


def test_removing_twice_fails(target: Target, tmp_path: Path) -> None:
    target.put(stage(tmp_path / "1", {}))
    target.remove()
    with pytest.raises(NothingInstalledError, match="nothing is installed in"):
        target.remove()
