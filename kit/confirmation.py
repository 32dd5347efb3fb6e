"""What a person confirms by running the installer: the bus, the variable of the token, and who they are there."""

from __future__ import annotations

import argparse

from kit import config, connection, jsonc, mcp_client
from kit.connection import AddressError, Connection
from kit.plain_text import one_line
from kit.repo import Repo
from kit.token_format import is_well_formed

_TIMEOUT_SECONDS = 5.0


class NotConfirmedError(Exception):
    """The installation cannot continue; the message says what to do."""


def confirm_token_variable(repo: Repo, option: str | None) -> str:
    """Return the variable of the token: that of the option, of an earlier installation, or of the configuration.

    The configuration only proposes a name: whatever a variable holds, only a token of a bus is sent.

    Raises:
        NotConfirmedError: no environment variable can have that name.
    """
    confirmed = connection.find_connection(repo)
    name = option or (confirmed.token_variable if confirmed else None) or _read_configured(repo, "tokenEnv")
    name = name or config.TOKEN_VARIABLE
    if not connection.is_variable_name(name):
        raise NotConfirmedError(f"{one_line(name, 80)} is not the name of an environment variable")
    return name


def confirm_connection(repo: Repo, options: argparse.Namespace, endpoint: str | None) -> Connection:
    """Return the connection that this run of the installer confirms.

    Args:
        options: `endpoint`, `home`, `token_env` and `allow_http` of the command line or of the served installer.
        endpoint: the address that a redeemed invite names; None without an invite.

    Raises:
        NotConfirmedError: no address was given, or it is not encrypted.
    """
    confirmed = connection.find_connection(repo)
    address = endpoint or options.endpoint or (confirmed.endpoint if confirmed else None)
    if not address:
        configured = _read_configured(repo, "endpoint")
        hint = (
            f". {config.FILE_NAME} names {one_line(configured, 200)}: if you trust that address, run this again with "
            f"--endpoint {one_line(configured, 200)}"
            if configured
            else ""
        )
        raise NotConfirmedError(f"the address of the bus is missing: --endpoint https://BUS/mcp{hint}")
    try:
        is_same_bus = confirmed is not None and connection.parse_origin(confirmed.endpoint) == connection.parse_origin(
            address
        )
        earlier = confirmed if is_same_bus else None
        allow_http = options.allow_http or (earlier is not None and earlier.allow_http)
        web_url = options.home or (earlier.web_url if earlier else None)
        connection.check_encryption(address, allow_http=allow_http)
        if web_url:
            connection.check_encryption(web_url, allow_http=allow_http)
    except AddressError as error:
        raise NotConfirmedError(str(error)) from None
    return Connection(address, web_url.rstrip("/") if web_url else None, options.token_env, allow_http)


def identify(repo: Repo, confirmed: Connection, new_token: str | None) -> str:
    """Ask the bus once whose token this is. Returns a line for the user.

    Args:
        new_token: the token that this run saves; None for that of the environment or of an earlier run.

    Raises:
        NotConfirmedError: the token is mistyped, or the bus refuses it.
    """
    token, problem = (new_token, "") if new_token else config.find_token(repo, confirmed.token_variable)
    if new_token and not is_well_formed(new_token):
        problem = "this is not a token of a bus"
    if token is None and " is not set" in problem:
        return f"There is no token yet: {problem}."
    if problem:
        raise NotConfirmedError(f"{problem}: a part is missing or changed. Paste it again; nothing was changed.")
    (answer,) = mcp_client.call_in_parallel(
        confirmed.endpoint,
        token,
        [lambda bus: bus.call("whoami")],
        mcp_client.TimeBudget(_TIMEOUT_SECONDS),
    )
    if isinstance(answer, mcp_client.UnreachableError) and answer.status == 401:
        raise NotConfirmedError(
            f"{one_line(confirmed.endpoint)} refuses this token: it was revoked or rotated, or it belongs to another "
            "bus. Ask the project-admin for a new one; nothing was changed."
        )
    if isinstance(answer, Exception):
        return f"The token was not checked, because the bus at {one_line(confirmed.endpoint)} did not answer: {answer}."
    actor, project = one_line(answer.get("actor"), 100), one_line(answer.get("project"), 100)
    return f"You are {actor} in project {project} at {one_line(confirmed.endpoint)}."


def _read_configured(repo: Repo, key: str) -> str | None:
    """Read a text of the committed configuration, for a hint or a proposal."""
    try:
        value = jsonc.read_value((repo.top / config.FILE_NAME).read_bytes().decode("utf-8"), (key,))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, str) and value else None
