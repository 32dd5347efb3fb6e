"""Why an agent is not connected, and what to do: one line for each thing that can be wrong."""

from __future__ import annotations

import os
import socket
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kit import VERSION, clients, config, githooks, jsonc, mcp_client, precommit, repo
from kit.config import Config, ConfigError
from kit.file_edits import FileEdits
from kit.repo import NoRepositoryError, Repo

_TIMEOUT_SECONDS = 5.0
_REINSTALL_COMMAND = "python3 .llm-bus/kit install"
_BASE62_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CLIENT_FILES = (
    (".mcp.json", ("mcpServers", clients.SERVER_NAME), "url", "claude"),
    (".gemini/settings.json", ("mcpServers", clients.SERVER_NAME), "httpUrl", "gemini"),
    (".cursor/mcp.json", ("mcpServers", clients.SERVER_NAME), "url", "cursor"),
    (".vscode/mcp.json", ("servers", clients.SERVER_NAME), "url", ""),
    ("opencode.json", ("mcp", clients.SERVER_NAME), "url", ""),
)


@dataclass(frozen=True)
class Finding:
    """One check: `fix` says what to do, and is empty where all is well."""

    check: str
    detail: str
    fix: str = ""


def main() -> int:
    """Print what was found. Returns 1 if anything is wrong, else 0."""
    findings = run_checks()
    for finding in findings:
        print(f"{'BAD ' if finding.fix else 'ok  '} {finding.check}: {finding.detail}")
        if finding.fix:
            print(f"     {finding.fix}")
    return 1 if any(finding.fix for finding in findings) else 0


def run_checks() -> list[Finding]:
    """All checks, in the order in which one needs the other; stops where nothing further can be said."""
    made = [Finding("python", f"{sys.version.split()[0]}, kit {VERSION}")]
    try:
        where = repo.get_repo()
    except NoRepositoryError as error:
        return [*made, Finding("repository", str(error), "Run it inside a work tree of git.")]
    try:
        found = config.load_config(where)
    except ConfigError as error:
        return [*made, Finding("configuration", str(error), "Mend it, or: python3 .llm-bus/kit install --endpoint URL")]
    made.append(Finding("configuration", f"{found.endpoint}, {len(found.rules)} governed globs"))
    made.append(_check_token(where, found))
    made += _check_network(found)
    made += _check_service(where, found)
    made.append(_check_git_hook(where))
    made += _check_clients(where, found)
    return made


def is_well_formed(token: str) -> bool:
    """Whether this has the form of a token, by its length and checksum."""
    if len(token) != 54 or not token.startswith("lbus_") or not token.isascii() or not token[5:].isalnum():
        return False
    number, digits = zlib.crc32(token[:-6].encode("ascii")), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = _BASE62_ALPHABET[digit] + digits
    return token[-6:] == digits


def _check_token(where: Repo, found: Config) -> Finding:
    if found.token is None:
        fix = f"Set {found.token_variable} where you start your client, or: python3 .llm-bus/kit install --ask-token"
        return Finding("token", f"{found.token_variable} is not set, and none is saved", fix)
    source = found.token_variable if os.environ.get(found.token_variable, "").strip() else "saved inside .git"
    saved = f"lbus_…{found.token[-4:]} ({source})"
    if not is_well_formed(found.token):
        return Finding("token", f"{source}: this is no token of a bus", "Paste it again; a part is missing or changed.")
    if source != found.token_variable:
        said = f"{saved}; the hooks have it, but clients read {found.token_variable}, which is not set here"
        return Finding("token", said, f"export {found.token_variable}=… where you start your client.")
    for path in config.list_token_files(where):
        if path.exists() and path.read_text("ascii", "replace").strip() != found.token:
            return Finding("token", f"{saved}; another one is saved inside .git", "Unset the one that is too old.")
    return Finding("token", saved)


def _check_network(found: Config) -> list[Finding]:
    where = urlsplit(found.endpoint)
    host, port = where.hostname or "", where.port or (443 if where.scheme == "https" else 80)
    proxy = mcp_client.find_proxy(found.endpoint)
    if proxy is not None:
        through = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        return [Finding("network", f"through the proxy {through.hostname}:{through.port}")]

    def reach(_: mcp_client.BusClient) -> str:
        with socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS):
            return f"{host}:{port} can be reached"

    (said,) = mcp_client.call_in_parallel(found.endpoint, None, [reach], mcp_client.TimeBudget(_TIMEOUT_SECONDS))
    if not isinstance(said, Exception):
        return [Finding("network", said)]
    reason = mcp_client.describe_error(said) if isinstance(said, OSError) else str(said)
    fix = "Is the address right, and is the bus running? Behind a proxy set HTTPS_PROXY."
    if isinstance(said, socket.gaierror):
        fix = "Is the host name in llm-bus.config.json right?"
    return [Finding("network", f"{host}:{port}: {reason}", fix)]


def _check_service(where: Repo, found: Config) -> list[Finding]:
    budget = mcp_client.TimeBudget(_TIMEOUT_SECONDS)
    (me,) = mcp_client.call_in_parallel(found.endpoint, found.token, [lambda bus: bus.call("whoami")], budget)
    made = []
    if isinstance(me, Exception):
        made.append(Finding("identity", str(me), _suggest_fix(found, me)))
    else:
        made.append(Finding("identity", f"{me.get('actor')} in project {me.get('project')}"))
    if found.web_url is None:
        made.append(Finding("version", f"{VERSION}; the bus's web address is not known here, so it was not asked"))
        return made
    minimum = precommit.find_minimum_version(where, found, _TIMEOUT_SECONDS)
    if minimum is None:
        made.append(Finding("version", f"{VERSION}; the bus does not say which kit it wants"))
    elif precommit.is_older(VERSION, minimum):
        update = f"curl -fsSL {found.web_url}/kit/install.py | python3 -"
        made.append(Finding("version", f"{VERSION}; the bus wants {minimum} at least", update))
    else:
        made.append(Finding("version", f"{VERSION}; the bus wants {minimum} at least"))
    return made


def _suggest_fix(found: Config, error: Exception) -> str:
    status = getattr(error, "status", None)
    if status == 401 and found.token is None:
        return "There is no token yet: see above."
    if status == 401:
        return "It was revoked, rotated or is of another bus: ask whoever let you in for a new one."
    if status == 403:
        return "The owner of the project has to settle the account."
    if status in (404, 405) or "instead of JSON" in str(error):
        return 'Something else answers there. "endpoint" usually ends in /mcp.'
    if status is not None and 300 <= status < 400:
        return 'Put the address that it redirects to into "endpoint": the token is sent nowhere else.'
    if "certificate" in str(error) or "TLS" in str(error):
        return "Behind a proxy that opens TLS, SSL_CERT_FILE names its certificate. A bus of your own may be http://."
    return "Is the bus running, and can this machine reach it?"


def _check_git_hook(where: Repo) -> Finding:
    try:
        if githooks.is_installed(where):
            return Finding("git hook", str(githooks.hook_path(where)))
    except (NoRepositoryError, OSError) as error:
        return Finding("git hook", str(error), "python3 .llm-bus/kit install")
    fix = "python3 .llm-bus/kit install (a hook manager that was installed again may have removed it)"
    return Finding("git hook", "not installed", fix)


def _check_clients(where: Repo, found: Config) -> list[Finding]:
    made = []
    for name, keys, address, client in _CLIENT_FILES:
        path = where.top / name
        if path.exists():
            made += _check_client(where, found, path, name, keys, address, client)
    codex = where.top / ".codex" / "config.toml"
    if codex.exists() and clients.TOML_BEGIN in codex.read_text("utf-8", "replace"):
        right = found.endpoint in codex.read_text("utf-8", "replace")
        made.append(
            Finding(".codex/config.toml", "ok" if right else "another address", "" if right else _REINSTALL_COMMAND)
        )
    return made or [Finding("clients", "none is configured here", _REINSTALL_COMMAND)]


def _check_client(
    where: Repo, found: Config, path: Path, name: str, keys: tuple[str, ...], url_key: str, client: str
) -> list[Finding]:
    try:
        server: Any = jsonc.read_value(path.read_bytes().decode("utf-8-sig"), keys)
    except (ValueError, OSError) as error:
        return [Finding(name, f"it cannot be read ({error})", "Mend it: the client cannot read it either.")]
    if not isinstance(server, dict):
        return []
    if server.get(url_key) != found.endpoint:
        return [Finding(name, f"{clients.SERVER_NAME} is at {server.get(url_key)}", f"{_REINSTALL_COMMAND} --force")]
    if client in ("claude", "gemini", "cursor") and FileEdits(_edits_record_path(where), dry_run=True).is_ours(path):
        started = where.top / ".llm-bus" / "state" / f"started-{client}"
        if not started.exists() or started.stat().st_mtime < path.stat().st_mtime:
            since = time.strftime("%H:%M", time.localtime(path.stat().st_mtime))
            return [Finding(name, f"not restarted since it was configured at {since}", f"Restart {client}.")]
    return [Finding(name, "ok")]


def _edits_record_path(where: Repo) -> Path:
    return where.git_dir / "llm-bus" / "installed.json"
