"""Maps messages to and from the values that a frame carries (see `docs/protocol.cddl`).

Each message is a map with a `type` and exactly the fields of its class.  `decode_request` and
`decode_reply` return trusted types or raise `ShapeError` with the path to the fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from cupola import messages as m
from cupola import shapes
from cupola.nodes import Digest, DirectoryNode, FileNode, Name, Node, SymlinkNode
from cupola.shapes import (
    Parser,
    ShapeError,
    array,
    boolean,
    checked,
    nullable,
    octets,
    one_of,
    record,
    sorted_map,
    text,
    unsigned,
)

T = TypeVar("T")
Value = dict[str, Any]

# --- decoding ------------------------------------------------------------------------------------

_digest = checked(Digest, octets)
_digests = array(_digest)
_texts = array(text)
_name = checked(Name, octets)


def _tagged(parsers: Mapping[str, Parser[T]]) -> Parser[T]:
    """A map whose `type` says which of `parsers` reads the rest."""

    def parse(value: Any) -> T:
        if type(value) is not dict:
            raise ShapeError("must be a map")
        tag = value.get("type")
        parser = parsers.get(tag) if type(tag) is str else None
        if parser is None:
            raise ShapeError("is not one that is known here").within("type")
        rest = dict(value)
        del rest["type"]
        return parser(rest)

    return parse


decode_node: Parser[Node] = _tagged(
    {
        "file": record(FileNode, digest=_digest, size=unsigned, executable=boolean),
        "directory": record(DirectoryNode, digest=_digest, size=unsigned),
        "symlink": record(SymlinkNode, target=octets),
    }
)
_file_node = checked(lambda node: _only_file(node), decode_node)


def _only_file(node: Node) -> FileNode:
    if not isinstance(node, FileNode):
        raise ValueError("must be a file")
    return node


decode_build_request: Parser[m.BuildRequest] = record(
    m.BuildRequest,
    inputs=sorted_map("name", _name, "node", decode_node),
    command_args=_texts,
    working_dir=text,
    scratch_paths=_texts,
    inputs_dir=text,
    outputs=_texts,
    environment_vars=sorted_map("key", text, "value", octets),
    constraints=record(
        m.BuildConstraints,
        system=text,
        min_memory=unsigned,
        available_ro_paths=_texts,
        network_access=boolean,
        provide_bin_sh=boolean,
    ),
    additional_files=sorted_map("path", text, "contents", octets),
    refscan_needles=array(octets),
)

# Faults in a build request are named by the request's own fields, without a `request.` before them.
_only_request = record(m.Build, request=lambda value: value)

_decode_request: Parser[m.Request] = _tagged(
    {
        "hello": record(m.Hello, versions=array(unsigned), client=text),
        "missing": record(m.Missing, blobs=_digests, directories=_digests),
        "put_blobs": record(
            m.PutBlobs,
            blobs=array(record(lambda digest, data: (digest, data), digest=_digest, data=octets)),
        ),
        "put_blob": record(m.PutBlob, digest=_digest, size=unsigned),
        "put_chunk": record(m.PutChunk, data=octets),
        "put_directories": record(m.PutDirectories, directories=array(octets)),
        "commit": record(m.Commit),
        "get_blobs": record(m.GetBlobs, digests=_digests),
        "get_directories": record(m.GetDirectories, digests=_digests),
        "build": lambda value: m.Build(decode_build_request(_only_request(value).request)),
        "status": record(m.Status),
    }
)

_limits = shapes.integers_by_name

_decode_reply: Parser[m.Reply] = _tagged(
    {
        "welcome": record(m.Welcome, version=unsigned, server=text, limits=_limits),
        "absent": record(m.Absent, blobs=_digests, directories=_digests),
        "stored": record(m.Stored, blobs=unsigned, directories=unsigned, bytes=unsigned),
        "blob_data": record(
            m.BlobData,
            parts=array(record(lambda index, data: (index, data), index=unsigned, data=octets)),
        ),
        "directory_data": record(m.DirectoryData, directories=array(octets)),
        "end": record(m.End),
        "queued": record(m.Queued, build_id=text),
        "started": record(m.Started, build_id=text),
        "log": record(m.Log, stream=one_of("stdout", "stderr"), data=octets),
        "result": record(
            m.BuildResult,
            build_id=text,
            status=one_of("built", "shared", "cached"),
            outputs=array(
                record(m.BuildOutput, path=text, node=decode_node, needles=array(unsigned))
            ),
            times=record(m.BuildTimes, queued=unsigned, started=unsigned, finished=unsigned),
            usage=record(m.BuildUsage, wall_us=unsigned, cpu_us=unsigned, memory_peak=unsigned),
            log=nullable(_file_node),
        ),
        "report": record(
            m.StatusReport,
            server=text,
            uptime_ms=unsigned,
            max_builds=unsigned,
            running=unsigned,
            queued=unsigned,
            connections=unsigned,
            store_blobs=unsigned,
            store_directories=unsigned,
            store_bytes=unsigned,
            draining=boolean,
            limits=_limits,
            builds=array(
                record(
                    m.RunningBuild,
                    build_id=text,
                    uid=unsigned,
                    state=one_of("queued", "running"),
                    since=unsigned,
                    outputs=_texts,
                )
            ),
        ),
        "error": record(m.Failure, code=text, message=text, details=lambda value: value),
    }
)


def decode_request(value: Any) -> m.Request:
    """The request that a client sent as `value`."""
    return _decode_request(value)


def decode_reply(value: Any) -> m.Reply:
    """The reply that the daemon sent as `value`."""
    return _decode_reply(value)


# --- encoding ------------------------------------------------------------------------------------


def encode_node(node: Node) -> Value:
    """The value that stands for `node`."""
    match node:
        case FileNode(digest, size, executable):
            return {"type": "file", "digest": digest, "size": size, "executable": executable}
        case DirectoryNode(digest, size):
            return {"type": "directory", "digest": digest, "size": size}
        case SymlinkNode(target):
            return {"type": "symlink", "target": target}


def _fields(message: Any) -> Value:
    """The fields of a message whose values need no encoding of their own."""
    return {name: _plain(getattr(message, name)) for name in message.__slots__}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def encode_build_request(request: m.BuildRequest) -> Value:
    """The value that stands for `request`; equal requests have equal values."""
    return {
        "inputs": [
            {"name": name, "node": encode_node(node)}
            for name, node in sorted(request.inputs.items())
        ],
        "command_args": list(request.command_args),
        "working_dir": request.working_dir,
        "scratch_paths": list(request.scratch_paths),
        "inputs_dir": request.inputs_dir,
        "outputs": list(request.outputs),
        "environment_vars": [
            {"key": key, "value": value} for key, value in sorted(request.environment_vars.items())
        ],
        "constraints": _fields(request.constraints),
        "additional_files": [
            {"path": path, "contents": contents}
            for path, contents in sorted(request.additional_files.items())
        ],
        "refscan_needles": list(request.refscan_needles),
    }


def _encode_result(result: m.BuildResult) -> Value:
    return {
        "build_id": result.build_id,
        "status": result.status,
        "outputs": [
            {"path": o.path, "node": encode_node(o.node), "needles": list(o.needles)}
            for o in result.outputs
        ],
        "times": _fields(result.times),
        "usage": _fields(result.usage),
        "log": None if result.log is None else encode_node(result.log),
    }


_PLAIN: Mapping[type[Any], str] = {
    m.Hello: "hello",
    m.Missing: "missing",
    m.PutBlob: "put_blob",
    m.PutChunk: "put_chunk",
    m.PutDirectories: "put_directories",
    m.Commit: "commit",
    m.GetBlobs: "get_blobs",
    m.GetDirectories: "get_directories",
    m.Status: "status",
    m.Welcome: "welcome",
    m.Absent: "absent",
    m.Stored: "stored",
    m.DirectoryData: "directory_data",
    m.End: "end",
    m.Queued: "queued",
    m.Started: "started",
    m.Log: "log",
    m.Failure: "error",
}

_OTHER: Mapping[type[Any], tuple[str, Callable[[Any], Value]]] = {
    m.PutBlobs: (
        "put_blobs",
        lambda put: {"blobs": [{"digest": digest, "data": data} for digest, data in put.blobs]},
    ),
    m.Build: ("build", lambda build: {"request": encode_build_request(build.request)}),
    m.BlobData: (
        "blob_data",
        lambda got: {"parts": [{"index": index, "data": data} for index, data in got.parts]},
    ),
    m.BuildResult: ("result", _encode_result),
    m.StatusReport: (
        "report",
        lambda report: _fields(report) | {"builds": [_fields(b) for b in report.builds]},
    ),
}


def encode(message: m.Message) -> Value:
    """The value that a frame carries for `message`."""
    kind = type(message)
    if kind in _PLAIN:
        return {"type": _PLAIN[kind], **_fields(message)}
    tag, fields = _OTHER[kind]
    return {"type": tag, **fields(message)}
