"""The file layer: no symlink followed, no mount crossed, no depth too deep."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from cupolad.host import files


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    """An open directory."""
    with files.opened(files.open_directory(tmp_path)) as descriptor:
        yield descriptor


@pytest.mark.parametrize(
    "path", ["link/hostname", "a/link/hostname", "link", "../x", "a/../../x", "/etc/hostname"]
)
def test_no_way_out_of_a_directory(tmp_path: Path, top: int, path: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "a" / "link").symlink_to("/etc")
    with pytest.raises(OSError, match=r".") as caught:
        files.open_beneath(top, path.encode(), os.O_RDONLY)
    assert caught.value.errno in (errno.ELOOP, errno.EXDEV)


def test_open_beneath(tmp_path: Path, top: int) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_text("x")
    with files.opened(files.open_beneath(top, b"a/f", os.O_RDONLY)) as descriptor:
        assert os.read(descriptor, 5) == b"x"
        assert not os.get_inheritable(descriptor)
    with pytest.raises(FileNotFoundError):
        files.open_beneath(top, b"a/g", os.O_RDONLY)


def test_make_directories(tmp_path: Path, top: int) -> None:
    owner = (os.getuid(), os.getgid())
    before = os.umask(0o077)
    try:
        os.close(files.make_directories(top, b"a/b/c", 0o1777, *owner))
    finally:
        os.umask(before)
    assert (tmp_path / "a/b/c").stat().st_mode & 0o7777 == 0o1777
    (tmp_path / "a").chmod(0o700)
    os.close(files.make_directories(top, b"a/d", 0o755, *owner))
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o700
    (tmp_path / "link").symlink_to("/tmp")
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        files.make_directories(top, b"link/x", 0o755, *owner)


def test_write_new_file(tmp_path: Path, top: int) -> None:
    files.write_new_file(top, b"f", b"data" * 1000, 0o640)
    assert (tmp_path / "f").read_bytes() == b"data" * 1000
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o640
    (tmp_path / "dangling").symlink_to(tmp_path / "target")
    for taken in (b"f", b"dangling"):
        with pytest.raises(FileExistsError):
            files.write_new_file(top, taken, b"", 0o600)
    assert not (tmp_path / "target").exists()


def test_remove_what_is_absent_or_a_file(tmp_path: Path, top: int) -> None:
    files.remove_tree(top, b"absent")
    (tmp_path / "f").write_text("x")
    (tmp_path / "kept").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    files.remove_tree(top, b"f")
    files.remove_tree(top, b"link")
    assert os.listdir(tmp_path) == ["kept"]


def test_remove_a_tree(tmp_path: Path, top: int) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "f").write_text("x")
    tree = tmp_path / "tree"
    for branch in ("a", "b/c", "b/d/e", b"\xff\n-rf".decode("utf-8", "surrogateescape")):
        (tree / branch).mkdir(parents=True)
        (tree / branch / "file").write_text("x")
    (tree / "out").symlink_to(tmp_path / "kept")
    (tree / "b" / "f").symlink_to("/etc")
    os.mkfifo(tree / "fifo")
    os.chmod(tree / "a", 0)
    if os.getuid() != 0:
        os.chmod(tree / "a", 0o700)
    files.remove_tree(top, b"tree")
    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept" / "f").exists()


@pytest.mark.parametrize("depth", [1500, 20_000])
def test_no_tree_is_too_deep(tmp_path: Path, top: int, depth: int) -> None:
    """Within 100 descriptors and Python's usual recursion limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.mkdir(tmp_path / "tree")
    current = files.open_directory(tmp_path / "tree")
    for _ in range(depth):
        os.mkdir("d", dir_fd=current)
        below = os.open("d", files.DIRECTORY, dir_fd=current)
        os.close(current)
        current = below
    os.close(current)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        files.remove_tree(top, b"tree")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_write_at(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        files.write_at(file.fileno(), b"later", 5)
        files.write_at(file.fileno(), b"first", 0)
    assert (tmp_path / "f").read_bytes() == b"firstlater"


@pytest.mark.root
def test_a_mount_is_not_crossed(tmp_path: Path, top: int) -> None:
    """In a mount namespace of a child's own, so that nothing shows on the host."""
    (tmp_path / "tree" / "mnt").mkdir(parents=True)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            from cupolad.host import kernel, mounts

            mounts.enter_private_namespace()
            kernel.mount("none", str(tmp_path / "tree" / "mnt"), "tmpfs", 0)
            (tmp_path / "tree" / "mnt" / "precious").write_text("x")
            try:
                files.remove_tree(files.open_directory(tmp_path), b"tree")
            except OSError as error:
                intact = (tmp_path / "tree" / "mnt" / "precious").exists()
                status = 0 if intact and error.errno in (errno.EXDEV, errno.EBUSY) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_remove_tree_of_more_names_than_are_held_at_once(
    tmp_path: Path, top: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_NAMES_AT_ONCE", 3)
    for number in range(10):
        (tmp_path / "t" / f"d{number}" / "deep").mkdir(parents=True)
        (tmp_path / "t" / f"d{number}" / "deep" / "f").touch()
        (tmp_path / "t" / f"f{number}").touch()
    files.remove_tree(top, b"t")
    assert not (tmp_path / "t").exists()
