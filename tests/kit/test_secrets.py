"""Nothing of the repository decides where secrets go: not its configuration, not its branches, not its environment."""

import itertools
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bus.rules.token_format import generate_token
from kit import bundle
from kit.client_commands import HOOK_LAUNCHER
from kit.client_plugins import OPENCODE_PLUGIN
from tests.kit.git_repo import CompletedCommand, GitRepo
from tests.kit.recording_server import running_recorder
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.processes import GatewayProcess

TOKEN = generate_token()
OTHER_SECRET = "ghp_0123456789abcdefghijklmnopqrstuvwxyz"


def run_all_hooks(repo: GitRepo) -> list[CompletedCommand]:
    """Commit a new numbered file, and run every other command of the kit that calls the bus."""
    repo.add("docs/adr/0001-a.md")
    hook_input = json.dumps({"tool_input": {"file_path": str(repo.root / "docs/adr/0001-a.md")}, "session_id": "s"})
    return [
        repo.run_kit("reconcile", "--staged"),
        repo.run_kit("reconcile", "--file", str(repo.root / "docs/adr/0001-a.md")),
        repo.run_kit("reconcile", "--claude", stdin=hook_input),
        repo.run_kit("wake", "start", "claude", stdin=hook_input),
        repo.run_kit("wake", "stop", "claude", stdin=hook_input),
        repo.commit(),
        repo.run_kit("doctor"),
    ]


def test_an_endpoint_that_a_pull_request_changed_receives_nothing(plain: GitRepo) -> None:
    with running_recorder() as confirmed, running_recorder() as other:
        plain.install(confirmed.url, "--client", "none")
        plain.extra_env = {"LLM_BUS_TOKEN": TOKEN}
        plain.update_config(endpoint=other.url, home=other.url.removesuffix("/mcp"))
        *hooks, doctor = run_all_hooks(plain)
        assert other.requests == []
        assert {done.returncode for done in hooks} == {0}
        assert f"{confirmed.url} was confirmed in this clone" in hooks[-1].stderr
        assert doctor.returncode == 1
        assert f"--endpoint {other.url}" in doctor.stdout
        # A person who trusts the address confirms it.
        plain.install(other.url, "--client", "none")
        assert any(TOKEN in request for request in other.requests)


@pytest.mark.parametrize("way", ["LLM_BUS_URL", "LLM_BUS_CONFIG", "user name", "no connection", "another port"])
def test_an_address_of_another_origin_receives_nothing(plain: GitRepo, way: str) -> None:
    with running_recorder() as confirmed, running_recorder() as other:
        plain.install(confirmed.url, "--client", "none")
        plain.extra_env = {"LLM_BUS_TOKEN": TOKEN}
        if way == "LLM_BUS_URL":
            plain.extra_env["LLM_BUS_URL"] = other.url
        elif way == "LLM_BUS_CONFIG":
            path = plain.write("other.json", json.dumps({"endpoint": other.url, "sequences": {"docs/adr/*": "adr"}}))
            plain.extra_env["LLM_BUS_CONFIG"] = str(path)
        elif way == "user name":
            plain.update_config(endpoint=other.url.replace("//", f"//{confirmed.url.split('/')[2]}@"))
        elif way == "no connection":
            (plain.root / ".git/llm-bus/connection.json").unlink()
            plain.update_config(endpoint=other.url)
        else:
            plain.update_config(endpoint=other.url)
        *hooks, _ = run_all_hooks(plain)
        assert (other.requests, confirmed.requests) == ([], [])
        assert {done.returncode for done in hooks} == {0}
        assert "could not be queried" in hooks[-1].stderr


def test_the_path_of_the_endpoint_may_change_within_the_confirmed_origin(plain: GitRepo) -> None:
    with running_recorder() as confirmed:
        plain.install(confirmed.url, "--client", "none")
        plain.extra_env = {"LLM_BUS_TOKEN": TOKEN}
        plain.update_config(endpoint=confirmed.url.replace("/mcp", "/v2/mcp"))
        run_all_hooks(plain)
        assert any(request.startswith("POST /v2/mcp ") and TOKEN in request for request in confirmed.requests)


def test_token_env_that_names_another_variable_sends_nothing_of_it(plain: GitRepo) -> None:
    with running_recorder() as confirmed:
        plain.install(confirmed.url, "--client", "none")
        plain.update_config(tokenEnv="GITHUB_TOKEN")
        plain.extra_env = {"GITHUB_TOKEN": OTHER_SECRET}
        done = run_all_hooks(plain)
        assert not any(OTHER_SECRET in request for request in confirmed.requests)
        # Also not where that variable is the confirmed one, and not in any output.
        plain.install(confirmed.url, "--client", "none", "--token-env", "GITHUB_TOKEN", GITHUB_TOKEN="")
        done += run_all_hooks(plain)
        assert not any(OTHER_SECRET in request for request in confirmed.requests)
        assert all(OTHER_SECRET not in command.stdout + command.stderr for command in done)
        plain.add("docs/adr/0002-b.md")
        assert "GITHUB_TOKEN is not a token of a bus" in plain.commit().stderr


# Names of the cases, since the token differs in each worker process.
MALFORMED = {
    "another service": OTHER_SECRET,
    "cut": TOKEN[:-1],
    "mistyped": TOKEN[:-1] + "!",
    "lower case": TOKEN.lower(),
    "too long": TOKEN + "x",
    "wrong checksum": "lbus_" + "a" * 49,
    "not ascii": "lbus_é" + TOKEN[6:],
}


@pytest.mark.parametrize("case", MALFORMED)
def test_only_values_of_the_form_of_a_token_are_sent(plain: GitRepo, case: str) -> None:
    value = MALFORMED[case]
    with running_recorder() as confirmed:
        plain.install(confirmed.url, "--client", "none")
        plain.extra_env = {"LLM_BUS_TOKEN": value}
        *hooks, doctor = run_all_hooks(plain)
        assert not any("Authorization" in request for request in confirmed.requests)
        assert {done.returncode for done in hooks} == {0}
        assert "is not a token of a bus" in hooks[-1].stderr
        assert "this is not a token of a bus" in doctor.stdout
        # A saved value is judged alike.
        del plain.extra_env["LLM_BUS_TOKEN"]
        (plain.root / ".git/llm-bus/token").write_text(value, "utf-8")
        run_all_hooks(plain)
        assert not any("Authorization" in request for request in confirmed.requests)


def test_a_saved_token_is_used_where_the_variable_has_another_secret(plain: GitRepo) -> None:
    with running_recorder() as confirmed:
        plain.install(confirmed.url, "--client", "none", "--save-token", LLM_BUS_TOKEN=TOKEN)
        plain.extra_env = {"LLM_BUS_TOKEN": OTHER_SECRET}
        confirmed.requests.clear()
        run_all_hooks(plain)
        assert confirmed.requests
        assert OTHER_SECRET not in "".join(confirmed.requests)
        assert f"Bearer {TOKEN}" in "".join(confirmed.requests)


def evil_kit(repo: GitRepo, marker: Path) -> None:
    """The kit of an earlier version, in the work tree, changed by a branch."""
    code = f"open({str(marker)!r}, 'a').write('kit in the tree\\n')\n"
    for name in ("__main__", "__init__", "main", "config", "activity_log"):
        repo.write(f".llm-bus/kit/{name}.py", code)


def shadowed_modules(repo: GitRepo, marker: Path) -> None:
    """Modules of the standard library, and the package kit, at the top of the work tree."""
    code = f"open({str(marker)!r}, 'a').write(__name__ + '\\n')\n"
    for name in ("runpy", "subprocess", "shutil", "json", "pathlib", "socket", "http", "kit/__init__", "sitecustomize"):
        repo.write(f"{name}.py", code)
    repo.extra_env["PYTHONPATH"] = "."


def bare_repository(repo: GitRepo, marker: Path) -> None:
    """A folder that git takes for a repository of its own, with a kit inside."""
    write_git_folder(repo)
    repo.write("docs/llm-bus/kit/__main__.py", f"open({str(marker)!r}, 'a').write('bare repository\\n')\n")


def write_git_folder(repo: GitRepo) -> None:
    """Make docs/ look like a git folder, with itself as its work tree."""
    repo.write("docs/HEAD", "ref: refs/heads/main\n")
    repo.write("docs/config", "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tworktree = .\n")
    repo.write("docs/objects/.keep")
    repo.write("docs/refs/.keep")


def folder_in_place_of_git(repo: GitRepo, marker: Path) -> None:
    """The folder that a path relative to the wrong place would name."""
    code = f"open({str(marker)!r}, 'a').write('relative\\n')\n"
    for folder in ("llm-bus/kit", "docs/.llm-bus/kit", "docs/llm-bus/kit"):
        repo.write(f"{folder}/__main__.py", code)


ATTACKS = (evil_kit, shadowed_modules, bare_repository, folder_in_place_of_git)


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(attack, marks=[pytest.mark.new_interpreter] if attack is shadowed_modules else [])
        for attack in ATTACKS
    ],
    ids=lambda attack: attack.__name__,
)
def test_a_hook_runs_no_code_of_the_checked_out_branch(
    repo: GitRepo, attack: Callable[[GitRepo, Path], None], tmp_path: Path, gateway: GatewayProcess, team: Team
) -> None:
    repo.install(gateway.url, "--client", "claude,codex,gemini,cursor")
    commands = hook_commands(repo)
    assert len(commands) == 20
    repo.git("checkout", "-q", "-b", "pull-request")
    marker = tmp_path / "ran"
    repo.extra_env["LLM_BUS_TOKEN"] = team.alice.token
    attack(repo, marker)
    repo.git("add", "-A")
    repo.add("docs/adr/0001-a.md")
    done = repo.commit()
    assert done.returncode == 0, done
    assert "is now claimed for you" in done.stderr
    # The commands of the clients are alike: each attack meets a quarter of them, in one of the two folders in turn.
    tried = commands[ATTACKS.index(attack) :: len(ATTACKS)]
    for command, folder in zip(tried, itertools.cycle((repo.root, repo.root / "docs")), strict=False):
        done = repo.run("sh", "-c", command, cwd=folder, stdin='{"session_id": "s"}')
        assert (done.returncode, done.stderr) == (0, ""), (command, done)
        assert not marker.exists(), (command, marker.read_text())


def test_a_folder_that_looks_like_a_git_folder_confirms_no_bus(plain: GitRepo) -> None:
    with running_recorder() as confirmed, running_recorder() as other:
        plain.install(confirmed.url, "--client", "none")
        write_git_folder(plain)
        folder = plain.root / "docs"
        document = {"endpoint": other.url, "web_url": None, "token_variable": "LLM_BUS_TOKEN"}
        plain.write("docs/llm-bus/connection.json", json.dumps(document))
        plain.write("docs/llm-bus.config.json", json.dumps({"endpoint": other.url, "sequences": {"*.md": "adr"}}))
        plain.extra_env = {"LLM_BUS_TOKEN": TOKEN}
        # The folder is a repository for git, unless it is asked not to take it for one.
        assert plain.git("rev-parse", "--git-common-dir", cwd=folder).stdout.strip() in (".", str(folder))
        hook_input = json.dumps({"session_id": "s", "cwd": str(folder)})
        for arguments in (("wake", "start", "claude"), ("wake", "stop", "claude"), ("pre-commit",), ("doctor",)):
            plain.run(plain.launcher, str(plain.root / ".git/llm-bus/kit"), *arguments, cwd=folder, stdin=hook_input)
        assert other.requests == []


def hook_commands(repo: GitRepo) -> list[str]:
    """Return the commands of all hooks that the installer wrote into the clients' files."""
    commands = []
    for name in (".claude/settings.json", ".codex/hooks.json", ".gemini/settings.json", ".cursor/hooks.json"):
        hooks = json.loads((repo.root / name).read_text("utf-8"))["hooks"]
        for entries in hooks.values():
            for entry in entries:
                commands += [hook["command"] for hook in entry.get("hooks", [entry])]
    return commands


def test_the_hook_commands_start_the_code_inside_git_in_every_kind_of_work_tree(
    connected: GitRepo, team: Team, gateway: GatewayProcess
) -> None:
    connected.install(gateway.url, "--client", "claude")
    (command, *_) = hook_commands_of_claude(connected)
    tree = connected.root.parent / "a tree"
    connected.git("worktree", "add", "-q", str(tree), "-b", "other")
    sub = connected.root / "docs" / "deep"
    sub.mkdir(parents=True)
    for folder in (connected.root, sub, tree):
        done = connected.run("sh", "-c", command, cwd=folder, stdin=json.dumps({"session_id": str(folder)}))
        assert team.alice.actor in done.stdout, (folder, done)
    done = connected.run(
        "sh",
        "-c",
        command,
        cwd=Path("/"),
        stdin="{}",
        CLAUDE_PROJECT_DIR=str(connected.root),
        HOME=connected.env["HOME"],
    )
    assert team.alice.actor in done.stdout
    # Without the kit, without a repository, without git and without the folder the command ends with 0.
    done = connected.run("sh", "-c", command, cwd=Path("/"), stdin="{}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = connected.run("sh", "-c", command, stdin="{}", CLAUDE_PROJECT_DIR="/nowhere")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = connected.run("/bin/sh", "-c", command, stdin="{}", PATH=connected.env["PATH"].split(os.pathsep)[0])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def hook_commands_of_claude(repo: GitRepo) -> list[str]:
    hooks = json.loads((repo.root / ".claude/settings.json").read_text("utf-8"))["hooks"]
    return [group["hooks"][0]["command"] for groups in hooks.values() for group in groups]


def test_the_served_installer_imports_no_module_of_the_repository(
    repo: GitRepo, gateway: GatewayProcess, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    shadowed_modules(repo, marker)
    script = bundle.build_script(gateway.url, gateway.url.removesuffix("/mcp"))
    done = repo.run(repo.python, "-", "--client", "none", stdin=script)
    assert (done.returncode, done.stderr) == (0, "")
    # Python itself imports this one, from the user's PYTHONPATH, before any script.
    assert set(marker.read_text().split()) == {"sitecustomize"}


def test_the_work_tree_gets_configuration_and_texts_and_no_code_but_the_commands_that_start_it(
    plain: GitRepo, gateway: GatewayProcess
) -> None:
    plain.install(gateway.url, "--client", "all")
    plain.git("add", "-A")
    names = plain.git("ls-files").stdout.split()
    # The command that starts the kit, in the form that OpenCode reads.
    names.remove(OPENCODE_PLUGIN)
    plugin = (plain.root / OPENCODE_PLUGIN).read_text()
    assert (plugin.count("spawn("), plugin.count(json.dumps(HOOK_LAUNCHER))) == (1, 1)
    assert not [
        name
        for name in names
        if Path(name).suffix not in (".md", ".json", ".toml", ".jsonc", "") or name.startswith(".llm-bus")
    ]
    assert (plain.root / ".git/llm-bus/kit/__main__.py").exists()


def test_an_update_replaces_the_code_inside_git(plain: GitRepo, gateway: GatewayProcess) -> None:
    plain.install(gateway.url, "--client", "none")
    code = plain.kit_path / "precommit.py"
    original = code.read_text("utf-8")
    code.write_text("raise RuntimeError('of an earlier version')\n", "utf-8")
    (plain.kit_path / "wake.py").write_text("# of an earlier version\n", "utf-8")
    done = plain.install(gateway.url, "--client", "none")
    assert "~ .git/llm-bus/kit" in done.stdout
    assert code.read_text("utf-8") == original
    assert not (plain.kit_path / "wake.py").exists()
    assert [path.name for path in plain.kit_path.parent.iterdir() if path.name.startswith("kit")] == ["kit"]
    assert "= .git/llm-bus/kit" in plain.install(gateway.url, "--client", "none").stdout


def test_the_code_and_the_state_of_an_earlier_version_leave_the_work_tree(
    plain: GitRepo, gateway: GatewayProcess
) -> None:
    plain.write(".llm-bus/kit/main.py", "# of version 1.0.0\n")
    plain.write(
        ".llm-bus/.gitignore", "# Written by the LLM Bus kit: local files of this machine.\n/journal.jsonl*\n/state/\n"
    )
    plain.git("add", "-A")
    assert plain.commit("kit").returncode == 0
    before = plain.snapshot()
    plain.write(".llm-bus/journal.jsonl", "{}\n")
    plain.write(".llm-bus/state/started-claude", "1\n")
    done = plain.install(gateway.url, "--client", "none")
    assert "- .llm-bus (2 files)" in done.stdout
    assert not (plain.root / ".llm-bus").exists()
    plain.run_kit("uninstall")
    assert plain.snapshot() == before


@pytest.mark.parametrize("name", [".llm-bus", ".llm-bus/kit", ".llm-bus/state"])
def test_a_link_in_place_of_a_folder_of_the_kit_leads_nowhere(plain: GitRepo, name: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for file in ("main.py", "journal.jsonl", "started", "kit/main.py", "state/started"):
        (outside / file).parent.mkdir(exist_ok=True)
        (outside / file).write_text("mine\n")
    (plain.root / name).parent.mkdir(exist_ok=True)
    (plain.root / name).symlink_to(outside)
    plain.install("http://127.0.0.1:1/mcp", "--client", "none")
    plain.extra_env = {"LLM_BUS_TOKEN": TOKEN}
    run_all_hooks(plain)
    files = [path for path in outside.rglob("*") if path.is_file()]
    assert len(files) == 5
    assert {path.read_text() for path in files} == {"mine\n"}


def test_no_file_of_the_installer_is_readable_by_others_where_it_has_a_secret(plain: GitRepo) -> None:
    plain.install("http://127.0.0.1:1/mcp", "--client", "none", "--save-token", LLM_BUS_TOKEN=TOKEN)
    secret_files = [
        path
        for path in (plain.root / ".git" / "llm-bus").rglob("*")
        if path.is_file() and TOKEN.encode() in path.read_bytes()
    ]
    assert [path.name for path in secret_files] == ["token"]
    assert stat.S_IMODE(secret_files[0].stat().st_mode) == 0o600
