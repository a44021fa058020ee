"""Import and export: everything arrives, nothing is overwritten, nothing is written elsewhere."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

import cupola
import cupola.sync
import reference
from conftest import arrivals, shell
from cupola import Directory, FileNode, HostError, Name, Progress, SymlinkNode, exporter, notation
from cupola.connection import Connection
from cupola.exporter import ExportPathError
from cupola.importer import ImportPathError
from cupola.messages import Commit, PutDirectories, Stored
from cupolad.testing import PrivateDaemon
from waiting import eventually


def test_round_trip_of_an_odd_tree(client: cupola.sync.Client, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    deep = tree
    for number in range(200):
        deep = deep / f"{number}"
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep")
    (tree / "empty-dir").mkdir()
    (tree / "empty").write_bytes(b"")
    (tree / os.fsdecode(b"\xff\n\x1b[1m")).write_bytes(b"odd")
    (tree / ("n" * 255)).write_bytes(os.urandom(5_000_000))
    (tree / "exec").write_text("#!/bin/sh\n")
    (tree / "exec").chmod(0o711)
    (tree / "not").write_text("#!/bin/sh\n")
    (tree / "not").chmod(0o677)
    (tree / "link").symlink_to("/" + "x" * 4000)
    os.link(tree / "exec", tree / "hard")
    node = client.import_path(tree)
    assert notation.to_text(node) == reference.text_of(tree)
    client.export(node, tmp_path / "again")
    assert reference.text_of(tmp_path / "again") == reference.text_of(tree)
    assert client.import_path(tmp_path / "again") == node
    assert stat.S_IMODE((tmp_path / "again" / "exec").stat().st_mode) & 0o111


@pytest.mark.parametrize(
    "size", [0, 1, 256 * 1024, 256 * 1024 + 1, 1 << 20, (1 << 20) + 1, 7_654_321]
)
def test_files_of_every_size(client: cupola.sync.Client, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    node = client.import_path(tmp_path / "f")
    assert isinstance(node, FileNode)
    assert (node.size, node.digest) == (size, cupola.Digest.of(data))
    with client.open_blob(node) as blob:
        assert blob.read() == data
    client.export(node, tmp_path / "g")
    assert (tmp_path / "g").read_bytes() == data


def test_a_symlink_is_imported_itself(client: cupola.sync.Client, tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to("/etc/passwd")
    node = client.import_path(tmp_path / "l")
    assert node == SymlinkNode(b"/etc/passwd")
    client.export(node, tmp_path / "m")
    assert os.readlink(tmp_path / "m") == "/etc/passwd"
    assert client.has(node)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("fifo", "x is neither a file, a directory nor a symlink"),
        ("socket", "cannot read .*x: No such device"),
        ("deep", "more than 256 directories deep"),
        ("absent", "cannot read .*absent: No such file"),
    ],
)
def test_what_cannot_be_imported(
    client: cupola.sync.Client, tmp_path: Path, what: str, says: str
) -> None:
    place = tmp_path / "tree"
    place.mkdir()
    match what:
        case "fifo":
            os.mkfifo(place / "x")
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(place / "x"))
        case "deep":
            (place / "/".join("d" * 300)).mkdir(parents=True)
        case _:
            place = place / "absent"
    with pytest.raises(ImportPathError, match=says):
        client.import_path(place)


def test_a_file_that_changes_while_it_is_imported(
    client: cupola.sync.Client, tmp_path: Path
) -> None:
    """Between hashing and sending; nothing wrong is stored."""
    file = tmp_path / "f"
    file.write_bytes(b"x" * 1000)

    class Changing(Progress):
        def __setattr__(self, name: str, value: int) -> None:
            super().__setattr__(name, value)
            if name == "files_to_send" and value:
                file.write_bytes(b"y" * 1000)

    with pytest.raises(ImportPathError, match="changed while it was imported"):
        client.import_path(file, progress=Changing())
    assert not client.has(FileNode(cupola.Digest.of(b"x" * 1000), 1000))
    file.write_bytes(b"z" * 2_000_000)
    with pytest.raises(ImportPathError, match="changed while it was imported"):
        client.import_path(file, progress=Changing())


def test_progress_is_told(client: cupola.sync.Client, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}").write_bytes(os.urandom(1000))
    (tmp_path / "large").write_bytes(os.urandom(3_000_000))
    total = 20 * 1000 + 3_000_000
    progress = Progress()
    node = client.import_path(tmp_path, progress=progress)
    assert (progress.files_hashed, progress.bytes_hashed) == (21, total)
    assert (progress.files_sent, progress.bytes_sent) == (21, total)
    again = Progress()
    client.import_path(tmp_path, progress=again)
    assert (again.files_hashed, again.files_to_send, again.bytes_sent) == (21, 0, 0)
    client.export(node, tmp_path / "out", progress=progress)
    assert (progress.files_written, progress.bytes_written) == (21, total)


@pytest.mark.parametrize("there", ["file", "directory", "dangling link"])
def test_an_export_overwrites_nothing(
    client: cupola.sync.Client, tmp_path: Path, there: str
) -> None:
    (tmp_path / "f").write_text("new")
    node = client.import_path(tmp_path / "f")
    target = tmp_path / "target"
    if there == "file":
        target.write_text("old")
    elif there == "directory":
        target.mkdir()
    else:
        target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ExportPathError, match="exists already"):
        client.export(node, target)
    assert sorted(os.listdir(tmp_path)) == ["f", "target"]
    assert there != "file" or target.read_text() == "old"


def test_an_export_where_one_may_not_write(client: cupola.sync.Client, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    node = client.import_path(tmp_path / "f")
    with pytest.raises(ExportPathError, match="cannot write to"):
        client.export(node, tmp_path / "absent" / "target")


async def test_an_export_that_is_cut_short_leaves_nothing(
    daemon: PrivateDaemon, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(3000):
        (tree / f"{number}").write_bytes(os.urandom(2000))
    async with cupola.connect(daemon.socket) as client:
        node = await client.import_path(tree)
        progress = Progress()
        async with trio.open_nursery() as nursery:

            async def export() -> None:
                await client.export(node, tmp_path / "out", progress=progress)

            nursery.start_soon(export)
            while progress.files_written < 500:  # noqa: ASYNC110
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
        assert os.listdir(tmp_path) == ["tree"]


async def test_links_of_a_node_do_not_lead_an_export_astray(
    daemon: PrivateDaemon, tmp_path: Path
) -> None:
    """A directory of links to a place outside, beside files of every other name."""
    outside = tmp_path / "outside"
    outside.mkdir()
    links = Directory({Name(b"%d" % n): SymlinkNode(os.fsencode(outside)) for n in range(3)})
    root = Directory({Name(b"links"): links.node, Name(b"zz"): SymlinkNode(b"links/0")})
    connection = await Connection.open(daemon.socket)
    await connection.send(PutDirectories((links.encoding, root.encoding)))
    await connection.ask(Commit(), Stored)
    await exporter.export(connection, root.node, tmp_path / "out", Progress())
    await connection.close()
    assert os.listdir(outside) == []
    assert reference.text_of(tmp_path / "out") == notation.to_text(root.node)


def test_an_export_of_damaged_contents_fails(
    daemon: PrivateDaemon, client: cupola.sync.Client, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(os.urandom(1000))
    node = client.import_path(tmp_path / "f")
    assert isinstance(node, FileNode)
    blob = daemon.state / "blobs" / node.digest.hex()[:2] / node.digest.hex()
    good = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(HostError, match="damaged"):
        client.export(node, tmp_path / "out")
    blob.write_bytes(good[:-1])
    with pytest.raises(HostError, match="damaged"):
        client.export(node, tmp_path / "out")
    assert os.listdir(tmp_path) == ["f"]
    blob.write_bytes(good)
    client.export(node, tmp_path / "out")


def test_many_clients_at_once(daemon: PrivateDaemon, tmp_path: Path) -> None:
    """All of them import the same and different files; every tree is whole in the end."""
    for number in range(6):
        tree = tmp_path / f"{number}"
        tree.mkdir()
        for index in range(200):
            (tree / f"own-{index}").write_bytes(os.urandom(100))
            (tree / f"same-{index}").write_bytes(b"%d" % index)
    nodes: dict[int, cupola.Node] = {}

    def work(number: int) -> None:
        with cupola.sync.connect(daemon.socket) as client:
            nodes[number] = client.import_path(tmp_path / f"{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with cupola.sync.connect(daemon.socket) as client:
        for number, node in nodes.items():
            client.export(node, tmp_path / f"{number}-out")
            assert reference.text_of(tmp_path / f"{number}-out") == reference.text_of(
                tmp_path / f"{number}"
            )


async def test_one_client_does_several_things_at_once(
    daemon: PrivateDaemon, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(b"x" * 1000)
    async with cupola.connect(daemon.socket) as client, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(client.build, shell("sleep 0.2; : > out"))
            nursery.start_soon(client.import_path, tmp_path / "f")
            nursery.start_soon(client.status)


def test_a_connection_that_the_daemon_has_closed_is_replaced() -> None:
    with PrivateDaemon() as daemon, cupola.sync.connect(daemon.socket) as client:
        client.status()
        daemon.stop()
        daemon.start()
        client.status()


# --- a full disk ---------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB, open to everybody."""
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(24 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-N", "2000", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_told_and_harms_nothing(small_disk: Path, tmp_path: Path) -> None:
    with PrivateDaemon(parent=small_disk) as daemon, cupola.sync.connect(daemon.socket) as client:
        (tmp_path / "small").write_bytes(b"small")
        (tmp_path / "large").write_bytes(os.urandom(40 << 20))
        small = client.import_path(tmp_path / "small")
        for _ in range(2):
            with pytest.raises(HostError, match="disk is full") as caught:
                client.import_path(tmp_path / "large")
            assert caught.value.details["retryable"] is True
        with pytest.raises(cupola.CupolaError) as failed:
            client.build(shell("cat /dev/zero > out"))
        assert failed.value.code in ("build_failed", "infrastructure")
        assert eventually(lambda: arrivals(daemon) == [])
        assert os.listdir(daemon.state / "bundles") == []
        assert client.has(small)
        with client.open_blob(small) as blob:  # type: ignore[arg-type]
            assert blob.read() == b"small"
        result = client.build(shell("cat /inputs/s > out", inputs={Name(b"s"): small}))
        assert result.outputs[0].node == small
