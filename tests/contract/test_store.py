"""What the store promises, on a real disk: verified, durable, complete, and safe with many writers."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from cupola.directories import Directory
from cupola.errors import RequestError
from cupola.nodes import Digest, DirectoryNode, FileNode, Name, Node, SymlinkNode
from cupolad.host import files
from cupolad.store import Batch, Store, StoreLimits, batch


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A new state directory."""
    Store.create(tmp_path / "state")
    return tmp_path / "state"


@pytest.fixture
def store(state: Path) -> Iterator[Store]:
    """A new store."""
    store = Store(state)
    yield store
    store.close()


def _read(store: Store, digest: Digest) -> bytes:
    with (
        files.opened(store.open_blob(digest)) as descriptor,
        os.fdopen(os.dup(descriptor), "rb") as f,
    ):
        return f.read()


def _put(store: Store, *blobs: bytes) -> list[Digest]:
    with store.batch() as batch:
        digests = [batch.put_blob(blob) for blob in blobs]
        batch.commit()
    return digests


def assert_sound(state: Path) -> None:
    """Every blob file hashes to its name, every row has its file, nothing is on its way."""
    found = {}
    for file in (state / "blobs").glob("*/*"):
        assert file.parent.name == file.name[:2]
        assert file.stat().st_mode & 0o7777 == 0o444
        data = file.read_bytes()
        assert Digest.of(data).hex() == file.name
        found[file.name] = len(data)
    with sqlite3.connect(state / "store.sqlite") as connection:
        rows = {digest.hex(): size for digest, size in connection.execute("SELECT * FROM blob")}
        encodings = [row[0] for row in connection.execute("SELECT encoding FROM directory")]
        totals = connection.execute("SELECT blobs, directories FROM totals").fetchone()
        ok = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    assert ok == ("ok",)
    assert rows.items() <= found.items()
    assert totals == (len(rows), len(encodings))
    directories = {
        Directory.decode(encoding).digest: Directory.decode(encoding) for encoding in encodings
    }
    for directory in directories.values():
        for node in directory.nodes():
            if isinstance(node, FileNode):
                assert rows[node.digest.hex()] == node.size
            elif isinstance(node, DirectoryNode):
                assert directories[node.digest].size == node.size
    assert list((state / "incoming").glob("*/*")) == []


def test_blobs_come_back(state: Path, store: Store) -> None:
    blobs = [b"", b"a", b"b" * 100_000]
    digests = _put(store, *blobs)
    assert [_read(store, digest) for digest in digests] == blobs
    assert store.blob_sizes(digests) == dict(zip(digests, map(len, blobs), strict=True))
    totals = store.totals()
    assert (totals.blobs, totals.directories, totals.bytes) == (3, 0, 100_001)
    assert_sound(state)


def test_what_is_not_committed_is_not_there(state: Path, store: Store) -> None:
    with store.batch() as batch:
        digest = batch.put_blob(b"x")
        batch.put_directory(Directory({Name(b"x"): FileNode(digest, 1)}).encoding)
        assert store.missing_blobs([digest]) == [digest]
    assert store.missing_blobs([digest]) == [digest]
    with pytest.raises(FileNotFoundError):
        store.open_blob(digest)
    assert store.totals().bytes == 0
    assert_sound(state)


def test_a_wrong_digest_is_refused(state: Path, store: Store) -> None:
    wrong = Digest(bytes(32))
    with store.batch() as batch:
        with pytest.raises(ValueError, match="not the digest"):
            batch.put_blob(b"x", wrong)
        writer = batch.writer()
        writer.write(b"x")
        with pytest.raises(ValueError, match="not the digest"):
            writer.finish(wrong)
        batch.commit()
    assert store.totals().blobs == 0
    assert_sound(state)


def test_a_blob_in_pieces(state: Path, store: Store) -> None:
    pieces = [os.urandom(random.randrange(1, 100_000)) for _ in range(20)]
    with store.batch() as batch:
        writer = batch.writer()
        for piece in pieces:
            writer.write(memoryview(piece))
        digest = writer.finish(Digest.of(b"".join(pieces)))
        batch.commit()
        assert (batch.added_blobs, batch.added_bytes) == (1, sum(map(len, pieces)))
    assert _read(store, digest) == b"".join(pieces)
    assert_sound(state)


def test_an_abandoned_blob_leaves_nothing(state: Path, store: Store) -> None:
    with store.batch() as batch:
        writer = batch.writer()
        writer.write(b"x" * 1000)
        writer.abandon()
    assert_sound(state)


def test_uploading_twice_is_fine_and_heals(state: Path, store: Store) -> None:
    (digest,) = _put(store, b"content")
    file = state / "blobs" / digest.hex()[:2] / digest.hex()
    file.chmod(0o600)
    file.write_bytes(b"damaged")
    assert _put(store, b"content", b"content") == [digest, digest]
    assert _read(store, digest) == b"content"
    assert store.totals().blobs == 1
    assert_sound(state)


def test_a_file_without_a_row_is_no_blob(state: Path, store: Store) -> None:
    """What a power cut between rename and commit leaves."""
    digest = Digest.of(b"content")
    file = state / "blobs" / digest.hex()[:2] / digest.hex()
    file.write_bytes(b"")
    assert store.missing_blobs([digest]) == [digest]
    _put(store, b"content")
    assert _read(store, digest) == b"content"


# --- directories ---------------------------------------------------------------------------------


def _directory(**entries: Node) -> Directory:
    return Directory({Name(name.encode()): node for name, node in entries.items()})


def test_directories_come_back(state: Path, store: Store) -> None:
    (blob,) = _put(store, b"12345")
    inner = _directory(file=FileNode(blob, 5), link=SymlinkNode(b"/etc"))
    outer = _directory(sub=inner.node, empty=Directory({}).node)
    with store.batch() as batch:
        for directory in (Directory({}), inner, outer):
            assert batch.put_directory(directory.encoding) == directory.node
        batch.commit()
    assert store.directory(outer.digest) == outer
    assert store.encodings([inner.digest, outer.digest]) == {
        inner.digest: inner.encoding,
        outer.digest: outer.encoding,
    }
    store.require([outer.node, FileNode(blob, 5), SymlinkNode(b"x")])
    assert_sound(state)


def test_a_directory_needs_everything_below_it(store: Store) -> None:
    gone, lost = Digest(b"\1" * 32), Digest(b"\2" * 32)
    directory = _directory(a=FileNode(gone, 1), b=DirectoryNode(lost, 1), c=SymlinkNode(b"x"))
    with store.batch() as batch, pytest.raises(RequestError) as caught:
        batch.put_directory(directory.encoding)
    assert caught.value.code == "missing_objects"
    assert caught.value.details["blobs"] == [gone]
    assert caught.value.details["directories"] == [lost]


@pytest.mark.parametrize("lie", [-1, 1, 2**63])
def test_a_directory_cannot_lie_about_sizes(store: Store, lie: int) -> None:
    (blob,) = _put(store, b"12345")
    inner = _directory(a=SymlinkNode(b"x"), b=SymlinkNode(b"x"))
    with store.batch() as batch:
        batch.put_directory(inner.encoding)
        for node in (FileNode(blob, 5 + lie), DirectoryNode(inner.digest, 2 + lie)):
            with pytest.raises(ValueError, match=r"has size \d, not"):
                batch.put_directory(_directory(x=node).encoding)
            batch.commit()
            with pytest.raises(ValueError, match=r"has size \d, not|lacks"):
                store.require([node])
        twice = _directory(x=FileNode(blob, 5), y=FileNode(blob, 5 + lie))
        with pytest.raises(ValueError, match="has size 5"):
            batch.put_directory(twice.encoding)


def test_what_is_not_canonical_is_refused(store: Store) -> None:
    with store.batch() as batch, pytest.raises(ValueError, match="not canonical"):
        batch.put_directory(b"\x22\x00")


def test_limits_of_directories(state: Path) -> None:
    store = Store(state, StoreLimits(depth=3, entries=2, directory_bytes=100))
    with store.batch() as batch:
        node = batch.put_directory(b"")
        for _ in range(2):
            node = batch.put_directory(_directory(d=node).encoding)
        with pytest.raises(ValueError, match="at most 3 deep"):
            batch.put_directory(_directory(d=node).encoding)
        batch.commit()
        with pytest.raises(ValueError, match="at most 3 deep"):
            batch.put_directory(_directory(d=node).encoding)
        three = {f"l{n}": SymlinkNode(b"x") for n in range(3)}
        with pytest.raises(ValueError, match="at most 2 entries"):
            batch.put_directory(_directory(**three).encoding)
        with pytest.raises(ValueError, match="at most 100 bytes"):
            batch.put_directory(_directory(link=SymlinkNode(b"x" * 100)).encoding)
    store.close()


@pytest.mark.parametrize("commits", [False, True])
def test_a_graph_with_doubled_edges_is_decided_at_once(store: Store, commits: bool) -> None:
    """62 levels stand for 2^63 paths; the 63rd has a size beyond 64 bits, so 250 are refused."""
    start = time.process_time()
    with store.batch() as batch:
        directory = Directory({})
        batch.put_directory(directory.encoding)
        for _ in range(63):
            directory = _directory(a=directory.node, b=directory.node)
            batch.put_directory(directory.encoding)
            if commits:
                batch.commit()
        batch.commit()
        with pytest.raises(ValueError, match=r"exceeds 2\^64-1"):
            _directory(a=directory.node, b=directory.node)
        too_large = reference.encode(
            dict.fromkeys((b"a", b"b"), (directory.digest, directory.size)), {}, {}
        )
        with pytest.raises(ValueError, match=r"exceeds 2\^64-1"):
            batch.put_directory(too_large)
    assert directory.size == 2**64 - 2
    store.require([directory.node])
    assert store.directory(directory.digest) == directory
    assert time.process_time() - start < 0.5


def test_a_wide_graph_of_250_levels(store: Store) -> None:
    """As deep as may be, each level twice the child of the next, with sizes that fit."""
    start = time.process_time()
    with store.batch() as batch:
        node = batch.put_directory(b"")
        for _ in range(249):
            node = batch.put_directory(_directory(d=node, l=SymlinkNode(b"x")).encoding)
        batch.commit()
    store.require([node])
    assert node.size == 498
    assert time.process_time() - start < 0.5


# --- taking files --------------------------------------------------------------------------------


def _take(store: Store, path: Path) -> tuple[Digest, int, bytes]:
    seen = bytearray()
    with (
        files.opened(files.open_directory(path.parent)) as directory,
        files.opened(os.open(path, os.O_RDONLY)) as descriptor,
        store.batch() as batch,
    ):
        digest, size = batch.take(directory, path.name.encode(), descriptor, seen.extend)
        batch.commit()
    return digest, size, bytes(seen)


@pytest.mark.root
@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_file_that_nobody_writes_becomes_the_blob_itself(
    state: Path, store: Store, tmp_path: Path, size: int
) -> None:
    file, data = tmp_path / "file", os.urandom(size)
    file.write_bytes(data)
    os.chown(file, 1234, 1234)
    file.chmod(0o6755)
    os.setxattr(file, "user.mark", b"x")
    inode = file.stat().st_ino
    digest, length, seen = _take(store, file)
    blob = state / "blobs" / digest.hex()[:2] / digest.hex()
    assert (digest, length, seen) == (Digest.of(data), size, data)
    assert not file.exists()
    assert blob.stat().st_ino == inode
    assert (blob.stat().st_uid, blob.stat().st_gid) == (0, 0)
    assert os.listxattr(blob) == []
    assert_sound(state)


@pytest.mark.root
@pytest.mark.parametrize("how", ["open", "mapped"])
def test_a_file_that_somebody_may_still_write_is_copied(
    state: Path, store: Store, tmp_path: Path, how: str
) -> None:
    import mmap

    file = tmp_path / "file"
    file.write_bytes(b"before")
    with file.open("r+b", buffering=0) as writer:
        mapping = mmap.mmap(writer.fileno(), 6) if how == "mapped" else None
        if mapping is not None:
            writer.close()
        digest, _, _ = _take(store, file)
        if mapping is not None:
            mapping[:6] = b"after!"
            mapping.close()
        else:
            writer.write(b"after!")
    assert digest == Digest.of(b"before")
    assert _read(store, digest) == b"before"
    assert file.read_bytes() == b"after!"
    assert_sound(state)


# --- many writers, and writers that die ----------------------------------------------------------


def test_many_writers_of_the_same_blobs(state: Path, store: Store) -> None:
    blobs = [bytes([number]) * 1000 for number in range(40)]
    errors: list[BaseException] = []

    def write(seed: int) -> None:
        try:
            with store.batch() as batch:
                for blob in random.Random(seed).sample(blobs, len(blobs)):
                    batch.put_blob(blob)
                    if random.random() < 0.2:
                        batch.commit()
                batch.commit()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.totals().blobs == 40
    assert_sound(state)


def _write_for_ever(state: Path, seed: int, acknowledged: int) -> None:
    """Put random blobs and directories; tell each digest once it is committed."""
    store, source = Store(state), random.Random(seed)
    while True:
        with store.batch() as batch:
            blobs = [
                source.randbytes(source.randrange(5000)) for _ in range(source.randrange(1, 30))
            ]
            digests = [batch.put_blob(blob) for blob in blobs]
            entries = {
                Name(b"%d" % n): FileNode(d, len(b))
                for n, (d, b) in enumerate(zip(digests, blobs, strict=True))
            }
            batch.put_directory(Directory(entries).encoding)
            batch.commit()
            os.write(acknowledged, b"".join(digests))


def test_a_killed_writer_loses_nothing_acknowledged_and_leaves_nothing(state: Path) -> None:
    context = multiprocessing.get_context("fork")
    promised: set[bytes] = set()
    for seed in range(12):
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        process = context.Process(target=_write_for_ever, args=(state, seed, writer))
        process.start()
        os.close(writer)
        time.sleep(0.05 + seed * 0.01)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        data = bytearray()
        while piece := os.read(reader, 1 << 20):
            data += piece
        os.close(reader)
        promised |= {bytes(data[i : i + 32]) for i in range(0, len(data) - len(data) % 32, 32)}
        Store.create(state)
        assert_sound(state)
    store = Store(state)
    assert len(promised) > 100
    assert store.missing_blobs(map(Digest, promised)) == []
    store.close()


def test_two_processes_see_each_others_commits(state: Path, store: Store) -> None:
    other = Store(state)
    (digest,) = _put(other, b"x")
    assert store.missing_blobs([digest]) == []
    other.close()


def test_a_batch_that_grows_large_commits_what_it_has(
    state: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_GROUP_OBJECTS", 50)
    with store.batch() as large:
        nodes: dict[Name, Node] = {}
        for number in range(500):
            data = b"%d" % number
            nodes[Name(data)] = FileNode(large.put_blob(data), len(data))
            if number % 10 == 9:
                large.put_directory(Directory(nodes).encoding)
        large.commit()
        assert (large.added_blobs, large.added_directories) == (500, 50)
    assert store.totals().blobs == 500
    assert_sound(state)


def _put_many(large: Batch, count: int) -> None:
    for number in range(count):
        large.put_blob(b"%d" % number)
    large.commit()


def test_an_error_of_a_background_commit_is_told(
    state: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_GROUP_OBJECTS", 5)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store._database, "add", fail)
    with store.batch() as large, pytest.raises(OSError, match="No space"):
        _put_many(large, 100)
    assert list((state / "incoming").glob("*/*")) == []


def test_a_newer_format_is_refused(state: Path) -> None:
    with sqlite3.connect(state / "store.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ValueError, match="has format 99, this cupolad knows format 1"):
        Store.create(state)


def test_leftovers_of_a_killed_writer_are_dropped_at_the_start(state: Path) -> None:
    (state / "incoming" / "00" / "dead-64").write_bytes(b"half")
    Store.create(state)
    assert list((state / "incoming").glob("*/*")) == []


@settings(max_examples=25)
@given(st.lists(st.binary(max_size=20), max_size=10), st.data())
def test_missing_says_exactly_what_is_missing(blobs: list[bytes], data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        Store.create(Path(directory))
        store = Store(Path(directory))
        there = [blob for blob in blobs if data.draw(st.booleans())]
        _put(store, *there)
        digests = [Digest.of(blob) for blob in blobs]
        assert store.missing_blobs(digests) == [
            Digest.of(blob) for blob in blobs if blob not in there
        ]
        store.close()


def test_a_full_database_is_a_full_disk(store: Store) -> None:
    pages = store._database._writer.execute("PRAGMA page_count").fetchone()[0]
    store._database._writer.execute(f"PRAGMA max_page_count = {pages}")
    with store.batch() as batch:
        for number in range(100):
            name = Name(b"%0200d" % number)
            batch.put_directory(Directory({name: SymlinkNode(b"x" * 4000)}).encoding)
        with pytest.raises(OSError, match="full") as caught:
            batch.commit()
    assert caught.value.errno == errno.ENOSPC


def test_only_root_can_read_the_database(state: Path, store: Store) -> None:
    _put(store, b"something")
    for file in state.glob("store.sqlite*"):
        assert file.stat().st_mode & 0o777 == 0o600, file


def test_what_a_killed_writer_left_is_dropped_by_its_token(state: Path, store: Store) -> None:
    killed, other = store.batch("killed"), store.batch("other")
    killed.put_blob(b"half")
    other.put_blob(b"whole")
    Store.drop_arrivals(state, "killed")
    assert len(list((state / "incoming").glob("*/*"))) == 1
    other.commit()
    assert store.missing_blobs([Digest.of(b"whole")]) == []
    killed._filling.arrivals._here.clear()
    killed.close()
    other.close()


def test_a_write_that_fails_keeps_no_descriptor(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    def fail() -> None:
        with pytest.raises(OSError, match="full"), store.batch() as filling:
            filling.writer().write(b"x")

    monkeypatch.setattr(files, "write_all", full)
    fail()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        fail()
    assert len(os.listdir("/proc/self/fd")) == before
