"""A connection to the bus for commands that act with a token."""

from collections.abc import Iterator
from contextlib import contextmanager

from cli import client
from cli.exit_codes import CliError, ExitCode


@contextmanager
def connect() -> Iterator[client.Client]:
    """Connect to LLM_BUS_URL with the token LLM_BUS_TOKEN.

    Raises:
        CliError: a call inside the block failed.
    """
    try:
        with client.Client.from_env() as bus:
            yield bus
    except client.RefusedError as error:
        missing = error.code in ("not_found", "unknown_recipient")
        other_code = ExitCode.UNAVAILABLE if error.code == "unavailable" else ExitCode.FAILED
        raise CliError(str(error), ExitCode.NOT_FOUND if missing else other_code) from error
    except (client.UnreachableError, client.NotConfiguredError) as error:
        raise CliError(str(error), ExitCode.UNAVAILABLE) from error
    except client.ClientError as error:
        raise CliError(str(error)) from error
