"""`make install` and `make uninstall`: what lies where, that it works, and that it goes again."""

from __future__ import annotations

import marshal
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest
from guest import PROJECT
from installed import MEMBER, UNITS, VERIFY
from machine import Machine
from made import make

from cupolad import config
from cupolad.config import Config

ENVIRONMENT = Path("usr/local/lib/cupola")
OTHERS = ("usr/local/bin/another", "etc/another.conf")
"""Files that were there before, and are somebody else's."""


def snapshot(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below, with its mode and its contents."""
    found = {}
    for path in sorted(directory.rglob("*")):
        content = b""
        if path.is_symlink():
            content = os.fsencode(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(directory))] = path.lstat().st_mode, content
    return found


def files(directory: Path) -> Iterator[Path]:
    """All regular files below."""
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file system that has something already."""
    root = tmp_path_factory.mktemp("before")
    for name in OTHERS:
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("of somebody else\n")
    return root


@pytest.fixture(scope="module")
def tree(before: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same file system after `make install`."""
    root = tmp_path_factory.mktemp("tree") / "root"
    shutil.copytree(before, root)
    root.chmod(0o755)
    make("install", f"DESTDIR={root}", umask=0o077)
    return root


@pytest.fixture
def copy(tree: Path, tmp_path: Path) -> Path:
    """A copy of that, to change."""
    shutil.copytree(tree, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def test_nothing_knows_where_it_was_made(tree: Path) -> None:
    names = [os.fsencode(tree), b"cupola-install-", b"cupola-wheel-"]
    names += [os.fsencode(PROJECT / name) for name in ("build", "client", "daemon", ".venv")]
    for path in files(tree):
        content = path.read_bytes()
        assert not [name for name in names if name in content], path
    for path in tree.rglob("*"):
        if path.is_symlink():
            assert not os.fspath(path.readlink()).startswith(str(tree)), path


def test_everybody_may_read_it_and_root_alone_may_change_it(tree: Path) -> None:
    for path in tree.rglob("*"):
        if not path.is_symlink() and path.relative_to(tree).as_posix() not in OTHERS:
            wanted = 0o755 if path.is_dir() or path.parent.name == "bin" else 0o644
            assert path.stat().st_mode & 0o7777 == wanted, path


def test_packages_are_the_pinned_ones_and_those_to_run(tree: Path) -> None:
    lines = (PROJECT / ".ci/constraints.txt").read_text().lower().replace("_", "-").split()
    pinned = dict(line.split("==") for line in lines)
    (packages,) = (tree / ENVIRONMENT / "lib").glob("python3*/site-packages")
    found = {}
    for path in packages.glob("*.dist-info"):
        name, version = path.name.removesuffix(".dist-info").rsplit("-", 1)
        found[name.lower().replace("_", "-")] = version
    del found["cupola"]
    assert {name: pinned[name] for name in found} == found
    table = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = table["optional-dependencies"]
    names = {
        kind: {re.split(r"[^\w-]", line)[0] for line in requirements}
        for kind, requirements in {**extras, "client": table["dependencies"]}.items()
    }
    assert names["client"] | names["daemon"] <= set(found)
    assert not (names["dev"] | {"pip", "setuptools"}) & set(found)


def test_every_module_loads_there(tree: Path) -> None:
    load = (
        "import importlib, pkgutil, cupola, cupolad\n"
        "for package in (cupola, cupolad):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not module.name.endswith('__main__'): importlib.import_module(module.name)\n"
        "import lxml.etree, psutil, pystemd.systemd1, rich.live\n"
        "print(cupola.__file__, cupolad.__file__)\n"
    )
    python = tree / ENVIRONMENT / "bin/python3"
    done = subprocess.run([python, "-Ic", load], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(tree / ENVIRONMENT)) == 2


def test_modules_are_compiled_and_fresh(tree: Path) -> None:
    sources = [path for path in files(tree / ENVIRONMENT) if path.suffix == ".py"]
    assert len(sources) > 500
    for source in sources:
        (compiled,) = (source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc")
        content = compiled.read_bytes()
        flags, mtime, size = (int.from_bytes(content[i : i + 4], "little") for i in (4, 8, 12))
        status = source.stat()
        assert (flags, mtime, size) == (0, int(status.st_mtime), status.st_size), source
    code = marshal.loads(content[16:])
    assert isinstance(code, CodeType)
    assert code.co_filename == f"/{source.relative_to(tree)}"


def test_units_start_what_was_installed(tree: Path) -> None:
    units = tree / "usr/local/lib/systemd/system"
    names = {unit.name for unit in UNITS.glob("cupola*.*") if unit.suffix != ".catalog"}
    assert {unit.name for unit in units.iterdir()} == names
    for unit in units.iterdir():
        assert "/usr/bin/cupola" not in unit.read_text()
    assert "\nExecStart=/usr/local/bin/cupolad\n" in (units / "cupolad.service").read_text()
    assert (tree / "usr/local/bin/cupolad").resolve() == tree / ENVIRONMENT / "bin/cupolad"


def test_the_example_configuration_has_every_key_with_its_default(
    tree: Path, tmp_path: Path
) -> None:
    example = (tree / "etc/cupola/cupolad.toml").read_text()
    assert config.load(tree / "etc/cupola/cupolad.toml") == Config()
    everything = re.sub(r"^#(?! |$)", "", example, flags=re.MULTILINE)
    (tmp_path / "cupolad.toml").write_text(everything)
    loaded = config.load(tmp_path / "cupolad.toml")
    described = {name: (value, meaning) for name, value, _, meaning in loaded.describe()}
    assert set(loaded.origins) == set(described)
    depend = set()
    for comment, key in re.findall(r"((?:^# .*\n)+)#(\w+) = ", example, re.MULTILINE):
        (name,) = [
            name
            for name, (_, meaning) in described.items()
            if name.endswith(f".{key}") and f"# {meaning}\n" in comment
        ]
        if "(depends on the machine;" in comment:
            depend.add(name)
    assert depend == {
        "scheduler.max_builds", "sandbox.tmp_bytes", "sandbox.shm_bytes", "limits.memory",
    }  # fmt: skip
    for name, value, _, _ in Config().describe():
        assert name in depend or described[name][0] == value, name


@pytest.mark.root
@pytest.mark.fuse
@pytest.mark.runc
def test_it_serves_from_there(tree: Path) -> None:
    with Machine() as machine:
        shutil.copytree(tree, machine.root, symlinks=True, dirs_exist_ok=True)
        for command in ("systemd-sysusers", "systemd-tmpfiles --create cupola.conf"):
            machine.check(*command.split())
        machine.check("useradd", "--no-create-home", f"--uid={MEMBER}", "--groups=cupola", "member")
        machine.check("systemctl", "daemon-reload")
        machine.check("systemctl", "enable", "--now", "cupolad.socket")
        units = (tree / "usr/local/lib/systemd/system").iterdir()
        said = machine.run(
            *VERIFY, *(f"/usr/local/lib/systemd/system/{unit.name}" for unit in units)
        )
        assert (said.returncode, said.stderr) == (0, "")
        request = """
            command_args = ["/bin/sh", "-c", "echo installed > out"]
            outputs = ["build/out"]
            constraints.provide_bin_sh = true
        """
        node = machine.check("/usr/local/bin/cupola", "build", "-", user=MEMBER, stdin=request)
        said = machine.run("/usr/local/bin/cupola", "cat", node.strip(), user=MEMBER)
        assert said.stdout == "installed\n"


def test_uninstall_leaves_what_was_there_before(before: Path, copy: Path) -> None:
    assert snapshot(copy) != snapshot(before)
    make("uninstall", f"DESTDIR={copy}")
    assert snapshot(copy) == snapshot(before)


def test_uninstall_removes_what_python_has_compiled_since(before: Path, copy: Path) -> None:
    cache = next((copy / ENVIRONMENT).rglob("__pycache__"))
    (cache / "new.cpython-399.pyc").touch()
    make("uninstall", f"DESTDIR={copy}")
    assert snapshot(copy) == snapshot(before)


def test_uninstall_keeps_a_changed_configuration(before: Path, copy: Path) -> None:
    changed = copy / "etc/cupola/cupolad.toml"
    changed.write_text("[daemon]\ndrain = 1\n")
    (copy / "etc/cupola/cupolad.toml.d/mine.toml").write_text("")
    make("uninstall", f"DESTDIR={copy}")
    kept = set(snapshot(copy)) - set(snapshot(before))
    assert kept == {
        "etc/cupola", "etc/cupola/cupolad.toml", "etc/cupola/cupolad.toml.d",
        "etc/cupola/cupolad.toml.d/mine.toml",
    }  # fmt: skip


def test_uninstall_of_nothing_fails(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        make("uninstall", f"DESTDIR={tmp_path}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prefix", ["usr", "/with space", "/per%cent", "/up/..", "/" + "x" * 120])
def test_a_prefix_that_cannot_work_is_refused(prefix: str, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        make("install", f"DESTDIR={tmp_path}/root", f"PREFIX={prefix}")
    assert list(tmp_path.iterdir()) == []
