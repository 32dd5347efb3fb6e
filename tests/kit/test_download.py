"""The kit as the web serves it: piped into Python, checked, redeemed with an invite, and told when it is too old."""

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.serving import make_server

import kit
from bus.config.settings import Settings
from bus.db import Database
from bus.tenancy import invites
from tests.kit import faulty_servers
from tests.kit.git_repo import GitRepo
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.processes import GatewayProcess
from webapp.app import create_app


@contextmanager
def _web(database_url: str, mcp: str) -> Iterator[tuple[Flask, str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = f"http://127.0.0.1:{port}"
    app = create_app(Settings.from_env({"DATABASE_URL": database_url, "PUBLIC_URL": home, "MCP_URL": mcp}))
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield app, home
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        app.extensions["bus.db"].close()


@pytest.fixture
def web(kit_database_url: str, gateway: GatewayProcess) -> Iterator[tuple[Flask, str]]:
    with _web(kit_database_url, gateway.url) as served:
        yield served


def test_the_installer_is_text_checkable_cacheable_and_versioned(
    web: tuple[Flask, str], gateway: GatewayProcess
) -> None:
    client = web[0].test_client()
    script = client.get("/kit/install.py")
    assert script.status_code == 200
    assert script.mimetype == "text/plain"
    assert "max-age=300" in script.headers["Cache-Control"]
    assert "Set-Cookie" not in script.headers
    again = client.get("/kit/install.py", headers={"If-None-Match": script.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    digest = hashlib.sha256(script.data).hexdigest()
    assert client.get("/kit/install.py.sha256").text == f"{digest}  install.py\n"
    assert client.get("/kit/version.json").get_json() == {
        "version": kit.VERSION,
        "minimum": "1.0.0",
        "sha256": digest,
    }
    fixed = client.get(f"/kit/{kit.VERSION}/install.py")
    assert fixed.data == script.data
    assert "immutable" in fixed.headers["Cache-Control"]
    assert client.get("/kit/0.0.1/install.py").status_code == 404
    said = client.get("/kit/").text
    for part in (web[1], gateway.url, "curl -fsSL", kit.VERSION):
        assert part in said


def test_one_line_connects_a_repository_and_one_takes_it_back(
    repo: GitRepo, web: tuple[Flask, str], team: Team, gateway: GatewayProcess
) -> None:
    script = web[0].test_client().get("/kit/install.py").text
    before = repo.snapshot()
    done = repo.run(repo.python, "-", "--client", "claude", stdin=script)
    assert done.returncode == 0, done
    found = json.loads((repo.root / "llm-bus.config.json").read_text())
    assert (found["endpoint"], found["home"]) == (gateway.url, web[1])
    repo.extra_env = {"LLM_BUS_TOKEN": team.alice.token}
    repo.add("docs/adr/0001-a.md")
    done = repo.commit()
    assert "is now claimed for you" in done.stderr
    doctor = repo.run_kit("doctor")
    assert "1.0.0 at least" in doctor.stdout
    assert f"{team.alice.actor} in project {team.alice.project}" in doctor.stdout
    repo.git("reset", "-q", "--soft", "HEAD~1")
    repo.git("rm", "-qf", "docs/adr/0001-a.md")
    # Also by the same line, so that nobody needs to know where the kit lies.
    done = repo.run(repo.python, "-", "--uninstall", stdin=script)
    assert done.returncode == 0
    assert repo.snapshot() == before


def test_an_invite_connects_and_its_token_is_kept_inside_git(
    repo: GitRepo, web: tuple[Flask, str], team: Team, kit_db: Database
) -> None:
    with kit_db.transaction() as conn:
        code = invites.create_for_owner(conn, team.project_id, actor="cli").code
    script = web[0].test_client().get("/kit/install.py").text
    nameless = repo.run(repo.python, "-", "--client", "none", stdin=script, LLM_BUS_INVITE=code)
    assert nameless.returncode == 1
    assert "--name" in nameless.stderr
    done = repo.run(repo.python, "-", "--client", "none", "--name", "carol", stdin=script, LLM_BUS_INVITE=code)
    assert done.returncode == 0, done
    assert "carol in project" in done.stdout
    token = (repo.root / ".git" / "llm-bus" / "token").read_text().strip()
    assert token not in done.stdout + done.stderr
    assert "/carol in project" in repo.run_kit("doctor").stdout
    over = repo.run(repo.python, "-", "--invite", f"{web[1]}/join/{code}", "--name", "dave", stdin=script)
    assert over.returncode == 1


def test_a_kit_that_is_too_old_says_so_and_asks_once_a_day(plain: GitRepo, team: Team, gateway: GatewayProcess) -> None:
    asked: list[int] = []

    def answer(connection: socket.socket) -> None:
        asked.append(1)
        faulty_servers.respond_with("200 OK", b'{"version": "9.0.0", "minimum": "9.0.0"}')(connection)

    with faulty_servers.running_server(answer) as port:
        plain.install(gateway.url, "--client", "none", "--home", f"http://127.0.0.1:{port}")
        plain.extra_env = {"LLM_BUS_TOKEN": team.alice.token}
        for _ in range(2):
            plain.add("docs/adr/0001-a.md")
            assert f"this kit is {kit.VERSION} and the bus wants 9.0.0" in plain.run_kit("pre-commit").stderr
        assert len(asked) == 1
        done = plain.run_kit("wake", "start", "claude", stdin='{"session_id": "s"}')
        assert "older than the bus wants" in done.stdout
        doctor = plain.run_kit("doctor")
        assert (doctor.returncode, "the bus wants 9.0.0 at least" in doctor.stdout) == (1, True)


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        ("no token", "is not set, and none is saved"),
        ("mistyped", "this is no token of a bus"),
        ("revoked", "revoked, rotated or is of another bus"),
        ("wrong path", "usually ends in /mcp"),
        ("wrong port", "nothing listens there"),
        ("proxy", "through the proxy 127.0.0.1:1"),
        ("other address", "llm-bus is at http://elsewhere/mcp"),
        ("not restarted", "not restarted since it was configured"),
        ("no hook", "a hook manager that was installed again"),
        ("no config", "does not exist"),
    ],
)
def test_the_doctor_says_why_an_agent_is_not_connected(
    plain: GitRepo, team: Team, gateway: GatewayProcess, prepare: str, says: str, tmp_path: Path
) -> None:
    plain.install(gateway.url, "--client", "claude")
    env = {"LLM_BUS_TOKEN": team.alice.token}
    if prepare == "no token":
        env = {}
    elif prepare == "mistyped":
        env = {"LLM_BUS_TOKEN": team.alice.token[:-2]}
    elif prepare == "revoked":
        from bus.rules.token_format import generate_token

        env = {"LLM_BUS_TOKEN": generate_token()}
    elif prepare == "wrong path":
        plain.update_config(endpoint=gateway.url.removesuffix("/mcp") + "/nothing")
    elif prepare == "wrong port":
        plain.update_config(endpoint="http://127.0.0.1:1/mcp")
    elif prepare == "proxy":
        plain.update_config(endpoint="http://bus.invalid/mcp")
        env |= {"http_proxy": "http://127.0.0.1:1"}
    elif prepare == "other address":
        path = plain.root / ".mcp.json"
        path.write_text(path.read_text().replace(gateway.url, "http://elsewhere/mcp"))
    elif prepare == "no hook":
        (plain.root / ".git" / "hooks" / "pre-commit").unlink()
    elif prepare == "no config":
        (plain.root / "llm-bus.config.json").unlink()
    done = plain.run_kit("doctor", **env)
    assert done.returncode == 1
    assert says in done.stdout, done.stdout
    assert team.alice.token not in done.stdout


def test_the_doctor_is_content_with_what_works(plain: GitRepo, team: Team, gateway: GatewayProcess) -> None:
    plain.install(gateway.url, "--client", "claude,codex")
    plain.extra_env = {"LLM_BUS_TOKEN": team.alice.token}
    plain.run_kit("wake", "start", "claude", stdin='{"session_id": "s"}')
    done = plain.run_kit("doctor")
    assert done.returncode == 0, done.stdout
