"""The routed process of the platforms' Procfile serves people and agents on the port of the platform."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from cli import procfile
from tests import servers
from tests.concurrency import wait_until

_ROOT = Path(__file__).resolve().parents[2]


def _status(url: str) -> int:
    try:
        return httpx2.get(url, timeout=5).status_code
    except httpx2.TransportError:
        return 0


@pytest.mark.exhaustive
def test_the_web_line_serves_pages_and_tools_to_the_router(database_url: str) -> None:
    (web,) = (line for line in procfile.parse((_ROOT / "Procfile").read_text()) if line.name == "web")
    port = servers.free_port()
    programs = Path(sys.executable).parent
    # As a platform does: a shell, its variables, and a router that connects from outside.
    process = subprocess.Popen(
        ["sh", "-c", f"exec {shlex.join(web.command)}"],
        cwd=_ROOT,
        env={
            "PATH": f"{programs}{os.pathsep}/usr/bin:/bin",
            "PORT": str(port),
            "DATABASE_URL": servers.application_url(database_url),
            "PUBLIC_URL": "https://bus.example.org",
        },
    )
    try:
        base = f"http://127.0.0.1:{port}"
        wait_until(lambda: _status(f"{base}/readyz") == 200)
        assert _status(f"{base}/mcp") == 401
        host = {"Host": "bus.example.org"}
        assert httpx2.get(f"{base}/", headers=host).status_code == 200
        listening = Path("/proc/net/tcp")
        if listening.exists():
            # 0.0.0.0, with the port in hexadecimal.
            assert f"00000000:{port:04X} " in listening.read_text()
    finally:
        process.terminate()
        assert process.wait(30) == 0
