"""A connection to the bus for commands that act with a token; its failures become the exit codes of cli/exit_codes.py."""

from collections.abc import Iterator
from contextlib import contextmanager

from cli import client
from cli.exit_codes import CliError, ExitCode


@contextmanager
def connect() -> Iterator[client.Client]:
    """The bus of LLM_BUS_URL with the token of LLM_BUS_TOKEN.

    Raises:
        CliError: whatever a call inside the block could not do.
    """
    try:
        with client.Client.from_env() as bus:
            yield bus
    except client.RefusedError as error:
        missing = error.code in ("not_found", "unknown_recipient")
        away = ExitCode.UNAVAILABLE if error.code == "unavailable" else ExitCode.FAILED
        raise CliError(str(error), ExitCode.NOT_FOUND if missing else away) from error
    except (client.UnreachableError, client.NotConfiguredError) as error:
        raise CliError(str(error), ExitCode.UNAVAILABLE) from error
    except client.ClientError as error:
        raise CliError(str(error)) from error
