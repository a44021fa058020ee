"""The wire: real traffic fits the schema, and whatever does not is refused once, quickly, for good."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cbor2
import pycddl
import pytest
import trio

import cupola.sync
from conftest import arrivals, descriptors, shell
from cupola import CupolaError, DirectoryNode, FileNode, Name, SymlinkNode, framing, wire
from cupola.connection import Connection
from cupola.messages import (
    Build,
    Commit,
    GetBlobs,
    GetDirectories,
    Hello,
    Missing,
    PutBlob,
    PutBlobs,
    PutChunk,
    PutDirectories,
    Request,
    Status,
)
from cupola.nodes import Digest
from cupolad.testing import PrivateDaemon
from waiting import eventually

SCHEMA = pycddl.Schema((Path(__file__).parents[2] / "docs" / "protocol.cddl").read_text())
ABSENT = Digest(hashlib.sha256(b"absent").digest())


# --- recorded traffic ----------------------------------------------------------------------------


class Recorder:
    """A socket in between that keeps every byte of both directions."""

    def __init__(self, path: Path, daemon: PrivateDaemon) -> None:
        self.path, self._daemon = path, daemon
        self.frames: list[dict[str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(100)
        self.faults: list[str] = []
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=args, daemon=True)
        thread.start()
        return thread

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.connect(str(self._daemon.socket))
            back = self._start(self._forward, server, client)
            self._forward(client, server)
            back.join()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        pending = bytearray()
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                pending += data
                while len(pending) >= 4 + (length := int.from_bytes(pending[:4])):
                    self._note(bytes(pending[4 : 4 + length]))
                    del pending[: 4 + length]
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _note(self, body: bytes) -> None:
        self.frames.append(cbor2.loads(body))
        try:
            SCHEMA.validate_cbor(body)
        except pycddl.ValidationError as error:
            self.faults.append(f"{self.frames[-1]['type']}: {error}")

    def close(self) -> None:
        """Stop accepting; all connections have been closed."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def test_real_traffic_fits_the_schema(daemon: PrivateDaemon, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "recorder", daemon)
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "large").write_bytes(os.urandom(1_000_000))
    (tree / "sub" / "small").write_bytes(os.urandom(100))
    (tree / "link").symlink_to("x")
    with cupola.sync.connect(recorder.path) as client:
        node = client.import_path(tree)
        request = shell(
            "cp -a /inputs/t out; echo hi; echo err >&2",
            inputs={Name(b"t"): node, Name(b"l"): SymlinkNode(b"/x")},
            additional_files={"build/f": b"\0"},
            refscan_needles=(b"hi",),
        )
        client.build(request)
        client.export(node, tmp_path / "out")
        client.status()
        for bad in (shell("exit 3"), shell(": > x"), shell("mkfifo out"), shell("x", "../x")):
            with pytest.raises(CupolaError):
                client.build(bad)
        missing = shell("x", inputs={Name(b"a"): DirectoryNode(ABSENT, 1)})
        with pytest.raises(CupolaError):
            client.build(missing)
    recorder.close()
    assert recorder.faults == []
    seen = {frame["type"] for frame in recorder.frames}
    assert seen >= {
        "hello", "welcome", "missing", "absent", "put_blobs", "put_blob", "put_chunk",
        "put_directories", "commit", "stored", "build", "queued", "started", "log", "result", "error",
        "get_blobs", "blob_data", "get_directories", "directory_data", "end", "status", "report",
    }  # fmt: skip
    codes = {frame["code"] for frame in recorder.frames if frame["type"] == "error"}
    assert codes == {
        "build_failed", "output_missing", "output_unsupported", "invalid_request", "missing_objects",
    }  # fmt: skip


# --- what is refused -----------------------------------------------------------------------------


@contextmanager
def raw(daemon: PrivateDaemon, *, hello: bool = True) -> Iterator[socket.socket]:
    """A connection, by default after its handshake."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect(str(daemon.socket))
        if hello:
            connection.sendall(frame(wire.encode(Hello((1,), "raw"))))
            assert answer(connection)["type"] == "welcome"
        yield connection


def frame(item: Any) -> bytes:
    """A frame."""
    return framing.encode_frame(item)


def body(raw: bytes) -> bytes:
    """A frame around bytes that may be anything."""
    return struct.pack(">I", len(raw)) + raw


def answer(connection: socket.socket) -> dict[str, Any]:
    """The next message."""
    item = framing.decode_item(exactly(connection, int.from_bytes(exactly(connection, 4))))
    SCHEMA.validate_cbor(cbor2.dumps(item))
    assert isinstance(item, dict)
    return item


def exactly(connection: socket.socket, count: int) -> bytes:
    """So many bytes."""
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        assert piece, "closed without a word"
        data += piece
    return data


def ends(connection: socket.socket) -> bool:
    """Whether the daemon closes the connection now."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.fixture(autouse=True)
def next_request_works(daemon: PrivateDaemon) -> Iterator[None]:
    """After each test a build works, and no descriptor is left."""
    with cupola.sync.connect(daemon.socket) as client:
        client.status()
        count = descriptors(daemon.pid)
        yield
        client.build(shell(": > out"))
        assert eventually(lambda: descriptors(daemon.pid) <= count + 6)
    assert os.listdir(daemon.state / "bundles") == []
    assert eventually(lambda: arrivals(daemon) == [])


HELLO = wire.encode(Hello((1,), "x"))


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("D-Bus", b"\0AUTH EXTERNAL 30\r\n"),
        ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)),
        ("4 GiB announced", b"\xff\xff\xff\xff"),
        ("2 GiB announced", b"\x80\x00\x00\x00x"),
        ("a hello that is too long", struct.pack(">I", 4097)),
        ("an empty frame", b"\0\0\0\0"),
        ("no CBOR", body(b"\xff")),
        ("an indefinite map", body(b"\xbf\xff")),
        ("trailing bytes", body(cbor2.dumps(HELLO, canonical=True) + b"\0")),
        ("keys out of order", body(cbor2.dumps({"versions": [1], "type": "hello", "client": "x"}))),
        ("a tag", body(b"\xc1\x00")),
        ("not a map", frame([1, 2])),
        ("no type", frame({})),
        ("an unknown type", frame({"type": "shutdown"})),
        ("no hello first", frame({"type": "status"})),
        ("an unknown version", frame({**HELLO, "versions": [2, 3]})),
        ("version 0", frame({**HELLO, "versions": [0]})),
        ("a surplus field", frame({**HELLO, "uid": 0})),
        ("a wrong type", frame({**HELLO, "client": 5})),
    ],
)
def test_openings_that_are_refused(daemon: PrivateDaemon, what: str, data: bytes) -> None:
    start = time.monotonic()
    with raw(daemon, hello=False) as connection:
        connection.sendall(data)
        reply = answer(connection)
        assert reply["code"] == "invalid_request", what
        assert reply["details"]["field"]
        assert reply["details"]["rule"]
        assert ends(connection)
    assert time.monotonic() - start < 1


def encoded(request: Request) -> Any:
    """The value of a message."""
    return wire.encode(request)


def _build(**fields: Any) -> Any:
    value = encoded(Build(shell(": > out")))
    return {**value, "request": {**value["request"], **fields}}


DIRECTORY = {"type": "directory", "digest": ABSENT, "size": 1}


@pytest.mark.parametrize(
    ("message", "code", "field", "index"),
    [
        (encoded(Hello((1,), "x")), "invalid_request", "message", None),
        (encoded(Commit()), "invalid_request", "message", None),
        (
            {"type": "missing", "blobs": [b"x" * 31], "directories": []},
            "invalid_request",
            "blobs[0]",
            0,
        ),
        ({"type": "get_blobs", "digests": ["a" * 64]}, "invalid_request", "digests[0]", 0),
        (encoded(GetBlobs((ABSENT,))), "missing_objects", None, None),
        (encoded(GetDirectories((ABSENT,))), "missing_objects", None, None),
        (encoded(PutBlobs(((ABSENT, b"x"),))), "invalid_request", "blobs[0].digest", 0),
        (encoded(PutChunk(b"x")), "invalid_request", "message", None),
        (encoded(PutBlob(ABSENT, 2**63)), "invalid_request", "size", None),
        (encoded(PutBlob(ABSENT, 0)), "invalid_request", "digest", None),
        (encoded(PutDirectories((b"\x08\x01",))), "invalid_request", "directories[0]", 0),
        (_build(outputs=["../x"]), "invalid_request", "outputs[0]", 0),
        (_build(outputs=[5]), "invalid_request", "outputs[0]", 0),
        (_build(scratch_paths=["build", "etc"]), "invalid_request", "scratch_paths[1]", 1),
        (_build(inputs=[{"name": b"a", "node": DIRECTORY}]), "missing_objects", None, None),
        (
            _build(inputs=[{"name": b"..", "node": DIRECTORY}]),
            "invalid_request",
            "inputs[0].name",
            0,
        ),
        (_build(command_args=["true"]), "invalid_request", "command_args[0]", 0),
    ],
)
def test_requests_that_are_refused(
    daemon: PrivateDaemon, message: Any, code: str, field: str | None, index: int | None
) -> None:
    start = time.monotonic()
    with raw(daemon) as connection:
        connection.sendall(frame(message))
        reply = answer(connection)
    assert time.monotonic() - start < 1
    assert reply["code"] == code
    assert reply["details"].get("field") == field
    assert reply["details"].get("index") == index


def test_a_frame_that_is_too_long(daemon: PrivateDaemon) -> None:
    with raw(daemon) as connection:
        connection.sendall(struct.pack(">I", 8 * 1024 * 1024 + 1))
        assert answer(connection)["details"]["rule"].endswith("1 to 8388608 bytes, not 8388609")
        assert ends(connection)


def test_errors_of_uploads(daemon: PrivateDaemon) -> None:
    digest = Digest.of(b"abc")
    for messages, field in (
        ([PutBlob(digest, 3), PutChunk(b"abcd")], "data"),
        ([PutBlob(digest, 3), PutChunk(b"")], "data"),
        ([PutBlob(digest, 3), PutChunk(b"abd")], "digest"),
        ([PutBlob(digest, 3), PutBlob(digest, 3)], "message"),
        ([PutBlob(digest, 3), PutChunk(b"ab"), Commit()], "message"),
        ([PutBlob(digest, 3), Status()], "message"),
        ([PutBlobs(((digest, b"abc"),)), Status()], "message"),
    ):
        with raw(daemon) as connection:
            for message in messages:
                connection.sendall(frame(encoded(message)))
            reply = answer(connection)
            assert (reply["code"], reply["details"]["field"]) == ("invalid_request", field)
            assert ends(connection)
    with cupola.sync.connect(daemon.socket) as client:
        assert not client.has(FileNode(digest, 3))


def test_an_error_that_came_while_sending_is_heard(daemon: PrivateDaemon) -> None:
    """The daemon gives up in the middle of an upload; the client tells why, not "broken pipe"."""

    async def main() -> None:
        connection = await Connection.open(daemon.socket)
        with pytest.raises(CupolaError) as caught:
            await _send_for_ever(connection)
        assert caught.value.code == "invalid_request"
        await connection.close()

    trio.run(main)


async def _send_for_ever(connection: Connection) -> None:
    while True:
        await connection.send(PutBlobs(((ABSENT, b"x" * 100_000),)))


def test_a_refused_request_ends_the_connection(daemon: PrivateDaemon) -> None:
    with raw(daemon) as connection:
        connection.sendall(frame(_build(outputs=[])))
        assert answer(connection)["code"] == "invalid_request"
        assert ends(connection)


def test_a_frame_cut_at_every_byte(daemon: PrivateDaemon) -> None:
    whole = frame(_build())
    for cut in range(0, len(whole), 7):
        with raw(daemon) as connection:
            connection.sendall(whole[:cut])


def test_descriptors_that_are_sent_along_are_dropped(daemon: PrivateDaemon) -> None:
    count = descriptors(daemon.pid)
    hello = frame(HELLO)
    with raw(daemon, hello=False) as connection, open("/dev/null") as null:
        for byte in hello:
            socket.send_fds(connection, [bytes([byte])], [null.fileno()] * 200)
        assert answer(connection)["type"] == "welcome"
        assert descriptors(daemon.pid) <= count + 8


def test_a_user_may_have_so_many_connections() -> None:
    with PrivateDaemon("[limits]\nconnections = 3\n") as daemon:
        script = f"""
import socket
held = []
for _ in range(4):
    s = socket.socket(socket.AF_UNIX); s.connect({str(daemon.socket)!r}); held.append(s)
print(held[3].recv(1000))
"""
        out = subprocess.check_output(
            ["/usr/bin/python3", "-c", script], user=1234, group=1234, extra_groups=[]
        )
        assert b"quota_exceeded" in out
        with cupola.sync.connect(daemon.socket) as client:
            client.status()


def test_missing_takes_batches(daemon: PrivateDaemon) -> None:
    digests = tuple(Digest(hashlib.sha256(str(n).encode()).digest()) for n in range(50_000))
    with raw(daemon) as connection:
        connection.sendall(frame(encoded(Missing(digests, digests[:10]))))
        reply = answer(connection)
    assert reply["blobs"] == list(digests)
    assert reply["directories"] == list(digests[:10])


def test_the_largest_frame(daemon: PrivateDaemon) -> None:
    """Exactly the limit is taken; its memory is given back."""
    size = 8 * 1024 * 1024 - 200
    data = os.urandom(size)
    with cupola.sync.connect(daemon.socket) as client:
        assert client.status().limits["frame_bytes"] == 8 * 1024 * 1024
    with raw(daemon) as connection:
        connection.sendall(frame(encoded(PutBlobs(((Digest.of(data), data),)))))
        connection.sendall(frame(encoded(Commit())))
        assert answer(connection) == {"type": "stored", "blobs": 1, "directories": 0, "bytes": size}
