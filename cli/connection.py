"""A connection to the bus for commands that act with a token."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cli import client, data_dir, runtime
from cli.exit_codes import CliError, ExitCode


@contextmanager
def connect() -> Iterator[client.Client]:
    """Connect to LLM_BUS_URL, or else to the bus that runs on this machine, with the token LLM_BUS_TOKEN.

    Raises:
        CliError: a call inside the block failed.
    """
    try:
        with client.Client.from_env(_find_local_gateway()) as bus:
            yield bus
    except client.RefusedError as error:
        missing = error.code in ("not_found", "unknown_recipient")
        other_code = ExitCode.UNAVAILABLE if error.code == "unavailable" else ExitCode.FAILED
        raise CliError(str(error), ExitCode.NOT_FOUND if missing else other_code) from error
    except (client.UnreachableError, client.NotConfiguredError) as error:
        raise CliError(str(error), ExitCode.UNAVAILABLE) from error
    except client.ClientError as error:
        raise CliError(str(error)) from error


def _find_local_gateway() -> str | None:
    if os.environ.get("LLM_BUS_URL", "").strip():
        return None
    # A data folder that this user cannot read is not theirs to call.
    with suppress(CliError):
        running = runtime.find_running(data_dir.locate(None))
        return running.mcp_url if running else None
    return None
