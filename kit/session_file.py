"""The file of a client's session: what the quick part of the hooks needs in order to ask the bus.

It has no token: only where the token is. Its time is that of the last look.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from urllib.parse import urlsplit

from kit import config, mcp_client, quick
from kit.config import Config
from kit.repo import Repo

_MAX_AGE_SECONDS = 7 * 86400


def write(repo: Repo, settings: Config, client: str, session_id: str, key: str, seconds: float) -> None:
    """Write the file of a session; disk errors are ignored.

    Args:
        key: empty for a session that the bus does not know, of which other modules look for mail.
        seconds: how long a look took.
    """
    lines = [
        settings.endpoint,
        _find_address(settings.endpoint) if key else quick.TLS,
        key,
        settings.token_variable,
        next((str(path) for path in config.list_token_files(repo) if path.exists()), ""),
        f"{seconds:.3f}",
    ]
    if any("\n" in line for line in lines):
        lines = [quick.OFF]
    _write(client, session_id, "\n".join(lines) + "\n")


def switch_off(client: str, session_id: str) -> None:
    """Write that a session has no bus to ask, so that its hooks cost nothing for some minutes."""
    _write(client, session_id, quick.OFF + "\n")


def remove(client: str, session_id: str) -> None:
    """Remove the files of a session that has ended, and those of sessions that ended without saying so."""
    folder = Path(quick.state_folder())
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            is_of_session = path.name.partition(".")[0] == f"{client}-{session_id}"
            if is_of_session or time.time() - path.stat().st_mtime > _MAX_AGE_SECONDS:
                path.unlink()


def keep_mail(client: str, session_id: str, text: str) -> None:
    """Keep what a look in the background found, until a hook shows it."""
    _write(client, session_id, text, ".mail")


def take_mail(client: str, session_id: str) -> str:
    """Return what was kept, and delete it; empty for nothing. Of two hooks at once, one gets it."""
    path = _path(client, session_id, ".mail")
    taken = path.with_name(f"{path.name}-{os.getpid()}")
    try:
        os.rename(path, taken)
        text = taken.read_text("utf-8")
        taken.unlink()
    except OSError:
        return ""
    return text


def _find_address(endpoint: str) -> str:
    """Return the address for a connection without encryption: a number and a port."""
    url = urlsplit(endpoint)
    if url.scheme != "http" or not url.hostname:
        return quick.TLS
    budget = mcp_client.TimeBudget(0.5)
    (address,) = mcp_client.call_in_parallel(endpoint, None, [lambda _: _resolve(url.hostname or "", url.port)], budget)
    return quick.TLS if isinstance(address, Exception) else str(address)


def _resolve(host: str, port: int | None) -> str:
    import socket

    number = socket.getaddrinfo(host, port or 80, type=socket.SOCK_STREAM)[0][4]
    return " ".join(map(str, number[:2]))


def _path(client: str, session_id: str, suffix: str = "") -> Path:
    return Path(quick.state_folder(), f"{client}-{session_id}{suffix}")


def _write(client: str, session_id: str, text: str, suffix: str = "") -> None:
    if not quick.is_plain(session_id):
        return
    path = _path(client, session_id, suffix)
    temporary_path = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary_path.write_text(text, "utf-8", "backslashreplace")
        os.replace(temporary_path, path)
