"""Every rule of a build request: the refusal names field, index and rule; the rest is accepted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from test_paths import UNCLEAN

from cupola.directories import Directory
from cupola.errors import CupolaError, missing_objects
from cupola.messages import BuildConstraints, BuildRequest
from cupola.nodes import Digest, DirectoryNode, FileNode, Name, Node, SymlinkNode
from cupolad.request import Policy, RequestLimits, ValidRequest, validate

INNER = Directory({Name(b"deep"): SymlinkNode(b"x")})
TREE = Directory({Name(b"sub"): INNER.node, Name(b"file"): FileNode(Digest(bytes(32)), 3)})
FILE = FileNode(Digest(b"\1" * 32), 5)


class FakeStore:
    """Knows TREE, INNER and FILE."""

    def __init__(self) -> None:
        self.directories = {TREE.digest: TREE, INNER.digest: INNER}
        self.blobs = {FILE.digest: 5}

    def require(self, nodes: Sequence[Node], /) -> None:
        for node in nodes:
            if isinstance(node, FileNode):
                if node.digest not in self.blobs:
                    raise missing_objects([node.digest])
                if self.blobs[node.digest] != node.size:
                    raise ValueError("has another size")
            if isinstance(node, DirectoryNode) and node.digest not in self.directories:
                raise missing_objects(directories=[node.digest])

    def directory(self, digest: Digest, /) -> Directory:
        return self.directories[digest]


LIMITS = RequestLimits()
POLICY = Policy(("x86_64-linux", "i686-linux"), 1 << 30, False, frozenset({"/etc/ssl", "/opt/x"}))
GOOD = BuildRequest(
    command_args=("/bin/sh",),
    outputs=("build/out",),
    constraints=BuildConstraints("x86_64-linux"),
    inputs={Name(b"tree"): TREE.node, Name(b"file"): FILE, Name(b"link"): SymlinkNode(b"/etc")},
)
NIX = replace(
    GOOD,
    inputs_dir="nix/store",
    scratch_paths=("build", "nix/store"),
    outputs=("nix/store/out",),
)


def check(
    request: BuildRequest, limits: RequestLimits = LIMITS, policy: Policy = POLICY
) -> ValidRequest:
    return validate(request, limits, policy, FakeStore())


def refused(request: BuildRequest, **options: Any) -> CupolaError:
    with pytest.raises(CupolaError) as caught:
        check(request, **options)
    return caught.value


def assert_refused(request: BuildRequest, field: str, index: int | None, **options: Any) -> None:
    error = refused(request, **options)
    assert error.code == "invalid_request"
    assert error.details["field"] == field
    assert error.details.get("index") == index
    assert error.details["rule"].startswith(("must ", "has ", "and "))


def test_good_requests() -> None:
    valid = check(GOOD)
    assert valid.outputs == ("build/out",)
    assert check(NIX).scratch_paths == ("build", "nix/store")


@pytest.mark.parametrize("path", [*UNCLEAN, "/a"])
def test_unclean_paths_in_every_field(path: str) -> None:
    assert_refused(replace(GOOD, working_dir=path), "working_dir", None)
    assert_refused(replace(GOOD, inputs_dir=path), "inputs_dir", None)
    assert_refused(replace(GOOD, scratch_paths=(path,)), "scratch_paths[0]", 0)
    assert_refused(replace(GOOD, outputs=("build/out", path)), "outputs[1]", 1)
    assert_refused(replace(GOOD, additional_files={path: b""}), "additional_files[0].path", 0)


@pytest.mark.parametrize("path", ["/" + path for path in UNCLEAN] + ["relative"])
def test_unclean_host_paths(path: str) -> None:
    constraints = BuildConstraints("x86_64-linux", available_ro_paths=(path,))
    assert_refused(replace(GOOD, constraints=constraints), "constraints.available_ro_paths[0]", 0)


OWN = ["proc", "proc/self", "sys", "sys/fs", "dev", "dev/shm", "etc", "etc/passwd", "tmp", "tmp/x",
       "run", "bin", "bin/sh"]  # fmt: skip


@pytest.mark.parametrize("path", OWN)
def test_nothing_goes_over_what_the_sandbox_provides(path: str) -> None:
    assert_refused(replace(GOOD, scratch_paths=(path,)), "scratch_paths[0]", 0)
    assert_refused(replace(GOOD, inputs_dir=path), "inputs_dir", None)
    if path != "tmp":
        assert_refused(replace(GOOD, working_dir=path), "working_dir", None)


@pytest.mark.parametrize(
    ("scratch", "field", "index"),
    [
        (("build", "build"), "scratch_paths[1]", 1),
        (("b", "a"), "scratch_paths[1]", 1),
        (("build", "build/sub"), "scratch_paths[1]", 1),
        (("inputs/sub",), "scratch_paths[0]", 0),
        (("build", "inputs/tree"), "scratch_paths[1]", 1),
    ],
)
def test_scratch_paths(scratch: tuple[str, ...], field: str, index: int) -> None:
    assert_refused(replace(GOOD, scratch_paths=scratch), field, index)


@pytest.mark.parametrize(
    ("request_", "outputs", "index"),
    [
        (GOOD, (), None),
        (GOOD, ("build/a", "build/a"), 1),
        (GOOD, ("build",), 0),
        (GOOD, ("elsewhere/out",), 0),
        (GOOD, ("inputs/out",), 0),
        (GOOD, ("buildx/out",), 0),
        (GOOD, ("build/a", "build/a/b"), 1),
        (GOOD, ("build/a/b", "build/a"), 0),
        (GOOD, ("build/a/b", "build/ab", "build/a"), 0),
        (NIX, ("nix/store/tree",), 0),
        (NIX, ("nix/store/tree/sub",), 0),
        (NIX, ("nix/store/link/x",), 0),
        (NIX, ("nix/store",), 0),
        (replace(NIX, scratch_paths=("build", "nix")), ("nix/store",), 0),
    ],
)
def test_outputs(request_: BuildRequest, outputs: tuple[str, ...], index: int | None) -> None:
    field = "outputs" if index is None else f"outputs[{index}]"
    assert_refused(replace(request_, outputs=outputs), field, index)


@pytest.mark.parametrize(
    ("request_", "outputs"),
    [
        (GOOD, ("build/b", "build/a", "build/ab", "build/a-b/c")),
        (NIX, ("nix/store/tree2", "nix/store/tre", "build/x")),
        (replace(NIX, scratch_paths=("build", "nix")), ("nix/store/out", "nix/other")),
    ],
)
def test_outputs_that_are_accepted(request_: BuildRequest, outputs: tuple[str, ...]) -> None:
    assert check(replace(request_, outputs=outputs)).outputs == outputs


@pytest.mark.parametrize(
    ("request_", "paths", "index"),
    [
        (GOOD, ("elsewhere/file",), 0),
        (GOOD, ("build",), 0),
        (GOOD, ("inputs/file",), 0),
        (GOOD, ("build/a", "build/a/b"), 1),
        (NIX, ("nix/store/tree",), 0),
        (NIX, ("build/x", "nix/store/tree/new"), 1),
        (NIX, ("nix/store",), 0),
    ],
)
def test_additional_files(request_: BuildRequest, paths: tuple[str, ...], index: int) -> None:
    assert_refused(
        replace(request_, additional_files=dict.fromkeys(paths, b"")),
        f"additional_files[{index}].path",
        index,
    )


def test_additional_files_anywhere_below_any_scratch_path() -> None:
    files = {"build/deep/er/file": b"x", "nix/store/new": b"y", "nix/store/out/pre": b"z"}
    check(replace(NIX, additional_files=files))


@pytest.mark.parametrize(
    "working_dir",
    [
        "inputs/none",
        "inputs/file",
        "inputs/link",
        "inputs/tree/file",
        "inputs/tree/none",
        "inputs/tree/sub/deep",
    ],
)
def test_working_dirs_that_are_no_directories(working_dir: str) -> None:
    assert_refused(replace(GOOD, working_dir=working_dir), "working_dir", None)


@pytest.mark.parametrize(
    "working_dir",
    ["build", "build/new/dirs", "inputs", "inputs/tree", "inputs/tree/sub", "tmp", "home"],
)
def test_working_dirs(working_dir: str) -> None:
    check(replace(GOOD, working_dir=working_dir))


def test_working_dir_at_a_file() -> None:
    request = replace(GOOD, additional_files={"build/x": b""}, working_dir="build/x/y")
    assert_refused(request, "working_dir", None)


def test_input_names_in_scratch_are_text() -> None:
    request = replace(NIX, inputs={Name(b"a"): FILE, Name(b"\xff"): FILE})
    assert_refused(request, "inputs[1].name", 1)
    check(replace(GOOD, inputs={Name(b"\xff"): FILE}))


@pytest.mark.parametrize(
    ("args", "field", "index"),
    [
        ((), "command_args", None),
        (("sh",), "command_args[0]", 0),
        (("",), "command_args[0]", 0),
        (("/bin/sh", "x" * 131_072), "command_args[1]", 1),
        (("/bin/sh", *["x" * 131_071] * 9), "command_args", None),
    ],
)
def test_commands(args: tuple[str, ...], field: str, index: int | None) -> None:
    assert_refused(replace(GOOD, command_args=args), field, index)


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        ({"": b"x"}, "environment_vars[0].key"),
        ({"A": b"", "B=C": b"x"}, "environment_vars[1].key"),
        ({"A": b"x\0"}, "environment_vars[0].value"),
        ({"A": b"\xff"}, "environment_vars[0].value"),
        ({"A": b"x" * 131_070}, "environment_vars[0]"),
    ],
)
def test_environment(variables: dict[str, bytes], field: str) -> None:
    error = refused(replace(GOOD, environment_vars=variables))
    assert error.details["field"] == field


@pytest.mark.parametrize(
    "name", ["LD_PRELOAD", "NOTIFY_SOCKET", "LISTEN_FDS", "_LIBCONTAINER_X", "é", "a b"]
)
def test_any_name_without_an_equals_sign_is_the_builds_own_affair(name: str) -> None:
    check(replace(GOOD, environment_vars={name: b"x"}))


@pytest.mark.parametrize("needle", [b"", b"x" * 256])
def test_needles(needle: bytes) -> None:
    assert_refused(replace(GOOD, refscan_needles=(b"x", needle)), "refscan_needles[1]", 1)


def test_needles_in_all() -> None:
    limits = replace(LIMITS, needles_bytes=10)
    assert_refused(
        replace(GOOD, refscan_needles=(b"x" * 6,) * 2), "refscan_needles", None, limits=limits
    )
    check(replace(GOOD, refscan_needles=(b"same", b"same", b"\0")), limits)


@pytest.mark.parametrize(
    "system", ["", "x86_64-linux\n", "aarch64-linux", "X86_64-linux", "builtin"]
)
def test_systems(system: str) -> None:
    assert_refused(replace(GOOD, constraints=BuildConstraints(system)), "constraints.system", None)


def test_memory() -> None:
    enough = BuildConstraints("i686-linux", min_memory=1 << 30)
    check(replace(GOOD, constraints=enough))
    too_much = replace(enough, min_memory=(1 << 30) + 1)
    assert_refused(replace(GOOD, constraints=too_much), "constraints.min_memory", None)
    check(
        replace(GOOD, constraints=replace(enough, min_memory=2**64 - 1)),
        policy=replace(POLICY, memory=None),
    )


def test_network_is_denied_unless_granted() -> None:
    request = replace(GOOD, constraints=BuildConstraints("x86_64-linux", network_access=True))
    error = refused(request)
    assert (error.code, error.details["field"]) == ("denied", "constraints.network_access")
    check(request, policy=replace(POLICY, network_access=True))


def _with_ro(*paths: str) -> BuildRequest:
    return replace(GOOD, constraints=BuildConstraints("x86_64-linux", available_ro_paths=paths))


@pytest.mark.parametrize(
    "path", ["/etc", "/", "/etc/ssl/certs", "/root", "/dev/sda", "/proc", "/opt"]
)
def test_host_paths_are_denied_unless_listed(path: str) -> None:
    error = refused(_with_ro(path)) if path != "/" else refused(_with_ro("/etc"))
    assert error.code == "denied"
    assert error.details["index"] == 0


def test_host_paths() -> None:
    check(_with_ro("/etc/ssl", "/opt/x"))
    field = "constraints.available_ro_paths"
    assert_refused(_with_ro("/opt/x", "/etc/ssl"), f"{field}[1]", 1)
    assert_refused(_with_ro("/etc/ssl", "/etc/ssl"), f"{field}[1]", 1)
    assert_refused(replace(_with_ro("/opt/x"), scratch_paths=("build", "opt")), f"{field}[0]", 0)
    assert_refused(replace(_with_ro("/opt/x"), inputs_dir="opt/x/y"), f"{field}[0]", 0)


def test_inputs_have_to_be_there() -> None:
    absent = DirectoryNode(Digest(b"\7" * 32), 1)
    error = refused(replace(GOOD, inputs={Name(b"a"): absent}))
    assert error.code == "missing_objects"
    assert error.details["directories"] == [absent.digest]


def test_inputs_have_to_be_as_large_as_they_say() -> None:
    request = replace(GOOD, inputs={Name(b"a"): FILE, Name(b"b"): FileNode(FILE.digest, 6)})
    assert_refused(request, "inputs[1].node", 1)


COUNTED = [
    "inputs", "command_args", "environment_vars", "outputs", "scratch_paths", "additional_files",
    "refscan_needles",
]  # fmt: skip


@pytest.mark.parametrize("field", COUNTED)
def test_counts(field: str) -> None:
    limits = replace(LIMITS, **{field: 0})
    full = replace(
        GOOD,
        environment_vars={"A": b""},
        additional_files={"build/a": b""},
        refscan_needles=(b"x",),
    )
    assert_refused(full, field, None, limits=limits)


def test_count_of_host_paths_and_bytes_of_files() -> None:
    assert_refused(
        _with_ro("/etc/ssl"), "constraints.available_ro_paths", None,
        limits=replace(LIMITS, available_ro_paths=0),
    )  # fmt: skip
    assert_refused(
        replace(GOOD, additional_files={"build/a": b"12345"}), "additional_files", None,
        limits=replace(LIMITS, additional_files_bytes=4),
    )  # fmt: skip


@pytest.mark.parametrize(
    "field", ["outputs", "additional_files", "command_args", "refscan_needles"]
)
def test_a_million_entries_are_refused_quickly(field: str) -> None:
    values: Any = [f"build/{number:07}" for number in range(1_000_000)]
    if field == "additional_files":
        values = dict.fromkeys(values, b"")
    start = time.process_time()
    assert_refused(replace(GOOD, **{field: values}), field, None)
    assert time.process_time() - start < 0.25


def test_the_largest_lists_are_checked_quickly() -> None:
    request = replace(
        GOOD,
        outputs=tuple(f"build/o/{number}" for number in range(15)),
        scratch_paths=("build", *(f"s{number:02}" for number in range(LIMITS.scratch_paths - 1))),
        additional_files={f"build/f/{n:04}": b"" for n in range(LIMITS.additional_files)},
        refscan_needles=tuple(f"{n:032}".encode() for n in range(LIMITS.refscan_needles)),
        environment_vars={f"V{n}": b"x" for n in range(LIMITS.environment_vars)},
    )
    start = time.process_time()
    check(request)
    assert time.process_time() - start < 0.25


def test_what_a_result_could_not_tell_in_one_frame_is_refused() -> None:
    request = replace(
        GOOD,
        outputs=tuple(f"build/o/{number}" for number in range(LIMITS.outputs)),
        refscan_needles=tuple(b"%d" % n for n in range(1172)),
    )
    assert_refused(request, "refscan_needles", None)
    check(replace(request, refscan_needles=request.refscan_needles[:-1]))


def test_directories_for_additional_files_are_limited() -> None:
    deep = "/".join("d" * 2000)
    files = {f"build/{number}/{deep}": b"" for number in range(10)}
    assert_refused(replace(GOOD, additional_files=files), "additional_files", None)


def test_a_working_directory_that_the_kernel_could_not_enter_is_refused() -> None:
    path = "build" + "/aaaaaaaaa" * 409
    assert len(path) == 4095
    assert_refused(replace(GOOD, working_dir=path), "working_dir", None)
    check(replace(GOOD, working_dir=path[:-1]))
