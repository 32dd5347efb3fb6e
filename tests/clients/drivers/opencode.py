"""OpenCode: a provider in the user's opencode.json names the model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tests.clients.drivers.driver import Driver
from tests.clients.install import Programs
from tests.clients.stub_model.scripts import Step


class OpenCodeDriver(Driver):
    """OpenCode."""

    name = "opencode"
    title = "OpenCode"
    npm_package = "opencode-linux-x64-baseline"
    listed_pattern = r"✓ llm-bus .*connected"
    shell_tool = "bash"
    sign_in_arguments = ("mcp", "auth", "llm-bus")
    signed_in_pattern = "Authentication successful"
    notes: ClassVar[Mapping[str, str]] = {
        "wake": "The plugin looks when a turn ends; a later post is shown with the next turn.",
        "wake_seconds": "The plugin looks when a turn ends; a later post is shown with the next turn.",
    }

    def find_program(self, programs: Programs) -> list[str] | None:
        return programs.find_native("opencode-{platform}-baseline", "bin/opencode")

    def configure(self, home: Path, root: Path, model_url: str) -> Mapping[str, str]:
        provider = {
            "npm": "@ai-sdk/openai-compatible",
            "name": "stub",
            "options": {"baseURL": f"{model_url}/v1", "apiKey": "any"},
            "models": {"stub": {"name": "stub"}},
        }
        settings = {
            "$schema": "https://opencode.ai/config.json",
            "model": "stub/stub",
            "autoupdate": False,
            "share": "disabled",
            "provider": {"stub": provider},
        }
        folder = home / ".config" / "opencode"
        folder.mkdir(parents=True)
        (folder / "opencode.json").write_text(json.dumps(settings))
        return {
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            # Before it loads a plugin, it installs its library for plugins, here in vain.
            "npm_config_fetch_retries": "0",
        }

    def session_arguments(self, prompt: str) -> list[str]:
        return ["run", prompt]

    def default_session_arguments(self, prompt: str) -> list[str]:
        return ["run", prompt]

    def write_step(self, label: str, path: Path, text: str) -> Step:
        return Step(label, "write", {"filePath": str(path), "content": text})

    def subagent_step(self, label: str, prompt: str) -> Step | None:
        return Step(label, "task", {"description": "read", "prompt": prompt, "subagent_type": "general"})
