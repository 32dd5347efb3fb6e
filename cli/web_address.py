"""The address of the web for links that a command prints."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bus.db import Connection

_WEB_KINDS = ("web", "serve")


def find_web_url(conn: "Connection", data: Path | None) -> str:
    """Return PUBLIC_URL if it is set here or for a web process that runs; else where that process listens.

    The command often runs without the variables of the web process, which reports them with its heartbeat.
    """
    from bus.operations import process_registry
    from cli.runtime import settings_for_cli

    settings = settings_for_cli(data)
    if os.environ.get("PUBLIC_URL", "").strip() or not os.environ.get("DATABASE_URL", "").strip():
        return settings.public_url
    for process in process_registry.list_processes(conn):
        if process.kind not in _WEB_KINDS:
            continue
        public_url = process.settings.get("PUBLIC_URL")
        if public_url is not None and not public_url.is_default:
            return public_url.value.rstrip("/")
        port = process.settings.get("PORT")
        if port is not None and port.value.isdigit():
            return f"http://127.0.0.1:{port.value}"
    return settings.public_url
