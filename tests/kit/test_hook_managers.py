"""The kit beside the real pre-commit, prek, husky and lefthook: in either order, again, after a change of their own."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kit import exit_codes
from kit.hook_managers import lefthook_command
from tests.kit.git_repo import INSTALLER_PATH, PROJECT_ROOT, CompletedCommand, GitRepo
from tests.kit.hook_manager_programs import HookManagers, installed_hook_managers
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess

pytestmark = [pytest.mark.exhaustive, pytest.mark.new_interpreter]

HOOK_RUN = 'echo ran >> "$HOME/ran"'
PRE_COMMIT_CONFIG = f"""\
repos:
- repo: local
  hooks:
  - {{id: team, name: team, language: system, always_run: true, pass_filenames: false, entry: sh -c '{HOOK_RUN}'}}
"""
LEFTHOOK_CONFIG = f"pre-commit:\n  commands:\n    team:\n      run: {HOOK_RUN}\n"


@pytest.fixture(scope="module")
def managers() -> Iterator[HookManagers]:
    with installed_hook_managers() as programs:
        yield programs


@dataclass
class Checkout:
    """A repository with the team's hook, in which Bob holds number 1 and a lease."""

    repo: GitRepo
    url: str
    counter: int = 0

    def install_kit(self) -> CompletedCommand:
        return self.repo.install(self.url, "--client", "none")

    def commit(self, name: str) -> CompletedCommand:
        self.repo.add(name)
        return self.repo.commit()

    def assert_both_run(self) -> None:
        """A commit runs the team's hook once, and the kit's check once: it names a lease, and blocks a number."""
        self.counter += 1
        record = Path(self.repo.env["HOME"]) / "ran"
        record.unlink(missing_ok=True)
        done = self.commit(f"src/file{self.counter}.txt")
        assert done.returncode == 0, done
        assert record.read_text() == "ran\n", done
        assert (done.stdout + done.stderr).count(f"file{self.counter}.txt is leased by") == 1, done
        blocked = self.commit("docs/adr/0001-a.md")
        assert blocked.returncode == 1, blocked
        assert (blocked.stdout + blocked.stderr).count("adr 1 is claimed by") == 1, blocked
        self.repo.git("rm", "-q", "-f", "docs/adr/0001-a.md")

    def assert_only_the_team_hook_runs(self) -> None:
        self.counter += 1
        record = Path(self.repo.env["HOME"]) / "ran"
        record.unlink(missing_ok=True)
        done = self.commit(f"src/file{self.counter}.txt")
        assert (done.returncode, record.read_text()) == (0, "ran\n"), done
        assert "is leased by" not in done.stdout + done.stderr

    def doctor(self) -> str:
        return next(line for line in self.repo.run_kit("doctor").stdout.splitlines() if "git hook" in line)


@pytest.fixture
def checkout(plain: GitRepo, gateway: GatewayProcess, team: Team, bob: McpClient, managers: HookManagers) -> Checkout:
    bob.call("claim", sequence="adr")
    bob.call("lease", surface="src/**")
    plain.extra_env = {
        "LLM_BUS_TOKEN": team.alice.token,
        "PATH": os.pathsep.join([plain.env["PATH"], managers.path]),
    }
    plain.write(".gitignore", "lefthook-local.yml\n")
    return Checkout(plain, gateway.url)


@pytest.mark.parametrize("program", ["pre-commit", "prek"])
@pytest.mark.parametrize("first", ["kit", "manager"])
def test_pre_commit_keeps_the_check_when_it_is_installed_again(
    checkout: Checkout, managers: HookManagers, program: str, first: str
) -> None:
    repo = checkout.repo
    repo.write(".pre-commit-config.yaml", PRE_COMMIT_CONFIG)
    repo.git("add", "-A")
    for name in (first, *({"kit", "manager"} - {first})):
        if name == "kit":
            checkout.install_kit()
        else:
            managers.run(repo, program, "install")
    checkout.assert_both_run()
    assert f"{program} runs it as pre-commit.legacy" in checkout.doctor()
    managers.run(repo, program, "install")
    checkout.assert_both_run()
    repo.write(".pre-commit-config.yaml", PRE_COMMIT_CONFIG.replace("name: team", "name: team2"))
    repo.git("add", "-A")
    checkout.assert_both_run()
    assert not [line for line in checkout.install_kit().stdout.splitlines() if line.startswith(("  +", "  ~"))]
    checkout.assert_both_run()
    assert repo.run_kit("uninstall").returncode == exit_codes.OK
    assert not (repo.root / ".git/hooks/pre-commit.legacy").exists()
    checkout.assert_only_the_team_hook_runs()
    managers.run(repo, program, "uninstall")
    assert not list((repo.root / ".git/hooks").glob("pre-commit*[!e]"))


def test_a_hook_in_another_language_keeps_its_name_behind_both(checkout: Checkout, managers: HookManagers) -> None:
    repo = checkout.repo
    own = "#!/usr/bin/env python3\nimport os, sys\nassert os.path.basename(sys.argv[0]) == 'pre-commit', sys.argv\n"
    hook = repo.write(".git/hooks/pre-commit", own + "open(os.environ['HOME'] + '/own', 'a').write('own\\n')\n")
    hook.chmod(0o755)
    content = hook.read_bytes()
    repo.write(".pre-commit-config.yaml", PRE_COMMIT_CONFIG)
    checkout.install_kit()
    managers.run(repo, "pre-commit", "install")
    checkout.assert_both_run()
    assert (Path(repo.env["HOME"]) / "own").read_text() == "own\n"
    repo.run_kit("uninstall")
    # Its name is now the one that pre-commit gives to a hook that was there first.
    assert (repo.root / ".git/hooks/pre-commit.legacy").read_bytes() == content
    managers.run(repo, "pre-commit", "uninstall")
    assert hook.read_bytes() == content
    assert not (repo.root / ".git/hooks.before-llm-bus").exists()


def test_the_documented_line_of_pre_commit_checks_numbers_and_leases_once(
    checkout: Checkout, managers: HookManagers
) -> None:
    repo = checkout.repo
    page = (PROJECT_ROOT / "docs" / "howto" / "kit.md").read_text()
    lines = page.partition("# .pre-commit-config.yaml\n")[2].partition("# lefthook.yml\n")[0]
    hook = lines.partition("  hooks:\n")[2].replace("\n    ", "\n  ").replace("    - id", "  - id", 1)
    repo.write(".pre-commit-config.yaml", PRE_COMMIT_CONFIG + hook)
    repo.git("add", "-A")
    managers.run(repo, "pre-commit", "install")
    checkout.install_kit()
    checkout.assert_both_run()
    assert "pre-commit runs it, by .pre-commit-config.yaml" in checkout.doctor()
    # Without the kit, as in a clone in which it was not installed, the line passes.
    repo.run_kit("uninstall")
    checkout.assert_only_the_team_hook_runs()


def test_the_documented_line_of_lefthook_checks_numbers_and_leases_once(
    checkout: Checkout, managers: HookManagers
) -> None:
    repo = checkout.repo
    page = (PROJECT_ROOT / "docs" / "howto" / "kit.md").read_text()
    line = page.partition("# lefthook.yml\n")[2].partition("```")[0].partition("  commands:\n")[2]
    repo.write("lefthook.yml", LEFTHOOK_CONFIG + line)
    managers.run(repo, "lefthook", "install")
    checkout.install_kit()
    checkout.assert_both_run()
    assert not (repo.root / "lefthook-local.yml").exists()
    assert "lefthook runs it, by lefthook.yml" in checkout.doctor()
    repo.run_kit("uninstall")
    checkout.assert_only_the_team_hook_runs()


@pytest.mark.parametrize("first", ["kit", "manager"])
def test_husky_keeps_the_check_when_it_is_installed_again(
    checkout: Checkout, managers: HookManagers, first: str
) -> None:
    repo = checkout.repo
    repo.write(".husky/pre-commit", HOOK_RUN + "\n").chmod(0o644)
    before = (repo.root / ".husky/pre-commit").read_bytes()
    if first == "kit":
        checkout.install_kit()
        managers.run(repo, *managers.husky)
        # husky's folder takes the place of the one that has the check: the doctor says so.
        assert "not installed" in checkout.doctor()
        checkout.install_kit()
    else:
        managers.run(repo, *managers.husky)
        checkout.install_kit()
    checkout.assert_both_run()
    assert "husky runs it" in checkout.doctor()
    managers.run(repo, *managers.husky)
    checkout.assert_both_run()
    path = repo.root / ".husky/pre-commit"
    path.write_text(path.read_text() + "# a change\n")
    checkout.assert_both_run()
    repo.run_kit("uninstall")
    assert path.read_bytes() == before + b"# a change\n"
    assert not (repo.root / ".git/hooks/pre-commit").exists()
    checkout.assert_only_the_team_hook_runs()


@pytest.mark.parametrize("first", ["kit", "manager"])
def test_lefthook_keeps_the_check_when_it_syncs_and_is_installed_again(
    checkout: Checkout, managers: HookManagers, first: str
) -> None:
    repo = checkout.repo
    repo.write("lefthook.yml", LEFTHOOK_CONFIG)
    repo.git("add", "-A")
    for name in (first, *({"kit", "manager"} - {first})):
        if name == "kit":
            checkout.install_kit()
        else:
            managers.run(repo, "lefthook", "install")
    checkout.assert_both_run()
    assert "lefthook runs it, by lefthook-local.yml" in checkout.doctor()
    for change in ("# a change\n", "# another change\n"):
        repo.write("lefthook.yml", LEFTHOOK_CONFIG + change)
        repo.git("add", "-A")
        checkout.assert_both_run()
    managers.run(repo, "lefthook", "install", "--force")
    checkout.assert_both_run()
    assert not [line for line in checkout.install_kit().stdout.splitlines() if line.startswith(("  +", "  ~"))]
    checkout.assert_both_run()
    assert repo.run_kit("uninstall").returncode == exit_codes.OK
    assert not (repo.root / "lefthook-local.yml").exists()
    assert not (repo.root / ".git/hooks/pre-commit.old").exists()
    checkout.assert_only_the_team_hook_runs()


def test_lefthook_that_comes_later_moves_the_hook_and_the_next_installation_finds_it(
    checkout: Checkout, managers: HookManagers
) -> None:
    repo = checkout.repo
    checkout.install_kit()
    repo.write("lefthook.yml", LEFTHOOK_CONFIG)
    repo.git("add", "-A")
    managers.run(repo, "lefthook", "install")
    assert "moved it to pre-commit.old, which does not run" in checkout.doctor()
    checkout.install_kit()
    checkout.assert_both_run()
    repo.run_kit("uninstall")
    assert not (repo.root / ".git/hooks/pre-commit.old").exists()
    checkout.assert_only_the_team_hook_runs()


def test_settings_of_lefthook_for_this_clone_keep_what_the_user_wrote(
    checkout: Checkout, managers: HookManagers
) -> None:
    repo = checkout.repo
    repo.write("lefthook.yml", LEFTHOOK_CONFIG)
    local = repo.write("lefthook-local.yml", "# mine\noutput: [execution]")
    managers.run(repo, "lefthook", "install")
    checkout.install_kit()
    checkout.assert_both_run()
    repo.run_kit("uninstall")
    assert local.read_text() == "# mine\noutput: [execution]"
    # Its own hooks cannot be extended without a YAML parser: the lines are printed, and the script gets the check.
    local.write_text("pre-commit:\n  commands:\n    mine:\n      run: 'true'\n")
    done = repo.run(repo.python, str(INSTALLER_PATH), "--endpoint", checkout.url, "--client", "none")
    assert done.returncode == exit_codes.PARTLY
    assert lefthook_command() in done.stdout
    checkout.assert_both_run()
    assert "lefthook writes again" in checkout.doctor()
    local.write_text(local.read_text() + lefthook_command() + "\n")
    checkout.install_kit()
    checkout.assert_both_run()
    assert "lefthook runs it, by lefthook-local.yml" in checkout.doctor()
