"""Sequences that a repository has before it is connected: the installer seeds them, or the hook says how."""

import pytest

from tests.kit.git_repo import CompletedCommand, GitRepo
from tests.kit.test_reconcile_hook import rename_commands
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess


@pytest.fixture
def numbered(plain: GitRepo, team: Team) -> GitRepo:
    """Alice's repository with three records, not connected yet."""
    plain.add(*[f"docs/adr/{number:04}-x.md" for number in range(1, 4)])
    assert plain.commit("history").returncode == 0
    plain.extra_env = {"LLM_BUS_TOKEN": team.alice.token}
    return plain


def sequence_of(client: McpClient, name: str = "adr") -> dict[str, object] | None:
    sequences = client.call("list_sequences").structured_content["sequences"]
    return next((sequence for sequence in sequences if sequence["name"] == name), None)


def install(repo: GitRepo, gateway: GatewayProcess, *options: str) -> CompletedCommand:
    return repo.install(gateway.url, "--client", "none", *options)


def test_the_installer_seeds_with_the_highest_number_and_says_so(
    numbered: GitRepo, gateway: GatewayProcess, alice: McpClient
) -> None:
    # Numbers of other branches and of files that are not committed count too.
    numbered.git("checkout", "-q", "-b", "other")
    numbered.add("docs/adr/0004-on-a-branch.md")
    assert numbered.commit("other").returncode == 0
    numbered.git("checkout", "-q", "main")
    numbered.write("docs/adr/0005-not-added.md")
    done = install(numbered, gateway)
    assert "Seeded the sequence adr with 5, the highest number here (docs/adr/0005-not-added.md)" in done.stdout
    sequence = sequence_of(alice)
    assert sequence is not None
    assert (sequence["last_used"], sequence["next_formatted"]) == (5, "0006")
    # Again: there is nothing to do.
    assert "the highest number here" not in install(numbered, gateway).stdout
    numbered.add("docs/adr/0006-next.md")
    assert "docs/adr/0006-next.md: adr 0006 was free and is now claimed for you" in numbered.commit().stderr


def test_without_a_token_or_with_no_seed_the_installer_says_how(
    numbered: GitRepo, gateway: GatewayProcess, alice: McpClient
) -> None:
    advice = 'seed_sequence(sequence="adr", current=3)'
    assert advice in install(numbered, gateway, "--no-seed").stdout
    token = numbered.extra_env.pop("LLM_BUS_TOKEN")
    assert advice in install(numbered, gateway).stdout
    assert sequence_of(alice) is None
    done = numbered.run_kit("seed", "--dry-run", LLM_BUS_TOKEN=token)
    assert (done.returncode, advice in done.stdout) == (0, True)
    assert sequence_of(alice) is None
    done = numbered.run_kit("seed", LLM_BUS_TOKEN=token)
    assert (done.returncode, "Seeded the sequence adr with 3" in done.stdout) == (0, True)
    assert numbered.run_kit("seed").returncode == 1


def test_a_sequence_that_exists_is_never_lowered_and_raised_only_by_a_project_admin(
    numbered: GitRepo, gateway: GatewayProcess, alice: McpClient, team: Team
) -> None:
    alice.call("seed_sequence", sequence="adr", current=1)
    done = numbered.install(gateway.url, "--client", "none", LLM_BUS_TOKEN=team.bob.token)
    assert "It was not seeded" in done.stdout
    assert "project-admin" in done.stdout
    assert "Seeded the sequence adr with 3" in install(numbered, gateway).stdout
    alice.call("seed_sequence", sequence="adr", current=30)
    assert "the highest number here" not in install(numbered, gateway).stdout
    sequence = sequence_of(alice)
    assert sequence is not None
    assert sequence["last_used"] == 30


def test_a_single_number_far_above_the_others_is_left_out_and_named(numbered: GitRepo, gateway: GatewayProcess) -> None:
    numbered.add("docs/adr/404-page.md")
    done = install(numbered, gateway)
    assert "Seeded the sequence adr with 3" in done.stdout
    assert "left out docs/adr/404-page.md" in done.stdout


def test_the_hook_recognises_history_that_was_never_seeded_and_claims_nothing(
    numbered: GitRepo, gateway: GatewayProcess, alice: McpClient
) -> None:
    install(numbered, gateway, "--no-seed")
    numbered.add("docs/adr/0004-new.md")
    done = numbered.commit()
    assert done.returncode == 0
    assert rename_commands(done) == []
    assert "the repository has numbers up to 3 (docs/adr/0003-x.md), but the bus has none" in done.stderr
    # With the number that this commit adds, since the commit proceeds.
    assert 'seed_sequence(sequence="adr", current=4)' in done.stderr
    assert sequence_of(alice) is None


def test_a_sequence_that_was_claimed_from_without_seeding_is_led_past_the_tree(
    numbered: GitRepo, gateway: GatewayProcess, alice: McpClient
) -> None:
    install(numbered, gateway, "--no-seed")
    assert alice.call("claim", sequence="adr").structured_content["number"] == 1
    numbered.add("docs/adr/0004-new.md")
    done = numbered.commit()
    assert done.returncode == 0
    assert "docs/adr/0004-new.md: adr 4 was free and is now claimed for you" in done.stderr


def test_a_sequence_far_behind_the_tree_is_not_claimed_from(
    numbered: GitRepo, gateway: GatewayProcess, alice: McpClient, bob: McpClient
) -> None:
    numbered.add(*[f"docs/adr/{number:04}-x.md" for number in range(4, 20)])
    assert numbered.commit("more history").returncode == 0
    install(numbered, gateway, "--no-seed")
    bob.call("claim", sequence="adr")
    numbered.add("docs/adr/0020-new.md", "docs/adr/0001-new.md")
    done = numbered.commit()
    # The number of another participant blocks in any case.
    assert done.returncode == 1
    assert rename_commands(done) == []
    assert "the repository has numbers up to 19" in done.stderr
    assert "the bus is at 1" in done.stderr
    assert 'A project-admin has to seed the sequence once: seed_sequence(sequence="adr", current=20)' in done.stderr
    assert len(alice.call("query_events", type="claim").structured_content["events"]) == 1
