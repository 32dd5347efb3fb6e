"""Hooks that people have: each runs as before beside the kit's check, and an uninstallation gives it back."""

import os
import subprocess
from collections.abc import Callable

import pytest

from kit import exit_codes, githooks, hook_managers, repo
from tests.kit.workplace import Workplace

HOOK = ".git/hooks/pre-commit"
# Prints what a hook can see of how it was called.
REPORT = """\
import os, sys
print(os.path.basename(sys.argv[0]), sys.argv[1:], sys.stdin.read(), os.environ["TEAM"], sorted(os.environ) == sorted(
    name for name in os.environ if not name.startswith("llm_bus")))
"""


def _run_hook(place: Workplace, path: str = HOOK) -> subprocess.CompletedProcess[str]:
    """Run a hook as a hook manager does, with arguments and standard input."""
    # Python would write the compiled module of a hook beside it.
    env = {**os.environ, "TEAM": "blue", "GIT_INDEX_FILE": ".git/index", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(place.top / path), "first", "two words"]
    return subprocess.run(command, cwd=place.top, env=env, input="lines", capture_output=True, text=True, check=False)


def _python(place: Workplace) -> None:
    place.write(HOOK, "#!/usr/bin/env python3\n" + REPORT, 0o755)


def _python_with_a_module_beside_it(place: Workplace) -> None:
    place.write(".git/hooks/_team.py", REPORT)
    place.write(HOOK, "#!/usr/bin/env python3\nimport _team\n", 0o755)


def _python_that_reads_a_file_beside_it(place: Workplace) -> None:
    place.write(".git/hooks/_team.txt", "from a file\n")
    text = "import os, sys\nprint(open(os.path.dirname(os.path.abspath(sys.argv[0])) + '/_team.txt').read())\n"
    place.write(HOOK, "#!/usr/bin/env python3\n" + text, 0o755)


def _shell_and_python(place: Workplace) -> None:
    place.write(HOOK, "#!/bin/sh\n''''exec python3 \"$0\" \"$@\" #'''\n" + REPORT, 0o755)


def _shell_that_reads_itself(place: Workplace) -> None:
    place.write(HOOK, '#!/bin/sh\ntail -n +4 "$0"\nexit 0\na payload\n', 0o755)


def _shell_that_runs_a_file_beside_it(place: Workplace) -> None:
    place.write(".git/hooks/helper", '#!/bin/sh\necho helper "$@" $TEAM; cat\n', 0o755)
    place.write(HOOK, '#!/bin/sh\nexec "$(dirname "$0")/helper" "$@"\n', 0o755)


def _shell(place: Workplace) -> None:
    place.write(HOOK, '#!/bin/bash -eu\necho "$(basename "$0")" "$@" "$TEAM"; cat\n', 0o755)


def _read_only(place: Workplace) -> None:
    place.write(HOOK, '#!/bin/sh\necho "$(basename "$0")" "$@" "$TEAM"; cat\n', 0o555)


def _relative_link(place: Workplace) -> None:
    place.write("scripts/check.sh", '#!/bin/sh\necho "$(basename "$0")" "$@" "$TEAM"; cat\n', 0o755)
    (place.top / HOOK).symlink_to("../../scripts/check.sh")


def _crlf(place: Workplace) -> None:
    place.write(HOOK, b"#!/usr/bin/env python3\n# \xe9\x00\nprint(1)\r\n".replace(b"\x00", b""), 0o755)


HOOKS = (
    _python,
    _python_with_a_module_beside_it,
    _python_that_reads_a_file_beside_it,
    _shell_and_python,
    _shell_that_reads_itself,
    _shell_that_runs_a_file_beside_it,
    _shell,
    _read_only,
    _relative_link,
    _crlf,
)


@pytest.mark.parametrize(
    ("hook", "has_record"),
    [
        # How the hook is taken out does not depend on what it does when it runs.
        pytest.param(hook, has_record, marks=[] if has_record or hook in (_shell, _crlf) else pytest.mark.exhaustive)
        for hook in HOOKS
        for has_record in (True, False)
    ],
    ids=lambda value: value.__name__ if callable(value) else "record" if value else "marks",
)
def test_a_hook_keeps_name_arguments_input_and_environment(
    place: Workplace, hook: Callable[[Workplace], None], has_record: bool
) -> None:
    hook(place)
    before = place.listing()
    alone = _run_hook(place)
    assert place.install()[0] == exit_codes.OK
    together = _run_hook(place)
    assert (together.returncode, together.stdout) == (alone.returncode, alone.stdout)
    installed = place.listing()
    assert place.install()[0] == exit_codes.OK
    assert place.listing() == installed
    if not has_record:
        place.forget()
    assert place.uninstall()[0] == exit_codes.OK
    assert place.listing() == before


def test_a_hook_that_git_ignores_does_not_start_to_run(place: Workplace) -> None:
    place.write(HOOK, "#!/bin/sh\necho disabled ran\n", 0o644)
    before = place.listing()
    place.install()
    done = _run_hook(place)
    assert (done.returncode, "disabled ran" in done.stdout) == (0, False)
    place.uninstall()
    assert place.listing() == before


@pytest.mark.parametrize("setting", ["/dev/null", "", "NUL", "README.md"])
def test_hooks_that_are_switched_off_stay_so_and_everything_else_is_installed(place: Workplace, setting: str) -> None:
    place.write("README.md", "text\n")
    place.git("config", "core.hooksPath", setting)
    before = place.listing()
    code, output = place.install("claude")
    assert code == exit_codes.PARTLY
    assert "hooks are switched off (core.hooksPath=" in output
    assert (place.top / ".mcp.json").exists()
    assert not (place.top / HOOK).exists()
    detail, fix = githooks.describe(repo.get_repo())
    assert "switched off" in detail
    assert "git config --unset core.hooksPath" in fix
    assert place.uninstall()[0] == exit_codes.OK
    assert place.listing() == before


@pytest.mark.parametrize("kind", ["setting", "home", "link"])
def test_a_shared_folder_of_hooks_is_left_and_named(place: Workplace, kind: str) -> None:
    shared = place.home / "hooks"
    shared.mkdir()
    hook = shared / "pre-commit"
    hook.write_text("#!/bin/sh\nexit 0\n")
    if kind == "link":
        for path in (place.top / ".git/hooks").iterdir():
            path.unlink()
        (place.top / ".git/hooks").rmdir()
        (place.top / ".git/hooks").symlink_to(shared)
    else:
        place.git("config", "core.hooksPath", "~/hooks" if kind == "home" else str(shared))
    code, output = place.install("claude")
    assert code == exit_codes.PARTLY
    assert "shared with other repositories" in output
    assert (place.top / ".mcp.json").exists()
    detail, fix = githooks.describe(repo.get_repo())
    assert "shared with other repositories" in detail
    assert "reconcile --staged" in fix
    place.uninstall()
    assert hook.read_text() == "#!/bin/sh\nexit 0\n"
    assert list(shared.iterdir()) == [hook]


def test_a_folder_of_hooks_that_is_a_link_inside_the_repository_is_used(place: Workplace) -> None:
    place.write("tools/pre-commit", "#!/bin/sh\necho team\n", 0o755)
    place.git("config", "core.hooksPath", "hooks")
    (place.top / "hooks").symlink_to("tools")
    before = place.listing()
    assert place.install()[0] == exit_codes.OK
    assert githooks.BLOCK_BEGIN.encode() in place.read("tools/pre-commit")
    assert githooks.describe(repo.get_repo())[1] == ""
    place.uninstall()
    assert place.listing() == before


@pytest.mark.parametrize("manager", ["pre-commit", "prek"])
def test_the_script_of_a_manager_that_runs_a_moved_hook_stays_as_it_is(place: Workplace, manager: str) -> None:
    script = f"#!/bin/sh\n# File generated by {manager}: https://example.org\n# ID: {'0f' * 16}\n\nexec {manager}\n"
    place.write(HOOK, script, 0o755)
    place.install()
    assert place.read(HOOK).decode() == script
    assert githooks.has_block(place.top / f"{HOOK}.legacy")
    assert githooks.describe(repo.get_repo()) == (f"{manager} runs it as pre-commit.legacy", "")
    place.uninstall()
    assert place.read(HOOK).decode() == script
    assert not (place.top / f"{HOOK}.legacy").exists()


@pytest.mark.parametrize("has_record", [True, False], ids=["record", "marks"])
@pytest.mark.parametrize("suffix", hook_managers.MOVED_SUFFIXES)
@pytest.mark.parametrize("own", [None, "#!/bin/sh\necho mine\n", "#!/usr/bin/env python3\nprint('mine')\n"])
def test_a_hook_that_a_manager_moved_is_restored_where_it_is(
    place: Workplace, own: str | None, suffix: str, has_record: bool
) -> None:
    if own is not None:
        place.write(HOOK, own, 0o755)
    place.install()
    os.rename(place.top / HOOK, place.top / (HOOK + suffix))
    place.write(HOOK, "#!/bin/sh\n# a manager wrote this\nexit 0\n", 0o755)
    detail, fix = githooks.describe(repo.get_repo())
    assert f"moved it to pre-commit{suffix}" in detail
    assert fix
    if not has_record:
        place.forget()
    assert place.uninstall()[0] == exit_codes.OK
    assert place.read(HOOK) == b"#!/bin/sh\n# a manager wrote this\nexit 0\n"
    moved = place.top / (HOOK + suffix)
    assert (moved.read_text() if moved.exists() else None) == own
    assert not (place.top / ".git/hooks.before-llm-bus").exists()


def test_lines_that_the_user_wrote_into_the_hook_stay(place: Workplace) -> None:
    place.install()
    lines = place.read(HOOK).decode().splitlines(keepends=True)
    place.write(HOOK, "".join([lines[0], "echo above\n", *lines[1:5], "echo between\n", *lines[5:], "echo below\n"]))
    place.uninstall()
    assert place.read(HOOK) == b"#!/bin/sh\necho above\necho between\necho below\n"


def test_a_hook_that_an_earlier_version_moved_aside_gets_its_name_back(place: Workplace) -> None:
    own = "#!/usr/bin/env python3\n" + REPORT
    place.write(f"{HOOK}.before-llm-bus", own, 0o755)
    block = f"{githooks.BLOCK_BEGIN}\n# of version 1.0.1\n{githooks.BLOCK_END}\n"
    place.write(HOOK, "#!/bin/sh\n" + block + githooks._OLD_CHAIN_SCRIPT, 0o755)
    place.install()
    done = _run_hook(place)
    assert done.stdout.startswith("pre-commit ['first', 'two words'] lines blue")
    place.uninstall()
    assert place.read(HOOK).decode() == own
    assert not (place.top / f"{HOOK}.before-llm-bus").exists()


def test_an_uninstallation_in_another_worktree_removes_the_shared_hook(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write(HOOK, "#!/bin/sh\necho mine\n", 0o755)
    place.write("CLAUDE.md", "mine\n")
    place.install("claude,codex")
    place.git("add", "-A")
    place.git("-c", "core.hooksPath=/dev/null", "commit", "-q", "-m", "kit")
    tree = place.top.parent / "tree"
    place.git("worktree", "add", "-q", str(tree), "-b", "other")
    monkeypatch.chdir(tree)
    code, output = place.uninstall()
    assert code == exit_codes.OK, output
    assert place.read(HOOK) == b"#!/bin/sh\necho mine\n"
    assert sorted(path.name for path in tree.iterdir()) == [".git", "CLAUDE.md"]
    assert (tree / "CLAUDE.md").read_text() == "mine\n"
    # The other worktree has its own record, and is complete except for the hook.
    monkeypatch.chdir(place.top)
    assert (place.top / ".mcp.json").exists()
    assert place.uninstall()[0] == exit_codes.OK
    assert place.read("CLAUDE.md") == b"mine\n"
    assert not (place.top / ".mcp.json").exists()


def test_a_hook_that_lost_its_mode_is_reported(place: Workplace) -> None:
    place.install()
    (place.top / HOOK).chmod(0o644)
    detail, fix = githooks.describe(repo.get_repo())
    assert "is not executable" in detail
    assert fix.startswith("chmod +x ")


@pytest.mark.parametrize("name", [".pre-commit-config.yaml", "lefthook.yml", ".husky/pre-commit"])
def test_a_line_of_an_earlier_version_in_a_managers_file_is_named(place: Workplace, name: str) -> None:
    place.write(name, "entry: python3 .llm-bus/kit reconcile --staged\n")
    code, output = place.install()
    assert code == exit_codes.PARTLY
    assert f"! {name}: it runs .llm-bus/kit" in output
    assert hook_managers.SHARED_COMMAND in output
    assert "no longer there" in githooks.describe(repo.get_repo())[0]
    # Neither a comment nor the kit's own block, which the installation replaces.
    block = f"{githooks.BLOCK_BEGIN}\npython3 .llm-bus/kit pre-commit\n{githooks.BLOCK_END}\n"
    place.write(name, f"# python3 .llm-bus/kit reconcile --staged\n{block}")
    assert place.install()[0] == exit_codes.OK


@pytest.mark.parametrize(
    ("text", "can_append"),
    [
        ("", True),
        ("# only a comment\n", True),
        ("output:\n  - summary\n", True),
        ("\ufeffoutput: [a]\r\n", True),
        ("pre-push:\n  commands: {}\n", True),
        ("pre-commit:\n  jobs: []\n", False),
        ("'pre-commit' : {}\n", False),
        ('"pre-commit": {}\n', False),
        ("{pre-push: {}}\n", False),
        ("---\noutput: a\n", False),
        ("- a\n", False),
        ("a: |\n  text\nb\n", False),
    ],
)
def test_a_key_is_appended_to_yaml_only_where_it_has_one_meaning(text: str, can_append: bool) -> None:
    assert hook_managers.can_append_hook(text, githooks.BLOCK_BEGIN) is can_append
