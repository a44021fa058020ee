"""Validation of a build request: every rule that can be told before anything is taken.

Pure but for the store, which is asked whether the inputs are there.  Each refusal names the field,
the index and the rule.  The result is a type that later steps trust and never check again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol, TypeVar

from cupola.directories import Directory
from cupola.errors import RequestError, invalid_request
from cupola.messages import BuildRequest
from cupola.nodes import Digest, DirectoryNode, Name, Node
from cupolad.paths import HostPath, SandboxPath

P = TypeVar("P", bound=str)

_OWN_PLACES: Final = ("proc", "sys", "dev", "etc", "tmp", "run", "bin")
"""Top-level names of the sandbox that a request cannot put anything over or into."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The most that one request may hold; the names are those of the configuration."""

    inputs: int = 20_000
    command_args: int = 4_096
    environment_vars: int = 4_096
    argument_bytes: int = 131_071
    """Of one argument, or one `NAME=value` (MAX_ARG_STRLEN of Linux without its NUL)."""
    arguments_bytes: int = 1024 * 1024
    """Of all arguments and variables together."""
    outputs: int = 256
    scratch_paths: int = 32
    additional_files: int = 1_024
    additional_files_bytes: int = 16 * 1024 * 1024
    refscan_needles: int = 20_000
    needle_bytes: int = 255
    needles_bytes: int = 1024 * 1024
    """Of all needles together; compiling them costs memory and time."""
    available_ro_paths: int = 16


@dataclass(frozen=True, slots=True)
class Policy:
    """What the administrator grants to one user."""

    systems: tuple[str, ...]
    memory: int | None
    """The most memory of one build, in bytes."""
    network_access: bool
    available_ro_paths: frozenset[str]


class Inputs(Protocol):
    """What validation asks of the store."""

    def require(self, nodes: Sequence[Node], /) -> None:
        """Check that each node is present and as large as it says."""
        ...

    def directory(self, digest: Digest, /) -> Directory:
        """A directory that is present."""
        ...


@dataclass(frozen=True, slots=True)
class ValidRequest:
    """A request that keeps every rule, with its paths as types."""

    request: BuildRequest
    inputs_dir: SandboxPath
    scratch_paths: tuple[SandboxPath, ...]
    outputs: tuple[SandboxPath, ...]


def validate(
    request: BuildRequest, limits: RequestLimits, policy: Policy, store: Inputs
) -> ValidRequest:
    """Check `request` completely; RequestError at the first rule that it breaks. Blocks."""
    _check_counts(request, limits)
    _check_constraints(request, policy)
    scratch = _sorted_paths("scratch_paths", request.scratch_paths, SandboxPath)
    outputs = _paths("outputs", request.outputs, SandboxPath)
    inputs_dir = _path("inputs_dir", None, request.inputs_dir, SandboxPath)
    _check_scratch(scratch)
    _check_inputs_dir(request, inputs_dir, scratch)
    _check_outputs(outputs, scratch, inputs_dir, request.inputs)
    _check_additional_files(request, scratch, inputs_dir)
    _check_command(request, limits)
    _check_environment(request, limits)
    _check_needles(request, limits)
    _check_ro_paths(request, policy, scratch, inputs_dir)
    _check_working_dir(request, scratch, inputs_dir, store)
    _check_presence(request, store)
    return ValidRequest(request, inputs_dir, scratch, outputs)


# --- paths ---------------------------------------------------------------------------------------


def _path(field: str, index: int | None, value: str, kind: Callable[[str], P]) -> P:
    try:
        return kind(value)
    except ValueError as error:
        raise invalid_request(field, str(error), index=index) from None


def _paths(field: str, values: Sequence[str], kind: Callable[[str], P]) -> tuple[P, ...]:
    """The values as paths; none may come twice."""
    paths = tuple(_path(f"{field}[{i}]", i, value, kind) for i, value in enumerate(values))
    seen: set[str] = set()
    for index, path in enumerate(paths):
        if path in seen:
            raise invalid_request(f"{field}[{index}]", "must not come twice", index=index)
        seen.add(path)
    return paths


def _sorted_paths(field: str, values: Sequence[str], kind: Callable[[str], P]) -> tuple[P, ...]:
    paths = _paths(field, values, kind)
    for index in range(1, len(paths)):
        if paths[index - 1].encode() > paths[index].encode():
            raise invalid_request(f"{field}[{index}]", "must be sorted", index=index)
    return paths


def _holder(path: SandboxPath, places: Sequence[SandboxPath]) -> SandboxPath | None:
    """The one of `places` that is `path` or holds it."""
    return next((place for place in places if path.is_at_or_below(place)), None)


def _check_clear_of_own_places(field: str, index: int | None, path: SandboxPath) -> None:
    for place in _OWN_PLACES:
        if path.overlaps(place):
            raise invalid_request(
                field, f"must not overlap /{place}, which the sandbox itself provides", index=index
            )


def _check_scratch(scratch: Sequence[SandboxPath]) -> None:
    for index, path in enumerate(scratch):
        field = f"scratch_paths[{index}]"
        _check_clear_of_own_places(field, index, path)
        for other in scratch[:index]:
            if path.overlaps(other):
                raise invalid_request(field, f"must not overlap {other}", index=index)


def _check_inputs_dir(
    request: BuildRequest, inputs_dir: SandboxPath, scratch: Sequence[SandboxPath]
) -> None:
    _check_clear_of_own_places("inputs_dir", None, inputs_dir)
    holder = _holder(inputs_dir, scratch)
    for index, path in enumerate(scratch):
        if path.is_below(inputs_dir):
            raise invalid_request(
                f"scratch_paths[{index}]",
                "must not lie below inputs_dir, which is read-only",
                index=index,
            )
    if holder is not None:
        for index, name in enumerate(request.inputs):
            try:
                name.decode()
            except UnicodeDecodeError:
                raise invalid_request(
                    f"inputs[{index}].name",
                    "must be UTF-8 where inputs_dir lies in a scratch path",
                    index=index,
                ) from None


def _check_outputs(
    outputs: Sequence[SandboxPath],
    scratch: Sequence[SandboxPath],
    inputs_dir: SandboxPath,
    inputs: Mapping[Name, Node],
) -> None:
    if not outputs:
        raise invalid_request("outputs", "must not be empty")
    for index, path in enumerate(outputs):
        field = f"outputs[{index}]"
        if not any(path.is_below(place) for place in scratch):
            raise invalid_request(field, "must lie below a scratch path", index=index)
        if inputs and inputs_dir.is_at_or_below(path):
            raise invalid_request(field, "must not hold the inputs", index=index)
        if path.is_below(inputs_dir):
            first, _, _ = path.relative_to(inputs_dir).partition("/")
            if first.encode() in inputs:
                raise invalid_request(field, f"must not lie in the input {first}", index=index)
    for shorter, longer in _neighbours(outputs):
        if outputs[longer].is_below(outputs[shorter]):
            raise invalid_request(
                f"outputs[{longer}]", f"must not lie in outputs[{shorter}]", index=longer
            )


def _neighbours(paths: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of indexes that hold every case of a path lying in another, in linear number.

    In the order of their components each path is followed by what lies in it.
    """
    order = sorted(range(len(paths)), key=lambda index: paths[index].split("/"))
    return list(pairwise(order))


def _check_additional_files(
    request: BuildRequest, scratch: Sequence[SandboxPath], inputs_dir: SandboxPath
) -> None:
    names = list(request.additional_files)
    paths = [
        _path(f"additional_files[{index}].path", index, name, SandboxPath)
        for index, name in enumerate(names)
    ]
    for index, path in enumerate(paths):
        field = f"additional_files[{index}].path"
        if not any(path.is_below(place) for place in scratch):
            raise invalid_request(field, "must lie below a scratch path", index=index)
        if request.inputs and inputs_dir.is_at_or_below(path):
            raise invalid_request(field, "must not stand where the inputs are", index=index)
        if path.is_below(inputs_dir):
            first, _, _ = path.relative_to(inputs_dir).partition("/")
            if first.encode() in request.inputs:
                raise invalid_request(field, f"must not lie in the input {first}", index=index)
    for shorter, longer in _neighbours(paths):
        if paths[longer].is_below(paths[shorter]):
            raise invalid_request(
                f"additional_files[{longer}].path",
                f"must not lie below additional_files[{shorter}], which is a file",
                index=longer,
            )


def _check_ro_paths(
    request: BuildRequest,
    policy: Policy,
    scratch: Sequence[SandboxPath],
    inputs_dir: SandboxPath,
) -> None:
    field = "constraints.available_ro_paths"
    paths = _sorted_paths(field, request.constraints.available_ro_paths, HostPath)
    for index, path in enumerate(paths):
        if path not in policy.available_ro_paths:
            raise RequestError(
                "denied",
                f"the administrator does not allow the host path {path} to builds of yours",
                field=f"{field}[{index}]",
                index=index,
            )
        inside = SandboxPath(path[1:])
        for other in (*scratch, inputs_dir, *(paths[i][1:] for i in range(index))):
            if inside.overlaps(other):
                raise invalid_request(
                    f"{field}[{index}]", f"must not overlap /{other}", index=index
                )


def _check_working_dir(
    request: BuildRequest,
    scratch: Sequence[SandboxPath],
    inputs_dir: SandboxPath,
    store: Inputs,
) -> None:
    path = _path("working_dir", None, request.working_dir, SandboxPath)
    first, *rest = path.relative_to(inputs_dir).split("/") if path.is_below(inputs_dir) else [""]
    if (node := request.inputs.get(first.encode())) is not None:  # type: ignore[call-overload]
        _require([("working_dir", None, node)], store)
        if not _leads_to_directory(node, rest, store):
            raise invalid_request("working_dir", "must be a directory of the input")
    elif _holder(path, scratch) is None and path.is_below(inputs_dir):
        raise invalid_request("working_dir", "must not lie below inputs_dir outside of an input")
    elif _holder(path, scratch) is None and path not in ("tmp", inputs_dir):
        _check_clear_of_own_places("working_dir", None, path)
    for index, name in enumerate(request.additional_files):
        if path.is_at_or_below(name):
            raise invalid_request(
                "working_dir", f"must not lie at or below additional_files[{index}]"
            )


def _leads_to_directory(node: Node | None, path: Sequence[str], store: Inputs) -> bool:
    """Whether `path`, from `node` down, is a directory."""
    for component in path:
        if not isinstance(node, DirectoryNode):
            return False
        node = store.directory(node.digest).get(component.encode())
    return isinstance(node, DirectoryNode)


# --- everything else -----------------------------------------------------------------------------


def _check_counts(request: BuildRequest, limits: RequestLimits) -> None:
    for field, values, most in (
        ("inputs", request.inputs, limits.inputs),
        ("command_args", request.command_args, limits.command_args),
        ("environment_vars", request.environment_vars, limits.environment_vars),
        ("outputs", request.outputs, limits.outputs),
        ("scratch_paths", request.scratch_paths, limits.scratch_paths),
        ("additional_files", request.additional_files, limits.additional_files),
        ("refscan_needles", request.refscan_needles, limits.refscan_needles),
        (
            "constraints.available_ro_paths",
            request.constraints.available_ro_paths,
            limits.available_ro_paths,
        ),
    ):
        if len(values) > most:
            raise invalid_request(field, f"must have at most {most} entries, not {len(values)}")
    size = sum(map(len, request.additional_files.values()))
    if size > limits.additional_files_bytes:
        raise invalid_request(
            "additional_files", f"must have at most {limits.additional_files_bytes} bytes in all"
        )


def _check_constraints(request: BuildRequest, policy: Policy) -> None:
    constraints = request.constraints
    if constraints.system not in policy.systems:
        raise invalid_request(
            "constraints.system", f"must be one of {', '.join(policy.systems)} on this machine"
        )
    if policy.memory is not None and constraints.min_memory > policy.memory:
        raise invalid_request(
            "constraints.min_memory", f"must be at most the {policy.memory} bytes that a build gets"
        )
    if constraints.network_access and not policy.network_access:
        raise RequestError(
            "denied",
            "the administrator does not grant network access to builds of yours",
            field="constraints.network_access",
        )


def _check_command(request: BuildRequest, limits: RequestLimits) -> None:
    if not request.command_args:
        raise invalid_request("command_args", "must not be empty")
    if not request.command_args[0].startswith("/"):
        raise invalid_request(
            "command_args[0]", "must be an absolute path inside the sandbox", index=0
        )
    for index, argument in enumerate(request.command_args):
        _check_argument(f"command_args[{index}]", index, len(argument.encode()), limits)
    total = sum(len(argument.encode()) + 1 for argument in request.command_args)
    total += sum(len(k.encode()) + len(v) + 2 for k, v in request.environment_vars.items())
    if total > limits.arguments_bytes:
        raise invalid_request(
            "command_args",
            f"and environment_vars must have at most {limits.arguments_bytes} bytes in all",
        )


def _check_argument(field: str, index: int, size: int, limits: RequestLimits) -> None:
    if size > limits.argument_bytes:
        raise invalid_request(
            field, f"must have at most {limits.argument_bytes} bytes", index=index
        )


def _check_environment(request: BuildRequest, limits: RequestLimits) -> None:
    for index, (key, value) in enumerate(request.environment_vars.items()):
        field = f"environment_vars[{index}]"
        if not key or "=" in key:
            raise invalid_request(f"{field}.key", "must not be empty or hold '='", index=index)
        if b"\0" in value:
            raise invalid_request(f"{field}.value", "must not hold NUL", index=index)
        try:
            value.decode()
        except UnicodeDecodeError:
            raise invalid_request(
                f"{field}.value", "must be UTF-8: runc's JSON carries nothing else", index=index
            ) from None
        _check_argument(field, index, len(key.encode()) + len(value) + 1, limits)


def _check_needles(request: BuildRequest, limits: RequestLimits) -> None:
    for index, needle in enumerate(request.refscan_needles):
        if not 1 <= len(needle) <= limits.needle_bytes:
            raise invalid_request(
                f"refscan_needles[{index}]",
                f"must have 1 to {limits.needle_bytes} bytes",
                index=index,
            )
    if sum(map(len, request.refscan_needles)) > limits.needles_bytes:
        raise invalid_request(
            "refscan_needles", f"must have at most {limits.needles_bytes} bytes in all"
        )


def _check_presence(request: BuildRequest, store: Inputs) -> None:
    nodes = [(f"inputs[{i}].node", i, node) for i, node in enumerate(request.inputs.values())]
    _require(nodes, store)


def _require(nodes: Sequence[tuple[str, int | None, Node]], store: Inputs) -> None:
    """Check that the nodes are present, all at once, and one by one only to find the faulty one."""
    try:
        store.require([node for _, _, node in nodes])
    except ValueError:
        for field, index, node in nodes:
            try:
                store.require([node])
            except ValueError as error:
                raise invalid_request(field, str(error), index=index) from None
        raise
