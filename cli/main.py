"""`llm-bus`: one file per noun in cli/commands, imported when it is needed; failures become one line."""

import importlib
import pkgutil
from typing import Any

import click

from cli import commands
from cli.exit_codes import CliError, ExitCode


class _CommandError(click.ClickException):
    """An expected failure: `llm-bus: message` on stderr, and the exit code."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        return self.code

    def show(self, file: Any = None) -> None:
        click.echo(f"llm-bus: {self.message}", file=file, err=file is None)


class _CommandGroup(click.Group):
    """Each module of cli/commands is a command of its name (`_` is `-`) and exports it as `command`."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(commands.__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        found: click.Command = importlib.import_module(f"cli.commands.{cmd_name.replace('-', '_')}").command
        return found

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


@click.group(cls=_CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="llm-bus", prog_name="llm-bus")
def main() -> None:
    """LLM Bus: the live coordination layer for AI agents.

    \b
    Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 already running,
    4 no such thing, 5 the bus cannot be reached, 6 somebody else holds it,
    7 nothing came in time.
    """


# The next step of an error of the engine, which names no command itself.
_HINTS = {
    "list_owners": "`llm-bus owner list` shows all owners.",
    "list_participants": "`llm-bus agent list PROJECT` shows all participants.",
    "list_projects": "`llm-bus project list` shows all projects.",
    "rotate_token": "Use `llm-bus agent rotate`.",
}


def _to_command_error(error: Exception) -> _CommandError | None:
    """The line and the exit code for a failure that is expected; None for a defect of ours."""
    if isinstance(error, CliError):
        return _CommandError(str(error), error.code)
    # Only now, since a command that needs no engine should not wait for it.
    from bus.config.settings import SettingError
    from bus.errors import BusError

    if isinstance(error, BusError):
        missing = error.code in ("not_found", "unknown_recipient")
        away = ExitCode.UNAVAILABLE if error.code == "unavailable" else ExitCode.FAILED
        hint = _HINTS.get(error.hint or "")
        message = error.message if hint is None else f"{error.message} {hint}"
        return _CommandError(message, ExitCode.NOT_FOUND if missing else away)
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
