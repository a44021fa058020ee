"""The first step: a build's directories and files on the host, made from nothing and removed whole.

Owns what `layout.py` draws, except for the FUSE mount.  All writing happens before a process of
the build exists, and all of it by descriptor, below directories that only root can reach.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio

from cupola.messages import BuildRequest
from cupola.nodes import DirectoryNode, SymlinkNode
from cupolad.host import files, mounts
from cupolad.host.uids import UidRange
from cupolad.layout import BUILD_GID, BUILD_UID, Layout
from cupolad.paths import SandboxPath

_PRIVATE: Final = 0o700
_PUBLIC: Final = 0o755
_REMOVAL_SECONDS: Final = 60

_HOSTS: Final = b"127.0.0.1 localhost\n::1 localhost\n"
_GROUP: Final = b"root:x:0:\nnixbld:!:100:\nnogroup:x:65534:\n"


def _passwd(home: str) -> bytes:
    return (
        f"root:x:0:0:Build root:/{home}:/noshell\n"
        f"nixbld:x:{BUILD_UID}:{BUILD_GID}:Build user:/{home}:/noshell\n"
        "nobody:x:65534:65534:Nobody:/:/noshell\n"
    ).encode()


@asynccontextmanager
async def created(layout: Layout, request: BuildRequest, uids: UidRange) -> AsyncIterator[None]:
    """The bundle of `request`, without its spec, for the length of the block."""
    try:
        await trio.to_thread.run_sync(_create, layout, request, uids)
        yield
    finally:
        with trio.move_on_after(_REMOVAL_SECONDS, shield=True):
            await trio.to_thread.run_sync(_remove, layout, abandon_on_cancel=True)


async def write_config(layout: Layout, spec: dict[str, Any]) -> None:
    """Write the runtime spec; only root can read it."""
    await trio.to_thread.run_sync(_write_config, layout, json.dumps(spec).encode())


def sweep(bundles: Path) -> int:
    """Remove every bundle that a killed daemon left, mounts included; return how many."""
    mounts.detach_below(bundles)
    with files.opened(files.open_directory(bundles)) as directory:
        names = os.listdir(directory)
        for name in names:
            files.remove_tree(directory, os.fsencode(name))
    return len(names)


def _write_config(layout: Layout, config: bytes) -> None:
    with files.opened(files.open_directory(layout.bundle)) as bundle:
        files.write_new_file(bundle, b"config.json", config, 0o600)


def _create(layout: Layout, request: BuildRequest, uids: UidRange) -> None:
    layout.bundle.mkdir(mode=_PRIVATE)
    owner = (uids.host(BUILD_UID), uids.host(BUILD_GID))
    with files.opened(files.open_directory(layout.bundle)) as bundle:
        for scratch in layout.scratch:
            relative = os.fsencode(scratch.source.relative_to(layout.bundle))
            parent, _, name = relative.rpartition(b"/")
            with files.opened(files.make_directories(bundle, parent, _PRIVATE, 0, 0)) as holder:
                os.close(files.make_directories(holder, name, _PRIVATE, *owner))
        if layout.inputs:
            os.mkdir(b"inputs", _PRIVATE, dir_fd=bundle)
    _fill_scratch(layout, request, owner)
    _create_rootfs(layout, request)


def _fill_scratch(layout: Layout, request: BuildRequest, owner: tuple[int, int]) -> None:
    """Put what the build finds in its scratch paths there: its files, and its working directory."""
    for path, contents in request.additional_files.items():
        parent, name = _enter_parent(layout, SandboxPath(path), owner)
        with files.opened(parent):
            files.write_new_file(parent, name, contents, 0o644, *owner)
    if layout.inputs_among_scratch and layout.inputs:
        _make_input_mount_points(layout, owner)
    if not layout.is_in_input(SandboxPath(request.working_dir)):
        _make_in_scratch(layout, SandboxPath(request.working_dir), owner)


def _make_input_mount_points(layout: Layout, owner: tuple[int, int]) -> None:
    """Make what each input is mounted over; an input that is a symlink is made itself."""
    _make_in_scratch(layout, layout.inputs_dir, owner)
    for input_name, node in layout.inputs.items():
        path = SandboxPath(f"{layout.inputs_dir}/{input_name.decode()}")
        parent, name = _enter_parent(layout, path, owner)
        with files.opened(parent):
            if isinstance(node, SymlinkNode):
                os.symlink(node.target, name, dir_fd=parent)
            elif isinstance(node, DirectoryNode):
                os.mkdir(name, _PUBLIC, dir_fd=parent)
            else:
                files.write_new_file(parent, name, b"", 0o644)


def _enter_parent(layout: Layout, path: SandboxPath, owner: tuple[int, int]) -> tuple[int, bytes]:
    """Open the directory that is to hold `path`, made if need be, and the name of `path` in it."""
    parent, _, name = path.rpartition("/")
    directory = _make_in_scratch(layout, SandboxPath(parent), owner, keep=True)
    assert directory is not None, "only paths below a scratch path come here"
    return directory, name.encode()


def _make_in_scratch(
    layout: Layout, path: SandboxPath, owner: tuple[int, int], *, keep: bool = False
) -> int | None:
    """Make directory `path` if it lies in a scratch path; return it opened if it is to be kept."""
    found = layout.locate(path)
    if found is None:
        return None
    scratch, relative = found
    with files.opened(files.open_directory(scratch.source)) as top:
        directory = files.make_directories(top, relative.encode() or b".", _PUBLIC, *owner)
    if keep:
        return directory
    os.close(directory)
    return None


def _create_rootfs(layout: Layout, request: BuildRequest) -> None:
    """Make the root: mount points, and the files of /etc. Nothing in it belongs to the build."""
    layout.rootfs.mkdir(mode=_PUBLIC)
    with files.opened(files.open_directory(layout.rootfs)) as root:
        os.fchmod(root, _PUBLIC)
        for name in ("proc", "dev", "etc"):
            os.close(files.make_directories(root, name.encode(), _PUBLIC, 0, 0))
        os.close(files.make_directories(root, b"tmp", 0o1777, 0, 0))
        with files.opened(files.open_beneath(root, b"etc", files.DIRECTORY)) as etc:
            files.write_new_file(etc, b"passwd", _passwd(request.working_dir), 0o644)
            files.write_new_file(etc, b"group", _GROUP, 0o644)
            files.write_new_file(etc, b"hosts", _HOSTS, 0o644)
        directories = [scratch.path for scratch in layout.scratch]
        if not layout.inputs_among_scratch:
            directories.append(layout.inputs_dir)
        working_dir = SandboxPath(request.working_dir)
        if layout.locate(working_dir) is None and not working_dir.is_below(layout.inputs_dir):
            directories.append(working_dir)
        for path in directories:
            os.close(files.make_directories(root, path.encode(), _PUBLIC, 0, 0))
        if request.constraints.provide_bin_sh:
            _make_mount_point(root, b"bin/sh", is_directory=False)
        for host_path in request.constraints.available_ro_paths:
            _make_mount_point(
                root, host_path.lstrip("/").encode(), is_directory=Path(host_path).is_dir()
            )


def _make_mount_point(root: int, path: bytes, *, is_directory: bool) -> None:
    if is_directory:
        os.close(files.make_directories(root, path, _PUBLIC, 0, 0))
        return
    parent, _, name = path.rpartition(b"/")
    with files.opened(files.make_directories(root, parent or b".", _PUBLIC, 0, 0)) as directory:
        files.write_new_file(directory, name, b"", 0o644)


def _remove(layout: Layout) -> None:
    for place in (layout.rootfs, layout.bundle):
        with files.opened(files.open_directory(place.parent)) as parent:
            files.remove_tree(parent, os.fsencode(place.name))
