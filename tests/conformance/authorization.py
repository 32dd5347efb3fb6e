"""The scenarios of the conformance suite for authorization servers, against the real web with a scripted consent."""

import html
import os
import re
import subprocess
from collections.abc import Sequence
from contextlib import closing
from urllib.parse import urljoin

import httpx2

from bus.auth import login_links
from bus.db import Database
from bus.tenancy.owners import Owner
from tests import factories, servers
from tests.webapp.live_server import running_live_server
from tests.webapp.oauth_requests import CLIENT_ID, store_client
from tests.webapp.web_client import FormParser

SPEC_VERSIONS = ("2025-11-25", "2026-07-28")
# The second uses what the first has found, so they run together.
SCENARIOS = ("authorization-server-metadata-endpoint", "authorization-code-grant")
_TIMEOUT_SECONDS = 120


def run(command: Sequence[str], path: str, database_url: str) -> int:
    """Run the scenarios for each revision, print a line for each, and return how many failed."""
    failed = 0
    mcp_url = f"http://127.0.0.1:{servers.free_port()}/mcp"
    with (
        closing(Database(database_url, pool_size=2)) as database,
        running_live_server(database_url, MCP_URL=mcp_url) as web_url,
    ):
        store_client(database)
        with database.transaction() as conn:
            owner = factories.make_owner(conn)
            factories.make_project(conn, owner=owner)
        for version in SPEC_VERSIONS:
            output = _run_suite([*command, "authorization"], path, database, owner, web_url, mcp_url, version)
            has_passed = "warning" not in output.lower() and all(
                re.search(rf"^✓ {scenario}: [1-9]\d* passed, 0 failed$", output, re.MULTILINE) for scenario in SCENARIOS
            )
            name = f"{version}  authorization: {', '.join(SCENARIOS)}"
            print(f"ok    {name}" if has_passed else f"FAIL  {name}\n{output}", flush=True)
            failed += 0 if has_passed else len(SCENARIOS)
    return failed


def _run_suite(
    command: Sequence[str], path: str, database: Database, owner: Owner, web_url: str, mcp_url: str, version: str
) -> str:
    port = str(servers.free_port())
    options = ["--url", web_url, "--client-id", CLIENT_ID, "--resource", mcp_url, "--spec-version", version, "-p", port]
    output: list[str] = []
    with subprocess.Popen(
        [*command, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PATH": path},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            # The suite asks a person to open this address.
            if line.startswith(f"{web_url}/oauth/authorize?"):
                _consent(database, owner, web_url, line.strip())
        process.wait(_TIMEOUT_SECONDS)
    return "".join(output)


def _consent(database: Database, owner: Owner, web_url: str, address: str) -> None:
    """Sign in, consent, and follow the browser back to the suite."""
    with httpx2.Client(base_url=web_url, follow_redirects=True) as http:
        with database.transaction() as conn:
            path = f"/sign-in/link/{login_links.create_login_link(conn, owner, actor='cli')}"
        http.post(path, data=FormParser(http.get(path).text).forms[path])
        page = http.get(address)
        ((action, form),) = [entry for entry in FormParser(page.text).forms.items() if "target" in entry[1]]
        answer = http.post(urljoin(web_url, action), data={**form, "decision": "allow"})
        link = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', answer.text)
        assert link is not None, answer.text
        http.get(html.unescape(link[1])).raise_for_status()
