"""Outputs: walked without following anything, stored as castore has them, scanned for needles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import cupola.sync
import reference
from conftest import shell
from cupola import (
    BuildError,
    Digest,
    DirectoryNode,
    FileNode,
    Name,
    Node,
    SymlinkNode,
)
from cupolad.testing import PrivateDaemon


def build(client: cupola.sync.Client, script: str, *outputs: str, **fields: object) -> list[Node]:
    """The output nodes of a script."""
    return [output.node for output in client.build(shell(script, *outputs, **fields)).outputs]


def fails(client: cupola.sync.Client, script: str, *outputs: str, **fields: object) -> BuildError:
    """The error of a script's build."""
    with pytest.raises(BuildError) as caught:
        client.build(shell(script, *outputs, **fields))
    return caught.value


def test_kinds(client: cupola.sync.Client) -> None:
    script = "printf abc > file; cp file exec; chmod 700 exec; ln -s ../x/y link; mkdir dir"
    assert build(client, script, "file", "exec", "link", "dir") == [
        FileNode(Digest.of(b"abc"), 3),
        FileNode(Digest.of(b"abc"), 3, executable=True),
        SymlinkNode(b"../x/y"),
        DirectoryNode(Digest.of(b""), 0),
    ]


@pytest.mark.parametrize("mode", ["000", "444", "611", "1644", "2644", "4644", "6677", "0666"])
def test_only_the_owners_x_counts(client: cupola.sync.Client, mode: str) -> None:
    script = f"printf abc > out; touch -d 2001-01-01 out; chmod {mode} out"
    expected = FileNode(Digest.of(b"abc"), 3, executable=bool(int(mode, 8) & 0o100))
    assert build(client, script) == [expected]


def test_directories_that_nobody_may_enter(client: cupola.sync.Client) -> None:
    plain = build(client, "mkdir -p out/d; echo x > out/d/f")
    closed = build(client, "mkdir -p out/d; echo x > out/d/f; chmod 0 out/d/f out/d out")
    assert plain == closed


def test_attributes_are_dropped(client: cupola.sync.Client, daemon: PrivateDaemon) -> None:
    (node,) = build(
        client, "echo x > out; setfattr -n user.a -v b out 2>/dev/null || :; chmod 4755 out"
    )
    assert isinstance(node, FileNode)
    name = node.digest.hex()
    blob = daemon.state / "blobs" / name[:2] / name
    assert os.listxattr(blob) == []
    assert blob.stat().st_mode & 0o7777 == 0o444
    assert blob.stat().st_uid == blob.stat().st_gid == 0


def test_equal_to_the_reference(client: cupola.sync.Client, tmp_path: Path) -> None:
    """An odd tree, built, exported, and computed again by other code."""
    script = """
        mkdir -p out/a/b out/empty "out/with space"
        printf '' > out/zero
        head -c 300000 /dev/zero > out/a/zeros
        printf x > "out/with space/-rf"
        printf y > "$(printf 'out/\\377\\nx')"
        ln -s . out/self; ln -s "$(printf '/\\377')" out/a/odd; ln -s loop out/loop
        printf '#!/bin/sh\\n' > out/a/b/run; chmod 755 out/a/b/run
        ln out/a/b/run out/hard
    """
    (node,) = build(client, script)
    client.export(node, tmp_path / "out")
    assert isinstance(node, DirectoryNode)
    assert reference.text_of(tmp_path / "out") == f"d:{node.digest.hex()}:{node.size}"
    names = {name for name, _ in client.directory(node).items()}
    assert b"\xff\nx" in names


def test_hard_links_become_equal_files(client: cupola.sync.Client) -> None:
    script = "mkdir out; printf abc > out/0; for i in $(seq 1 2000); do ln out/0 out/$i; done"
    (node,) = build(client, script)
    assert isinstance(node, DirectoryNode)
    directory = client.directory(node)
    assert len(directory) == 2001
    assert set(directory.nodes()) == {FileNode(Digest.of(b"abc"), 3)}


def test_hard_links_across_outputs(client: cupola.sync.Client) -> None:
    one, two = build(client, "printf abc > one; ln one two", "one", "two")
    assert one == two == FileNode(Digest.of(b"abc"), 3)


def test_equal_contents_are_stored_once(client: cupola.sync.Client) -> None:
    unique = os.urandom(8).hex()
    before = client.status()
    build(client, f"mkdir out; for i in 1 2 3; do echo {unique} > out/$i; done")
    after = client.status()
    assert after.store_blobs == before.store_blobs + 1


@pytest.mark.parametrize(
    ("script", "shown", "what"),
    [
        ("mkfifo out", "build/out", "a fifo"),
        ("mkdir -p out/a/b; mkfifo out/a/b/pipe", "build/out/a/b/pipe", "a fifo"),
        ("mkdir out; /inputs/probe socket out/s", "build/out/s", "a socket"),
        ("/inputs/probe whiteout out", "build/out", "a character device"),
    ],
)
def test_what_cannot_be_kept(
    client: cupola.sync.Client, probe: FileNode, script: str, shown: str, what: str
) -> None:
    error = fails(client, script, inputs={Name(b"probe"): probe})
    assert error.code == "output_unsupported"
    assert error.details["path"] == shown
    assert f"{shown} is {what}; only files" in error.message


def test_a_tree_that_is_too_deep(client: cupola.sync.Client) -> None:
    script = "mkdir out; cd out; for i in $(seq 300); do mkdir d; cd d; done"
    error = fails(client, script)
    assert error.code == "output_unsupported"
    assert "more than 256 directories deep" in error.message


def test_a_bundle_that_is_very_deep_is_removed(
    client: cupola.sync.Client, daemon: PrivateDaemon, probe: FileNode
) -> None:
    """Thirty thousand nested directories beside the output; nothing of them is left."""
    build(client, ": > out; /inputs/probe deep 30000", inputs={Name(b"probe"): probe})
    assert os.listdir(daemon.state / "bundles") == []


def test_a_missing_output(client: cupola.sync.Client) -> None:
    error = fails(client, ": > a; : > c", "a", "b", "c")
    assert (error.code, error.details["path"]) == ("output_missing", "build/b")
    error = fails(client, "mkdir d", "d/absent/out")
    assert (error.code, error.details["path"]) == ("output_missing", "build/d/absent/out")


@pytest.mark.parametrize(
    "script",
    [
        "ln -s /etc a; ",
        "ln -s /build/real a; mkdir real; : > real/passwd",
        "mkdir real; : > real/passwd; ln -s real a",
        "ln -s .. a",
    ],
)
def test_no_link_on_the_way_to_an_output_is_followed(
    client: cupola.sync.Client, script: str
) -> None:
    error = fails(client, script, "a/passwd")
    assert error.code == "output_unsupported"
    assert "symlink" in error.message


def test_a_symlink_as_output_is_kept_as_one(client: cupola.sync.Client) -> None:
    script = "ln -s /etc/passwd a; ln -s absent b; ln -s c c"
    assert build(client, script, "a", "b", "c") == [
        SymlinkNode(b"/etc/passwd"), SymlinkNode(b"absent"), SymlinkNode(b"c"),
    ]  # fmt: skip


def test_outputs_come_in_the_requests_order(client: cupola.sync.Client) -> None:
    result = client.build(shell("for n in z a m; do echo $n > $n; done", "z", "a", "m"))
    assert [output.path for output in result.outputs] == ["build/z", "build/a", "build/m"]
    assert [o.node for o in result.outputs] == [
        FileNode(Digest.of(data), 2) for data in (b"z\n", b"a\n", b"m\n")
    ]


def test_nothing_is_kept_of_a_build_that_fails(client: cupola.sync.Client) -> None:
    before = client.status()
    unique = os.urandom(8).hex()
    fails(client, f"echo {unique} > a; mkfifo b", "a", "b")
    fails(client, f"echo {unique} > out; exit 1")
    assert client.status().store_blobs == before.store_blobs
    assert not client.has(FileNode(Digest.of(f"{unique}\n".encode()), 17))


# --- needles -------------------------------------------------------------------------------------


def needles(
    client: cupola.sync.Client, script: str, *wanted: bytes, **fields: object
) -> tuple[int, ...]:
    """The needles found in the output of a script."""
    return client.build(shell(script, refscan_needles=wanted, **fields)).outputs[0].needles


def test_needles_in_contents_names_and_targets(client: cupola.sync.Client) -> None:
    script = """
        mkdir -p out/dirname-DIR
        printf 'xxCONTENTxx' > out/f
        printf 'x' > out/a-FILENAME-b
        ln -s /some/TARGET/path out/l
        ln -s x out/LINKNAME
    """
    wanted = (b"CONTENT", b"FILENAME", b"DIR", b"TARGET", b"LINKNAME", b"absent", b"out", b"path\0")
    assert needles(client, script, *wanted) == (0, 1, 2, 3, 4)


def test_short_needles_in_short_files(client: cupola.sync.Client) -> None:
    """One that is shorter than another is found, in a file that is shorter than both."""
    assert needles(client, "printf ab > out", b"b", b"ab", b"abc", b"x" * 255) == (0, 1)


def test_overlapping_needles(client: cupola.sync.Client) -> None:
    assert needles(client, "printf abcabc > out", b"abcab", b"bcabc", b"cab", b"abcabc") == (
        0,
        1,
        2,
        3,
    )


@pytest.mark.parametrize("border", [65536, 1 << 20])
def test_needles_across_the_borders_of_buffers(client: cupola.sync.Client, border: int) -> None:
    script = "".join(
        f"(head -c {border - split} /dev/zero; printf 0123456789; head -c 100 /dev/zero) > out/{split};"
        for split in range(11)
    )
    for wanted in (b"0123456789", b"\x000123456789\0"):
        assert needles(client, f"mkdir out; {script}", wanted) == (0,)


def test_needles_are_each_outputs_own(client: cupola.sync.Client) -> None:
    result = client.build(
        shell(
            "printf one > a; printf two > b; printf 'one two' > c",
            "a",
            "b",
            "c",
            refscan_needles=(b"one", b"two"),
        )
    )
    assert [output.needles for output in result.outputs] == [(0,), (1,), (0, 1)]


def test_a_needle_that_is_split_is_not_there(client: cupola.sync.Client) -> None:
    script = "mkdir out; printf abc > out/1; printf def > out/2; ln -s abc out/3; ln -s def out/4"
    assert needles(client, script, b"abcdef", b"cd") == ()


# --- inputs and outputs --------------------------------------------------------------------------


def test_an_output_is_the_next_builds_input(client: cupola.sync.Client) -> None:
    (tree,) = build(client, "mkdir out; echo deep > out/f; chmod 755 out/f; ln -s f out/l")
    script = "cp -a /inputs/t out"
    assert build(client, script, inputs={Name(b"t"): tree}) == [tree]


def test_inputs_show_what_was_imported(client: cupola.sync.Client, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / os.fsdecode(b"\xff\n name")).write_bytes(b"x")
    (tree / "large").write_bytes(os.urandom(3_000_000))
    (tree / "run").write_text("#!/bin/sh\necho ran\n")
    (tree / "run").chmod(0o755)
    node = client.import_path(tree)
    assert build(client, "cp -a /inputs/t out; /inputs/t/run", inputs={Name(b"t"): node}) == [node]


def test_an_input_that_is_a_file_and_one_that_is_a_link(client: cupola.sync.Client) -> None:
    (file,) = build(client, "printf abc > out; chmod 755 out")
    inputs = {Name(b"f"): file, Name(b"l"): SymlinkNode(b"f")}
    for place, scratch in (("inputs", ("build",)), ("nix/store", ("build", "nix/store"))):
        (copy,) = build(
            client,
            f"cp /{place}/l out; chmod 755 out",
            inputs=inputs,
            inputs_dir=place,
            scratch_paths=scratch,
        )
        assert copy == file


def test_listing_a_large_directory(client: cupola.sync.Client, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(3000):
        (tree / f"name-{number:05}").write_bytes(b"")
    node = client.import_path(tree)
    assert isinstance(node, DirectoryNode)
    (listing,) = build(
        client, "ls /inputs/t > out; ls /inputs/t | wc -l", inputs={Name(b"t"): node}
    )
    with client.open_blob(listing) as file:  # type: ignore[arg-type]
        assert file.read().split() == [b"name-%05d" % number for number in range(3000)]


def test_writing_to_an_input_fails(client: cupola.sync.Client, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    node = client.import_path(tmp_path)
    script = """
        for command in ': > /D/t/new' 'echo > /D/t/f' 'rm /D/t/f' 'chmod 777 /D/t/f' 'mv /D/t/f /D/t/g'\\
            'mkdir /D/t/d' 'ln /D/t/f /D/t/h' 'ln -s x /D/t/s' 'touch /D/t/f'; do
            if sh -c "$command" 2>/dev/null; then echo "$command" >> out; fi
        done
        : >> out
    """
    for place, scratch in (("inputs", ("build",)), ("nix/store", ("build", "nix/store"))):
        (written,) = build(
            client,
            script.replace("/D", f"/{place}"),
            inputs={Name(b"t"): node},
            inputs_dir=place,
            scratch_paths=scratch,
        )
        assert written == FileNode(Digest.of(b""), 0)
