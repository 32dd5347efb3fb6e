"""Gemini CLI: GOOGLE_GEMINI_BASE_URL names the model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tests.clients.drivers.driver import Driver
from tests.clients.install import Programs
from tests.clients.stub_model.scripts import Step
from tests.clients.terminal import Terminal

# Without a name, Gemini CLI asks a model which model to use.
_MODEL = "gemini-2.5-flash"


class GeminiDriver(Driver):
    """Gemini CLI."""

    name = "gemini"
    title = "Gemini CLI"
    npm_package = "@google/gemini-cli"
    listed_pattern = r"✓ llm-bus: \S+ \(http\) - Connected"
    shell_tool = "run_shell_command"
    # Only a session can sign in.
    sign_in_arguments = ("--model", _MODEL, "--approval-mode", "yolo")
    signed_in_pattern = "Successfully authenticated and reloaded tools"

    notes: ClassVar[Mapping[str, str]] = {
        "unattended": "`gemini --prompt` offers no tools that ask for approval; `--approval-mode yolo` approves all.",
        "subagent": "Not tried: its hooks do not say that a call is of a subagent, so one reads as its parent.",
        "refusal": "It tries to register again, without an address to return to; the model sees the refusal of that.",
        "wake": "Gemini CLI has no hook that could wake it; it is shown a post with its next turn.",
        "wake_seconds": "Gemini CLI has no hook that could wake it; it is shown a post with its next turn.",
    }

    def find_program(self, programs: Programs) -> list[str] | None:
        return programs.find_script("@google/gemini-cli/bundle/gemini.js")

    def configure(self, home: Path, root: Path, model_url: str) -> Mapping[str, str]:
        settings = {
            "security": {"auth": {"selectedType": "gemini-api-key"}},
            "privacy": {"usageStatisticsEnabled": False},
            "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
        }
        (home / ".gemini").mkdir()
        (home / ".gemini" / "settings.json").write_text(json.dumps(settings))
        (home / ".gemini" / "trustedFolders.json").write_text(json.dumps({str(root): "TRUST_FOLDER"}))
        return {"GOOGLE_GEMINI_BASE_URL": model_url, "GEMINI_API_KEY": "any"}

    def trust(self, home: Path, folder: Path) -> None:
        path = home / ".gemini" / "trustedFolders.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), str(folder): "TRUST_FOLDER"}))

    def session_arguments(self, prompt: str) -> list[str]:
        return ["--model", _MODEL, "--approval-mode", "yolo", "--prompt", prompt]

    def default_session_arguments(self, prompt: str) -> list[str]:
        return ["--model", _MODEL, "--prompt", prompt]

    def begin_sign_in(self, terminal: Terminal) -> None:
        terminal.wait_for("Type your message")
        # The line below the command is its only completion; before it is there, Enter may take another.
        terminal.type("/mcp auth llm-bus", r"^ *llm-bus *\r?$")
        terminal.type("\r", "Do you want to continue")
        terminal.type("\r", "Opening your browser")

    def write_step(self, label: str, path: Path, text: str) -> Step:
        return Step(label, "write_file", {"file_path": str(path), "content": text})
