"""`llm-bus token`: whose is it, and does it work?"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.exit_codes import CliError, ExitCode
from cli.options import data_option, emit, json_option

if TYPE_CHECKING:
    from bus.db import Connection


@click.group("token", short_help="Tokens: check.")
def command() -> None:
    """What agents present to the bus."""


@command.command("check")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read the token from this file.",
)
@data_option
@json_option
@click.pass_context
def check_token(ctx: click.Context, token_file: Path | None, data: Path | None, as_json: bool) -> None:
    """Say whose a token is and whether it works; exit code 1 if not.

    The token comes from --token-file, else from LLM_BUS_TOKEN, else from standard input: never from the
    command line, which everybody on the machine can read.
    """
    from cli.database import transaction

    text = _read_token(token_file)
    with transaction(data) as conn:
        verdict = _check_status(conn, text)
    whose = f" It is {verdict['actor']}'s in {verdict['project']}." if verdict["actor"] else ""
    emit(verdict, f"{verdict['reason']}{whose}", as_json=as_json)
    ctx.exit(ExitCode.OK if verdict["ok"] else ExitCode.FAILED)


def _read_token(token_file: Path | None) -> str:
    if token_file is not None:
        text = token_file.read_text(encoding="utf-8", errors="replace")
    else:
        text = os.environ.get("LLM_BUS_TOKEN", "") or sys.stdin.read(4096)
    if not text.strip():
        raise CliError("No token was given: set LLM_BUS_TOKEN, name a --token-file, or pipe it in.", ExitCode.USAGE)
    return text.strip()


def _check_status(conn: "Connection", text: str) -> dict[str, Any]:
    """Whether the token works now, decided by the statement that every call of an agent begins with."""
    from bus.errors import NotAuthenticated, OwnerSuspended
    from bus.rules.token_format import fingerprint, is_well_formed_token
    from bus.tenancy import participant_queries, tokens

    if not is_well_formed_token(text):
        return _build_status(False, "This is no token of LLM Bus; it may have been cut off when it was copied.")
    sha256 = fingerprint(text)
    ctx, state = tokens.find_caller(conn, sha256), tokens.find_status(conn, sha256)
    if ctx is None or state is None:
        return _build_status(False, "This token was never issued by this bus.")
    whose = {"project": state.project, "actor": state.label}
    try:
        me = participant_queries.whoami(conn, ctx)
    except OwnerSuspended:
        return _build_status(False, "Its owner is suspended.", **whose)
    except NotAuthenticated:
        reason = "It has expired." if state.revoked_at is None else "It was revoked."
        if state.revoked_at is None and state.expires_at is None:
            reason = "Its agent is no longer in the project."
        return _build_status(False, reason, **whose)
    return _build_status(True, "The token works.", project=me.project, actor=me.actor, is_admin=me.is_admin)


def _build_status(ok: bool, reason: str, **facts: Any) -> dict[str, Any]:
    return {"ok": ok, "reason": reason, "project": None, "actor": None, **facts}
