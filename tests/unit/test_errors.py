"""Errors: few, split by blame, and each code keeps its meaning for programs."""

from __future__ import annotations

import errno

import pytest

from cupola import errors
from cupola.cli import failure
from cupola.cli.failure import UsageError
from cupola.errors import BuildError, CupolaError, RequestError
from cupola.framing import FrameError
from cupola.shapes import ShapeError
from cupolad import failures

EXITS = {
    "invalid_request": 2,
    "missing_objects": 2,
    "denied": 77,
    "quota_exceeded": 75,
    "build_failed": 100,
    "output_missing": 100,
    "output_unsupported": 100,
    "timeout": 101,
    "silence": 101,
    "out_of_memory": 100,
    "log_limit": 100,
    "disk_limit": 100,
    "cancelled": 130,
    "infrastructure": 75,
    "no_daemon": 69,
}


@pytest.mark.parametrize(("code", "status"), EXITS.items())
def test_codes_blame_and_exit_status(code: str, status: int) -> None:
    error = errors.from_code(code, "text", {"a": 1})
    assert (error.code, error.message, error.details) == (code, "text", {"a": 1})
    assert failure.exit_status(error) == status


def test_all_codes_are_listed_above() -> None:
    kinds = CupolaError.__subclasses__()
    assert {code for kind in kinds for code in kind.codes} == set(EXITS)
    assert {kind.blame for kind in kinds} == {"request", "build", "host"}


def test_unknown_codes() -> None:
    with pytest.raises(ValueError, match="unknown error code"):
        errors.from_code("nope", "", {})
    with pytest.raises(ValueError, match="not a code of"):
        BuildError("denied", "")


def test_what_the_user_did_wrong_exits_with_2() -> None:
    assert failure.exit_status(UsageError("x")) == 2


def test_missing_objects_are_capped() -> None:
    error = errors.missing_objects([bytes([0, n]) for n in range(100)], limit=3)
    assert len(error.details["blobs"]) == 3
    assert error.details["count"] == 100


@pytest.mark.parametrize(
    ("exception", "code", "details"),
    [
        (RequestError("denied", "x"), "denied", {}),
        (FrameError("x"), "invalid_request", {"field": "frame"}),
        (
            ShapeError("must x").within(3).within("a"),
            "invalid_request",
            {"field": "a[3]", "index": 3},
        ),
        (OSError(errno.ENOSPC, "No space"), "infrastructure", {"retryable": True}),
        (OSError(errno.EDQUOT, "Quota"), "infrastructure", {"retryable": True}),
        (OSError(errno.EIO, "I/O", "/var/lib/secret"), "infrastructure", {"retryable": True}),
        (KeyError("secret"), "infrastructure", {"retryable": False}),
        (MemoryError(), "infrastructure", {"retryable": False}),
    ],
)
def test_every_exception_becomes_one_typed_reply(
    exception: Exception, code: str, details: dict[str, object]
) -> None:
    reply = failures.reply(failures.as_error(exception, "test"))
    assert reply.code == code
    assert details.items() <= reply.details.items()
    assert "secret" not in reply.message
    assert "Traceback" not in reply.message


def test_json_of_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    error = BuildError("build_failed", "no", exit_code=3, log_tail=[b"a\xff"], build_id="0" * 32)
    assert failure.report(error, as_json=True) == 100
    assert capsys.readouterr().out == (
        '{"build_id": "' + "0" * 32 + '", "error": {"code": "build_failed", "message": "no",'
        ' "exit_code": 3, "log_tail": ["a\\udcff"]}}\n'
    )
    assert failure.report(errors.missing_objects([b"\x01\x02"]), as_json=True) == 2
    assert '"blobs": ["0102"]' in capsys.readouterr().out
