"""The reconcile hook, with two participants and a running gateway."""

import json
import re
import shlex
from pathlib import Path

import pytest

from bus.db import Database
from tests.kit.git_repo import CompletedCommand, GitRepo
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient


def rename_commands(done: CompletedCommand) -> list[str]:
    """Return the `git mv` commands in the messages of a hook."""
    return re.findall(r"git mv -- .*", done.stderr)


def test_the_number_of_another_participant_blocks_and_the_message_has_a_working_rename_command(
    connected: GitRepo, bob: McpClient, alice: McpClient
) -> None:
    for _ in range(7):
        bob.call("claim", sequence="adr")
    connected.add("docs/adr/0007-cache.md")
    blocked = connected.commit()
    assert blocked.returncode == 1
    assert "adr 7 is claimed by" in blocked.stderr
    assert "/bob" in blocked.stderr
    assert rename_commands(blocked) == ["git mv -- docs/adr/0007-cache.md docs/adr/0008-cache.md"]
    # The next number is claimed, so a second attempt shows the same one.
    assert rename_commands(connected.commit()) == rename_commands(blocked)
    assert (
        alice.call("query_events", type="claim", sequence="adr", number=8).structured_content["events"][0]["mine"]
        is True
    )
    connected.run(*shlex.split(rename_commands(blocked)[0]))
    done = connected.commit()
    assert (done.returncode, done.stderr) == (0, "")
    assert bob.call("claim", sequence="adr").structured_content["number"] == 9


def test_a_number_that_the_caller_has_claimed_passes_silently(connected: GitRepo, alice: McpClient) -> None:
    assert alice.call("claim", sequence="adr").structured_content["number"] == 1
    connected.add("docs/adr/0001-a.md")
    done = connected.commit()
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def test_an_unclaimed_number_is_claimed_and_a_wrong_file_name_is_reported(connected: GitRepo, alice: McpClient) -> None:
    connected.add("docs/adr/0001-a.md")
    done = connected.commit()
    assert done.returncode == 0
    assert "is now claimed for you" in done.stderr
    connected.add("docs/adr/0009-b.md")
    done = connected.commit()
    assert done.returncode == 0
    assert rename_commands(done) == ["git mv -- docs/adr/0009-b.md docs/adr/0002-b.md"]
    notes = [
        event["payload"]["note"] for event in alice.call("query_events", type="claim").structured_content["events"]
    ]
    assert notes == ["docs/adr/0009-b.md", "docs/adr/0001-a.md"]
    assert [line["formatted"] for line in connected.read_activity_log()] == ["1", "2"]


def test_two_files_with_one_number_get_one_new_number(connected: GitRepo, bob: McpClient) -> None:
    bob.call("seed_sequence", sequence="migration", current=6, pad=4)
    bob.call("claim", sequence="migration")
    connected.update_config(sequences={"db/**/*.sql": "migration"})
    connected.add("db/m/0007_up.sql", "db/m/0007_down.sql")
    blocked = connected.commit()
    assert blocked.returncode == 1
    assert rename_commands(blocked) == [
        "git mv -- db/m/0007_down.sql db/m/0008_down.sql",
        "git mv -- db/m/0007_up.sql db/m/0008_up.sql",
    ]


def test_the_override_proceeds_and_is_recorded(connected: GitRepo, bob: McpClient) -> None:
    bob.call("claim", sequence="adr")
    connected.add("docs/adr/0001-a.md")
    done = connected.commit(LLM_BUS_OVERRIDE="1")
    assert done.returncode == 0
    assert "recorded" in done.stderr
    (line,) = [line for line in connected.read_activity_log() if line["what"] == "overridden"]
    assert "docs/adr/0001-a.md" in line["messages"][0]


def test_changing_renaming_and_deleting_files_that_others_numbered_is_allowed(
    connected: GitRepo, bob: McpClient
) -> None:
    bob.call("claim", sequence="adr")
    connected.add("docs/adr/0001-a.md")
    assert connected.commit(LLM_BUS_OVERRIDE="1").returncode == 0
    connected.write("docs/adr/0001-a.md", "changed\n" * 20)
    connected.git("add", "-A")
    assert (
        connected.commit().returncode,
        connected.git("mv", "docs/adr/0001-a.md", "docs/adr/0001-b.md").returncode,
    ) == (0, 0)
    done = connected.commit()
    assert (done.returncode, done.stderr) == (0, "")
    connected.git("rm", "-q", "docs/adr/0001-b.md")
    done = connected.commit()
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["merge", "rebase", "cherry-pick"])
def test_numbers_from_the_other_side_of_a_merge_are_allowed(connected: GitRepo, bob: McpClient, command: str) -> None:
    """Bob's branch contains his ADR; Alice resolves a conflict and commits."""
    bob.call("claim", sequence="adr")
    connected.git("checkout", "-q", "-b", "bobs")
    connected.add("docs/adr/0001-bobs.md", "same.txt")
    assert connected.commit("bobs", LLM_BUS_OVERRIDE="1").returncode == 0
    connected.git("checkout", "-q", "main")
    connected.write("same.txt", "mine\n")
    connected.git("add", "-A")
    assert connected.commit("mine").returncode == 0
    if command == "rebase":
        connected.git("checkout", "-q", "bobs")
    other = "main" if command == "rebase" else "bobs"
    assert connected.run("git", command, other).returncode != 0
    connected.write("same.txt", "both\n")
    connected.git("add", "-A")
    # A user commits here and then continues.
    done = connected.run("git", "commit", "-q", "--no-edit", "-m", "both")
    assert (done.returncode, done.stderr) == (0, ""), done
    if command == "rebase":
        connected.run("git", "rebase", "--continue", GIT_EDITOR="true")
    assert connected.git("status", "--porcelain").stdout == ""


def test_five_hundred_staged_files_pass_within_the_budget(connected: GitRepo, alice: McpClient, bob: McpClient) -> None:
    alice.call("seed_sequence", sequence="adr", current=0)
    names = [f"src/part{number % 20}/file{number}.py" for number in range(490)]
    names += [f"docs/adr/{number:04}-x.md" for number in range(1, 11)]
    for _ in range(10):
        alice.call("claim", sequence="adr")
    bob.call("lease", surface="src/part7/**")
    connected.add(*names)
    done = connected.run_within_limit(connected.launcher, str(connected.kit_path), "pre-commit")
    assert done.returncode == 0
    assert "is leased by" in done.stderr
    assert "and 15 more" in done.stderr
    assert "not checked" not in done.stderr


def test_a_commit_of_500_governed_files_also_stays_within_the_budget(connected: GitRepo, bob: McpClient) -> None:
    bob.call("claim", sequence="adr")
    connected.add(*[f"docs/adr/{number:04}-x.md" for number in range(1, 501)])
    done = connected.run_within_limit(connected.launcher, str(connected.kit_path), "pre-commit")
    assert done.returncode == 77
    assert "adr 1 is claimed by" in done.stderr
    # An import claims no numbers.
    assert bob.call("claim", sequence="adr").structured_content["number"] == 2


def run_post_tool_use_hook(connected: GitRepo, path: Path, tool: str = "Write") -> CompletedCommand:
    hook_input = {
        "hook_event_name": "PostToolUse",
        "tool_name": tool,
        "tool_input": {"file_path": str(path)},
        "cwd": str(connected.root),
        "session_id": "s",
    }
    return connected.run_kit("reconcile", "--claude", stdin=json.dumps(hook_input))


def test_a_taken_number_is_reported_to_claude_at_once_with_exit_code_2(connected: GitRepo, bob: McpClient) -> None:
    bob.call("claim", sequence="adr")
    done = run_post_tool_use_hook(connected, connected.write("docs/adr/0001-a.md"))
    assert done.returncode == 2
    assert "claimed by" in done.stderr
    (command,) = re.findall(r"git add -- .* && git mv -- .*", done.stderr)
    assert connected.run("sh", "-c", command).returncode == 0
    assert (connected.root / "docs/adr/0002-a.md").exists()
    for tool in ("Edit", "MultiEdit"):
        done = run_post_tool_use_hook(connected, connected.root / "docs/adr/0002-a.md", tool)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_new_claim_is_reported_to_claude_without_blocking(connected: GitRepo) -> None:
    done = run_post_tool_use_hook(connected, connected.write("docs/adr/0005-a.md"))
    assert done.returncode == 0
    context = json.loads(done.stdout)["hookSpecificOutput"]
    assert context["hookEventName"] == "PostToolUse"
    assert "docs/adr/0001-a.md" in context["additionalContext"]


def test_files_that_are_not_governed_or_not_in_the_repository_are_skipped(connected: GitRepo, tmp_path: Path) -> None:
    for path in (connected.write("src/0001-a.md"), tmp_path / "elsewhere.md", connected.root / "none/0001.md"):
        done = run_post_tool_use_hook(connected, path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for invalid_input in ("", "[]", "{", '{"tool_input": 7}', '{"tool_input": {"file_path": ""}}'):
        assert connected.run_kit("reconcile", "--claude", stdin=invalid_input).returncode == 0


def test_one_file_can_be_checked_by_its_path(connected: GitRepo, bob: McpClient) -> None:
    bob.call("claim", sequence="adr")
    connected.write("docs/adr/0001-a.md")
    done = connected.run_kit("reconcile", "--file", "0001-a.md", cwd=connected.root / "docs/adr")
    assert done.returncode == 1
    assert "git add -- 0001-a.md && git mv -- 0001-a.md 0002-a.md" in done.stderr
    connected.git("add", "-A")
    assert connected.run_kit("reconcile", "--staged").returncode == 1


def test_a_variable_can_name_another_configuration(connected: GitRepo, bob: McpClient, tmp_path: Path) -> None:
    bob.call("claim", sequence="rfc")
    config = json.loads((connected.root / "llm-bus.config.json").read_text())
    config["sequences"] = {
        "rfcs/*/README.md": {"sequence": "rfc"},
        "notes/**": {"sequence": "rfc", "pattern": "n(\\d+)"},
    }
    other = tmp_path / "other.json"
    # As editors on Windows save it.
    other.write_bytes(b"\xef\xbb\xbf" + json.dumps(config, indent=2).replace("\n", "\r\n").encode())
    connected.add("rfcs/001-a/README.md")
    assert connected.commit(LLM_BUS_CONFIG=str(other)).returncode == 1
    connected.git("rm", "-rq", "--cached", "rfcs")
    connected.add("notes/2024/n1.md")
    assert connected.commit(LLM_BUS_CONFIG=str(other)).returncode == 1
    assert connected.commit().returncode == 0


def test_a_claim_stays_with_the_participant_after_a_rename(
    connected: GitRepo, alice: McpClient, kit_db: Database, team: Team
) -> None:
    assert alice.call("claim", sequence="adr").structured_content["number"] == 1
    with kit_db.transaction() as conn:
        conn.execute("UPDATE participant SET label = 'alicia' WHERE id = %s", (team.alice.ctx.participant_id,))
    assert alice.call("whoami").structured_content["label"] == "alicia"
    connected.add("docs/adr/0001-a.md")
    done = connected.commit()
    assert (done.returncode, done.stderr) == (0, "")
