"""Request files: TOML or JSON with the field names of `BuildRequest`, for people to write.

An input is a node's text or JSON form, or `{ path = "…" }`, which is imported first; the contents of an
additional file are text or `{ path = "…" }`.  Paths are relative to the file's own directory, or
to the current one for standard input.
"""

from __future__ import annotations

import json
import platform
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from cupola import notation
from cupola.cli.failure import UsageError
from cupola.messages import BuildConstraints, BuildRequest
from cupola.nodes import Name, Node
from cupola.notation import text_to_bytes

T = TypeVar("T")

_FIELDS: Final = frozenset(BuildRequest.__slots__)
_CONSTRAINTS: Final = frozenset(BuildConstraints.__slots__)


@dataclass(frozen=True, slots=True)
class RequestFile:
    """A request, without the inputs at `paths`, which have to be imported."""

    request: BuildRequest
    paths: Mapping[Name, Path]


def load(file: str) -> RequestFile:
    """Read a request file; `-` is standard input. UsageError names the field that is wrong."""
    base = Path() if file == "-" else Path(file).parent
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = raw.decode()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not UTF-8") from None
    return parse(text, base)


def parse(text: str, base: Path) -> RequestFile:
    """The request that `text` describes; its paths are relative to `base`."""
    fields = _document(text)
    _check_known(fields, _FIELDS, "")
    inputs: dict[Name, Node] = {}
    paths: dict[Name, Path] = {}
    for key, value in _table(fields, "inputs").items():
        where = f"inputs.{key}"
        name = _checked(where, lambda key=key: Name(text_to_bytes(key)))  # type: ignore[misc]
        if isinstance(value, str):
            inputs[name] = _checked(where, lambda value=value: notation.from_text(value))  # type: ignore[misc]
        elif isinstance(value, dict) and "type" in value:
            inputs[name] = _checked(where, lambda value=value: notation.from_json(value))  # type: ignore[misc]
        else:
            paths[name] = _path(where, value, base)
    request = BuildRequest(
        inputs=inputs,
        command_args=_texts(fields, "command_args"),
        outputs=_texts(fields, "outputs"),
        constraints=_constraints(_table(fields, "constraints")),
        inputs_dir=_text(fields, "inputs_dir", "inputs"),
        working_dir=_text(fields, "working_dir", "build"),
        scratch_paths=tuple(sorted(_texts(fields, "scratch_paths", ("build",)))),
        environment_vars={
            key: _contents(
                f"environment_vars.{key}", _a_text(f"environment_vars.{key}", value), base
            )
            for key, value in _table(fields, "environment_vars").items()
        },
        additional_files={
            key: _contents(f"additional_files.{key}", value, base)
            for key, value in _table(fields, "additional_files").items()
        },
        refscan_needles=tuple(
            _contents(f"refscan_needles[{i}]", needle, base)
            for i, needle in enumerate(_texts(fields, "refscan_needles", item=_a_text))
        ),
    )
    return RequestFile(request, paths)


def _document(text: str) -> dict[str, Any]:
    """TOML, or JSON if it starts like a JSON object."""
    try:
        value = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"the request is neither TOML nor JSON: {error}") from None
    if not isinstance(value, dict):
        raise UsageError("the request must be a table")
    return value


def _constraints(fields: Mapping[str, Any]) -> BuildConstraints:
    _check_known(fields, _CONSTRAINTS, "constraints.")
    memory = fields.get("min_memory", 0)
    if type(memory) is not int or not 0 <= memory < 2**64:
        raise UsageError("constraints.min_memory must be a number of bytes, below 2^64")
    return BuildConstraints(
        system=_text(fields, "system", f"{platform.machine()}-linux", "constraints."),
        min_memory=memory,
        available_ro_paths=tuple(sorted(_texts(fields, "available_ro_paths", (), "constraints."))),
        network_access=_flag(fields, "network_access"),
        provide_bin_sh=_flag(fields, "provide_bin_sh"),
    )


def _check_known(fields: Mapping[str, Any], known: frozenset[str], prefix: str) -> None:
    for key in fields:
        if key not in known:
            raise UsageError(f"{prefix}{key} is not a field; there are {', '.join(sorted(known))}")


def _table(fields: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = fields.get(key, {})
    if not isinstance(value, dict):
        raise UsageError(f"{key} must be a table")
    return value


def _a_text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where} must be text")
    return value


def _a_sent_text(where: str, value: Any) -> str:
    """A text that is sent as one, and so cannot stand for bytes that are none."""
    _checked(where, lambda: _a_text(where, value).encode())
    return str(value)


def _text(fields: Mapping[str, Any], key: str, default: str, prefix: str = "") -> str:
    return _a_sent_text(prefix + key, fields.get(key, default))


def _texts(
    fields: Mapping[str, Any],
    key: str,
    default: tuple[str, ...] = (),
    prefix: str = "",
    item: Callable[[str, Any], str] = _a_sent_text,
) -> tuple[str, ...]:
    value = fields.get(key, list(default))
    if not isinstance(value, list):
        raise UsageError(f"{prefix}{key} must be a list")
    return tuple(item(f"{prefix}{key}[{i}]", text) for i, text in enumerate(value))


def _flag(fields: Mapping[str, Any], key: str) -> bool:
    value = fields.get(key, False)
    if not isinstance(value, bool):
        raise UsageError(f"constraints.{key} must be true or false")
    return value


def _path(where: str, value: Any, base: Path) -> Path:
    if not isinstance(value, dict) or set(value) != {"path"} or not isinstance(value["path"], str):
        raise UsageError(f'{where} must be text or {{ path = "…" }}')
    return base / value["path"]


def _contents(where: str, value: Any, base: Path) -> bytes:
    if isinstance(value, str):
        return _checked(where, lambda: text_to_bytes(value))
    path = _path(where, value, base)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{where}: cannot read {path}: {error.strerror}") from None


def _checked(where: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None
