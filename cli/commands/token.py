"""`llm-bus token`: check a token."""

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
    """The bearer tokens of participations."""


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
    """Show whether a token works, and its participant. Exit code 1: it does not work.

    The token is read from --token-file, or else LLM_BUS_TOKEN, or else standard input; never from the command line,
    which every user of the machine can read.
    """
    from cli.database import transaction

    text = _read_token(token_file)
    with transaction(data) as conn:
        status = _check_status(conn, text)
    participant = f" It belongs to {status['actor']} in {status['project']}." if status["actor"] else ""
    emit(status, f"{status['reason']}{participant}", as_json=as_json)
    ctx.exit(ExitCode.OK if status["ok"] else ExitCode.FAILED)


def _read_token(token_file: Path | None) -> str:
    if token_file is not None:
        text = token_file.read_text(encoding="utf-8", errors="replace")
    else:
        text = os.environ.get("LLM_BUS_TOKEN", "") or sys.stdin.read(4096)
    if not text.strip():
        raise CliError(
            "No token was given: set LLM_BUS_TOKEN, use --token-file, or pass it on standard input.", ExitCode.USAGE
        )
    return text.strip()


def _check_status(conn: "Connection", text: str) -> dict[str, Any]:
    """Check whether the token works now, with the statement that authenticates every call of an agent."""
    from bus import scopes
    from bus.errors import NotAuthenticated, OwnerSuspended
    from bus.rules.token_format import fingerprint, is_legacy_token, is_well_formed_token
    from bus.scopes import FULL_SCOPE
    from bus.tenancy import participant_queries, tokens

    if not (is_well_formed_token(text) or is_legacy_token(text)):
        return _build_status(False, "This is not a token of LLM Bus; it may have been truncated when it was copied.")
    sha256 = fingerprint(text)
    ctx, state = tokens.find_caller(conn, sha256), tokens.find_status(conn, sha256)
    if ctx is None or state is None:
        return _build_status(False, "This token was never issued by this bus.")
    participant = {"project": state.project, "actor": state.label}
    try:
        caller = participant_queries.whoami(conn, ctx)
    except OwnerSuspended:
        return _build_status(False, "The owner of the token is suspended.", **participant)
    except NotAuthenticated:
        reason = "The token has expired." if state.revoked_at is None else "The token was revoked."
        if state.revoked_at is None and state.expires_at is None:
            reason = "The agent of the token is no longer in the project."
        return _build_status(False, reason, **participant)
    works = "The token works." if ctx.scope == FULL_SCOPE else f"The token works for {scopes.to_oauth(ctx.scope)}."
    return _build_status(True, works, project=caller.project, actor=caller.actor, is_admin=caller.is_admin)


def _build_status(ok: bool, reason: str, **facts: Any) -> dict[str, Any]:
    return {"ok": ok, "reason": reason, "project": None, "actor": None, **facts}
