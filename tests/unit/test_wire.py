"""Messages come back from the wire as they were, and every single fault in one is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupola import framing, wire
from cupola import messages as m
from cupola.nodes import Digest, DirectoryNode, FileNode, Name, Node, SymlinkNode
from cupola.shapes import ShapeError
from strategies import nodes

ONE, TWO = Digest(b"\1" * 32), Digest(b"\2" * 32)

BUILD = m.BuildRequest(
    command_args=("/bin/sh", "-c", "true"),
    outputs=("build/b", "build/a"),
    constraints=m.BuildConstraints(
        "x86_64-linux",
        min_memory=5,
        available_ro_paths=("/etc/ssl",),
        network_access=True,
        provide_bin_sh=True,
    ),
    inputs={
        Name(b"a"): FileNode(ONE, 3, executable=True),
        Name(b"b"): DirectoryNode(TWO, 9),
        Name(b"\xff"): SymlinkNode(b"x"),
    },
    inputs_dir="inputs",
    working_dir="build",
    scratch_paths=("build", "tmpdir"),
    environment_vars={"A": b"1", "B": b"\xff"},
    additional_files={"build/x": b"data"},
    refscan_needles=(b"z", b"a"),
)

REQUESTS: list[m.Request] = [
    m.Hello((1, 2), "test"),
    m.Missing((ONE,), (TWO,)),
    m.PutBlobs(((ONE, b"abc"), (TWO, b""))),
    m.PutBlob(ONE, 2**64 - 1),
    m.PutChunk(b"x"),
    m.PutDirectories((b"", b"x")),
    m.Commit(),
    m.GetBlobs((ONE, ONE)),
    m.GetDirectories((TWO,)),
    m.Build(BUILD),
    m.Status(),
]

REPLIES: list[m.Reply] = [
    m.Welcome(1, "cupolad", {"inputs": 5}),
    m.Absent((ONE,), ()),
    m.Stored(1, 2, 3),
    m.BlobData(((0, b"a"), (1, b""))),
    m.DirectoryData((b"",)),
    m.End(),
    m.Queued("0" * 32),
    m.Started("0" * 32),
    m.Log("stderr", b"\x1b"),
    m.BuildResult(
        "0" * 32,
        "built",
        (m.BuildOutput("build/a", SymlinkNode(b"x"), (0, 2)),),
        m.BuildTimes(1, 2, 3),
        m.BuildUsage(4, 5, 6),
        FileNode(ONE, 1),
    ),
    m.StatusReport(
        "s",
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        True,
        {"a": 1},
        (m.RunningBuild("0" * 32, 1, "queued", 2, ("a",)),),
    ),
    m.Failure("invalid_request", "text", {"field": "x"}),
]


def _through_the_wire(message: m.Message) -> Any:
    return framing.decode_item(framing.encode_frame(wire.encode(message))[4:])


@pytest.mark.parametrize("message", REQUESTS, ids=lambda message: type(message).__name__)
def test_requests_come_back(message: m.Request) -> None:
    assert wire.decode_request(_through_the_wire(message)) == message


@pytest.mark.parametrize("message", REPLIES, ids=lambda message: type(message).__name__)
def test_replies_come_back(message: m.Reply) -> None:
    assert wire.decode_reply(_through_the_wire(message)) == message


def test_the_lists_above_are_complete() -> None:
    assert {type(message) for message in REQUESTS} == set(m.Request.__args__)  # type: ignore[attr-defined]
    assert {type(message) for message in REPLIES} == set(m.Reply.__args__)  # type: ignore[attr-defined]


@given(nodes)
def test_nodes_come_back(node: Node) -> None:
    frame = framing.encode_frame(wire.encode_node(node))
    assert wire.decode_node(framing.decode_item(frame[4:])) == node


def test_equal_requests_have_equal_bytes() -> None:
    """Mappings are sorted on the way out, whatever order they were made in."""
    shuffled = m.BuildRequest(
        **{
            **{name: getattr(BUILD, name) for name in BUILD.__slots__},
            "inputs": dict(reversed(BUILD.inputs.items())),
            "environment_vars": dict(reversed(BUILD.environment_vars.items())),
        }
    )
    assert wire.encode(m.Build(shuffled)) == wire.encode(m.Build(BUILD))


# --- faults --------------------------------------------------------------------------------------


def _places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, (*path, index))


def _replace(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    if not path:
        return new
    value = copy.copy(value)
    value[path[0]] = _replace(value[path[0]], path[1:], new)
    return value


def _get(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


WRONG = [None, -1, 2**64, 1.0, float("nan"), "text\0", {"x": 1}, [None], [[]], True]


@pytest.mark.parametrize("message", REQUESTS, ids=lambda message: type(message).__name__)
def test_a_wrong_value_anywhere_is_refused_with_its_place(message: m.Request) -> None:
    value = _through_the_wire(message)
    for path in _places(value):
        for wrong in WRONG:
            if type(wrong) is type(_get(value, path)) and wrong != "text\0":
                continue
            with pytest.raises(ShapeError) as caught:
                wire.decode_request(_replace(value, path, wrong))
            place = path[1:] if path[:1] == ("request",) else path
            assert caught.value.path[: len(place)] == place[: len(caught.value.path)]


@pytest.mark.parametrize("message", REQUESTS, ids=lambda message: type(message).__name__)
def test_missing_and_unknown_fields_are_refused(message: m.Request) -> None:
    value = _through_the_wire(message)
    for path in _places(value):
        here = _get(value, path)
        if not isinstance(here, dict):
            continue
        with pytest.raises(ShapeError):
            wire.decode_request(_replace(value, path, {**here, "surplus": 1}))
        for key in here:
            rest = {k: v for k, v in here.items() if k != key}
            with pytest.raises(ShapeError):
                wire.decode_request(_replace(value, path, rest))


def _build(**fields: Any) -> Any:
    value = _through_the_wire(m.Build(BUILD))
    return {**value, "request": {**value["request"], **fields}}


@pytest.mark.parametrize(
    ("fields", "field", "index"),
    [
        ({"inputs": [{"name": b"a/b", "node": {"type": "symlink", "target": b"x"}}]}, "inputs[0].name", 0),
        ({"inputs": [{"name": b"a", "node": {"type": "fifo"}}]}, "inputs[0].node.type", 0),
        ({"inputs": [{"name": b"a", "node": {"type": "file", "digest": b"", "size": 1, "executable": True}}]},
         "inputs[0].node.digest", 0),
        ({"inputs": [{"name": b"b", "node": {"type": "symlink", "target": b"x"}},
                     {"name": b"a", "node": {"type": "symlink", "target": b"x"}}]}, "inputs[1]", 1),
        ({"environment_vars": [{"key": "A", "value": b""}, {"key": "A", "value": b""}]}, "environment_vars[1]", 1),
        ({"command_args": ["a", b"b"]}, "command_args[1]", 1),
        ({"working_dir": 5}, "working_dir", None),
    ],
)  # fmt: skip
def test_the_error_names_field_and_index(fields: Any, field: str, index: int | None) -> None:
    with pytest.raises(ShapeError) as caught:
        wire.decode_request(_build(**fields))
    assert caught.value.field == field
    assert caught.value.index == index


@pytest.mark.parametrize("value", [None, [], 5, {}, {"type": 5}, {"type": "nope"}, {"type": "end"}])
def test_what_is_no_request(value: Any) -> None:
    with pytest.raises(ShapeError):
        wire.decode_request(value)


@given(st.dictionaries(st.text(), st.integers() | st.text()))
def test_arbitrary_maps_are_refused(value: Any) -> None:
    with pytest.raises(ShapeError):
        wire.decode_request(value)
