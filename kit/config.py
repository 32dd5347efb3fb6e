"""What the repository says about the bus, and the token: from the environment, else from a file inside .git."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit import globs
from kit.repo import Repo

FILE_NAME = "llm-bus.config.json"
PATH_VARIABLE = "LLM_BUS_CONFIG"
TOKEN_VARIABLE = "LLM_BUS_TOKEN"  # noqa: S105 - the variable's name
_SEQUENCE_NAME = re.compile(r"[a-z0-9_-]{1,64}\Z")
_DIGITS = re.compile(r"[0-9]+")
_WILDCARD = re.compile(r"[*?\[{]")
# The service takes no number beyond it.
_MAX_NUMBER = 2**53 - 1
LEASE_POLICIES = ("strict", "warn", "off")


class ConfigError(Exception):
    """The configuration is missing or wrong; the message says what is."""


@dataclass(frozen=True)
class NumberingRule:
    """Files that `glob` matches are numbered by `sequence`; `pattern`, if any, has the number in its first group."""

    glob: str
    sequence: str
    pattern: re.Pattern[str] | None = None


@dataclass(frozen=True)
class GovernedFile:
    """A file whose number is the bus's to give; `start` and `end` are where the number stands in `path`."""

    path: str
    sequence: str
    number: int
    number_start: int
    number_end: int

    def path_with_number(self, formatted: str) -> str:
        """The path with the number of `formatted`, in the width that this file's name has."""
        digits: str = _DIGITS.findall(formatted)[-1]
        if self.path[self.number_start] == "0":
            digits = digits.lstrip("0").zfill(self.number_end - self.number_start) if digits.strip("0") else digits
        return self.path[: self.number_start] + digits + self.path[self.number_end :]


@dataclass(frozen=True)
class Config:
    """The configuration of a repository.

    Attributes:
        endpoint: the MCP address of the bus.
        home: the web address of the bus, or None where it is not known.
        token: None where neither the environment nor the file has one.
        token_env: the variable that holds the token.
        rules: which files are governed, in the order of the file; the first that matches decides.
        leases: (glob, "strict" | "warn" | "off"), in order; what matches none is "warn".
    """

    endpoint: str
    web_url: str | None
    token: str | None
    token_variable: str
    rules: tuple[NumberingRule, ...] = ()
    lease_policies: tuple[tuple[str, str], ...] = field(default=())

    def find_governed(self, path: str) -> GovernedFile | None:
        """The number in this path, if a rule governs it and it has one."""
        for rule in self.rules:
            if globs.covers(rule.glob, path):
                return _match_rule(rule, path)
        return None

    def lease_policy(self, path: str) -> str:
        """What a lease of somebody else on this path means for a commit."""
        return next((word for glob, word in self.lease_policies if globs.covers(glob, path)), "warn")


def load_config(repo: Repo) -> Config:
    """The configuration of this work tree.

    Raises:
        ConfigError: it cannot be read, or says nothing that makes sense.
    """
    named = os.environ.get(PATH_VARIABLE)
    path = Path(named) if named else repo.top / FILE_NAME
    try:
        # utf-8-sig, since editors on Windows like to begin a file with a byte order mark.
        found: Any = json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; install the kit again, or set {PATH_VARIABLE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error})") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} must hold an object")
    endpoint = os.environ.get("LLM_BUS_URL") or found.get("endpoint")
    if not isinstance(endpoint, str) or not re.match(r"https?://[^\s/]", endpoint):
        raise ConfigError(f'{path} has no "endpoint" such as "https://bus.example.org/mcp"')
    variable = found.get("tokenEnv", TOKEN_VARIABLE)
    if not isinstance(variable, str) or not variable:
        raise ConfigError(f'"tokenEnv" in {path} must name an environment variable')
    home = found.get("home")
    return Config(
        endpoint,
        home if isinstance(home, str) else None,
        find_token(repo, variable),
        variable,
        _parse_rules(found.get("sequences", {}), path),
        _parse_lease_policies(found.get("leases", {}), path),
    )


def find_token(repo: Repo, token_variable: str = TOKEN_VARIABLE) -> str | None:
    """The token of the environment, else of this work tree's file, else of the file that all work trees share."""
    if token := os.environ.get(token_variable, "").strip():
        return token
    for path in list_token_files(repo):
        try:
            if token := path.read_text("ascii").strip():
                return token
        except (OSError, UnicodeDecodeError):
            continue
    return None


def list_token_files(repo: Repo) -> list[Path]:
    """Where a token may be kept: inside .git, which git never commits."""
    folders = dict.fromkeys((repo.git_dir, repo.common_dir))
    return [folder / "llm-bus" / "token" for folder in folders]


def _parse_rules(found: Any, path: Path) -> tuple[NumberingRule, ...]:
    if not isinstance(found, dict):
        raise ConfigError(f'"sequences" in {path} must be an object of globs')
    rules = []
    for glob, said in found.items():
        told = said if isinstance(said, dict) else {"sequence": said}
        sequence, pattern = told.get("sequence"), told.get("pattern")
        if not isinstance(sequence, str) or not _SEQUENCE_NAME.match(sequence):
            raise ConfigError(f'the sequence of "{glob}" in {path} must be of a-z, 0-9, _ and -')
        try:
            compiled = re.compile(pattern) if isinstance(pattern, str) else None
        except re.error as error:
            raise ConfigError(f'the pattern of "{glob}" in {path} is no regular expression ({error})') from None
        if compiled and not compiled.groups:
            raise ConfigError(f'the pattern of "{glob}" in {path} needs a group that holds the number')
        rules.append(NumberingRule(glob, sequence, compiled))
    return tuple(rules)


def _parse_lease_policies(found: Any, path: Path) -> tuple[tuple[str, str], ...]:
    if not isinstance(found, dict) or any(word not in LEASE_POLICIES for word in found.values()):
        raise ConfigError(f'"leases" in {path} must give each glob one of: {", ".join(LEASE_POLICIES)}')
    return tuple(found.items())


def _match_rule(rule: NumberingRule, path: str) -> GovernedFile | None:
    """The number: what the pattern's group holds, else the first digits of the file's name.

    Where the name has none, those of the nearest folder above that a wildcard of the glob stands for:
    `docs/adr/*/README.md` governs `docs/adr/0042-queue/README.md`.
    """
    if rule.pattern:
        found = rule.pattern.search(path)
        span = found.span(1) if found and found.group(1) and found.group(1).isdigit() else None
    else:
        span = _find_number_span(rule.glob, path)
    if span is None or not path[span[0] : span[1]].isascii():
        return None
    number = int(path[span[0] : span[1]])
    return GovernedFile(path, rule.sequence, number, span[0], span[1]) if 0 < number <= _MAX_NUMBER else None


def _find_number_span(glob: str, path: str) -> tuple[int, int] | None:
    segments, patterns = path.split("/"), glob.rstrip("/").split("/")
    end = len(path)
    for back, segment in enumerate(reversed(segments)):
        start = end - len(segment)
        # Behind the stem: 'notes.md5' has no number.
        stem = segment.rsplit(".", 1)[0] if back == 0 and not segment.startswith(".") else segment
        pattern = patterns[-1 - back] if back < len(patterns) else "**"
        if back == 0 or _WILDCARD.search(pattern):
            found = _DIGITS.search(stem)
            if found:
                return start + found.start(), start + found.end()
        end = start - 1
    return None
