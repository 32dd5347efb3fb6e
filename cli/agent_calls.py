"""What an agent does, for scripts and CI: `llm-bus agent claim adr` and its like, over MCP with a token.

The bus is LLM_BUS_URL and the token LLM_BUS_TOKEN; neither is ever an argument, since arguments show in process lists.
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
"""What was answered, in words, and how to end."""


def _agent_command(function: Callable[..., CommandResult]) -> Callable[..., None]:
    """Give a command its connection, --json and --fail-open; turn failures into the exit codes of cli/exit_codes.py."""

    @json_option
    @click.option("--fail-open", is_flag=True, help="If the bus cannot be reached, warn and end with 0.")
    @functools.wraps(function)
    def command(as_json: bool, fail_open: bool, **options: Any) -> None:
        try:
            said, text, code = _call_with_client(function, options)
        except CliError as error:
            if not (fail_open and error.code == ExitCode.UNAVAILABLE):
                raise
            click.echo(f"llm-bus: {error} Going on without the bus.", err=True)
            if as_json:
                emit({"unavailable": str(error)}, "", as_json=True)
            return
        emit(said, text, as_json=as_json)
        if code:
            click.get_current_context().exit(code)

    return command


def _call_with_client(function: Callable[..., CommandResult], options: dict[str, Any]) -> CommandResult:
    from cli.connection import connect

    with connect() as bus:
        return function(bus, **options)


@click.command("claim")
@click.argument("sequence")
@click.option("--note", help="What the number is for, such as the file's path.")
@click.option("--key", help="An idempotency key: a second try with it gives the same number.")
@_agent_command
def claim(bus: "Client", sequence: str, note: str | None, key: str | None) -> CommandResult:
    """Take the next number of a sequence and print it."""
    got = bus.call("claim", sequence=sequence, note=note, idempotency_key=key)
    return got, got["formatted"], ExitCode.OK


@click.command("post")
@click.argument("body")
@click.option("--lane", "to_lane", help="The lane that it is for.")
@click.option("--to", "to_actor", help="The participant that it is for.")
@click.option("--subject")
@click.option("--ref", help="What it is about: a PR, a commit, an ADR.")
@click.option("--tag")
@click.option("--ack-within", type=click.IntRange(1), help="Seconds until an ack is due.")
@click.option("--key", help="An idempotency key: a second try with it posts nothing more.")
@_agent_command
def post(bus: "Client", body: str, ack_within: int | None, key: str | None, **options: str | None) -> CommandResult:
    """Hand over to a lane, a participant, or both. BODY is the text, or - for standard input."""
    text = sys.stdin.read(_MAX_STDIN_CHARS + 1) if body == "-" else body
    got = bus.call("post", body=text, ack_within_seconds=ack_within, idempotency_key=key, **options)
    count = got["recipients"]
    return got, f"Post {got['post_id']} to {count} participant{'' if count == 1 else 's'}.", ExitCode.OK


@click.command("ack")
@click.argument("post_ids", nargs=-1, required=True, type=click.IntRange(1))
@_agent_command
def ack(bus: "Client", post_ids: tuple[int, ...]) -> CommandResult:
    """Confirm posts."""
    got = bus.call("ack", post_ids=list(post_ids))
    return got, f"{len(got['acked'])} acked.", ExitCode.OK


@click.command("lease")
@click.argument("surface")
@click.option("--ttl", type=click.IntRange(1, 86400), default=1800, show_default=True, help="Seconds.")
@click.option("--note", help="What you do there.")
@click.option("--shared", is_flag=True, help="Others who share are not in the way.")
@click.option("--back-off", is_flag=True, help="Where somebody is there already, release it again.")
@_agent_command
def lease(bus: "Client", surface: str, ttl: int, note: str | None, shared: bool, back_off: bool) -> CommandResult:
    """Say that you edit SURFACE: a path, a directory or a glob. Exit code 6: somebody else is there already.

    The lease is taken all the same, unless --back-off.
    """
    mode = "shared" if shared else "exclusive"
    got = bus.call("lease", surface=surface, ttl_seconds=ttl, note=note, mode=mode)
    if not got["others"]:
        return got, f"{got['surface']} until {got['expires_at']}.", ExitCode.OK
    if back_off:
        bus.call("release", surface=got["surface"])
    names = ", ".join(f"{other['actor']} ({other['surface']})" for other in got["others"])
    return got, f"{got['surface']} is also held by {names}.", ExitCode.CONTENTION


@click.command("release")
@click.argument("surface")
@_agent_command
def release(bus: "Client", surface: str) -> CommandResult:
    """End your lease on SURFACE; * ends all of yours."""
    got = bus.call("release", surface=surface)
    return got, "Released." if got["released"] else "You held nothing there.", ExitCode.OK


@click.command("who-holds")
@click.argument("surface", required=False)
@_agent_command
def who_holds(bus: "Client", surface: str | None) -> CommandResult:
    """List live leases, or those on SURFACE. Exit code 6: somebody else holds a part of SURFACE."""
    leases = list(bus.iter_rows("who_holds", "leases", surface=surface))
    me = bus.call("whoami")["actor"] if surface and leases else None
    held = surface is not None and any(one["actor"] != me for one in leases)
    rows = [(one["surface"], one["actor"], one["expires_in_seconds"], one["note"]) for one in leases]
    text = format_table(("surface", "held by", "seconds left", "note"), rows)
    return {"leases": leases}, text, ExitCode.CONTENTION if held else ExitCode.OK


@click.command("wait")
@click.argument("kind", type=click.Choice(["inbox", "acks", "lease", "task", "any"]), default="any")
@click.option("--surface", help="What is to become free, for lease.")
@click.option("--take", is_flag=True, help="Start the task that comes.")
@click.option("--timeout", type=click.IntRange(1), default=600, show_default=True, help="Seconds.")
@_agent_command
def wait(bus: "Client", kind: str, surface: str | None, take: bool, timeout: int) -> CommandResult:
    """Wait until something concerns you and print it. Exit code 7: nothing came in time."""
    end = time.monotonic() + timeout
    while (left := end - time.monotonic()) > 0:
        seconds = max(1, min(_LONG_POLL_SECONDS, int(left)))
        got = bus.call("wait_for", kind=kind, surface=surface, take=take, timeout_seconds=seconds)
        if not got.get("timed_out"):
            return got, _format_wait_result(got), ExitCode.OK
    return {"timed_out": True}, "Nothing came.", ExitCode.TIMED_OUT


@click.command("tasks")
@click.option("--status", type=click.Choice(TASK_STATUSES))
@click.option("--lane")
@click.option("--owner")
@click.option("--ready", is_flag=True, help="Those that could be started now.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@_agent_command
def list_tasks(
    bus: "Client", status: str | None, lane: str | None, owner: str | None, ready: bool, limit: int
) -> CommandResult:
    """List tasks, newest first."""
    got = bus.call("list_tasks", status=status, lane=lane, owner=owner, ready=ready or None, limit=limit)
    rows = [(one["task_id"], one["status"], one["priority"], one["owner"], one["title"]) for one in got["tasks"]]
    return got, format_table(("id", "status", "priority", "owner", "title"), rows), ExitCode.OK


def _format_wait_result(got: dict[str, Any]) -> str:
    posts = got.get("posts") or []
    if posts:
        return "\n".join(f"{one['post_id']}  {one['from']}  {one['subject'] or one['body'][:80]}" for one in posts)
    task = got.get("task")
    return f"Task {task['task_id']}: {task['title']}" if task else "Free."


AGENT_COMMANDS = (claim, post, ack, lease, release, who_holds, wait, list_tasks)
