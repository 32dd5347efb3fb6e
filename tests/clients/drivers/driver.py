"""How the bench drives a client: its program, the settings that a user makes once, and the names of its own tools."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tests.clients.install import Programs
from tests.clients.stub_model.scripts import Step
from tests.clients.terminal import Terminal


class Driver(ABC):
    """A client.

    Attributes:
        name: its name for the installer and of its program.
        title: its name in the matrix.
        npm_package: the package, or the first part of its name, that has its version.
        listed_pattern: what `NAME mcp list` prints for the connected server.
        shell_tool, shell_argument: its tool for commands, and the argument with the command.
        sign_in_arguments: those of the command that signs in with the address alone, in a terminal.
        signed_in_pattern: what the terminal shows afterwards.
        notes: for each check (`checks`) that the client does not simply pass, the reason.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    npm_package: ClassVar[str]
    listed_pattern: ClassVar[str]
    shell_tool: ClassVar[str]
    shell_argument: ClassVar[str] = "command"
    sign_in_arguments: ClassVar[tuple[str, ...]] = ("mcp", "login", "llm-bus")
    signed_in_pattern: ClassVar[str]
    notes: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def find_program(self, programs: Programs) -> list[str] | None:
        """Return the command that starts the client; None if it is not installed for this platform."""

    @abstractmethod
    def configure(self, home: Path, root: Path, model_url: str) -> Mapping[str, str]:
        """Write the user's settings: the stub as model, and the repository as trusted.

        Returns:
            Environment variables for the client.
        """

    def trust(self, home: Path, folder: Path) -> None:  # noqa: B027 - most clients need nothing
        """Write into the user's settings that another folder is trusted."""

    @abstractmethod
    def session_arguments(self, prompt: str) -> list[str]:
        """Return the arguments of a session without a terminal, in which every call is approved in advance."""

    @abstractmethod
    def default_session_arguments(self, prompt: str) -> list[str]:
        """Return the arguments of a session without a terminal and without approval."""

    def terminal_arguments(self) -> list[str] | None:
        """Return the arguments before the prompt of a session in a terminal; None if posts do not wake an idle one."""
        return None

    def begin_sign_in(self, terminal: Terminal) -> None:  # noqa: B027 - most clients need nothing
        """Type what opens the browser."""

    @abstractmethod
    def write_step(self, label: str, path: Path, text: str) -> Step:
        """Return the step that writes a new file with the client's own tool."""

    def shell_step(self, label: str, command: str) -> Step:
        """Return the step that runs a command with the client's own tool."""
        arguments: dict[str, Any] = {self.shell_argument: command}
        return Step(label, self.shell_tool, arguments)

    def subagent_step(self, label: str, prompt: str) -> Step | None:
        """Return the step that starts a subagent; None if the client has none with tools of servers."""
        return None
