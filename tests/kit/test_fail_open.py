"""Failures of the bus, the network, the disk or the configuration never block a commit, and each is reported."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.rules.token_format import generate_token
from tests.kit import faulty_servers
from tests.kit.git_repo import GitRepo

pytestmark = pytest.mark.time_limits
TOKEN = generate_token()

# The other possible message, depending on the machine: a resolver may take longer than the budget, and a server that
# closes a connection with unread data resets it.
# A server that closes before it has read the whole request resets the connection, and what it sent may be lost.
OTHER_MESSAGES = {
    "dns": "timed out",
    "too long": "closed the connection",
    "half a response": "closed the connection",
    "half a json": "closed the connection",
}
MESSAGES = {
    "nothing listens": "connection was refused",
    "black hole": "timed out",
    "drips": "timed out",
    "hangs up": "closed the connection",
    "401": "the token was refused (401)",
    "403": "403",
    "404": "no bus at this address",
    "500": "HTTP status 500",
    "html": "text/html instead of JSON",
    "html for json": "not a tool result",
    "half a response": "is incomplete",
    "half a json": "not a tool result",
    "no http": "not HTTP",
    "redirect": "redirects to",
    "tls": "certificate is not trusted",
    "tls to plain": "TLS failed",
    "dns": "cannot be resolved",
    "a list": "not a tool result",
    "another shape": "has no events",
    "too long": "too long",
}
_RESULT = {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": json.dumps({"nonsense": 1})}]}}


@contextlib.contextmanager
def endpoint(failure: str, folder: Path) -> Iterator[str]:
    """Yield the address of a server that fails in this way."""
    if failure == "dns":
        # A reserved name that never exists; without a resolver the look-up fails or hangs, and the test covers both.
        yield "https://bus.invalid/mcp"
        return
    if failure == "nothing listens":
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        yield f"http://127.0.0.1:{port}/mcp"
        return
    handlers: dict[str, faulty_servers.ConnectionHandler] = {
        "black hole": faulty_servers.never_respond,
        "drips": faulty_servers.respond_slowly,
        "hangs up": faulty_servers.close_after_request,
        "401": faulty_servers.respond_with("401 Unauthorized", b'{"error": "invalid_token"}'),
        "403": faulty_servers.respond_with("403 Forbidden", b'{"error": "suspended due to non-payment"}'),
        "404": faulty_servers.respond_with("404 Not Found", b""),
        "500": faulty_servers.respond_with("500 Internal Server Error", b"oops", "text/plain"),
        "html": faulty_servers.respond_with("200 OK", b"<html>Welcome to the hotel</html>", "text/html; charset=utf-8"),
        "html for json": faulty_servers.respond_with("200 OK", b"<html>Welcome to the hotel</html>"),
        "half a response": faulty_servers.respond_with("200 OK", b'{"jsonrpc"', length=5000),
        "half a json": faulty_servers.respond_with("200 OK", b'{"jsonrpc": "2.0", "id": 1, "res'),
        "no http": lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"),
        "redirect": faulty_servers.respond_with("302 Found", b"", "text/plain", "Location: http://127.0.0.1:1/steal"),
        "a list": faulty_servers.respond_with("200 OK", b"[]"),
        "another shape": faulty_servers.respond_with("200 OK", json.dumps(_RESULT).encode()),
        "too long": faulty_servers.respond_with("200 OK", b" " * 5_000_000),
        "tls": faulty_servers.respond_with("200 OK", b"{}"),
        "tls to plain": lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    }
    context = faulty_servers.make_untrusted_tls_context(folder) if failure == "tls" else None
    with faulty_servers.running_server(handlers[failure], context) as port:
        yield f"{'https' if failure.startswith('tls') else 'http'}://127.0.0.1:{port}/mcp"


@pytest.mark.parametrize("failure", MESSAGES)
def test_a_commit_proceeds_after_any_failure_of_the_bus(repo: GitRepo, tmp_path: Path, failure: str) -> None:
    with endpoint(failure, tmp_path) as url:
        repo.install(url, "--client", "none")
        repo.extra_env = {"LLM_BUS_TOKEN": TOKEN}
        repo.add("docs/adr/0001-a.md")
        done = repo.run_within_limit(str(repo.root / ".git" / "hooks" / "pre-commit"))
        assert done.returncode == 0, done
        assert "Continuing without the bus" in done.stderr
        messages = (MESSAGES[failure], OTHER_MESSAGES.get(failure, MESSAGES[failure]))
        assert any(message in done.stderr for message in messages), done.stderr
        assert all(line["what"] == "proceeded" and url in line["reason"] for line in repo.read_activity_log())
        assert repo.read_activity_log()
        assert repo.commit().returncode == 0
        assert TOKEN not in json.dumps(repo.read_activity_log()) + done.stderr + done.stdout


@pytest.mark.parametrize(
    "failure",
    # All failures of the connection reach the hooks in the same way.
    [
        pytest.param(
            name, marks=[] if name in ("nothing listens", "black hole", "401", "html") else pytest.mark.exhaustive
        )
        for name in MESSAGES
    ],
)
def test_every_other_hook_proceeds_after_any_failure_of_the_bus(repo: GitRepo, tmp_path: Path, failure: str) -> None:
    with endpoint(failure, tmp_path) as url:
        repo.install(url, "--client", "none")
        repo.extra_env = {"LLM_BUS_TOKEN": TOKEN}
        hook_input = json.dumps({"tool_input": {"file_path": str(repo.write("docs/adr/0002-b.md"))}, "session_id": "s"})
        for arguments in (
            ("reconcile", "--claude"),
            ("reconcile", "--file", str(repo.root / "docs/adr/0002-b.md")),
            ("wake", "stop", "claude"),
            ("wake", "start", "claude"),
        ):
            done = repo.run_within_limit(repo.launcher, str(repo.kit_path), *arguments, stdin=hook_input)
            assert done.returncode == 0, (arguments, done)
        assert TOKEN not in json.dumps(repo.read_activity_log()) + done.stderr + done.stdout


def test_the_token_is_not_sent_to_the_target_of_a_redirect(repo: GitRepo) -> None:
    received: list[bytes] = []
    with faulty_servers.running_server(lambda connection: received.append(connection.recv(65536))) as port:
        redirect = faulty_servers.respond_with(
            "307 Temporary Redirect", b"", "text/plain", f"Location: http://127.0.0.1:{port}/"
        )
        with faulty_servers.running_server(redirect) as first:
            repo.install(f"http://127.0.0.1:{first}/mcp", "--client", "none")
            repo.add("docs/adr/0001-a.md")
            assert repo.commit(LLM_BUS_TOKEN=TOKEN).returncode == 0
    assert received == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "does not exist"),
        ("{", "is not JSON"),
        ("[]", "must contain a JSON object"),
        ("{}", 'no "endpoint"'),
        ('{"endpoint": "bus.example.org"}', 'no "endpoint"'),
        ('{"endpoint": "http://127.0.0.1:1/mcp", "sequences": {"*": "A B"}}', "must consist of a-z"),
        ('{"endpoint": "http://127.0.0.1:1/mcp", "sequences": []}', "that maps globs"),
        ('{"endpoint": "http://127.0.0.1:1/mcp", "leases": {"*": "maybe"}}', "one of: strict"),
        ('{"endpoint": "http://127.0.0.1:1/mcp", "sequences": {"*": {"sequence": "a", "pattern": "("}}}', "expression"),
        ('{"endpoint": "http://127.0.0.1:99999/mcp", "sequences": {"docs/**": "adr"}}', "could not be queried"),
        ('{"endpoint": "http://[::1/mcp", "sequences": {"docs/**": "adr"}}', "could not be queried"),
    ],
)
def test_a_commit_proceeds_with_any_configuration(plain: GitRepo, config: str | None, message: str) -> None:
    plain.install("http://127.0.0.1:1/mcp", "--client", "none")
    path = plain.root / "llm-bus.config.json"
    path.unlink()
    if config is not None:
        path.write_text(config)
    plain.add("docs/adr/0001-a.md")
    done = plain.commit(LLM_BUS_TOKEN=TOKEN)
    assert done.returncode == 0, done
    assert message in done.stderr


@pytest.mark.parametrize("token", ["", "lbus_é", "two\nlines", "x" * 100_000])
def test_a_commit_proceeds_with_any_token(plain: GitRepo, token: str) -> None:
    with faulty_servers.running_server(faulty_servers.respond_with("401 Unauthorized", b"{}")) as port:
        plain.install(f"http://127.0.0.1:{port}/mcp", "--client", "none")
        plain.add("docs/adr/0001-a.md")
        done = plain.commit(LLM_BUS_TOKEN=token)
    assert done.returncode == 0, done
    assert "not checked" in done.stderr


def test_a_commit_proceeds_if_the_disk_refuses_writes(repo: GitRepo) -> None:
    """The root user may write anywhere, so folders and files block the paths instead."""
    repo.install("http://127.0.0.1:1/mcp", "--client", "none")
    repo.add("docs/adr/0001-a.md")
    (repo.local_path / "journal.jsonl").mkdir()
    (repo.local_path / "state").write_text("in the way")
    done = repo.commit(LLM_BUS_TOKEN=TOKEN)
    assert done.returncode == 0, done
    assert "connection was refused" in done.stderr
    for event in ("start", "stop"):
        assert repo.run_kit("wake", event, "claude", stdin='{"session_id": "s"}', LLM_BUS_TOKEN=TOKEN).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="mount namespaces exist only on Linux")
def test_a_commit_proceeds_on_a_read_only_file_system(repo: GitRepo) -> None:
    repo.install("http://127.0.0.1:1/mcp", "--client", "none")
    repo.add("docs/adr/0001-a.md")
    script = (
        f'mount --bind "{repo.root}" "{repo.root}" && mount -o remount,ro,bind "{repo.root}" && cd "{repo.root}" && '
    )
    command = [
        "unshare",
        "--mount",
        "--map-root-user",
        "sh",
        "-c",
        script + f'exec "{repo.python}" "{repo.kit_path}" pre-commit',
    ]
    probe = repo.run(*command[:3], "true")
    if probe.returncode != 0:
        pytest.skip(f"this machine does not allow mount namespaces: {probe.stderr}")
    done = repo.run(*command, LLM_BUS_TOKEN=TOKEN)
    if "mount" in done.stderr:
        pytest.skip(f"this machine does not allow mounts: {done.stderr}")
    assert done.returncode == 0, done
    assert "connection was refused" in done.stderr
    assert repo.read_activity_log() == []


def test_the_kit_needs_only_the_standard_library(repo: GitRepo) -> None:
    """With -I -S there are no site-packages, no user site and no environment variables."""
    repo.install("http://127.0.0.1:1/mcp", "--client", "none")
    repo.add("docs/adr/0001-a.md")
    kit = str(repo.kit_path)
    done = repo.run(repo.python, "-I", "-S", kit, "pre-commit", LLM_BUS_TOKEN=TOKEN)
    assert done.returncode == 0
    assert "connection was refused" in done.stderr
    done = repo.run(repo.python, "-I", "-S", kit, "doctor")
    assert "token" in done.stdout


def test_a_commit_proceeds_if_the_interpreter_is_missing_or_broken(plain: GitRepo, tmp_path: Path) -> None:
    plain.install("http://127.0.0.1:1/mcp", "--client", "none")
    python3 = tmp_path / "bin" / "python3"
    for number, program in enumerate(("#!/bin/sh\nexit 1\n", "#!/bin/sh\nexit 2\n", "#!/nowhere/python\n", None)):
        plain.add(f"docs/adr/000{number + 1}-a.md")
        python3.unlink(missing_ok=True)
        if program is not None:
            python3.write_text(program)
            python3.chmod(0o755)
        assert plain.commit(PATH=f"{tmp_path / 'bin'}:/usr/bin:/bin").returncode == 0


def test_a_commit_proceeds_without_the_code_of_the_kit(plain: GitRepo) -> None:
    plain.install("http://127.0.0.1:1/mcp", "--client", "claude", "--no-instructions")
    settings = json.loads((plain.root / ".claude" / "settings.json").read_text())
    plain.run("rm", "-r", str(plain.kit_path))
    plain.add("docs/adr/0001-a.md")
    done = plain.commit()
    assert done.returncode == 0
    assert "not checked: the kit is not in .git/llm-bus/kit" in done.stderr
    # Python ends with 2 for a missing file, which a client would take for a message to the model.
    for event in ("SessionStart", "Stop", "PostToolUse"):
        command = settings["hooks"][event][0]["hooks"][0]["command"]
        done = plain.run("sh", "-c", command, stdin="{}", CLAUDE_PROJECT_DIR=str(plain.root))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), event


def test_a_commit_proceeds_if_the_hook_itself_is_broken(plain: GitRepo) -> None:
    plain.install("http://127.0.0.1:1/mcp", "--client", "none")
    plain.add("docs/adr/0001-a.md")
    module = plain.kit_path / "precommit.py"
    module.write_text("raise RuntimeError('a defect of the kit')\n")
    done = plain.commit()
    assert done.returncode == 0
    assert "the hook failed" in done.stderr
    module.write_text("this is not Python\n")
    assert plain.commit(LLM_BUS_TOKEN=TOKEN).returncode in (0, 1)
    plain.add("docs/adr/0002-a.md")
    assert plain.commit().returncode == 0


@pytest.mark.parametrize("defect", ["this is not Python\n", "raise RuntimeError('a defect of the kit')\n"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("pre-commit",),
        ("reconcile", "--staged"),
        ("reconcile", "--file", "docs/adr/0001-a.md"),
        ("reconcile", "--claude"),
        ("wake", "start", "claude"),
        ("wake", "stop", "claude"),
        ("wake", "wait", "claude"),
    ],
    ids=" ".join,
)
def test_a_kit_with_broken_code_blocks_nothing(plain: GitRepo, arguments: tuple[str, ...], defect: str) -> None:
    plain.install("http://127.0.0.1:1/mcp", "--client", "none")
    plain.add("docs/adr/0001-a.md")
    plain.extra_env = {"LLM_BUS_TOKEN": TOKEN}
    hook_input = json.dumps({"tool_input": {"file_path": "docs/adr/0001-a.md"}, "session_id": "s"})
    used_module = "session_hooks" if arguments[0] == "wake" else "precommit"
    for name in ("__init__", "main", "activity_log", "config", used_module):
        module = plain.kit_path / f"{name}.py"
        code = module.read_text("utf-8")
        module.write_text(defect, "utf-8")
        done = plain.run_kit(*arguments, stdin=hook_input)
        module.write_text(code, "utf-8")
        assert (done.returncode, done.stdout) == (0, ""), (name, done)
        assert "Continuing without the bus" in done.stderr, (name, done)


def test_a_hook_does_not_wait_for_a_client_that_keeps_standard_input_open(plain: GitRepo) -> None:
    plain.install("http://127.0.0.1:1/mcp", "--client", "none")
    read_fd, write_fd = os.pipe()
    try:
        done = subprocess.run(
            [plain.python, str(plain.kit_path), "wake", "stop", "claude"],
            stdin=read_fd,
            cwd=plain.root,
            env=plain.env,
            capture_output=True,
            timeout=5,
            check=False,
        )
    finally:
        os.close(read_fd)
        os.close(write_fd)
    assert (done.returncode, done.stdout) == (0, b"")
