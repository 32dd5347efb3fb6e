"""Codex: a provider in config.toml names the model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tests.clients.drivers.driver import Driver
from tests.clients.install import Programs
from tests.clients.stub_model.scripts import Step

# A model that Codex knows, since only those get its tool for patches.
_MODEL = "gpt-5.5"


class CodexDriver(Driver):
    """Codex."""

    name = "codex"
    title = "Codex"
    npm_package = "@openai/codex-"
    # It lists the configured server and does not connect.
    listed_pattern = r"llm-bus +\S+ +LLM_BUS_TOKEN +enabled +Bearer token"
    shell_tool = "exec_command"
    shell_argument = "cmd"
    signed_in_pattern = "Successfully logged in"

    notes: ClassVar[Mapping[str, str]] = {
        "tools": "Codex sends no tools of servers; the model finds them with its tool tool_search, whose description "
        "names no server. The rules in AGENTS.md name the tools.",
        "instructions": "They are the description of the tools that a search returns.",
        "wake": "Codex has no hook that could wake it; it is shown a post with its next turn.",
        "wake_seconds": "Codex has no hook that could wake it; it is shown a post with its next turn.",
    }

    def find_program(self, programs: Programs) -> list[str] | None:
        return programs.find_native("@openai/codex-{platform}", "vendor/*/bin/codex")

    def configure(self, home: Path, root: Path, model_url: str) -> Mapping[str, str]:
        (home / ".codex").mkdir()
        (home / ".codex" / "config.toml").write_text(
            f'model = "{_MODEL}"\nmodel_provider = "stub"\ncheck_for_update_on_startup = false\n'
            "[analytics]\nenabled = false\n"
            f'[model_providers.stub]\nname = "stub"\nbase_url = "{model_url}/v1"\n'
            'env_key = "STUB_KEY"\nwire_api = "responses"\n'
            f'[projects.{json.dumps(str(root))}]\ntrust_level = "trusted"\n'
        )
        return {"STUB_KEY": "any"}

    def trust(self, home: Path, folder: Path) -> None:
        with (home / ".codex" / "config.toml").open("a") as file:
            file.write(f'[projects.{json.dumps(str(folder))}]\ntrust_level = "trusted"\n')

    def session_arguments(self, prompt: str) -> list[str]:
        approved = ["--dangerously-bypass-approvals-and-sandbox", "--dangerously-bypass-hook-trust"]
        return ["exec", *approved, prompt]

    def default_session_arguments(self, prompt: str) -> list[str]:
        return ["exec", "--sandbox", "workspace-write", prompt]

    def write_step(self, label: str, path: Path, text: str) -> Step:
        lines = "".join(f"+{line}\n" for line in text.splitlines())
        patch = f"*** Begin Patch\n*** Add File: {path}\n{lines}*** End Patch"
        return Step(label, "apply_patch", {"input": patch})

    def subagent_step(self, label: str, prompt: str) -> Step | None:
        return Step(label, "spawn_agent", {"message": prompt, "agent_type": "default"})
