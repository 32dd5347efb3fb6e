"""The bus that a person confirmed for a repository by running the installer.

It is kept inside .git, where no commit, no pull request and no branch can change it. The committed configuration names
the address for people and for new clones; the token goes only to the origin that is recorded here.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from kit.plain_text import one_line
from kit.repo import Repo

_DEFAULT_PORTS = {"http": 80, "https": 443}
_IPV4_LOOPBACK = re.compile(r"127(?:\.[0-9]{1,3}){3}\Z")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
ALLOW_HTTP_OPTION = "--allow-http"


class AddressError(Exception):
    """An address to which no token is sent; the message says why and what to use."""


@dataclass(frozen=True)
class Connection:
    """What a person confirmed.

    Attributes:
        endpoint: the MCP address of the bus; the token is sent to its origin only.
        web_url: the web address of the bus, from which the kit is updated; None if it is not known.
        token_variable: the environment variable of the token.
        allow_http: whether the token may go to `endpoint` without encryption, in a private network.
    """

    endpoint: str
    web_url: str | None
    token_variable: str
    allow_http: bool = False


def connection_path(repo: Repo) -> Path:
    """Return the file of the confirmed connection, which all worktrees share."""
    return repo.common_dir / "llm-bus" / "connection.json"


def find_connection(repo: Repo) -> Connection | None:
    """Read the confirmed connection; None if there is none, or if the file is damaged."""
    try:
        document = json.loads(connection_path(repo).read_text("utf-8"))
        endpoint, web_url = document["endpoint"], document["web_url"]
        token_variable = document["token_variable"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(endpoint, str) or not isinstance(token_variable, str):
        return None
    return Connection(
        endpoint,
        web_url if isinstance(web_url, str) else None,
        token_variable,
        document.get("allow_http") is True,
    )


def save_connection(repo: Repo, connection: Connection) -> bool:
    """Record the connection that a person confirmed. Returns whether it differs from the recorded one."""
    if find_connection(repo) == connection:
        return False
    path = connection_path(repo)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary_path = path.with_suffix(f".{os.getpid()}")
    temporary_path.write_text(json.dumps(asdict(connection), indent=2) + "\n", "utf-8")
    os.replace(temporary_path, path)
    return True


def parse_origin(address: str) -> str:
    """Return scheme, host and port of an address, such as `https://bus.example.org:443`.

    Raises:
        AddressError: it is not an http or https address.
    """
    error = AddressError(f"{one_line(address, 200)} is not an address such as https://bus.example.org/mcp")
    try:
        url = urlsplit(address)
        host, port = url.hostname, url.port
    except ValueError:
        raise error from None
    if url.scheme not in _DEFAULT_PORTS or not host:
        raise error
    return f"{url.scheme}://{host}:{_DEFAULT_PORTS[url.scheme] if port is None else port}"


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine, so that what is sent there leaves no network interface."""
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:
        return False
    return host in ("localhost", "::1") or _IPV4_LOOPBACK.match(host) is not None


def check_encryption(address: str, *, allow_http: bool) -> None:
    """Refuse an address to which a secret would go without encryption.

    Raises:
        AddressError: it is not https, not of this machine, and `allow_http` is False.
    """
    if parse_origin(address).startswith("https://") or is_loopback(address) or allow_http:
        return
    raise AddressError(
        f"{one_line(address, 200)} is not encrypted, so others on the network could read the token: use https://. "
        f"For a bus in a private network that you trust, run the installer with {ALLOW_HTTP_OPTION}"
    )


def is_variable_name(name: str) -> bool:
    """Whether an environment variable can have this name, in every shell."""
    return _VARIABLE_NAME.match(name) is not None
