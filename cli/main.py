"""`llm-bus`: one module of cli/commands per command, imported on use; expected failures become one line."""

import importlib
import pkgutil
from typing import Any

import click

from bus import __version__
from cli import commands
from cli.exit_codes import CliError, ExitCode


class _CommandError(click.ClickException):
    """An expected failure, shown as `llm-bus: message` on standard error, with its exit code."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        return self.code

    def show(self, file: Any = None) -> None:
        click.echo(f"llm-bus: {self.message}", file=file, err=file is None)


class _CommandGroup(click.Group):
    """Commands from the modules of cli/commands: each exports `command` and gives it its name (`_` becomes `-`).

    A module whose name is a keyword of Python has a `_` at its end.
    """

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(_modules())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _modules().get(cmd_name)
        if module is None:
            return None
        command: click.Command = importlib.import_module(f"cli.commands.{module}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            failure = _to_command_error(error)
            if failure is None:
                raise
            raise failure from error


def _modules() -> dict[str, str]:
    """Return the modules of cli/commands by the names of their commands."""
    names = [module.name for module in pkgutil.iter_modules(commands.__path__)]
    return {name.rstrip("_").replace("_", "-"): name for name in names}


@click.group(cls=_CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llm-bus")
def main() -> None:
    """LLM Bus: the live coordination layer for AI agents.

    \b
    Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 already running,
    4 not found, 5 the bus cannot be reached, 6 contention, 7 timed out.
    """  # noqa: D301 - click reads the backspace character


# Commands for the hints of the engine's errors, which name no command themselves.
_HINTS = {
    "list_owners": "`llm-bus owner list` shows all owners.",
    "list_participants": "`llm-bus agent list PROJECT` shows all participants.",
    "list_projects": "`llm-bus project list` shows all projects.",
    "rotate_token": "Use `llm-bus agent rotate`.",
}


def _to_command_error(error: Exception) -> _CommandError | None:
    """Convert an expected failure into one line and an exit code; return None for a defect."""
    if isinstance(error, CliError):
        return _CommandError(str(error), error.code)
    # Imported late, since a command that needs no engine should not wait for it.
    from bus.config.errors import SettingError
    from bus.errors import BusError, OwnerSuspended

    if isinstance(error, BusError):
        missing = error.code in ("not_found", "unknown_recipient")
        other_code = ExitCode.UNAVAILABLE if error.code == "unavailable" else ExitCode.FAILED
        hint = _HINTS.get(error.hint or "")
        message = error.message if hint is None else f"{error.message} {hint}"
        return _CommandError(message, ExitCode.NOT_FOUND if missing else other_code)
    if isinstance(error, OwnerSuspended):
        message = "The owner is suspended. Lift it with `llm-bus owner lift`, or add credits."
        return _CommandError(message, ExitCode.FAILED)
    if isinstance(error, SettingError):
        return _CommandError(str(error), ExitCode.FAILED)
    import psycopg
    import sqlalchemy

    cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    if isinstance(cause, psycopg.OperationalError):
        first_line = str(cause).strip().partition("\n")[0]
        return _CommandError(f"The database cannot be reached: {first_line}", ExitCode.UNAVAILABLE)
    return None


if __name__ == "__main__":
    main()
