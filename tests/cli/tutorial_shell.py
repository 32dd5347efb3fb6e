"""Console blocks of the tutorials: parsed from the pages, and run in shells as a reader would.

A block of commands is fenced as ```console SESSION, and the blocks of a session share a shell; or as ```console
not run: REASON. Lines that begin with `$ ` are commands. The lines below are their output, in which `…` stands for any
text, and the width of columns does not count.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

TUTORIALS_DIR = Path(__file__).resolve().parents[2] / "docs" / "tutorials"
_BLOCK = re.compile(r"^```console(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
_END = "-- end of the output --"


@dataclass(frozen=True)
class Block:
    """A console block; `session` is None where it is not run, for the `reason`."""

    session: str | None
    reason: str
    text: str

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each command with the lines of its output; a backslash or `|` at its end continues a line."""
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            first, *lines = re.sub(r"([\\|])\n", "\\1\0", part).splitlines()
            yield first.replace("\0", "\n"), lines


def read_blocks(name: str) -> list[Block]:
    """Return the console blocks of a tutorial."""
    blocks = []
    for label, text in _BLOCK.findall((TUTORIALS_DIR / f"{name}.md").read_text(encoding="utf-8")):
        _, is_not_run, reason = label.partition("not run:")
        blocks.append(Block(None if is_not_run else label.strip(), reason.strip(), text))
    return blocks


class _Shell:
    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        self.process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env=env, cwd=folder,
        )  # fmt: skip

    def run(self, command: str) -> list[str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # The shell's own input stays out of the reach of the command.
        self.process.stdin.write(f"{{ {command}\n}} </dev/null\nprintf '\\n%s\\n' '{_END}'\n")
        self.process.stdin.flush()
        lines: list[str] = []
        for line in self.process.stdout:
            if line.rstrip("\n") == _END:
                return [line for line in lines if line]
            lines.append(line.rstrip())
        raise AssertionError(f"the shell ended in: {command}")

    def close(self) -> None:
        self.process.communicate(timeout=60)


@contextmanager
def _open_shell(env: Mapping[str, str], folder: Path) -> Iterator[_Shell]:
    shell = _Shell(env, folder)
    try:
        yield shell
    finally:
        shell.close()


def run_tutorial(
    name: str,
    replacements: Mapping[str, str],
    folder: Path,
    *,
    copied: Mapping[str, str] = MappingProxyType({}),
    **variables: str,
) -> int:
    """Run the blocks of a tutorial in their order, and compare what they print.

    Args:
        name: the page.
        replacements: what stands in the page, such as an address or a token, and what the test has instead.
        folder: the working folder of the shells.
        copied: what a reader copies from output further up, by what stands for it in the page: a pattern with a group.
        variables: additional environment variables.

    Returns:
        The number of commands.
    """
    # The page names the programs of the checkout; here they are those of this interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {name: text for name, text in os.environ.items() if not name.startswith("LLM_BUS_")}
    env |= {"PATH": path, **variables}
    count, transcript = 0, ""
    with ExitStack() as stack:
        shells: dict[str, _Shell] = {}
        for block in read_blocks(name):
            if block.session is None:
                continue
            shell = shells.get(block.session)
            if shell is None:
                shell = shells[block.session] = stack.enter_context(_open_shell(env, folder))
            for command, expected in block.commands():
                for old, new in replacements.items():
                    command, expected = command.replace(old, new), [line.replace(old, new) for line in expected]
                for placeholder, pattern in copied.items():
                    if placeholder in command:
                        found = re.search(pattern, transcript)
                        assert found, (command, transcript)
                        command = command.replace(placeholder, found.group(1))
                lines = shell.run(command)
                _assert_output(command, lines, expected)
                transcript += "\n".join(lines) + "\n"
                count += 1
    return count


def _assert_output(command: str, lines: list[str], expected: list[str]) -> None:
    pattern = re.sub(r"(?:\\ )+", " +", re.escape("\n".join(expected))).replace("…", ".*")
    assert re.fullmatch(pattern, "\n".join(lines), re.DOTALL), (command, lines, expected)
