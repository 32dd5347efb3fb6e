"""Claude Code: ANTHROPIC_BASE_URL names the model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tests.clients.drivers.driver import Driver
from tests.clients.install import Programs
from tests.clients.stub_model.scripts import Step


class ClaudeDriver(Driver):
    """Claude Code."""

    name = "claude"
    title = "Claude Code"
    npm_package = "@anthropic-ai/claude-code-"
    listed_pattern = r"llm-bus: \S+ \(HTTP\) - .*Connected"
    shell_tool = "Bash"
    signed_in_pattern = r'Authenticated with "llm-bus"'

    notes: ClassVar[Mapping[str, str]] = {
        "unattended": "`claude -p` refuses tools that are not approved: `--allowedTools mcp__llm-bus` approves ours.",
    }

    def find_program(self, programs: Programs) -> list[str] | None:
        return programs.find_native("@anthropic-ai/claude-code-{platform}", "claude")

    def configure(self, home: Path, root: Path, model_url: str) -> Mapping[str, str]:
        project = {"hasTrustDialogAccepted": True, "enabledMcpjsonServers": ["llm-bus"]}
        # A session in a terminal asks whether to use the key.
        key = {"approved": ["any"], "rejected": []}
        state = {"hasCompletedOnboarding": True, "customApiKeyResponses": key, "projects": {str(root): project}}
        (home / ".claude.json").write_text(json.dumps(state))
        # In a trusted folder, the user's settings decide which servers of .mcp.json are approved.
        (home / ".claude").mkdir()
        (home / ".claude" / "settings.json").write_text(json.dumps({"enableAllProjectMcpServers": True}))
        return {
            "ANTHROPIC_BASE_URL": model_url,
            "ANTHROPIC_API_KEY": "any",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        }

    def trust(self, home: Path, folder: Path) -> None:
        path = home / ".claude.json"
        state = json.loads(path.read_text())
        state["projects"][str(folder)] = {"hasTrustDialogAccepted": True, "enabledMcpjsonServers": ["llm-bus"]}
        path.write_text(json.dumps(state))

    def session_arguments(self, prompt: str) -> list[str]:
        # The mode that skips all permissions does not start for root.
        return ["-p", prompt, "--permission-mode", "acceptEdits", "--allowedTools", "Bash,mcp__llm-bus"]

    def default_session_arguments(self, prompt: str) -> list[str]:
        return ["-p", prompt]

    def terminal_arguments(self) -> list[str] | None:
        return ["--permission-mode", "acceptEdits"]

    def write_step(self, label: str, path: Path, text: str) -> Step:
        return Step(label, "Write", {"file_path": str(path), "content": text})

    def subagent_step(self, label: str, prompt: str) -> Step | None:
        arguments = {"description": "read", "prompt": prompt, "subagent_type": "general-purpose"}
        return Step(label, "Agent", arguments)
