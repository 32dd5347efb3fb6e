"""Commands that call tools as an agent, for scripts and CI, such as `llm-bus agent claim adr`.

They use MCP with the address LLM_BUS_URL and the token LLM_BUS_TOKEN. The token is never an argument, since process
lists show arguments.
"""

import functools
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from bus.rules.enums import TASK_STATUSES
from cli.exit_codes import CliError, ExitCode
from cli.options import emit, format_table, json_option

if TYPE_CHECKING:
    from cli.client import Client

_LONG_POLL_SECONDS = 50
_MAX_STDIN_CHARS = 8000

CommandResult = tuple[Any, str, ExitCode]
"""The result for --json, the text for people, and the exit code."""


def _agent_command(function: Callable[..., CommandResult]) -> Callable[..., None]:
    """Add the connection, --json and --fail-open to a command."""

    @json_option
    @click.option("--fail-open", is_flag=True, help="If the bus cannot be reached, warn and exit with code 0.")
    @functools.wraps(function)
    def command(as_json: bool, fail_open: bool, **options: Any) -> None:
        try:
            result, text, code = _call_with_client(function, options)
        except CliError as error:
            if not (fail_open and error.code == ExitCode.UNAVAILABLE):
                raise
            click.echo(f"llm-bus: {error} Continuing without the bus.", err=True)
            if as_json:
                emit({"unavailable": str(error)}, "", as_json=True)
            return
        emit(result, text, as_json=as_json)
        if code:
            click.get_current_context().exit(code)

    return command


def _call_with_client(function: Callable[..., CommandResult], options: dict[str, Any]) -> CommandResult:
    from cli.connection import connect

    with connect() as bus:
        return function(bus, **options)


@click.command("claim")
@click.argument("sequence")
@click.option("--note", help="The purpose of the number, such as a file path.")
@click.option("--key", help="Idempotency key: a retry with the same key returns the same number.")
@_agent_command
def claim(bus: "Client", sequence: str, note: str | None, key: str | None) -> CommandResult:
    """Take the next number of a sequence and print it."""
    result = bus.call("claim", sequence=sequence, note=note, idempotency_key=key)
    return result, result["formatted"], ExitCode.OK


@click.command("post")
@click.argument("body")
@click.option("--lane", "to_lane", help="The lane to send it to.")
@click.option("--to", "to_actor", help="The participant to send it to.")
@click.option("--subject", help="A short title.")
@click.option("--ref", help="The artifact it refers to: a PR, a commit, an ADR.")
@click.option("--tag", help="A word to filter posts by.")
@click.option("--ack-within", type=click.IntRange(1), help="Seconds until an ack is due.")
@click.option("--key", help="Idempotency key: a retry with the same key posts nothing more.")
@_agent_command
def post(bus: "Client", body: str, ack_within: int | None, key: str | None, **options: str | None) -> CommandResult:
    """Post a handoff to a lane, a participant, or both. BODY is the text, or - for standard input."""
    text = sys.stdin.read(_MAX_STDIN_CHARS + 1) if body == "-" else body
    result = bus.call("post", body=text, ack_within_seconds=ack_within, idempotency_key=key, **options)
    count = result["recipients"]
    return result, f"Post {result['post_id']} to {count} participant{'' if count == 1 else 's'}.", ExitCode.OK


@click.command("ack")
@click.argument("post_ids", nargs=-1, required=True, type=click.IntRange(1))
@_agent_command
def ack(bus: "Client", post_ids: tuple[int, ...]) -> CommandResult:
    """Acknowledge posts."""
    result = bus.call("ack", post_ids=list(post_ids))
    return result, f"{len(result['acked'])} acknowledged.", ExitCode.OK


@click.command("lease")
@click.argument("surface")
@click.option("--ttl", type=click.IntRange(1, 86400), default=1800, show_default=True, help="Seconds until it expires.")
@click.option("--note", help="The purpose of the lease.")
@click.option("--shared", is_flag=True, help="Do not contend with other shared leases.")
@click.option("--back-off", is_flag=True, help="On contention, release the lease again.")
@_agent_command
def lease(bus: "Client", surface: str, ttl: int, note: str | None, shared: bool, back_off: bool) -> CommandResult:
    """Lease SURFACE for editing: a path, a directory or a glob.

    Exit code 6: another participant holds a part of it. The lease is taken nevertheless, unless --back-off is given.
    """
    mode = "shared" if shared else "exclusive"
    result = bus.call("lease", surface=surface, ttl_seconds=ttl, note=note, mode=mode)
    if not result["others"]:
        return result, f"{result['surface']} until {result['expires_at']}.", ExitCode.OK
    if back_off:
        bus.call("release", surface=result["surface"])
    names = ", ".join(f"{other['actor']} ({other['surface']})" for other in result["others"])
    return result, f"{result['surface']} is also held by {names}.", ExitCode.CONTENTION


@click.command("release")
@click.argument("surface")
@_agent_command
def release(bus: "Client", surface: str) -> CommandResult:
    """Release your lease on SURFACE, or with * all of your leases."""
    result = bus.call("release", surface=surface)
    return result, "Released." if result["released"] else "You held no lease there.", ExitCode.OK


@click.command("who-holds")
@click.argument("surface", required=False)
@_agent_command
def who_holds(bus: "Client", surface: str | None) -> CommandResult:
    """List live leases, or those on SURFACE. Exit code 6: another participant holds a part of SURFACE."""
    leases = list(bus.iter_rows("who_holds", "leases", surface=surface))
    own_actor = bus.call("whoami")["actor"] if surface and leases else None
    held = surface is not None and any(lease["actor"] != own_actor for lease in leases)
    rows = [(lease["surface"], lease["actor"], lease["expires_in_seconds"], lease["note"]) for lease in leases]
    text = format_table(("surface", "held by", "seconds left", "note"), rows)
    return {"leases": leases}, text, ExitCode.CONTENTION if held else ExitCode.OK


@click.command("wait")
@click.argument("kind", type=click.Choice(["inbox", "acks", "lease", "task", "any"]), default="any")
@click.option("--surface", help="With lease: the surface to wait for.")
@click.option("--take", is_flag=True, help="Start the task that is returned.")
@click.option("--timeout", type=click.IntRange(1), default=600, show_default=True, help="Seconds to wait.")
@_agent_command
def wait(bus: "Client", kind: str, surface: str | None, take: bool, timeout: int) -> CommandResult:
    """Wait for a post, an ack, a surface or a task.

    Prints what arrived first. Exit code 7: nothing arrived in time.
    """
    end = time.monotonic() + timeout
    while (left := end - time.monotonic()) > 0:
        seconds = max(1, min(_LONG_POLL_SECONDS, int(left)))
        result = bus.call("wait_for", kind=kind, surface=surface, take=take, timeout_seconds=seconds)
        if not result.get("timed_out"):
            return result, _format_wait_result(result), ExitCode.OK
    return {"timed_out": True}, "Timed out.", ExitCode.TIMED_OUT


@click.command("tasks")
@click.option("--status", type=click.Choice(TASK_STATUSES), help="Only tasks with this status.")
@click.option("--lane", help="Only tasks of this lane.")
@click.option("--owner", help="Only tasks assigned to this participant.")
@click.option("--ready", is_flag=True, help="Only tasks that can be started now.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="The number of tasks.")
@_agent_command
def list_tasks(
    bus: "Client", status: str | None, lane: str | None, owner: str | None, ready: bool, limit: int
) -> CommandResult:
    """List tasks, newest first."""
    result = bus.call("list_tasks", status=status, lane=lane, owner=owner, ready=ready or None, limit=limit)
    rows = [
        (task["task_id"], task["status"], task.get("priority", 2), task["owner"], task["title"])
        for task in result["tasks"]
    ]
    return result, format_table(("id", "status", "priority", "owner", "title"), rows), ExitCode.OK


def _format_wait_result(result: dict[str, Any]) -> str:
    posts = result.get("posts") or []
    # Of an ack its author is of interest; the post is the caller's own.
    is_ack = result.get("kind") == "acks"
    if posts:
        return "\n".join(
            f"{post['post_id']}  {'acknowledged by ' + ', '.join(post['acked_by']) if is_ack else post['from']}"
            f"  {post['subject'] or post['body'][:80]}"
            for post in posts
        )
    task = result.get("task")
    return f"Task {task['task_id']}: {task['title']}" if task else "Free."


AGENT_COMMANDS = (claim, post, ack, lease, release, who_holds, wait, list_tasks)
