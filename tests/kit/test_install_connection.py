"""The address and the token that the installer accepts, and where it takes them from."""

import json

import pytest

from bus.rules.token_format import generate_token
from tests.kit import git_repo
from tests.kit.git_repo import INSTALLER_PATH, CompletedCommand, GitRepo
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.processes import GatewayProcess

TOKEN = generate_token()


def install_command(repo: GitRepo, *arguments: str, **env: str) -> CompletedCommand:
    """Run the installer without the address that `GitRepo.install` adds."""
    return repo.run(repo.launcher, str(INSTALLER_PATH), "--client", "none", *arguments, cwd=None, **env)


@pytest.mark.parametrize(
    "address",
    ["http://bus.example.org/mcp", "http://10.0.0.7:8788/mcp", "http://127.0.0.1.example.org/mcp", "http://[::2]/mcp"],
)
def test_an_address_without_encryption_is_refused(plain: GitRepo, address: str) -> None:
    before = plain.snapshot()
    done = install_command(plain, "--endpoint", address)
    assert done.returncode == 1
    assert "is not encrypted" in done.stderr
    assert "--allow-http" in done.stderr
    done = install_command(plain, "--endpoint", "https://bus.example.org/mcp", "--home", address.removesuffix("/mcp"))
    assert (done.returncode, "is not encrypted" in done.stderr) == (1, True)
    done = install_command(plain, "--invite", "inv_x", "--home", address.removesuffix("/mcp"))
    assert (done.returncode, "is not encrypted" in done.stderr) == (1, True)
    assert plain.snapshot() == before


@pytest.mark.parametrize(
    "address", ["bus.example.org/mcp", "ftp://bus/mcp", "https:///mcp", "http://[::1/mcp", "https://b:x/mcp"]
)
def test_an_invalid_address_is_refused(plain: GitRepo, address: str) -> None:
    done = install_command(plain, "--endpoint", address)
    assert done.returncode == 1
    assert "is not an address such as https://" in done.stderr


def test_a_bus_in_a_private_network_is_an_explicit_choice_that_is_kept_inside_git(plain: GitRepo) -> None:
    address = "http://bus.invalid/mcp"
    assert install_command(plain, "--endpoint", address, "--allow-http").returncode == 0
    assert json.loads((plain.root / ".git/llm-bus/connection.json").read_text())["allow_http"] is True
    # The choice is for this bus: it is kept in further runs, and not carried over to another bus.
    assert install_command(plain).returncode == 0
    assert install_command(plain, "--endpoint", "http://other.invalid/mcp").returncode == 1
    plain.extra_env = {"LLM_BUS_TOKEN": TOKEN, "http_proxy": "http://127.0.0.1:1"}
    plain.add("docs/adr/0001-a.md")
    done = plain.commit()
    assert done.returncode == 0
    # No proxy reads the token: the name is resolved here.
    assert "cannot be resolved" in done.stderr or "timed out" in done.stderr


def test_an_address_without_encryption_is_refused_where_the_choice_was_not_recorded(plain: GitRepo) -> None:
    assert install_command(plain, "--endpoint", "http://bus.invalid/mcp", "--allow-http").returncode == 0
    # As an earlier version recorded it.
    path = plain.root / ".git/llm-bus/connection.json"
    recorded = json.loads(path.read_text())
    del recorded["allow_http"]
    path.write_text(json.dumps(recorded))
    plain.extra_env = {"LLM_BUS_TOKEN": TOKEN}
    plain.add("docs/adr/0001-a.md")
    done = plain.commit()
    assert (done.returncode, "is not encrypted" in done.stderr) == (0, True)


def test_the_installer_takes_no_address_from_the_repository(plain: GitRepo, gateway: GatewayProcess) -> None:
    plain.install(gateway.url, "--client", "none")
    plain.git("add", "-A")
    assert plain.commit("kit").returncode == 0
    clone = git_repo.GitRepo(plain.root.parent / "clone", plain.env, plain.python)
    plain.git("clone", "-q", str(plain.root), str(clone.root))
    done = install_command(clone)
    assert done.returncode == 1
    assert (
        f"names {gateway.url}: if you trust that address, run this again with --endpoint {gateway.url}" in done.stderr
    )
    assert not (clone.root / ".git/llm-bus").exists()
    clone.install(gateway.url, "--client", "none")
    # Later runs in this clone keep the confirmed address, whatever the branch has.
    clone.update_config(endpoint="https://elsewhere.example.org/mcp")
    assert install_command(clone).returncode == 0
    assert json.loads((clone.root / "llm-bus.config.json").read_text())["endpoint"] == gateway.url


def test_the_variable_of_the_token_is_kept_inside_git(plain: GitRepo, gateway: GatewayProcess, team: Team) -> None:
    plain.install(gateway.url, "--client", "claude", "--token-env", "TEAM_BUS_TOKEN")
    assert json.loads((plain.root / "llm-bus.config.json").read_text())["tokenEnv"] == "TEAM_BUS_TOKEN"
    done = plain.install(gateway.url, "--client", "claude", TEAM_BUS_TOKEN=team.alice.token)
    assert f"You are {team.alice.actor}" in done.stdout
    assert "${TEAM_BUS_TOKEN:-}" in (plain.root / ".mcp.json").read_text()
    for name in ("A B", "$(id)", "X;id", "-x", "Ü"):
        done = install_command(plain, "--endpoint", gateway.url, f"--token-env={name}")
        assert (done.returncode, "is not the name of an environment variable" in done.stderr) == (1, True), name


def test_a_person_reads_who_they_are(plain: GitRepo, gateway: GatewayProcess, team: Team) -> None:
    done = plain.install(gateway.url, "--client", "none", LLM_BUS_TOKEN=team.alice.token)
    assert f"You are {team.alice.actor} in project {team.alice.project} at {gateway.url}." in done.stdout
    assert "There is no token yet: LLM_BUS_TOKEN is not set" in plain.install(gateway.url, "--client", "none").stdout
    done = plain.install("http://127.0.0.1:1/mcp", "--client", "none", LLM_BUS_TOKEN=team.alice.token)
    assert "The token was not checked, because the bus at http://127.0.0.1:1/mcp did not answer" in done.stdout


@pytest.mark.parametrize("option", ["the environment", "--save-token", "a saved token"])
def test_a_mistyped_token_is_an_error(plain: GitRepo, gateway: GatewayProcess, team: Team, option: str) -> None:
    mistyped = team.alice.token[:-3] + ("abc" if not team.alice.token.endswith("abc") else "xyz")
    env = {} if option == "a saved token" else {"LLM_BUS_TOKEN": mistyped}
    if option == "a saved token":
        plain.install(gateway.url, "--client", "none", "--save-token", LLM_BUS_TOKEN=team.alice.token)
        (plain.root / ".git/llm-bus/token").write_text(mistyped)
    before = plain.snapshot()
    done = install_command(
        plain, "--endpoint", gateway.url, *(["--save-token"] if option == "--save-token" else []), **env
    )
    assert done.returncode == 1
    assert "a part is missing or changed. Paste it again" in done.stderr
    assert mistyped not in done.stderr
    assert plain.snapshot() == before


def test_a_token_that_the_bus_refuses_is_an_error(plain: GitRepo, gateway: GatewayProcess) -> None:
    before = plain.snapshot()
    done = install_command(plain, "--endpoint", gateway.url, LLM_BUS_TOKEN=TOKEN)
    assert done.returncode == 1
    assert "refuses this token" in done.stderr
    assert plain.snapshot() == before
