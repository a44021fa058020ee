"""The rules of a request that are not about paths: counts, command, environment, needles."""

from __future__ import annotations

from typing import Final

from cupola.errors import RequestError, invalid_request
from cupola.messages import BuildRequest
from cupolad.request.model import Policy, RequestLimits

_MAX_COMPONENTS: Final = 20_000
"""Each may be a directory to make."""
_MAX_FINDINGS: Final = 300_000
"""Needles times outputs: what a result has to be able to tell in one frame."""


def check_counts(request: BuildRequest, limits: RequestLimits) -> None:
    """No list is longer, and no content larger, than its limit."""
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
    components = sum(path.count("/") + 1 for path in request.additional_files)
    if components > _MAX_COMPONENTS:
        raise invalid_request(
            "additional_files", f"must have at most {_MAX_COMPONENTS} path components in all"
        )
    if len(request.outputs) * len(request.refscan_needles) > _MAX_FINDINGS:
        raise invalid_request(
            "refscan_needles",
            f"must be at most {_MAX_FINDINGS // len(request.outputs)} for so many outputs",
        )
    size = sum(map(len, request.additional_files.values()))
    if size > limits.additional_files_bytes:
        raise invalid_request(
            "additional_files", f"must have at most {limits.additional_files_bytes} bytes in all"
        )


def check_constraints(request: BuildRequest, policy: Policy) -> None:
    """This machine, and what is granted to the user, meet the demands."""
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


def check_command(request: BuildRequest, limits: RequestLimits) -> None:
    """There is a program, by its absolute path, and the kernel takes its arguments."""
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


def check_environment(request: BuildRequest, limits: RequestLimits) -> None:
    """The variables are such as the kernel and runc can carry."""
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


def check_needles(request: BuildRequest, limits: RequestLimits) -> None:
    """The needles can be compiled at bearable cost."""
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
