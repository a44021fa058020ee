"""Request files: what people write, and what they are told when it is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cupola.cli import requestfile
from cupola.cli.failure import UsageError
from cupola.messages import BuildConstraints, BuildRequest
from cupola.nodes import Digest, FileNode, Name, SymlinkNode

FULL = """
command_args = ["/bin/sh", "-c", "true"]
outputs = ["build/b", "build/a"]
scratch_paths = ["nix/store", "build"]
inputs_dir = "nix/store"
working_dir = "build/x"
refscan_needles = ["é", "a"]

[inputs]
file = "x:0000000000000000000000000000000000000000000000000000000000000000:5"
link = { type = "symlink", target = "to" }
tree = { path = "some/tree" }

[environment_vars]
PATH = "/bin"

[additional_files]
"build/text" = "contents"
"build/file" = { path = "data" }

[constraints]
system = "i686-linux"
min_memory = 5
provide_bin_sh = true
available_ro_paths = ["/b", "/a"]
"""


def test_everything(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"\0\xff")
    (tmp_path / "request.toml").write_text(FULL)
    file = requestfile.load(str(tmp_path / "request.toml"))
    assert file.paths == {Name(b"tree"): tmp_path / "some/tree"}
    assert file.request == BuildRequest(
        command_args=("/bin/sh", "-c", "true"),
        outputs=("build/b", "build/a"),
        scratch_paths=("build", "nix/store"),
        inputs_dir="nix/store",
        working_dir="build/x",
        refscan_needles=("é".encode(), b"a"),
        inputs={
            Name(b"file"): FileNode(Digest(bytes(32)), 5, executable=True),
            Name(b"link"): SymlinkNode(b"to"),
        },
        environment_vars={"PATH": b"/bin"},
        additional_files={"build/text": b"contents", "build/file": b"\0\xff"},
        constraints=BuildConstraints(
            "i686-linux", min_memory=5, provide_bin_sh=True, available_ro_paths=("/a", "/b")
        ),
    )


def test_json_and_defaults() -> None:
    text = json.dumps(
        {"command_args": ["/x"], "outputs": ["build/o"], "constraints": {"system": "s"}}
    )
    assert requestfile.parse(text, Path()).request == BuildRequest(
        command_args=("/x",), outputs=("build/o",), constraints=BuildConstraints("s")
    )


def test_bytes_that_are_not_utf8_come_as_surrogates_in_json() -> None:
    text = json.dumps(
        {"refscan_needles": ["\udcff"], "inputs": {"\udcfe": {"type": "symlink", "target": "x"}}}
    )
    request = requestfile.parse(text, Path()).request
    assert request.refscan_needles == (b"\xff",)
    assert list(request.inputs) == [b"\xfe"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("outputs = 5", "outputs must be a list"),
        ("outputs = [5]", r"outputs\[0\] must be text"),
        ("output = []", "output is not a field; there are additional_files, command_args"),
        ("inputs = []", "inputs must be a table"),
        ("inputs.a = 5", "inputs.a must be text or"),
        ("inputs.a = 'd:zz:1'", "inputs.a: "),
        ("inputs.a = {path = 5}", "inputs.a must be text or"),
        ("inputs.a = {path = 'x', node = 'y'}", "inputs.a must be text or"),
        ("inputs.a = {type = 'file'}", "inputs.a: not a node"),
        ("inputs.'a/b' = {path = 'x'}", "inputs.a/b: a name holds neither"),
        ("working_dir = []", "working_dir must be text"),
        ("environment_vars.A = 1", "environment_vars.A must be text"),
        ("additional_files.a = {path = 'absent'}", "additional_files.a: cannot read absent"),
        ("constraints.provide_bin_sh = 1", "constraints.provide_bin_sh must be true or false"),
        ("constraints.min_memory = -1", "number of bytes"),
        ("constraints.min_memory = true", "number of bytes"),
        ("constraints.memory = 1", "constraints.memory is not a field"),
        ("constraints.system = 1", "constraints.system must be text"),
        ("= 1", "neither TOML nor JSON"),
        ("{", "neither TOML nor JSON"),
    ],
)
def test_refused_with_the_field(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=says):
        requestfile.parse(text, Path())


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*absent: No such file"):
        requestfile.load(str(tmp_path / "absent"))
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="is not UTF-8"):
        requestfile.load(str(tmp_path / "binary"))


@pytest.mark.parametrize(
    "request_",
    [
        '{"command_args": ["\\udcff"], "outputs": ["o"]}',
        '{"command_args": ["a"], "outputs": ["o"], "additional_files": {"a": "\\ud800"}}',
        '{"command_args": ["a"], "outputs": ["o"], "environment_vars": {"a": "\\ud800"}}',
        '{"command_args": ["a"], "outputs": ["o"], "refscan_needles": ["\\ud800"]}',
    ],
)
def test_half_a_character_is_refused(request_: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="surrogates not allowed"):
        requestfile.parse(request_, tmp_path)
