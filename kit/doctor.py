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
from kit.file_edits import Edits
from kit.repo import NoRepositoryError, Repo

_SECONDS = 5.0
_AGAIN = "python3 .llm-bus/kit install"
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FILES = (
    (".mcp.json", ("mcpServers", clients.SERVER), "url", "claude"),
    (".gemini/settings.json", ("mcpServers", clients.SERVER), "httpUrl", "gemini"),
    (".cursor/mcp.json", ("mcpServers", clients.SERVER), "url", "cursor"),
    (".vscode/mcp.json", ("servers", clients.SERVER), "url", ""),
    ("opencode.json", ("mcp", clients.SERVER), "url", ""),
)


@dataclass(frozen=True)
class Finding:
    """One check: `fix` says what to do, and is empty where all is well."""

    name: str
    found: str
    fix: str = ""


def main() -> int:
    """Print what was found. Returns 1 if anything is wrong, else 0."""
    findings = examine()
    for finding in findings:
        print(f"{'BAD ' if finding.fix else 'ok  '} {finding.name}: {finding.found}")
        if finding.fix:
            print(f"     {finding.fix}")
    return 1 if any(finding.fix for finding in findings) else 0


def examine() -> list[Finding]:
    """All checks, in the order in which one needs the other; stops where nothing further can be said."""
    made = [Finding("python", f"{sys.version.split()[0]}, kit {VERSION}")]
    try:
        where = repo.find()
    except NoRepositoryError as error:
        return [*made, Finding("repository", str(error), "Run it inside a work tree of git.")]
    try:
        found = config.load(where)
    except ConfigError as error:
        return [*made, Finding("configuration", str(error), "Mend it, or: python3 .llm-bus/kit install --endpoint URL")]
    made.append(Finding("configuration", f"{found.endpoint}, {len(found.rules)} governed globs"))
    made.append(_token(where, found))
    made += _network(found)
    made += _service(where, found)
    made.append(_git_hook(where))
    made += _clients(where, found)
    return made


def well_formed(token: str) -> bool:
    """Whether this has the form of a token, by its length and checksum."""
    if len(token) != 54 or not token.startswith("lbus_") or not token.isascii() or not token[5:].isalnum():
        return False
    number, digits = zlib.crc32(token[:-6].encode("ascii")), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return token[-6:] == digits


def _token(where: Repo, found: Config) -> Finding:
    if found.token is None:
        fix = f"Set {found.token_env} where you start your client, or: python3 .llm-bus/kit install --ask-token"
        return Finding("token", f"{found.token_env} is not set, and none is saved", fix)
    source = found.token_env if os.environ.get(found.token_env, "").strip() else "saved inside .git"
    saved = f"lbus_…{found.token[-4:]} ({source})"
    if not well_formed(found.token):
        return Finding("token", f"{source}: this is no token of a bus", "Paste it again; a part is missing or changed.")
    if source != found.token_env:
        said = f"{saved}; the hooks have it, but clients read {found.token_env}, which is not set here"
        return Finding("token", said, f"export {found.token_env}=… where you start your client.")
    for path in config.token_files(where):
        if path.exists() and path.read_text("ascii", "replace").strip() != found.token:
            return Finding("token", f"{saved}; another one is saved inside .git", "Unset the one that is too old.")
    return Finding("token", saved)


def _network(found: Config) -> list[Finding]:
    where = urlsplit(found.endpoint)
    host, port = where.hostname or "", where.port or (443 if where.scheme == "https" else 80)
    proxy = mcp_client.proxy_for(found.endpoint)
    if proxy is not None:
        through = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        return [Finding("network", f"through the proxy {through.hostname}:{through.port}")]

    def reach(_: mcp_client.Bus) -> str:
        with socket.create_connection((host, port), timeout=_SECONDS):
            return f"{host}:{port} can be reached"

    (said,) = mcp_client.gather(found.endpoint, None, [reach], mcp_client.Budget(_SECONDS))
    if not isinstance(said, Exception):
        return [Finding("network", said)]
    reason = mcp_client.explain(said) if isinstance(said, OSError) else str(said)
    fix = "Is the address right, and is the bus running? Behind a proxy set HTTPS_PROXY."
    if isinstance(said, socket.gaierror):
        fix = "Is the host name in llm-bus.config.json right?"
    return [Finding("network", f"{host}:{port}: {reason}", fix)]


def _service(where: Repo, found: Config) -> list[Finding]:
    budget = mcp_client.Budget(_SECONDS)
    (me,) = mcp_client.gather(found.endpoint, found.token, [lambda bus: bus.call("whoami")], budget)
    made = []
    if isinstance(me, Exception):
        made.append(Finding("identity", str(me), _advice(found, me)))
    else:
        made.append(Finding("identity", f"{me.get('actor')} in project {me.get('project')}"))
    if found.home is None:
        made.append(Finding("version", f"{VERSION}; the bus's web address is not known here, so it was not asked"))
        return made
    minimum = precommit.wanted(where, found, _SECONDS)
    if minimum is None:
        made.append(Finding("version", f"{VERSION}; the bus does not say which kit it wants"))
    elif precommit.older(VERSION, minimum):
        update = f"curl -fsSL {found.home}/kit/install.py | python3 -"
        made.append(Finding("version", f"{VERSION}; the bus wants {minimum} at least", update))
    else:
        made.append(Finding("version", f"{VERSION}; the bus wants {minimum} at least"))
    return made


def _advice(found: Config, error: Exception) -> str:
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


def _git_hook(where: Repo) -> Finding:
    try:
        if githooks.installed(where):
            return Finding("git hook", str(githooks.place(where)))
    except (NoRepositoryError, OSError) as error:
        return Finding("git hook", str(error), "python3 .llm-bus/kit install")
    fix = "python3 .llm-bus/kit install (a hook manager that was installed again may have removed it)"
    return Finding("git hook", "not installed", fix)


def _clients(where: Repo, found: Config) -> list[Finding]:
    made = []
    for name, keys, address, client in _FILES:
        path = where.top / name
        if path.exists():
            made += _client(where, found, path, name, keys, address, client)
    codex = where.top / ".codex" / "config.toml"
    if codex.exists() and clients.TOML_BEGIN in codex.read_text("utf-8", "replace"):
        right = found.endpoint in codex.read_text("utf-8", "replace")
        made.append(Finding(".codex/config.toml", "ok" if right else "another address", "" if right else _AGAIN))
    return made or [Finding("clients", "none is configured here", _AGAIN)]


def _client(
    where: Repo, found: Config, path: Path, name: str, keys: tuple[str, ...], address: str, client: str
) -> list[Finding]:
    try:
        server: Any = jsonc.read(path.read_bytes().decode("utf-8-sig"), keys)
    except (ValueError, OSError) as error:
        return [Finding(name, f"it cannot be read ({error})", "Mend it: the client cannot read it either.")]
    if not isinstance(server, dict):
        return []
    if server.get(address) != found.endpoint:
        return [Finding(name, f"{clients.SERVER} is at {server.get(address)}", f"{_AGAIN} --force")]
    if client in ("claude", "gemini", "cursor") and Edits(_ledger(where), dry_run=True).ours(path):
        started = where.top / ".llm-bus" / "state" / f"started-{client}"
        if not started.exists() or started.stat().st_mtime < path.stat().st_mtime:
            since = time.strftime("%H:%M", time.localtime(path.stat().st_mtime))
            return [Finding(name, f"not restarted since it was configured at {since}", f"Restart {client}.")]
    return [Finding(name, "ok")]


def _ledger(where: Repo) -> Path:
    return where.git_dir / "llm-bus" / "installed.json"
