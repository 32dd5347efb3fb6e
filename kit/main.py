"""The commands of `python3 .git/llm-bus/kit`. A hook ends with 0, also when it fails, unless a check blocks."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from kit import VERSION, activity_log, exit_codes, quick, watchdog

_STDIN_TIMEOUT_SECONDS = 1.0
_USAGE = """\
python3 .git/llm-bus/kit COMMAND

  doctor                     find out why an agent is not connected, and how to fix it
  install, uninstall         see install --help
  seed [--dry-run]           tell the bus the highest number that each sequence has here
  reconcile --staged         check numbers and leases of the staged files; exit code 1 blocks
  reconcile --file PATH      check one file; exit code 1 blocks
  pre-commit                 check numbers and leases of the staged files; exit code 77 blocks
  wake start|stop|wait|end CLIENT  session hooks; CLIENT is claude, codex, gemini, cursor or opencode
  tool before|after CLIENT   the hooks around a tool of claude, codex, gemini or opencode
  headers CLIENT             print the headers of an MCP connection of claude, codex or opencode
  version                    print the version of the kit
"""


def run(arguments: list[str]) -> None:
    """Run a command and end the process, without waiting for calls in progress."""
    code = exit_codes.OK
    try:
        code = _run_within_limit(arguments) if _is_limited(arguments) else _run_command(arguments)
    except watchdog.HookTimeoutError as error:
        activity_log.print_message(f"not checked: {error}. Continuing without the bus.")
    except KeyboardInterrupt:
        code = exit_codes.INTERRUPTED
    except SystemExit as error:
        # Only commands for people use argparse; its exit code 2 means something else to a hook.
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        activity_log.print_message(f"the hook failed ({type(error).__name__}: {error}). Continuing without the bus.")
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
    os._exit(code)


def _is_limited(arguments: list[str]) -> bool:
    """Whether a command is a hook, except the one that waits."""
    return arguments[:1] in (["pre-commit"], ["reconcile"], ["tool"], ["headers"]) or (
        arguments[:1] == ["wake"] and "wait" not in arguments
    )


def _run_within_limit(arguments: list[str]) -> int:
    watchdog.start()
    code = watchdog.run_in_child(arguments)
    return _run_command(arguments) if code is None else code


def _run_command(arguments: list[str]) -> int:
    name, rest = (arguments[0] if arguments else "help"), arguments[1:]
    if name == "pre-commit":
        from kit import precommit

        return exit_codes.BLOCKED_COMMIT if precommit.check_staged(include_leases=True) else exit_codes.OK
    if name == "reconcile":
        return _run_reconcile(rest)
    if name == "wake":
        return _run_session_hook(rest)
    if name == "tool":
        return _run_tool_hook(rest)
    if name == "headers":
        from kit import connection_headers

        print(json.dumps(connection_headers.find_headers(rest[0] if rest else "", rest[1] if len(rest) > 1 else None)))
        return exit_codes.OK
    if name == "doctor":
        from kit import doctor

        return doctor.main()
    if name in ("install", "uninstall"):
        from kit import install

        return install.main([*(["--uninstall"] if name == "uninstall" else []), *rest])
    if name == "seed":
        from kit import seeding

        return seeding.main(rest)
    if name == "version":
        print(VERSION)
        return exit_codes.OK
    print(_USAGE, end="")
    return exit_codes.OK


def _run_reconcile(arguments: list[str]) -> int:
    from kit import precommit

    if arguments[:1] == ["--staged"]:
        return exit_codes.FAILED if precommit.check_staged(include_leases=True) else exit_codes.OK
    if arguments[:1] == ["--file"] and len(arguments) == 2:
        result = precommit.check_file(Path(arguments[1]).absolute())
        if result is not None:
            result.print_messages()
        return exit_codes.FAILED if result and result.blocking else exit_codes.OK
    if arguments[:1] == ["--claude"]:
        return _run_post_tool_use_hook(_read_hook_input())
    print(_USAGE, end="")
    return exit_codes.OK


def _run_post_tool_use_hook(hook_input: dict[str, Any]) -> int:
    """Run the PostToolUse hook: the model sees standard error with exit code 2, and additionalContext with 0."""
    from kit import precommit

    tool_input = hook_input.get("tool_input")
    path = tool_input.get("file_path") if isinstance(tool_input, dict) else None
    if not isinstance(path, str) or not path:
        return exit_codes.OK
    result = precommit.check_file(Path(str(hook_input.get("cwd") or os.getcwd()), path))
    if result is None:
        return exit_codes.OK
    if result.blocking:
        result.print_messages()
        return exit_codes.SHOWN_TO_MODEL
    if result.notes:
        context = {"hookEventName": "PostToolUse", "additionalContext": "LLM Bus: " + "\n".join(result.notes)}
        print(json.dumps({"hookSpecificOutput": context}))
    return exit_codes.OK


def _run_session_hook(arguments: list[str]) -> int:
    from kit import session_hooks

    if (
        len(arguments) not in (2, 3)
        or arguments[0] not in session_hooks.EVENTS
        or arguments[1] not in session_hooks.CLIENTS
    ):
        print(_USAGE, end="")
        return exit_codes.OK
    event, client = arguments[:2]
    # A client that ends can pass no input.
    hook_input = {"session_id": arguments[2]} if len(arguments) == 3 else _read_hook_input()
    if event == "wait":
        text = session_hooks.wait_for_posts(client, hook_input)
        if text is None:
            return exit_codes.OK
        # Exit code 2 wakes the session, which shows standard error to the model.
        sys.stderr.write(text + "\n")
        return exit_codes.SHOWN_TO_MODEL
    if event == "end":
        session_hooks.on_session_end(client, hook_input)
        text = None
    else:
        run_hook = session_hooks.on_session_start if event == "start" else session_hooks.on_session_stop
        text = run_hook(client, hook_input)
    if text is not None:
        print(session_hooks.format_output(client, event, text))
    elif client != "claude":
        # These clients parse the output as JSON, and some of them do not accept an empty one.
        print("{}")
    return exit_codes.OK


def _run_tool_hook(arguments: list[str]) -> int:
    from kit import tool_hooks

    if len(arguments) == 3 and arguments[0] == "look" and arguments[1] in tool_hooks.CLIENTS:
        tool_hooks.look_in_background(*arguments[1:])
        return exit_codes.OK
    if len(arguments) != 2 or arguments[0] not in tool_hooks.EVENTS or arguments[1] not in tool_hooks.CLIENTS:
        print(_USAGE, end="")
        return exit_codes.OK
    event, client = arguments
    output = tool_hooks.run(event, client, _read_hook_input())
    if output or client != "claude":
        print(output or "{}")
    return exit_codes.OK


def _read_hook_input() -> dict[str, Any]:
    """Read the JSON object on standard input; empty if it is invalid, or if the client keeps standard input open."""
    chunks: list[bytes] = []
    if quick.stdin is not None:
        chunks.append(quick.stdin)
    elif sys.stdin is None or sys.stdin.isatty():
        return {}
    else:
        reader = threading.Thread(target=lambda: chunks.append(sys.stdin.buffer.read()), daemon=True)
        reader.start()
        reader.join(_STDIN_TIMEOUT_SECONDS)
    try:
        document = json.loads(chunks[0].decode("utf-8", "replace")) if chunks else {}
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
