"""The bus configuration of a repository, and the token from the environment or from a file inside .git."""

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
LEASE_POLICIES = ("strict", "warn", "off")
_SEQUENCE_NAME = re.compile(r"[a-z0-9_-]{1,64}\Z")
_DIGITS = re.compile(r"[0-9]+")
_WILDCARD = re.compile(r"[*?\[{]")
# The service accepts no higher number.
_MAX_NUMBER = 2**53 - 1


class ConfigError(Exception):
    """The configuration is missing or invalid; the message names the problem."""


@dataclass(frozen=True)
class NumberingRule:
    """A rule: `sequence` numbers the files that match `glob`.

    Attributes:
        pattern: captures the number of a path in its first group; None for the default place.
    """

    glob: str
    sequence: str
    pattern: re.Pattern[str] | None = None


@dataclass(frozen=True)
class GovernedFile:
    """A file that is numbered by a sequence; its number is `path[number_start:number_end]`."""

    path: str
    sequence: str
    number: int
    number_start: int
    number_end: int

    def path_with_number(self, formatted: str) -> str:
        """Return the path with the number of `formatted`, padded to the width of this file's number."""
        digits: str = _DIGITS.findall(formatted)[-1]
        if self.path[self.number_start] == "0":
            digits = digits.lstrip("0").zfill(self.number_end - self.number_start) if digits.strip("0") else digits
        return self.path[: self.number_start] + digits + self.path[self.number_end :]


@dataclass(frozen=True)
class Config:
    """The configuration of a repository.

    Attributes:
        endpoint: the MCP address of the bus.
        web_url: the web address of the bus; None if it is not configured.
        token: None if neither the environment nor a file has one.
        token_variable: the environment variable of the token.
        rules: the numbering rules in file order; the first that matches decides.
        lease_policies: (glob, "strict" | "warn" | "off") in file order; a path without a match has "warn".
    """

    endpoint: str
    web_url: str | None
    token: str | None
    token_variable: str
    rules: tuple[NumberingRule, ...] = ()
    lease_policies: tuple[tuple[str, str], ...] = field(default=())

    def find_governed(self, path: str) -> GovernedFile | None:
        """Find the number in a path; None if no rule matches the path or it has no number."""
        for rule in self.rules:
            if globs.covers(rule.glob, path):
                return _match_rule(rule, path)
        return None

    def lease_policy(self, path: str) -> str:
        """Return the policy for committing a path that another participant has leased."""
        return next((policy for glob, policy in self.lease_policies if globs.covers(glob, path)), "warn")


def load_config(repo: Repo) -> Config:
    """Load the configuration of a work tree.

    Raises:
        ConfigError: it is missing, unreadable or invalid.
    """
    custom_path = os.environ.get(PATH_VARIABLE)
    path = Path(custom_path) if custom_path else repo.top / FILE_NAME
    try:
        # utf-8-sig, since editors on Windows often start a file with a byte order mark.
        document: Any = json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; reinstall the kit, or set {PATH_VARIABLE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error})") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON ({error})") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path} must contain a JSON object")
    endpoint = os.environ.get("LLM_BUS_URL") or document.get("endpoint")
    if not isinstance(endpoint, str) or not re.match(r"https?://[^\s/]", endpoint):
        raise ConfigError(f'{path} has no "endpoint" such as "https://bus.example.org/mcp"')
    variable = document.get("tokenEnv", TOKEN_VARIABLE)
    if not isinstance(variable, str) or not variable:
        raise ConfigError(f'"tokenEnv" in {path} must name an environment variable')
    web_url = document.get("home")
    return Config(
        endpoint,
        web_url if isinstance(web_url, str) else None,
        find_token(repo, variable),
        variable,
        _parse_rules(document.get("sequences", {}), path),
        _parse_lease_policies(document.get("leases", {}), path),
    )


def find_token(repo: Repo, token_variable: str = TOKEN_VARIABLE) -> str | None:
    """Find the token in the environment, else in the file of this work tree, else in the file that all share."""
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
    """List the places for a saved token: inside .git, which git never commits."""
    folders = dict.fromkeys((repo.git_dir, repo.common_dir))
    return [folder / "llm-bus" / "token" for folder in folders]


def _parse_rules(sequences: Any, path: Path) -> tuple[NumberingRule, ...]:
    if not isinstance(sequences, dict):
        raise ConfigError(f'"sequences" in {path} must be an object that maps globs to sequences')
    rules = []
    for glob, value in sequences.items():
        rule = value if isinstance(value, dict) else {"sequence": value}
        sequence, pattern = rule.get("sequence"), rule.get("pattern")
        if not isinstance(sequence, str) or not _SEQUENCE_NAME.match(sequence):
            raise ConfigError(f'the sequence of "{glob}" in {path} must consist of a-z, 0-9, _ and -')
        try:
            compiled = re.compile(pattern) if isinstance(pattern, str) else None
        except re.error as error:
            raise ConfigError(f'the pattern of "{glob}" in {path} is not a regular expression ({error})') from None
        if compiled and not compiled.groups:
            raise ConfigError(f'the pattern of "{glob}" in {path} needs a group that captures the number')
        rules.append(NumberingRule(glob, sequence, compiled))
    return tuple(rules)


def _parse_lease_policies(policies: Any, path: Path) -> tuple[tuple[str, str], ...]:
    if not isinstance(policies, dict) or any(policy not in LEASE_POLICIES for policy in policies.values()):
        raise ConfigError(f'"leases" in {path} must map each glob to one of: {", ".join(LEASE_POLICIES)}')
    return tuple(policies.items())


def _match_rule(rule: NumberingRule, path: str) -> GovernedFile | None:
    """Find the number of a path: the group of the rule's pattern, else the first digits of the file name.

    If the name has no digits, those of the nearest folder above that matches a wildcard of the glob:
    `docs/adr/*/README.md` governs `docs/adr/0042-queue/README.md`.
    """
    if rule.pattern:
        match = rule.pattern.search(path)
        span = match.span(1) if match and match.group(1) and match.group(1).isdigit() else None
    else:
        span = _find_number_span(rule.glob, path)
    if span is None or not path[span[0] : span[1]].isascii():
        return None
    number = int(path[span[0] : span[1]])
    return GovernedFile(path, rule.sequence, number, span[0], span[1]) if 0 < number <= _MAX_NUMBER else None


def _find_number_span(glob: str, path: str) -> tuple[int, int] | None:
    segments, patterns = path.split("/"), glob.rstrip("/").split("/")
    end = len(path)
    for depth, segment in enumerate(reversed(segments)):
        start = end - len(segment)
        # Without the suffix: 'notes.md5' has no number.
        stem = segment.rsplit(".", 1)[0] if depth == 0 and not segment.startswith(".") else segment
        pattern = patterns[-1 - depth] if depth < len(patterns) else "**"
        if depth == 0 or _WILDCARD.search(pattern):
            match = _DIGITS.search(stem)
            if match:
                return start + match.start(), start + match.end()
        end = start - 1
    return None
