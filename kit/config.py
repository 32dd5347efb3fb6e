"""The bus configuration of a repository, and the token from the environment or from a file inside .git.

The committed file says which files are governed. Where the token goes, and which variable has it, is decided by the
connection that a person confirmed (kit/connection.py).
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit import connection, globs, numbering
from kit.connection import AddressError, Connection
from kit.numbering import GovernedFile, NumberingRule
from kit.plain_text import one_line
from kit.repo import NoRepositoryError, Repo, run_git
from kit.token_format import is_well_formed

FILE_NAME = "llm-bus.config.json"
PATH_VARIABLE = "LLM_BUS_CONFIG"
TOKEN_VARIABLE = "LLM_BUS_TOKEN"  # noqa: S105 - the variable's name
LEASE_POLICIES = ("strict", "warn", "off")
_SEQUENCE_NAME = re.compile(r"[a-z0-9_-]{1,64}\Z")


class ConfigError(Exception):
    """The configuration is missing or invalid; the message names the problem."""


@dataclass(frozen=True)
class Config:
    """The configuration of a repository.

    Attributes:
        endpoint: the MCP address of the bus, of the origin that a person confirmed.
        web_url: the web address of the bus that a person confirmed; None if it is not known.
        token: None if neither the environment nor a file has one.
        token_variable: the environment variable of the token.
        token_problem: why `token` is None, for a message.
        rules: the numbering rules in file order; the first that matches decides.
        lease_policies: (glob, "strict" | "warn" | "off") in file order; a path without a match has "warn".
    """

    endpoint: str
    web_url: str | None
    token: str | None
    token_variable: str
    rules: tuple[NumberingRule, ...] = ()
    lease_policies: tuple[tuple[str, str], ...] = field(default=())
    token_problem: str = ""

    def find_governed(self, path: str) -> GovernedFile | None:
        """Find the number in a path; None if no rule matches the path or it has no number."""
        return numbering.find_governed(self.rules, path)

    def lease_policy(self, path: str) -> str:
        """Return the policy for committing a path that another participant has leased."""
        return next((policy for glob, policy in self.lease_policies if globs.covers(glob, path)), "warn")


def load_config(repo: Repo) -> Config:
    """Load the configuration of a work tree.

    Raises:
        ConfigError: it is missing, unreadable or invalid, or it names a bus that was not confirmed here.
    """
    name, content = _read_file(repo)
    try:
        # utf-8-sig, since editors on Windows often start a file with a byte order mark.
        document: Any = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} cannot be read ({error})") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is not JSON ({error})") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{name} must contain a JSON object")
    endpoint = os.environ.get("LLM_BUS_URL") or document.get("endpoint")
    if not isinstance(endpoint, str) or not re.match(r"https?://[^\s/]", endpoint):
        raise ConfigError(f'{name} has no "endpoint" such as "https://bus.example.org/mcp"')
    rules = _parse_rules(document.get("sequences", {}), name)
    lease_policies = _parse_lease_policies(document.get("leases", {}), name)
    confirmed = _confirm_origin(repo, endpoint)
    token, token_problem = find_token(repo, confirmed.token_variable)
    return Config(endpoint, confirmed.web_url, token, confirmed.token_variable, rules, lease_policies, token_problem)


def _read_file(repo: Repo) -> tuple[str, bytes]:
    """Read the configuration. Returns its name for messages, and its content.

    A sparse checkout may leave the file out of the work tree, and a linked worktree may be of a branch without it: the
    index and the main work tree have it then.
    """
    custom_path = os.environ.get(PATH_VARIABLE)
    path = Path(custom_path) if custom_path else repo.top / FILE_NAME
    name = one_line(path)
    try:
        return name, path.read_bytes()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigError(f"{name} cannot be read ({error})") from None
    if not custom_path:
        try:
            return name, run_git("cat-file", "blob", f":{FILE_NAME}", cwd=repo.top)
        except NoRepositoryError:
            pass
        main_path = repo.common_dir.parent / FILE_NAME
        if repo.common_dir.name == ".git" and main_path != path:
            try:
                return one_line(main_path), main_path.read_bytes()
            except OSError:
                pass
    raise ConfigError(f"{name} does not exist; reinstall the kit, or set {PATH_VARIABLE}")


def _confirm_origin(repo: Repo, endpoint: str) -> Connection:
    """Return the confirmed connection, if it is of the origin of `endpoint`.

    Raises:
        ConfigError: no connection was confirmed, or another one, or the address is not encrypted.
    """
    confirmed = connection.find_connection(repo)
    shown = one_line(endpoint, 200)
    try:
        origin = connection.parse_origin(endpoint)
        if confirmed is None:
            raise AddressError(
                "no bus was confirmed in this clone. If you trust that address, run the installer with "
                f"--endpoint {shown}"
            )
        if origin != connection.parse_origin(confirmed.endpoint):
            raise AddressError(
                f"{one_line(confirmed.endpoint, 200)} was confirmed in this clone. If the bus has moved, run the "
                f"installer with --endpoint {shown}"
            )
        connection.check_encryption(endpoint, allow_http=confirmed.allow_http)
    except AddressError as error:
        raise ConfigError(f"the bus at {shown} could not be queried: {error}") from None
    return confirmed


def find_token(repo: Repo, token_variable: str = TOKEN_VARIABLE) -> tuple[str | None, str]:
    """Find the token in the environment, else in the file of this work tree, else in the file that all share.

    Returns:
        The token, and an empty text; None, and why there is none. A value that is not of the form of a token is none.
    """
    problem = f"{token_variable} is not set and no token is saved"
    sources = [(token_variable, os.environ.get(token_variable, "").strip())]
    for path in list_token_files(repo):
        try:
            sources.append((str(path), path.read_text("ascii").strip()))
        except (OSError, UnicodeDecodeError):
            continue
    for source, value in sources:
        if value and is_well_formed(value):
            return value, ""
        if value and source == token_variable:
            problem = f"the value of {token_variable} is not a token of a bus, so it was not sent"
        elif value:
            problem = f"{one_line(source)} has no token of a bus"
    return None, problem


def list_token_files(repo: Repo) -> list[Path]:
    """List the places for a saved token: inside .git, which git never commits."""
    folders = dict.fromkeys((repo.git_dir, repo.common_dir))
    return [folder / "llm-bus" / "token" for folder in folders]


def _parse_rules(sequences: Any, name: str) -> tuple[NumberingRule, ...]:
    if not isinstance(sequences, dict):
        raise ConfigError(f'"sequences" in {name} must be an object that maps globs to sequences')
    rules = []
    for glob, value in sequences.items():
        rule = value if isinstance(value, dict) else {"sequence": value}
        sequence, pattern = rule.get("sequence"), rule.get("pattern")
        if not isinstance(sequence, str) or not _SEQUENCE_NAME.match(sequence):
            raise ConfigError(f'the sequence of "{one_line(glob)}" in {name} must consist of a-z, 0-9, _ and -')
        try:
            compiled = re.compile(pattern) if isinstance(pattern, str) else None
        except re.error as error:
            raise ConfigError(
                f'the pattern of "{one_line(glob)}" in {name} is not a regular expression ({error})'
            ) from None
        if compiled and not compiled.groups:
            raise ConfigError(f'the pattern of "{one_line(glob)}" in {name} needs a group that captures the number')
        rules.append(NumberingRule(glob, sequence, compiled))
    return tuple(rules)


def _parse_lease_policies(policies: Any, name: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(policies, dict) or any(policy not in LEASE_POLICIES for policy in policies.values()):
        raise ConfigError(f'"leases" in {name} must map each glob to one of: {", ".join(LEASE_POLICIES)}')
    return tuple(policies.items())
