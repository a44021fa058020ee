"""The command: results on stdout, everything else on stderr, and an exit status that means something."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys

import pytest
from blake3 import blake3

from conftest import User
from cupolad.testing import PrivateDaemon

GOOD = """
command_args = ["/bin/sh", "-c", "echo to-stdout; echo to-stderr >&2; echo x > out"]
outputs = ["build/out"]
[environment_vars]
PATH = "/bin"
[constraints]
provide_bin_sh = true
"""


def request(script: str, outputs: str = '"build/out"', extra: str = "") -> str:
    """A request file that runs a script."""
    return (
        GOOD.replace("echo to-stdout; echo to-stderr >&2; echo x > out", script).replace(
            '"build/out"', outputs
        )
        + extra
    )


def test_stdout_is_the_result_alone(daemon: PrivateDaemon, user: User) -> None:
    done = user.run(daemon, "build", "-", stdin=GOOD)
    assert done.returncode == 0
    digest = blake3(b"x\n").hexdigest()
    assert done.stdout == f"f:{digest}:2\n"
    assert "to-stdout" in done.stderr
    assert "to-stderr" in done.stderr


def test_quiet(daemon: PrivateDaemon, user: User) -> None:
    done = user.run(daemon, "build", "-q", "-", stdin=GOOD)
    assert "to-stderr" not in done.stderr
    failed = user.run(daemon, "build", "-q", "-", stdin=request("echo why >&2; exit 1"))
    assert "| why" in failed.stderr


def test_json_is_one_object(daemon: PrivateDaemon, user: User) -> None:
    result = user.json(daemon, "build", "-", stdin=GOOD)
    assert set(result) == {"build_id", "status", "outputs", "usage", "times", "log"}
    assert result["outputs"][0]["path"] == "build/out"
    assert set(result["outputs"][0]) == {"path", "node", "needles"}
    assert result["log"]["type"] == "file"


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        (request("exit 3"), 100, "build_failed"),
        (request(":"), 100, "output_missing"),
        (request("mkfifo out"), 100, "output_unsupported"),
        (request("x", '"../out"'), 2, "invalid_request"),
        (request("x", extra="network_access = true\n"), 77, "denied"),
        (request("x", extra='available_ro_paths = ["/etc/shadow"]\n'), 77, "denied"),
        (request("x", extra='[inputs]\na = "d:' + "0" * 64 + ':1"\n'), 2, "missing_objects"),
        ("nonsense", 2, "invalid_request"),
        ("outputs = 5", 2, "invalid_request"),
    ],
)
def test_exit_status_and_code(
    daemon: PrivateDaemon, user: User, text: str, status: int, code: str
) -> None:
    done = user.run(daemon, "build", "--json", "-", stdin=text)
    assert done.returncode == status, done
    answer = json.loads(done.stdout)
    assert answer["error"]["code"] == code
    assert answer["error"]["message"]
    assert ("build_id" in answer) == (status == 100)
    plain = user.run(daemon, "build", "-", stdin=text)
    assert (plain.returncode, plain.stdout) == (status, "")
    assert "cupola: " in plain.stderr
    assert "Traceback" not in plain.stderr


def test_details_of_errors(daemon: PrivateDaemon, user: User) -> None:
    error = user.json(daemon, "build", "-", stdin=request("x", '"build/a", "../b"'))["error"]
    assert (error["field"], error["index"]) == ("outputs[1]", 1)
    assert error["rule"].startswith("must be clean")
    error = user.json(daemon, "build", "-", stdin=request("echo last words >&2; exit 7"))["error"]
    assert (error["exit_code"], error["log_tail"]) == (7, ["last words"])
    missing = request("x", extra='[inputs]\na = "d:' + "0" * 64 + ':1"\n')
    assert user.json(daemon, "build", "-", stdin=missing)["error"]["directories"] == ["0" * 64]


def test_no_daemon(daemon: PrivateDaemon, user: User) -> None:
    dead = user.home / "dead"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(dead))
    dead.chmod(0o666)
    for path in ("/nonexistent/socket", dead):
        with user.command.popen(
            user.uid, "--socket", path, "status", stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            _, err = process.communicate()
        assert process.returncode == 69
        assert b"cupola: no daemon" in err
        assert b"`cupola doctor` says what is wrong" in err


def test_the_socket_from_the_environment(daemon: PrivateDaemon, user: User) -> None:
    with user.command.popen(
        user.uid,
        "status",
        "--json",
        stdout=subprocess.PIPE,
        env={"CUPOLA_SOCKET": str(daemon.socket)},
    ) as process:
        out, _ = process.communicate()
    assert json.loads(out)["max_builds"] >= 1


def test_a_socket_that_one_may_not_use(daemon: PrivateDaemon, user: User) -> None:
    daemon.socket.chmod(0o660)
    try:
        done = user.run(daemon, "status")
    finally:
        daemon.socket.chmod(0o666)
    assert done.returncode == 69
    assert "ask the administrator to add you to its group" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["build"], ["export", "x"], ["ls"]])
def test_usage_errors(daemon: PrivateDaemon, user: User, arguments: list[str]) -> None:
    done = user.run(daemon, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: cupola" in done.stderr


def test_help(daemon: PrivateDaemon, user: User) -> None:
    text = user.run(daemon, "--help").stdout
    for word in (
        "build",
        "import",
        "export",
        "ls",
        "cat",
        "status",
        "exit status",
        "$CUPOLA_SOCKET",
    ):
        assert word in text
    for command in ("build", "import", "export", "ls", "cat", "status"):
        assert user.run(daemon, command, "--help").returncode == 0
    assert user.run(daemon, "--version").stdout.startswith("cupola 0.")


@pytest.mark.parametrize("node", ["", "x", "d:zz:1", f"d:{'0' * 64}", "l:"])
def test_nodes_that_are_none(daemon: PrivateDaemon, user: User, node: str) -> None:
    for command in ("ls", "cat"):
        done = user.run(daemon, command, node)
        assert (done.returncode, done.stdout) == (2, "")
    assert user.run(daemon, "export", node, user.home / "out").returncode == 2


def test_ls_and_cat(daemon: PrivateDaemon, user: User) -> None:
    tree = user.home / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "f").write_bytes(b"\0\xff")
    (tree / "sub" / os.fsdecode(b"\xff\x1b")).symlink_to("target")
    node = user.run(daemon, "import", tree).stdout.strip()
    listing = user.run(daemon, "ls", node, "sub").stdout.splitlines()
    assert [line.split("\t")[1] for line in listing] == ["f", "\\xff\\x1b"]
    assert listing[1].startswith("l:target\t")
    entries = json.loads(user.run(daemon, "ls", node, "sub", "--json").stdout)
    assert entries["f"]["size"] == 2
    assert "\udcff\x1b" in entries
    with user.popen(daemon, "cat", node, "sub/f") as process:
        assert process.communicate()[0] == b"\0\xff"
    assert user.run(daemon, "cat", node).returncode == 2
    assert user.run(daemon, "ls", node, "sub/f").returncode == 2
    absent = user.run(daemon, "cat", node, "sub/absent")
    assert absent.returncode == 2
    assert "there is no sub/absent in" in absent.stderr


def test_a_reader_that_has_enough(daemon: PrivateDaemon, user: User) -> None:
    (user.home / "large").write_bytes(os.urandom(5_000_000))
    node = user.run(daemon, "import", user.home / "large").stdout.strip()
    with user.popen(daemon, "cat", node) as process:
        assert process.stdout is not None
        assert len(process.stdout.read(10)) == 10
        process.stdout.close()
        assert process.wait(10) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_unreadable_files(daemon: PrivateDaemon, user: User) -> None:
    done = user.run(daemon, "import", "/etc/shadow")
    assert done.returncode == 2
    assert "cannot read /etc/shadow: Permission denied" in done.stderr
    assert user.run(daemon, "import", "/root/absent").returncode == 2
    assert user.run(daemon, "build", "absent.toml").returncode == 2


def test_outputs_are_exported_by_their_names(daemon: PrivateDaemon, user: User) -> None:
    text = request("mkdir -p a/b; echo 1 > a/b/one; echo 2 > two", '"build/a/b/one", "build/two"')
    assert user.run(daemon, "build", "-", "--out", "result/here", stdin=text).returncode == 0
    assert (user.home / "result/here/one").read_text() == "1\n"
    assert (user.home / "result/here/two").read_text() == "2\n"
    again = user.run(daemon, "build", "-", "--out", "result/here", stdin=text)
    assert again.returncode == 2
    assert "result/here/one exists already" in again.stderr
    assert "queued" not in again.stderr
    same = request("x", '"build/a/x", "build/b/x"')
    assert "the same name" in user.run(daemon, "build", "-", "--out", "new", stdin=same).stderr


def test_progress_on_a_terminal_only(daemon: PrivateDaemon, user: User) -> None:
    tree = user.home / "tree"
    tree.mkdir()
    for number in range(2000):
        (tree / f"{number}").write_bytes(os.urandom(2000))
    assert user.run(daemon, "import", tree).stderr == ""
    (tree / "new").write_text("x")
    master, slave = pty.openpty()
    with user.popen(daemon, "import", tree, stderr=slave) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                piece = os.read(master, 10_000)
            except OSError:
                break
            shown += piece
        assert process.wait(10) == 0
    os.close(master)
    assert b"files" in shown


def test_status_shows_ones_own_builds(daemon: PrivateDaemon, user: User, nobody: User) -> None:
    with user.popen(daemon, "build", "-", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(request("echo up >&2; sleep 1000").encode())
        process.stdin.close()
        while b"up" not in process.stderr.readline():
            pass
        (own,) = user.json(daemon, "status")["builds"]
        assert (own["uid"], own["state"], own["outputs"]) == (user.uid, "running", ["build/out"])
        others = nobody.json(daemon, "status")
        assert (others["builds"], others["running"]) == ([], 1)
        assert own["build_id"] in user.run(daemon, "status").stdout
        process.terminate()


def test_the_client_needs_no_daemon_package() -> None:
    """What `import cupola` and its command load, by name."""
    script = (
        "import sys, cupola.cli.parser, cupola.sync;"
        " print([m for m in ('cupolad', 'pyfuse3', 'pystemd', 'hyperscan', 'sdnotify') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-I", "-c", script], text=True) == "[]\n"
