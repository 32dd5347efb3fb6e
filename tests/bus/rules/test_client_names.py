"""Names of clients: what they send about themselves, and the closed set that is stored."""

import pytest

from bus.rules.client_names import CLIENT_LABELS, OTHER, identify_client, identify_product


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("claude-code", "claude-code"),
        ("claude-code/2.1.332 (cli)", "claude-code"),
        ("codex-mcp-client", "codex"),
        ("codex_cli_rs/0.171.0", "codex"),
        ("gemini-cli-mcp-client", "gemini-cli"),
        ("opencode/1.18.33", "opencode"),
        ("cursor-vscode", "cursor"),
        ("Visual Studio Code", "vscode"),
        ("windsurf-client", "windsurf"),
        ("  Claude Code  ", "claude-code"),
    ],
)
def test_a_known_client_is_recognised_by_its_beginning(sent: str, expected: str) -> None:
    assert identify_client(sent) == identify_product(sent) == expected
    assert expected in CLIENT_LABELS


@pytest.mark.parametrize("sent", ["mcp", "node", "\0", "x" * 10_000, "é", "my-claude-code"])
def test_another_name_is_one_group_and_as_a_user_agent_says_nothing(sent: str) -> None:
    assert (identify_client(sent), identify_product(sent)) == (OTHER, None)


@pytest.mark.parametrize("sent", ["", "  ", "llm-bus-kit", "llm-bus-kit/1.4.0"])
def test_the_kit_and_an_empty_name_replace_no_client(sent: str) -> None:
    assert identify_client(sent) is identify_product(sent) is None
