"""The rules on where things may lie in the sandbox, each against all others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Final, TypeVar

from cupola.errors import RequestError, invalid_request
from cupola.messages import BuildRequest
from cupola.nodes import DirectoryNode, Name, Node
from cupolad.paths import MAX_PATH, HostPath, SandboxPath
from cupolad.request.model import Inputs, Policy
from cupolad.request.presence import require

P = TypeVar("P", bound=str)

_OWN_PLACES: Final = ("proc", "sys", "dev", "etc", "tmp", "run", "bin")
"""Top-level names of the sandbox that a request cannot put anything over or into."""


def parse_path(field: str, index: int | None, value: str, kind: Callable[[str], P]) -> P:
    """The value as a path of this `kind`."""
    try:
        return kind(value)
    except ValueError as error:
        raise invalid_request(field, str(error), index=index) from None


def parse_paths(field: str, values: Sequence[str], kind: Callable[[str], P]) -> tuple[P, ...]:
    """The values as paths; none may come twice."""
    paths = tuple(parse_path(f"{field}[{i}]", i, value, kind) for i, value in enumerate(values))
    seen: set[str] = set()
    for index, path in enumerate(paths):
        if path in seen:
            raise invalid_request(f"{field}[{index}]", "must not come twice", index=index)
        seen.add(path)
    return paths


def parse_sorted_paths(
    field: str, values: Sequence[str], kind: Callable[[str], P]
) -> tuple[P, ...]:
    """The values as paths, which have to come in the order of their bytes."""
    paths = parse_paths(field, values, kind)
    for index in range(1, len(paths)):
        if paths[index - 1].encode() > paths[index].encode():
            raise invalid_request(f"{field}[{index}]", "must be sorted", index=index)
    return paths


def _holder(path: SandboxPath, places: Sequence[SandboxPath]) -> SandboxPath | None:
    """The one of `places` that is `path` or holds it."""
    return next((place for place in places if path.is_at_or_below(place)), None)


def check_clear_of_own_places(field: str, index: int | None, path: SandboxPath) -> None:
    """Refuse a path in, at or around what every sandbox has."""
    for place in _OWN_PLACES:
        if path.overlaps(place):
            raise invalid_request(
                field, f"must not overlap /{place}, which the sandbox itself provides", index=index
            )


def check_scratch(scratch: Sequence[SandboxPath]) -> None:
    """Scratch paths are clear of the sandbox itself and of each other."""
    for index, path in enumerate(scratch):
        field = f"scratch_paths[{index}]"
        check_clear_of_own_places(field, index, path)
        for other in scratch[:index]:
            if path.overlaps(other):
                raise invalid_request(field, f"must not overlap {other}", index=index)


def check_inputs_dir(
    request: BuildRequest, inputs_dir: SandboxPath, scratch: Sequence[SandboxPath]
) -> None:
    """The inputs are clear of the sandbox itself, and no scratch path lies among them."""
    check_clear_of_own_places("inputs_dir", None, inputs_dir)
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


def check_outputs(
    outputs: Sequence[SandboxPath],
    scratch: Sequence[SandboxPath],
    inputs_dir: SandboxPath,
    inputs: Mapping[Name, Node],
) -> None:
    """Outputs lie below scratch paths, clear of the inputs and of each other."""
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


def check_additional_files(
    request: BuildRequest, scratch: Sequence[SandboxPath], inputs_dir: SandboxPath
) -> None:
    """Additional files lie below scratch paths, clear of the inputs and of each other."""
    names = list(request.additional_files)
    paths = [
        parse_path(f"additional_files[{index}].path", index, name, SandboxPath)
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


def check_ro_paths(
    request: BuildRequest,
    policy: Policy,
    scratch: Sequence[SandboxPath],
    inputs_dir: SandboxPath,
) -> None:
    """Host paths are granted by the administrator and clear of everything else."""
    field = "constraints.available_ro_paths"
    paths = parse_sorted_paths(field, request.constraints.available_ro_paths, HostPath)
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


def check_working_dir(
    request: BuildRequest,
    scratch: Sequence[SandboxPath],
    inputs_dir: SandboxPath,
    store: Inputs,
) -> None:
    """The working directory is one that exists or that can be made."""
    path = parse_path("working_dir", None, request.working_dir, SandboxPath)
    if len(path.encode()) >= MAX_PATH:
        raise invalid_request("working_dir", f"must have at most {MAX_PATH - 1} bytes")
    first, *rest = path.relative_to(inputs_dir).split("/") if path.is_below(inputs_dir) else [""]
    if (node := request.inputs.get(first.encode())) is not None:  # type: ignore[call-overload]
        require([("working_dir", None, node)], store)
        if not _leads_to_directory(node, rest, store):
            raise invalid_request("working_dir", "must be a directory of the input")
    elif _holder(path, scratch) is None and path.is_below(inputs_dir):
        raise invalid_request("working_dir", "must not lie below inputs_dir outside of an input")
    elif _holder(path, scratch) is None and path not in ("tmp", inputs_dir):
        check_clear_of_own_places("working_dir", None, path)
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
