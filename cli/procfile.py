"""The process types of Procfile.split, in which web and gateway are apart; Procfile is for platforms that route one."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from cli import data_dir
from cli.exit_codes import CliError

PROCFILE = "Procfile.split"
# Runs before a deploy, not beside the others; `up` migrates by itself.
_RELEASE_PROCESS = "release"


@dataclass(frozen=True)
class ProcessType:
    """A line of the Procfile."""

    name: str
    command: tuple[str, ...]


def read() -> tuple[Path, list[ProcessType]]:
    """Return the folder that the commands run in, and every process type except `release`.

    Raises:
        CliError: there is no Procfile, or it has an invalid line.
    """
    root = data_dir.source_root()
    # In an installed package the file is beside this module.
    path = (root or Path(__file__).resolve().parent) / PROCFILE
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CliError(f"There is no {PROCFILE} at {path}; it names the processes to start.") from error
    return root or Path("/"), [line for line in parse(text) if line.name != _RELEASE_PROCESS]


def parse(text: str) -> list[ProcessType]:
    """Parse `name: command` lines; empty lines and comments are skipped.

    Raises:
        CliError: a line has another form, or a name occurs twice.
    """
    types: dict[str, ProcessType] = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, command = line.partition(":")
        name = name.strip()
        words = tuple(shlex.split(command))
        if not colon or not name or not words or name in types:
            raise CliError(f"The Procfile has an invalid line: {line!r}.")
        types[name] = ProcessType(name, words)
    return list(types.values())
