"""Console blocks of the pages: parsed, and run in shells as a reader would.

A block of commands is fenced as ```console SESSION, and the blocks of a session share a shell; or as ```console
not run: REASON. Lines that begin with the prompt, `$ ` or `# ` for root, are commands. The lines below are their
output, in which `…` stands for any text, and the width of columns does not count.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parents[2]
# The pages whose blocks are run.
PAGES = (
    ROOT / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "decisions"),
)
_BLOCK = re.compile(r"^( *)```console(.*)\n((?:.*\n)*?)\1```$", re.MULTILINE)
_END = "-- end of the output --"
_NUMBER = re.compile(r"\d+(?:[-:., ]*\d+)*")


@dataclass(frozen=True)
class Block:
    """A console block; `session` is None where it is not run, for the `reason`."""

    session: str | None
    reason: str
    text: str

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each command with the lines of its output; an incomplete command goes on in the next line."""
        prompt = self.text[:2]
        for part in re.split(rf"^{re.escape(prompt)}", self.text, flags=re.MULTILINE)[1:]:
            command, *lines = part.splitlines()
            while lines and _is_incomplete(command):
                command += "\n" + lines.pop(0)
            yield command, lines


def _is_incomplete(command: str) -> bool:
    if command.endswith(("\\", "|")):
        return True
    return "syntax error" in subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True).stderr


def read_blocks(path: Path) -> list[Block]:
    """Return the console blocks of a page."""
    blocks = []
    for _, label, text in _BLOCK.findall(path.read_text(encoding="utf-8")):
        _, is_not_run, reason = label.partition("not run:")
        blocks.append(Block(None if is_not_run else label.strip(), reason.strip(), dedent(text)))
    return blocks


@dataclass
class Reader:
    """What a reader of a page has instead of what stands there, and where they work.

    Attributes:
        folder: the working folder of the shells; of the shell of a session, its folder of that name if there is one.
            Its folder `programs` comes first in the search path.
        replacements: what stands in the page, such as an address or a token, and what the reader has instead.
        copied: what a reader copies from output further up, by what stands for it in the page: a pattern with a group.
        variables: additional environment variables.
        is_exact: whether each command prints exactly what is shown, or nothing. Otherwise numbers may differ, output
            that is not shown is not compared, and each command has to succeed.
        shell: the program that reads the commands.
        preparation: a command that runs before those of the page, whose sessions then share one shell.
    """

    folder: Path
    replacements: Mapping[str, str] = field(default_factory=dict)
    copied: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    is_exact: bool = False
    shell: tuple[str, ...] = ("bash", "--norc", "--noprofile")
    preparation: str = ""

    def run(self, path: Path) -> int:
        """Run the blocks of a page in their order, and compare what they print. Returns the number of commands."""
        # The pages name the programs of the checkout; here they are those of this interpreter.
        search_path = [str(self.folder / "programs"), str(Path(sys.executable).parent), os.environ["PATH"]]
        env = {name: text for name, text in os.environ.items() if not name.startswith("LLM_BUS_")}
        env |= {"PATH": os.pathsep.join(search_path), **self.variables}
        count, transcript = 0, ""
        with ExitStack() as stack:
            shells: dict[str, _Shell] = {}
            for block in read_blocks(path):
                if block.session is None:
                    continue
                session = block.session if not self.preparation else ""
                shell = shells.get(session)
                if shell is None:
                    folder = self.folder / block.session
                    opened = _open_shell(self.shell, env, folder if folder.is_dir() else self.folder)
                    shell = shells[session] = stack.enter_context(opened)
                    assert not self.preparation or shell.run(self.preparation)[0] == 0
                for command, expected in block.commands():
                    for old, new in self.replacements.items():
                        command = command.replace(old, new)
                        if "…" not in old:
                            expected = [line.replace(old, new) for line in expected]
                    for placeholder, pattern in self.copied.items():
                        if placeholder in command:
                            found = re.search(pattern, transcript)
                            assert found, (command, transcript)
                            command = command.replace(placeholder, found.group(1))
                    status, lines = shell.run(command)
                    assert status == 0 or self.is_exact, (command, status, lines)
                    if expected or self.is_exact:
                        _assert_output(command, lines, expected, is_exact=self.is_exact)
                    transcript += "\n".join(lines) + "\n"
                    count += 1
        return count


class _Shell:
    def __init__(self, program: tuple[str, ...], env: Mapping[str, str], folder: Path) -> None:
        self.process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env=env, cwd=folder,
        )  # fmt: skip

    def run(self, command: str) -> tuple[int, list[str]]:
        """Run a command. Returns its exit status and the lines that it printed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # The shell's own input stays out of the reach of the command.
        self.process.stdin.write(f"{{ {command}\n}} </dev/null\nprintf '\\n%s%s\\n' '{_END}' $?\n")
        self.process.stdin.flush()
        lines: list[str] = []
        for line in self.process.stdout:
            if line.startswith(_END):
                return int(line.removeprefix(_END)), [line for line in lines if line]
            lines.append(line.rstrip())
        raise AssertionError(f"the shell ended in: {command} {lines}")

    def close(self) -> None:
        self.process.communicate(timeout=60)


@contextmanager
def _open_shell(program: tuple[str, ...], env: Mapping[str, str], folder: Path) -> Iterator[_Shell]:
    shell = _Shell(program, env, folder)
    try:
        yield shell
    finally:
        shell.close()


def _assert_output(command: str, lines: list[str], expected: list[str], *, is_exact: bool) -> None:
    text = "\n".join(expected)
    if not is_exact:
        text = _NUMBER.sub("\0", text)
    pattern = re.sub(r"(?:\\ )+", " +", re.escape(text)).replace("…", ".*").replace(re.escape("\0"), _NUMBER.pattern)
    assert re.fullmatch(pattern, "\n".join(lines), re.DOTALL), (command, lines, expected)
