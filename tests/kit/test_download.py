"""The kit that the web serves: piped into Python, with a checksum, with an invite, and with a minimum version."""

import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

import kit
from bus.db import Database
from bus.tenancy import invites
from tests.kit import faulty_servers
from tests.kit.git_repo import GitRepo
from tests.kit.web_server import running_web
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.processes import GatewayProcess


@pytest.fixture
def web(kit_database_url: str, gateway: GatewayProcess) -> Iterator[tuple[Flask, str]]:
    with running_web(kit_database_url, gateway.url) as served:
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
    revalidation = client.get("/kit/install.py", headers={"If-None-Match": script.headers["ETag"]})
    assert (revalidation.status_code, revalidation.data) == (304, b"")
    digest = hashlib.sha256(script.data).hexdigest()
    assert client.get("/kit/install.py.sha256").text == f"{digest}  install.py\n"
    assert client.get("/kit/version.json").get_json() == {
        "version": kit.VERSION,
        "minimum": "1.0.0",
        "sha256": digest,
    }
    versioned = client.get(f"/kit/{kit.VERSION}/install.py")
    assert versioned.data == script.data
    assert "immutable" in versioned.headers["Cache-Control"]
    assert client.get("/kit/0.0.1/install.py").status_code == 404
    page = client.get("/kit/").text
    for part in (web[1], gateway.url, "curl -fsSL", kit.VERSION):
        assert part in page


def test_one_line_connects_a_repository_and_one_line_disconnects_it(
    repo: GitRepo, web: tuple[Flask, str], team: Team, gateway: GatewayProcess
) -> None:
    script = web[0].test_client().get("/kit/install.py").text
    before = repo.snapshot()
    done = repo.run(repo.python, "-", "--client", "claude", stdin=script)
    assert done.returncode == 0, done
    config = json.loads((repo.root / "llm-bus.config.json").read_text())
    assert (config["endpoint"], config["home"]) == (gateway.url, web[1])
    repo.extra_env = {"LLM_BUS_TOKEN": team.alice.token}
    repo.add("docs/adr/0001-a.md")
    done = repo.commit()
    assert "is now claimed for you" in done.stderr
    doctor = repo.run_kit("doctor")
    assert "the bus requires 1.0.0 or newer" in doctor.stdout
    assert f"{team.alice.actor} in project {team.alice.project}" in doctor.stdout
    repo.git("reset", "-q", "--soft", "HEAD~1")
    repo.git("rm", "-qf", "docs/adr/0001-a.md")
    # The same line uninstalls, so users need not know the kit's folder.
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
    used_up = repo.run(repo.python, "-", "--invite", f"{web[1]}/join/{code}", "--name", "dave", stdin=script)
    assert used_up.returncode == 1


def test_an_outdated_kit_prints_a_warning_and_queries_the_version_once_a_day(
    plain: GitRepo, team: Team, gateway: GatewayProcess
) -> None:
    requests: list[int] = []

    def respond(connection: socket.socket) -> None:
        requests.append(1)
        faulty_servers.respond_with("200 OK", b'{"version": "9.0.0", "minimum": "9.0.0"}')(connection)

    with faulty_servers.running_server(respond) as port:
        plain.install(gateway.url, "--client", "none", "--home", f"http://127.0.0.1:{port}")
        plain.extra_env = {"LLM_BUS_TOKEN": team.alice.token}
        for _ in range(2):
            plain.add("docs/adr/0001-a.md")
            assert f"this kit is {kit.VERSION}, but the bus requires 9.0.0" in plain.run_kit("pre-commit").stderr
        assert len(requests) == 1
        done = plain.run_kit("wake", "start", "claude", stdin='{"session_id": "s"}')
        assert "the bus requires 9.0.0 or newer" in done.stdout
        doctor = plain.run_kit("doctor")
        assert (doctor.returncode, "the bus requires 9.0.0 or newer" in doctor.stdout) == (1, True)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("no token", "is not set, and no token is saved"),
        ("mistyped", "this is not a token of a bus"),
        ("revoked", "belongs to another bus"),
        ("wrong path", "usually ends in /mcp"),
        ("wrong port", "the connection was refused"),
        ("not confirmed", "was confirmed in this clone"),
        ("proxy", "through the proxy 127.0.0.1:1"),
        ("other address", "llm-bus has the address http://elsewhere/mcp"),
        ("other address with comments", "opencode.jsonc: llm-bus has the address http://elsewhere/mcp"),
        ("not restarted", "not restarted since it was configured"),
        ("no hook", "reinstalling a hook manager"),
        ("no config", "does not exist"),
    ],
)
def test_the_doctor_says_why_an_agent_is_not_connected(
    plain: GitRepo, team: Team, gateway: GatewayProcess, problem: str, message: str, tmp_path: Path
) -> None:
    plain.install(gateway.url, "--client", "claude")
    env = {"LLM_BUS_TOKEN": team.alice.token}
    if problem == "no token":
        env = {}
    elif problem == "mistyped":
        env = {"LLM_BUS_TOKEN": team.alice.token[:-2]}
    elif problem == "revoked":
        from bus.rules.token_format import generate_token

        env = {"LLM_BUS_TOKEN": generate_token()}
    elif problem == "wrong path":
        plain.update_config(endpoint=gateway.url.removesuffix("/mcp") + "/nothing")
    elif problem == "wrong port":
        plain.install("http://127.0.0.1:1/mcp", "--client", "claude")
    elif problem == "not confirmed":
        plain.update_config(endpoint="http://127.0.0.1:1/mcp")
    elif problem == "proxy":
        plain.install("https://bus.invalid/mcp", "--client", "claude")
        env |= {"https_proxy": "http://127.0.0.1:1"}
    elif problem == "other address":
        path = plain.root / ".mcp.json"
        path.write_text(path.read_text().replace(gateway.url, "http://elsewhere/mcp"))
    elif problem == "other address with comments":
        path = plain.write("opencode.jsonc", "{\n  // settings of the team\n}\n")
        plain.install(gateway.url, "--client", "opencode")
        path.write_text(path.read_text().replace(gateway.url, "http://elsewhere/mcp"))
    elif problem == "no hook":
        (plain.root / ".git" / "hooks" / "pre-commit").unlink()
    elif problem == "no config":
        (plain.root / "llm-bus.config.json").unlink()
    done = plain.run_kit("doctor", cwd=None, **env)
    assert done.returncode == 1
    assert message in done.stdout, done.stdout
    assert team.alice.token not in done.stdout


def test_the_doctor_reports_no_problem_for_a_connected_repository(
    plain: GitRepo, team: Team, gateway: GatewayProcess
) -> None:
    plain.install(gateway.url, "--client", "claude,codex")
    plain.extra_env = {"LLM_BUS_TOKEN": team.alice.token}
    plain.run_kit("wake", "start", "claude", stdin='{"session_id": "s"}')
    done = plain.run_kit("doctor")
    assert done.returncode == 0, done.stdout
