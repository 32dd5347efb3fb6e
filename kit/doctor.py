"""The doctor: checks why an agent is not connected, and says how to fix it."""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kit import (
    VERSION,
    client_files,
    config,
    exit_codes,
    githooks,
    jsonc,
    mcp_client,
    precommit,
    repo,
    text_files,
    toml_reader,
)
from kit.config import Config, ConfigError
from kit.file_edits import FileEdits
from kit.plain_text import one_line
from kit.repo import NoRepositoryError, Repo
from kit.token_format import is_well_formed

_TIMEOUT_SECONDS = 5.0
# Files of clients that do not read a saved token.
_VARIABLE_READERS = (".codex/config.toml", ".gemini/settings.json", ".cursor/mcp.json")
_REINSTALL_COMMAND = "python3 .git/llm-bus/kit install"


@dataclass(frozen=True)
class ClientFile:
    """A JSON file with a server entry for a client.

    Attributes:
        keys: the path of the entry.
        url_key: the key of the address in the entry.
        hooks_client: the client whose session hooks the kit also installs; None for none.
    """

    path: str
    keys: tuple[str, ...]
    url_key: str
    hooks_client: str | None


_CLIENT_FILES = (
    ClientFile(".mcp.json", ("mcpServers", client_files.SERVER_NAME), "url", "claude"),
    ClientFile(".gemini/settings.json", ("mcpServers", client_files.SERVER_NAME), "httpUrl", "gemini"),
    ClientFile(".cursor/mcp.json", ("mcpServers", client_files.SERVER_NAME), "url", "cursor"),
    ClientFile(".vscode/mcp.json", ("servers", client_files.SERVER_NAME), "url", None),
    ClientFile("opencode.json", ("mcp", client_files.SERVER_NAME), "url", "opencode"),
    ClientFile("opencode.jsonc", ("mcp", client_files.SERVER_NAME), "url", "opencode"),
)


@dataclass(frozen=True)
class Finding:
    """The result of one check; `fix` says what to do, and is empty if the check passed."""

    check: str
    detail: str
    fix: str = ""


def main() -> int:
    """Run all checks and print the findings. Returns 1 if a check failed, else 0."""
    findings = run_checks()
    for finding in findings:
        print(f"{'BAD ' if finding.fix else 'ok  '} {finding.check}: {one_line(finding.detail)}")
        for line in finding.fix.split("\n") if finding.fix else ():
            print(f"     {one_line(line)}")
    return exit_codes.FAILED if any(finding.fix for finding in findings) else exit_codes.OK


def run_checks() -> list[Finding]:
    """Run the checks in order of dependency; stops where a failure makes the rest impossible."""
    findings = [Finding("python", f"{sys.version.split()[0]}, kit {VERSION}")]
    try:
        work_tree = repo.get_repo()
    except NoRepositoryError as error:
        return [*findings, Finding("repository", str(error), "Run this command inside a work tree of git.")]
    try:
        settings = config.load_config(work_tree)
    except ConfigError as error:
        fix = f"Correct the file, or run: {_REINSTALL_COMMAND} --endpoint URL"
        return [*findings, Finding("configuration", str(error), fix)]
    findings.append(Finding("configuration", f"{settings.endpoint}, {len(settings.rules)} governed globs"))
    findings.append(_check_token(work_tree, settings))
    findings.append(_check_network(settings))
    findings += _check_service(work_tree, settings)
    findings.append(_check_git_hook(work_tree))
    findings += _check_clients(work_tree, settings)
    return findings


def _check_token(work_tree: Repo, settings: Config) -> Finding:
    variable, token = settings.token_variable, settings.token
    saved_files = config.list_token_files(work_tree)
    value = os.environ.get(variable, "").strip()
    if (value and not is_well_formed(value)) or (token is None and any(map(Path.exists, saved_files))):
        fix = "Paste the token again: a part is missing or changed."
        return Finding("token", f"{variable if value else saved_files[0]}: this is not a token of a bus", fix)
    if token is None:
        fix = f"Set {variable} where you start your client, or run: {_REINSTALL_COMMAND} --ask-token"
        return Finding("token", f"{variable} is not set, and no token is saved", fix)
    source = variable if value else "saved inside .git"
    masked = f"lbus_…{token[-4:]} ({source})"
    readers = [name for name in _VARIABLE_READERS if _has_server(work_tree, name)]
    if source != variable and readers:
        names = ", ".join(readers)
        detail = f"{masked}; the hooks use it, but {names} refers to {variable}, which is not set here"
        return Finding("token", detail, f"Run where you start your client: export {variable}=…")
    for path in saved_files:
        if path.exists() and path.read_text("ascii", "replace").strip() != token:
            fix = f"Unset {variable} or delete {path}, whichever is outdated."
            return Finding("token", f"{masked}; another one is saved inside .git", fix)
    return Finding("token", masked)


def _has_server(work_tree: Repo, name: str) -> bool:
    """Whether a client's file has the server and reads the token from the environment."""
    path = work_tree.top / name
    if not client_files.has_server(FileEdits(work_tree, dry_run=True), path):
        return False
    # A client that signs in has neither.
    return (b"bearer_token_env_var" if path.suffix == ".toml" else b"Authorization") in path.read_bytes()


def _check_network(settings: Config) -> Finding:
    url = urlsplit(settings.endpoint)
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    proxy = mcp_client.find_proxy(settings.endpoint)
    if proxy is not None:
        proxy_url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        return Finding("network", f"through the proxy {proxy_url.hostname}:{proxy_url.port}")

    def connect(_: mcp_client.BusClient) -> str:
        with socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS):
            return f"{host}:{port} can be reached"

    budget = mcp_client.TimeBudget(_TIMEOUT_SECONDS)
    (answer,) = mcp_client.call_in_parallel(settings.endpoint, None, [connect], budget)
    if not isinstance(answer, Exception):
        return Finding("network", answer)
    reason = mcp_client.describe_error(answer) if isinstance(answer, OSError) else str(answer)
    fix = "Check the address, and that the bus is running. Behind a proxy, set HTTPS_PROXY."
    if isinstance(answer, socket.gaierror):
        fix = f"Check the host name in {config.FILE_NAME}."
    return Finding("network", f"{host}:{port}: {reason}", fix)


def _check_service(work_tree: Repo, settings: Config) -> list[Finding]:
    budget = mcp_client.TimeBudget(_TIMEOUT_SECONDS)
    (answer,) = mcp_client.call_in_parallel(settings.endpoint, settings.token, [lambda bus: bus.call("whoami")], budget)
    if isinstance(answer, Exception):
        identity = Finding("identity", str(answer), _suggest_fix(settings, answer))
    else:
        identity = Finding("identity", f"{answer.get('actor')} in project {answer.get('project')}")
    return [identity, _check_version(work_tree, settings)]


def _check_version(work_tree: Repo, settings: Config) -> Finding:
    if settings.web_url is None:
        return Finding("version", f"{VERSION}; not checked, because the web address of the bus is not configured")
    minimum = precommit.find_minimum_version(work_tree, settings, _TIMEOUT_SECONDS)
    if minimum is None:
        return Finding("version", f"{VERSION}; the bus does not say which version it requires")
    is_outdated = precommit.is_older(VERSION, minimum)
    update = f"curl -fsSL {settings.web_url}/kit/install.py | python3 -" if is_outdated else ""
    return Finding("version", f"{VERSION}; the bus requires {minimum} or newer", update)


def _suggest_fix(settings: Config, error: Exception) -> str:
    status = getattr(error, "status", None)
    if status == 401 and settings.token is None:
        return "There is no token yet: see above."
    if status == 401:
        return "The token was revoked or rotated, or it belongs to another bus: ask the project-admin for a new one."
    if status == 403 and "does not allow" in str(error):
        return "Use a token that may write: ask the project-admin for another one."
    if status == 403:
        return "The owner of the project must settle the account."
    if status in (404, 405) or "instead of JSON" in str(error):
        return 'Another service answers there. "endpoint" usually ends in /mcp.'
    if status is not None and 300 <= status < 400:
        return 'Set "endpoint" to the address that it redirects to: the token is sent to no other address.'
    if "certificate" in str(error) or "TLS" in str(error):
        return "Behind a proxy that inspects TLS, set SSL_CERT_FILE to its certificate. A local bus may use http://."
    return "Check that the bus is running, and that this machine can reach it."


def _check_git_hook(work_tree: Repo) -> Finding:
    try:
        detail, fix = githooks.describe(work_tree)
    except (NoRepositoryError, OSError) as error:
        return Finding("git hook", str(error), _REINSTALL_COMMAND)
    return Finding("git hook", detail, fix)


def _check_clients(work_tree: Repo, settings: Config) -> list[Finding]:
    findings = []
    for client_file in _CLIENT_FILES:
        if (work_tree.top / client_file.path).exists():
            findings += _check_client_file(work_tree, settings, client_file)
    codex_config = work_tree.top / ".codex" / "config.toml"
    if codex_config.exists():
        findings += _check_codex(codex_config, settings)
    return findings or [Finding("clients", "no client is configured here", _REINSTALL_COMMAND)]


def _check_codex(path: Path, settings: Config) -> list[Finding]:
    name = ".codex/config.toml"
    try:
        server = toml_reader.parse(text_files.decode(path.read_bytes())).find(client_files.TOML_TABLE)
    except (ValueError, OSError) as error:
        fix = "Correct the file: the client cannot read it either."
        return [Finding(name, f"the file cannot be read ({error})", fix)]
    if not isinstance(server, dict):
        return []
    url = server.get("url")
    if url != settings.endpoint:
        return [Finding(name, f"{client_files.SERVER_NAME} has the address {url}", f"{_REINSTALL_COMMAND} --force")]
    return [Finding(name, "ok")]


def _check_client_file(work_tree: Repo, settings: Config, client_file: ClientFile) -> list[Finding]:
    name = client_file.path
    path = work_tree.top / name
    try:
        server: Any = jsonc.read_value(path.read_bytes().decode("utf-8-sig"), client_file.keys)
    except (ValueError, OSError) as error:
        fix = "Correct the file: the client cannot read it either."
        return [Finding(name, f"the file cannot be read ({error})", fix)]
    if not isinstance(server, dict):
        return []
    url = server.get(client_file.url_key)
    if url != settings.endpoint:
        return [Finding(name, f"{client_files.SERVER_NAME} has the address {url}", f"{_REINSTALL_COMMAND} --force")]
    client = client_file.hooks_client
    if client is not None and FileEdits(work_tree, dry_run=True).is_ours(path):
        started = work_tree.git_dir / "llm-bus" / "state" / f"started-{client}"
        if not started.exists() or started.stat().st_mtime < path.stat().st_mtime:
            configured_at = time.strftime("%H:%M", time.localtime(path.stat().st_mtime))
            return [Finding(name, f"not restarted since it was configured at {configured_at}", f"Restart {client}.")]
    return [Finding(name, "ok")]
