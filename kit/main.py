"""The commands of `python3 .llm-bus/kit`. A hook ends with 0 whatever happens, but for the cases that block."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from kit import VERSION, activity_log

# Of its own, so that no failure of an interpreter is taken for it.
BLOCKED_COMMIT_EXIT_CODE = 77
_STDIN_TIMEOUT_SECONDS = 1.0
_USAGE = """\
python3 .llm-bus/kit COMMAND

  doctor                     say why an agent is not connected, and what to do
  install, uninstall         see install --help
  reconcile --staged         check the numbers of staged files; exit code 1 blocks
  reconcile --file PATH      check one file; exit code 1 blocks
  reconcile --claude         the PostToolUse hook of Claude Code; exit code 2 is shown to the model
  pre-commit                 numbers and leases of what is staged; exit code 77 blocks
  wake start|stop|wait CLIENT  hooks of sessions; CLIENT is claude, codex, gemini or cursor
  version
"""


def run(arguments: list[str]) -> None:
    """Run a command and end the process; does not wait for calls that are still under way."""
    code = 0
    try:
        code = _run_command(arguments)
    except KeyboardInterrupt:
        code = 130
    except SystemExit as error:
        # argparse ends with 2, which means something else to a hook; only the tools for people use it.
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException as error:
        activity_log.print_message(
            f"the hook itself failed ({type(error).__name__}: {error}); going on without the bus."
        )
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
    os._exit(code)


def _run_command(arguments: list[str]) -> int:
    name, rest = (arguments[0] if arguments else "help"), arguments[1:]
    if name == "pre-commit":
        from kit import precommit

        return BLOCKED_COMMIT_EXIT_CODE if precommit.check_staged(include_leases=True) else 0
    if name == "reconcile":
        return _run_reconcile(rest)
    if name == "wake":
        return _run_session_hook(rest)
    if name == "doctor":
        from kit import doctor

        return doctor.main()
    if name in ("install", "uninstall"):
        from kit import install

        return install.main([*(["--uninstall"] if name == "uninstall" else []), *rest])
    if name == "version":
        print(VERSION)
        return 0
    print(_USAGE, end="")
    return 0


def _run_reconcile(rest: list[str]) -> int:
    from kit import precommit

    if rest[:1] == ["--staged"]:
        return 1 if precommit.check_staged(include_leases=False) else 0
    if rest[:1] == ["--file"] and len(rest) == 2:
        verdict = precommit.check_file(Path(rest[1]).absolute())
        for sentence in [*verdict.notes, *verdict.blocking] if verdict else ():
            activity_log.print_message(sentence)
        return 1 if verdict and verdict.blocking else 0
    if rest[:1] == ["--claude"]:
        return _run_post_tool_use_hook(_read_hook_input())
    print(_USAGE, end="")
    return 0


def _run_post_tool_use_hook(hook_input: dict[str, Any]) -> int:
    """PostToolUse: the model sees standard error with exit code 2, and additionalContext with 0."""
    from kit import precommit

    inputs = hook_input.get("tool_input")
    path = inputs.get("file_path") if isinstance(inputs, dict) else None
    if not isinstance(path, str) or not path:
        return 0
    full = Path(str(hook_input.get("cwd") or os.getcwd()), path)
    verdict = precommit.check_file(full)
    if verdict is None:
        return 0
    if verdict.blocking:
        for sentence in [*verdict.notes, *verdict.blocking]:
            activity_log.print_message(sentence)
        return 2
    if verdict.notes:
        context = {"hookEventName": "PostToolUse", "additionalContext": "LLM Bus: " + "\n".join(verdict.notes)}
        print(json.dumps({"hookSpecificOutput": context}))
    return 0


def _run_session_hook(rest: list[str]) -> int:
    from kit import session_hooks

    if len(rest) != 2 or rest[0] not in ("start", "stop", "wait") or rest[1] not in session_hooks.CLIENTS:
        print(_USAGE, end="")
        return 0
    event, client = rest
    sent = _read_hook_input()
    if event == "wait":
        text = session_hooks.wait_for_posts(client, sent)
        if text is None:
            return 0
        # The client wakes the session for exit code 2, and shows it what stands on standard error.
        sys.stderr.write(text + "\n")
        return 2
    text = (session_hooks.on_session_start if event == "start" else session_hooks.on_session_stop)(client, sent)
    if text is not None:
        print(session_hooks.format_output(client, event, text))
    elif client != "claude":
        # They parse what a hook prints, and not all of them take nothing for an answer.
        print("{}")
    return 0


def _read_hook_input() -> dict[str, Any]:
    """What the client wrote on standard input; nothing if it wrote nothing sensible, or keeps it open."""
    if sys.stdin is None or sys.stdin.isatty():
        return {}
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(sys.stdin.buffer.read()), daemon=True)
    reader.start()
    reader.join(_STDIN_TIMEOUT_SECONDS)
    try:
        found = json.loads(read[0].decode("utf-8", "replace")) if read else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
