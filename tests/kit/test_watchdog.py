"""Nothing in a repository hangs a commit: a watchdog ends the whole hook, and the commit proceeds."""

import os
import sys
import time

import pytest

from kit import watchdog
from tests.kit.git_repo import CompletedCommand, GitRepo

pytestmark = pytest.mark.new_interpreter
TOKEN = "lbus_" + "a" * 49
HANGING_NAME = f"docs/adr/0001-{'a' * 60}!.md"


ENDLESS_PATTERN = {"docs/adr/*.md": {"sequence": "adr", "pattern": "([0-9]+)-(a+)+$"}}


def assert_proceeds(done: CompletedCommand) -> None:
    assert done.returncode == 0, done
    assert "the check exceeded its limit" in done.stderr
    assert "Continuing without the bus" in done.stderr


# Each run computes for 1.5 s until it is ended.
@pytest.mark.parametrize(
    "sequences",
    [
        ENDLESS_PATTERN,
        pytest.param(
            {"docs/adr/*.md": {"sequence": "adr", "pattern": "([0-9]+)-(a|a)*b"}}, marks=pytest.mark.exhaustive
        ),
        {f"docs/adr/{'*a' * 20}b": "adr"},
    ],
    ids=["nested quantifier", "alternatives", "glob"],
)
def test_a_pattern_that_never_ends_does_not_hang_a_commit(repo: GitRepo, sequences: dict[str, object]) -> None:
    repo.install("http://127.0.0.1:1/mcp", "--client", "none")
    repo.update_config(sequences=sequences)
    repo.add(HANGING_NAME)
    assert_proceeds(repo.commit())


@pytest.mark.parametrize("arguments", [("--staged",), ("--file", HANGING_NAME)], ids=["staged", "file"])
def test_a_pattern_that_never_ends_does_not_hang_another_check(plain: GitRepo, arguments: tuple[str, ...]) -> None:
    plain.install("http://127.0.0.1:1/mcp", "--client", "none")
    plain.update_config(sequences=ENDLESS_PATTERN)
    plain.add(HANGING_NAME)
    assert_proceeds(plain.run_kit("reconcile", *arguments))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_file_that_never_ends_does_not_hang_a_commit(plain: GitRepo) -> None:
    plain.install("http://127.0.0.1:1/mcp", "--client", "none")
    plain.add("docs/adr/0001-a.md")
    pipe = plain.root.parent / "pipe"
    os.mkfifo(pipe)
    done = plain.commit(LLM_BUS_CONFIG=str(pipe))
    assert done.returncode == 0
    assert "the check exceeded its limit" in done.stderr
    assert done.seconds >= watchdog.LIMIT_SECONDS


def test_a_git_that_never_ends_does_not_hang_a_commit(plain: GitRepo) -> None:
    plain.install("http://127.0.0.1:1/mcp", "--client", "none")
    plain.add("docs/adr/0001-a.md")
    kit_path = plain.kit_path
    git = plain.root.parent / "bin" / "git"
    git.write_text("#!/bin/sh\nexec sleep 600\n")
    git.chmod(0o755)
    done = plain.run(plain.python, str(kit_path), "pre-commit")
    assert done.returncode == 0
    assert "the check exceeded its limit" in done.stderr


def test_without_timers_the_hook_runs_in_a_process_that_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    assert watchdog.run_in_child(["pre-commit"]) is None
    assert watchdog.wait_for_child([sys.executable, "-c", "raise SystemExit(77)"]) == 77
    monkeypatch.setattr(watchdog, "LIMIT_SECONDS", 0.2)
    started_at = time.monotonic()
    with pytest.raises(watchdog.HookTimeoutError, match="exceeded its limit"):
        watchdog.wait_for_child([sys.executable, "-c", "while True: pass"])
    assert time.monotonic() - started_at < 60
